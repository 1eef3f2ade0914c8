"""Honest programs that use the language: classes, functions, exceptions, threads.

In the form of :mod:`tests.evaluation.sandbox.honest`.
"""

from __future__ import annotations

LANGUAGE: dict[str, tuple[str, str]] = {
    "dataclass": (
        """
from dataclasses import dataclass, field
from typing import ClassVar
@dataclass(order=True, frozen=True)
class Point:
    x: int
    y: int = 0
    tags: list[str] = field(default_factory=list, compare=False)
    count: ClassVar[int] = 0
def f(pairs):
    return [(point.x, point.y) for point in sorted(Point(*pair) for pair in pairs)]
""",
        "assert candidate([(2, 1), (1, 5), (1, 2)]) == [(1, 2), (1, 5), (2, 1)]",
    ),
    "dataclass_with_future_annotations": (
        """
from __future__ import annotations
from dataclasses import dataclass, fields
@dataclass
class Node:
    value: int
    next: Node | None = None
def f(n):
    node = None
    for value in range(n):
        node = Node(value, node)
    total = 0
    while node is not None:
        total, node = total + node.value, node.next
    return total, [field.type for field in fields(Node)]
""",
        "assert candidate(4) == (6, ['int', 'Node | None'])",
    ),
    "annotations_are_values": (
        """
import typing
from functools import singledispatch
@singledispatch
def kind(value):
    return 'other'
@kind.register
def _(value: int):
    return 'int'
def f(value: int) -> str:
    return [kind(value), f.__annotations__['value'] is int, typing.get_type_hints(f)['return'] is str]
""",
        "assert candidate(1) == ['int', True, True] and candidate('') == ['other', True, True]",
    ),
    "enum": (
        """
from enum import Enum, Flag, IntEnum, auto
class Colour(Enum):
    RED = auto()
    BLUE = auto()
class Size(IntEnum):
    SMALL = 1
class Right(Flag):
    READ = auto()
    WRITE = auto()
def f(name):
    return Colour[name].value, Size.SMALL, (Right.READ | Right.WRITE).value, Right.READ in Right(3)
""",
        "assert candidate('BLUE') == (2, 1, 3, True)",
    ),
    "named_tuples": (
        """
from collections import namedtuple
from typing import NamedTuple, TypedDict
class Person(NamedTuple):
    name: str
    age: int = 3
class Row(TypedDict):
    a: int
Pair = namedtuple('Pair', 'a b')
def f():
    return [Person('x')._replace(age=4), Pair(1, 2)._asdict(), Row(a=1)]
""",
        "assert candidate() == [('x', 4), {'a': 1, 'b': 2}, {'a': 1}]",
    ),
    "generators": (
        """
def numbers():
    received = 0
    while True:
        received = (yield received) or received + 1
def inner(n):
    yield from range(n)
    return 'end'
def outer(n):
    word = yield from inner(n)
    yield word
def f(n):
    generator = numbers()
    next(generator)
    return list(outer(n)), generator.send(7), next(generator), sum(x * x for x in range(n))
""",
        "assert candidate(3) == ([0, 1, 2, 'end'], 7, 8, 5)",
    ),
    "recursion": (
        "def f(n):\n    return 0 if n == 0 else 1 + f(n - 1)",
        "assert candidate(900) == 900 and candidate(900) == 900",
    ),
    "recursion_limit_raised": (
        """
import sys, threading
sys.setrecursionlimit(10**6)
threading.stack_size(2**26)
def depth(n):
    return 0 if n == 0 else 1 + depth(n - 1)
def f(n):
    found = []
    thread = threading.Thread(target=lambda: found.append(depth(n)))
    thread.start()
    thread.join()
    return found
""",
        "assert candidate(20000) == [20000]",
    ),
    "threads_that_end": (
        """
import queue, threading
def f(n):
    lock, total, tasks = threading.Lock(), [0], queue.Queue()
    barrier = threading.Barrier(n)
    def work():
        barrier.wait()
        value = tasks.get()
        with lock:
            total[0] += value
    threads = [threading.Thread(target=work) for _ in range(n)]
    for thread in threads:
        thread.start()
    for value in range(n):
        tasks.put(value)
    for thread in threads:
        thread.join()
    return total[0]
""",
        "assert candidate(32) == 496",
    ),
    "closures_and_decorators": (
        """
import functools
def counted(function):
    calls = 0
    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        nonlocal calls
        calls += 1
        return function(*args, **kwargs), calls
    return wrapped
@counted
def f(x, *, by=1):
    '''Adds.'''
    return x + by
""",
        "assert candidate(1) == (2, 1) and candidate(1, by=5) == (6, 2)",
    ),
    "classes_with_operators": (
        """
from abc import ABC, abstractmethod
import functools
class Shape(ABC):
    @abstractmethod
    def area(self): ...
@functools.total_ordering
class Square(Shape):
    __slots__ = ('side',)
    def __init__(self, side):
        self.side = side
    def area(self):
        return self.side ** 2
    def __add__(self, other):
        return Square(self.side + other.side)
    def __eq__(self, other):
        return self.side == other.side
    def __lt__(self, other):
        return self.side < other.side
    def __hash__(self):
        return hash(self.side)
    def __repr__(self):
        return f'Square({self.side})'
def f(a, b):
    left, right = Square(a), Square(b)
    same = {left, Square(a)}
    return (left + right).area(), left <= right, repr(max(left, right)), len(same), Square.__mro__[1].__name__
""",
        "assert candidate(1, 2) == (9, True, 'Square(2)', 1, 'Shape')",
    ),
    "exceptions_of_its_own": (
        """
class TooSmall(ValueError):
    pass
class Odd(Exception):
    pass
def f(x):
    try:
        return [0, 1][x]
    except IndexError as error:
        if x % 2:
            raise Odd('odd') from error
        raise TooSmall('small')
    finally:
        del x
""",
        """
assert candidate(1) == 1
for x, kind, text in ((2, ValueError, 'small'), (3, Exception, 'odd')):
    try:
        candidate(x)
    except kind as error:
        assert str(error) == text and type(error).__name__ == {'small': 'TooSmall', 'odd': 'Odd'}[text]
    else:
        assert False
""",
    ),
    "unicode_error": (
        "def f(data):\n    return data.decode('ascii')",
        "try:\n    candidate(b'\\xff')\nexcept ValueError as error:\n    assert 'ascii' in str(error)\n"
        "else:\n    assert False",
    ),
    "assertions": (
        "def f(x):\n    assert x > 0, 'positive'\n    return x\nassert f(1) == 1",
        "assert candidate(2) == 2\ntry:\n    candidate(0)\nexcept AssertionError as error:\n"
        "    assert str(error) == 'positive'\nelse:\n    assert False",
    ),
    "pattern_matching": (
        """
def f(value):
    match value:
        case [first, *rest] if rest:
            return first, rest
        case {'k': int(number)}:
            return number
        case _:
            return None
""",
        "assert [candidate([1, 2]), candidate({'k': 3}), candidate(0)] == [(1, [2]), 3, None]",
    ),
}
