"""The primitives that the functions of the code benchmark are composed of: pick, keep, change, sum up.

A primitive has words and code. In its words ``{o}`` stands for what it is applied to; they are chosen so that a
sentence has one meaning however deep it nests. Words of ``keep`` name what is kept, "among" something unless that is
the whole argument. In code ``{o}`` is the expression so far, or one item of it. ``{v}`` is a value, which becomes a
constant or a parameter of the function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["pick", "keep", "change", "turn", "reduce"]


@dataclass(frozen=True)
class Primitive:
    """``pick`` and ``turn`` take the whole value; ``keep`` and ``change`` see one item; ``reduce`` ends.

    Args:
        name: in the names of functions.
        value: a key of ``VALUES``, what ``{v}`` is drawn from; empty without one.
        gives: kind of the items behind it, number or letter, where that is not the argument's own.
        of: the kinds of items that it can be applied to; empty for the argument's own.
    """

    name: str
    role: Role
    words: str
    code: str
    value: str = ""
    gives: str = ""
    of: tuple[str, ...] = ("",)


@dataclass(frozen=True)
class Family:
    """Functions of one kind of argument.

    Args:
        name: of the family.
        parameters: its own; those of values follow.
        noun: what a docstring calls the argument.
        item: one item in a comprehension; empty where the argument is no list.
    """

    name: str
    parameters: tuple[str, ...]
    noun: str
    item: str
    primitives: tuple[Primitive, ...]

    @property
    def named(self) -> tuple[str, ...]:
        """How its functions' names end."""
        return ("of", *self.parameters)


