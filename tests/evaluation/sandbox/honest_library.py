"""Honest programs that use the standard library, and values of every kind and size.

In the form of :mod:`tests.evaluation.sandbox.honest`.
"""

from __future__ import annotations

LIBRARY: dict[str, tuple[str, str]] = {
    "caches": (
        """
from functools import cache, cached_property, lru_cache, partial, reduce
@cache
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)
@lru_cache(maxsize=None)
def double(n):
    return 2 * n
class Box:
    @cached_property
    def value(self):
        return 5
def f(n):
    return fibonacci(n), double(n), Box().value, reduce(lambda a, b: a * b, range(1, 6)), partial(pow, 2)(5)
""",
        "assert candidate(90) == (2880067194370816120, 180, 5, 120, 32)",
    ),
    "regular_expressions": (
        "import re\ndef f(s):\n    return re.findall(r'(?P<a>\\w+)@(\\w+)', s), re.sub(r'\\d+', lambda m: m[0] * 2, s)",
        "assert candidate('a1@b') == ([('a1', 'b')], 'a11@b')",
    ),
    "collections": (
        """
from collections import ChainMap, Counter, OrderedDict, defaultdict, deque
def f(s):
    groups = defaultdict(list)
    for letter in s:
        groups[letter].append(len(letter))
    queue = deque(s, maxlen=2)
    queue.rotate(1)
    ordered = OrderedDict.fromkeys(s)
    ordered.move_to_end(s[0])
    return Counter(s).most_common(1), groups, list(queue), list(ordered), ChainMap({'a': 1}, {'b': 2})['b']
""",
        "assert candidate('aab') == ([('a', 2)], {'a': [1, 1], 'b': [1]}, ['b', 'a'], ['b', 'a'], 2)",
    ),
    "itertools_heapq_bisect": (
        """
import bisect, heapq, itertools, operator
def f(values):
    heap = list(values)
    heapq.heapify(heap)
    ordered = [heapq.heappop(heap) for _ in range(len(heap))]
    bisect.insort(ordered, 4)
    groups = [(key, len(list(group))) for key, group in itertools.groupby(ordered, key=lambda value: value % 2)]
    return ordered, groups, list(itertools.accumulate(values, operator.mul)), list(itertools.permutations('ab'))
""",
        "assert candidate([5, 1, 3]) == ([1, 3, 4, 5], [(1, 2), (0, 1), (1, 1)], [5, 5, 15], [('a', 'b'), ('b', 'a')])",
    ),
    "two_hundred_megabytes_of_lists": (
        "def f():\n    table = [[0] * 1000 for _ in range(25000)]\n    return len(table), sum(map(len, table))",
        "assert candidate() == (25000, 25000000)",
    ),
    "unicode": (
        """
import unicodedata
def f(s):
    größe = len(s)
    return größe, s[::-1], s.casefold(), unicodedata.normalize('NFD', s), s.encode(), '\\N{SNOWMAN}', ascii(s)
""",
        "assert candidate('Žß😀') == (3, '😀ßŽ', 'žss😀', 'Z\\u030cß😀', 'Žß😀'.encode(), '☃', "
        "\"'\\\\u017d\\\\xdf\\\\U0001f600'\")",
    ),
    "large_integers": (
        "import math\ndef f(n):\n    return math.factorial(n), pow(3, 10**5, 10**9 + 7), 7**5000 % 2**4000, ~(1 << 99)",
        "import math\nassert candidate(500) == "
        "(math.factorial(500), pow(3, 10**5, 10**9 + 7), 7**5000 % 2**4000, -(1 << 99) - 1)",
    ),
    "floats_with_a_tolerance": (
        "def f(values):\n    m = sum(values) / 3\n    return sum((v - m) ** 2 for v in values) ** 0.5, .3 - .1",
        "root, other = candidate([0.1, 0.2, 0.4])\nassert abs(root - 0.216024689946929) < 1e-9\n"
        "assert abs(other - 0.2) < 1e-12 and other != 0.2",
    ),
    "math_and_statistics": (
        """
import cmath, math, random, statistics
def f(values):
    random.seed(1)
    return math.gcd(12, 18), math.comb(5, 2), math.isclose(math.hypot(3, 4), 5), statistics.median(values), \\
        statistics.mean(values), round(statistics.stdev(values), 6), cmath.sqrt(-1), random.choice([4]), math.inf
""",
        "assert candidate([1, 2, 6]) == (6, 10, True, 2, 3, 2.645751, 1j, 4, float('inf'))",
    ),
    "decimals_and_fractions": (
        """
from decimal import ROUND_HALF_UP, Decimal, getcontext
from fractions import Fraction
from statistics import mean
def f(x):
    getcontext().prec = 30
    rounded = Decimal(x).quantize(Decimal('0.01'), rounding=ROUND_HALF_UP)
    return rounded, Fraction(1, 3) + Fraction(1, 6), mean([Fraction(1, 2), Fraction(3, 2)]), [Decimal('0.10')] * 2
""",
        "rounded, half, one, tenths = candidate('2.675')\n"
        "assert str(rounded) == '2.68' and half == 0.5 and one == 1 and abs(rounded - 2) < 1\n"
        "from fractions import Fraction\nassert half + 1 == Fraction(3, 2) and sum(tenths) * 5 == 1\n"
        "assert candidate('2.5')[0] == 2.5",
    ),
    "string_formatting": (
        """
import string, textwrap
def f(name, value):
    return f'{name!r:>6}|{value:08.3f}|{value:,}|{value:.1%}', '%s-%05d' % (name, value), \\
        '{0:^5}{k}'.format(name, k=1), string.Template('$who').substitute(who=name), \\
        textwrap.fill('a b c', 3), f'{value=}'
""",
        "assert candidate('x', 1234.5) == "
        "(\"   'x'|1234.500|1,234.5|123450.0%\", 'x-01234', '  x  1', 'x', 'a b\\nc', 'value=1234.5')",
    ),
    "copies_pickles_and_json": (
        """
import copy, json, pickle
class Thing:
    def __init__(self, x):
        self.x = x
def f(x):
    thing = pickle.loads(pickle.dumps(copy.deepcopy(Thing(x))))
    return thing.x, json.loads(json.dumps({'a': [1, None, True, 1.5, 'č']}))
""",
        "assert candidate([1]) == ([1], {'a': [1, None, True, 1.5, 'č']})",
    ),
    "dates_and_bytes": (
        """
import base64, calendar, datetime, hashlib, struct
def f(day):
    date = datetime.date.fromisoformat(day) + datetime.timedelta(days=1)
    return date.isoformat(), calendar.isleap(date.year), hashlib.sha1(b'').hexdigest()[:6], bytearray(b'ab'), \\
        base64.b64encode(b'a'), struct.unpack('<h', b'\\1\\0')
""",
        "assert candidate('2024-02-28') == ('2024-02-29', True, 'da39a3', b'ab', b'YQ==', (1,))",
    ),
    "nested_answer": (
        "def f(n):\n    answer = []\n    for _ in range(n):\n        answer = [answer]\n    return answer",
        "answer, depth = candidate(100), 0\nwhile answer:\n    answer, depth = answer[0], depth + 1\n"
        "assert depth == 100",
    ),
}