P = Primitive
VALUES: dict[str, tuple[int | str, ...]] = {
    "small": (2, 3),
    "length": (3, 4, 5),
    "divisor": (3, 4, 5),
    "amount": (3, 4, 5, 6, 7, 8, 9),
    "letter": tuple("aeorst"),
}
PICKS = (
    P("first", "pick", "the first {v} of {o}", "{o}[:{v}]", "small"),
    P("last", "pick", "the last {v} of {o}", "{o}[-{v}:]", "small"),
    P("skip", "pick", "all but the first {v} of {o}", "{o}[{v}:]", "small"),
    P("drop", "pick", "all but the last {v} of {o}", "{o}[:-{v}]", "small"),
    P("alternate", "pick", "every second one of {o}", "{o}[::2]"),
    P("sorted", "pick", "the sorted list of {o}", "sorted({o})"),
    P("reversed", "pick", "the reverse of {o}", "{o}[::-1]"),
)
COUNT = P("length", "reduce", "the length of the list of {o}", "len({o})", of=("", "number", "letter"))
NUMBERS = (
    *PICKS,
    P("even", "keep", "the even numbers", "{o} % 2 == 0"),
    P("odd", "keep", "the odd numbers", "{o} % 2 == 1"),
    P("positive", "keep", "the positive numbers", "{o} > 0"),
    P("negative", "keep", "the negative numbers", "{o} < 0"),
    P("above", "keep", "the numbers greater than {v}", "{o} > {v}", "amount"),
    P("below", "keep", "the numbers less than {v}", "{o} < {v}", "amount"),
    P("multiples", "keep", "the numbers divisible by {v}", "{o} % {v} == 0", "divisor"),
    P("except", "keep", "the numbers not equal to {v}", "{o} != {v}", "amount"),
    P("squares", "change", "the squares of {o}", "{o} ** 2"),
    P("cubes", "change", "the cubes of {o}", "{o} ** 3"),
    P("plus", "change", "{o} with {v} added to each", "{o} + {v}", "amount"),
    P("minus", "change", "{o} with {v} subtracted from each", "{o} - {v}", "amount"),
    P("times", "change", "{o}, each multiplied by {v}", "{o} * {v}", "amount"),
    P("absolute", "change", "the absolute values of {o}", "abs({o})"),
    P("negated", "change", "{o}, each negated", "-{o}"),
    P("remainders", "change", "the remainders of {o} divided by {v}", "{o} % {v}", "divisor"),
    P("sum", "reduce", "the sum of {o}", "sum({o})"),
    P("maximum", "reduce", "the maximum of {o}", "max({o})"),
    P("minimum", "reduce", "the minimum of {o}", "min({o})"),
    COUNT,
)
WORDS = (
    *PICKS,
    P("longer", "keep", "the words longer than {v} letters", "len({o}) > {v}", "length"),
    P("shorter", "keep", "the words shorter than {v} letters", "len({o}) < {v}", "length"),
    P("starting", "keep", "the words that start with {v}", "{o}.startswith({v})", "letter"),
    P("ending", "keep", "the words that end with {v}", "{o}.endswith({v})", "letter"),
    P("with", "keep", "the words that contain {v}", "{v} in {o}", "letter"),
    P("without", "keep", "the words that do not contain {v}", "{v} not in {o}", "letter"),
    P("upper", "change", "{o} in upper case", "{o}.upper()"),
    P("capitalized", "change", "{o}, each capitalized", "{o}.capitalize()"),
    P("lengths", "change", "the lengths of {o}", "len({o})", gives="number"),
    P("initials", "change", "the first letters of {o}", "{o}[0]", gives="letter"),
    P("finals", "change", "the last letters of {o}", "{o}[-1]", gives="letter"),
    P("backward", "change", "{o}, each reversed", "{o}[::-1]"),
    P("twice", "change", "{o}, each repeated twice", "{o} * 2"),
    P("joined", "reduce", "{o}, joined without spaces", "''.join({o})", of=("", "letter")),
    P("spaced", "reduce", "{o}, joined by spaces", "' '.join({o})"),
    P("hyphenated", "reduce", "{o}, joined by hyphens", "'-'.join({o})", of=("", "letter")),
    P("sum", "reduce", "the sum of {o}", "sum({o})", of=("number",)),
    P("maximum", "reduce", "the maximum of {o}", "max({o})", of=("number",)),
    P("minimum", "reduce", "the minimum of {o}", "min({o})", of=("number",)),
    P("longest", "reduce", "the longest of {o}", "max({o}, key=len)"),
    P("shortest", "reduce", "the shortest of {o}", "min({o}, key=len)"),
    COUNT,
)
TEXT = (
    P("upper", "turn", "the upper case of {o}", "{o}.upper()"),
    P("capitalized", "turn", "the capitalized form of {o}", "{o}.capitalize()"),
    P("backward", "turn", "the reverse of {o}", "{o}[::-1]"),
    P("start", "turn", "the first {v} characters of {o}", "{o}[:{v}]", "small"),
    P("end", "turn", "the last {v} characters of {o}", "{o}[-{v}:]", "small"),
    P("rest", "turn", "all but the first {v} characters of {o}", "{o}[{v}:]", "small"),
    P("copies", "turn", "{v} copies of {o}", "{o} * {v}", "small"),
    P("removed", "turn", "all characters but {v} of {o}", "{o}.replace({v}, '')", "letter"),
    P("suffixed", "turn", "{v} added to the end of {o}", "({o} + {v})", "letter"),
    P("prefixed", "turn", "{v} added to the front of {o}", "({v} + {o})", "letter"),
    P("length", "reduce", "the length of {o}", "len({o})"),
    P("occurrences", "reduce", "the number of times {v} occurs in {o}", "{o}.count({v})", "letter"),
    P("starting", "reduce", "True if {o} starts with {v}, otherwise False", "{o}.startswith({v})", "letter"),
    P("ending", "reduce", "True if {o} ends with {v}, otherwise False", "{o}.endswith({v})", "letter"),
)
NUMBER = (
    P("square", "turn", "the square of {o}", "({o}) ** 2"),
    P("plus", "turn", "{v} plus {o}", "({o}) + {v}", "amount"),
    P("less", "turn", "{v} less than {o}", "({o}) - {v}", "amount"),
    P("times", "turn", "{v} times {o}", "({o}) * {v}", "amount"),
    P("modulo", "turn", "the remainder of {o} divided by {v}", "({o}) % {v}", "divisor"),
    P("negative", "turn", "the negative of {o}", "-({o})"),
    P("absolute", "turn", "the absolute value of {o}", "abs({o})"),
    P("even", "reduce", "True if {o} is even, otherwise False", "({o}) % 2 == 0"),
    P("above", "reduce", "True if {o} is greater than {v}, otherwise False", "({o}) > {v}", "amount"),
    P("multiple", "reduce", "True if {o} is divisible by {v}, otherwise False", "({o}) % {v} == 0", "divisor"),
    P("string", "reduce", "{o} as a string", "str({o})"),
)
PAIR = (
    P("sum", "pick", "the sum of a and b", "a + b"),
    P("difference", "pick", "the difference of a and b", "a - b"),
    P("product", "pick", "the product of a and b", "a * b"),
    P("maximum", "pick", "the maximum of a and b", "max(a, b)"),
    P("minimum", "pick", "the minimum of a and b", "min(a, b)"),
    *NUMBER,
)
FAMILIES = (
    Family("numbers", ("numbers",), "the numbers", "x", NUMBERS),
    Family("words", ("words",), "the words", "word", WORDS),
    Family("text", ("text",), "the text", "", TEXT),
    Family("number", ("x",), "x", "", NUMBER),
    Family("pair", ("a", "b"), "", "", PAIR),
)
