"""Functions composed of primitives: their code, their docstrings, what they do.

A composition is identified by the tree of its code with every name and value blanked, and by what it does: where two
agree in either, only the first is kept. So no function of one split can be one of another in other words.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import permutations, product
from typing import Any

from hiplora.mini.code.primitives import FAMILIES, VALUES, Family, Primitive
from hiplora.mini.draw import Draw, digest

# Roles of the steps of a composition, the first step first.
LISTED = (
    ("pick",), ("keep",), ("change",), ("reduce",),
    ("pick", "pick"), ("pick", "keep"), ("pick", "change"), ("pick", "reduce"), ("keep", "pick"), ("keep", "change"),
    ("keep", "reduce"), ("change", "pick"), ("change", "reduce"),
    ("pick", "keep", "change"), ("pick", "keep", "reduce"), ("pick", "change", "reduce"), ("keep", "change", "pick"),
    ("keep", "change", "reduce"),
)  # fmt: skip
TURNED = (("turn",), ("reduce",), ("turn", "turn"), ("turn", "reduce"), ("turn", "turn", "turn"),
          ("turn", "turn", "reduce"))  # fmt: skip
PAIRED = (("pick",), ("pick", "turn"), ("pick", "reduce"), ("pick", "turn", "turn"), ("pick", "turn", "reduce"))
SHAPES = {"numbers": LISTED, "words": LISTED, "text": TURNED, "number": TURNED, "pair": PAIRED}
LONG = 40  # compositions of three steps that are kept of each sequence of roles
NOUNS = ("tree", "river", "stone", "apple", "bread", "horse", "garden", "window", "table", "moon", "cat", "rose", "sea",
         "paper", "street", "note", "ant", "egg", "oar", "salt")  # fmt: skip


@dataclass(frozen=True)
class Composition:
    """A family and the steps that are taken one after the other; ``constants`` holds a value for each, or None.

    A step whose value is None takes it from a parameter.
    """

    family: Family
    steps: tuple[Primitive, ...]
    constants: tuple[int | str | None, ...]

    @property
    def name(self) -> str:
        return "_".join([*(step.name for step in reversed(self.steps)), *self.family.named])

    @property
    def asked(self) -> list[tuple[str, str]]:
        """(Name, kind of value) of the parameters behind the family's own."""
        numbers = iter("cde" if self.family.name == "pair" else "nmk")
        pairs = zip(self.steps, self.constants, strict=True)
        kinds = [step.value for step, constant in pairs if step.value and constant is None]
        return [("letter" if kind == "letter" else next(numbers), kind) for kind in kinds]

    @property
    def parameters(self) -> list[str]:
        return [*self.family.parameters, *(name for name, _ in self.asked)]

    def _values(self, *, words: bool) -> list[str]:
        """``{v}`` of each step, in the docstring's words or in code."""
        names = iter(self.asked)
        found = []
        for step, constant in zip(self.steps, self.constants, strict=True):
            if not step.value:
                found.append("")
            elif constant is None:
                name = next(names)[0]
                found.append("the given letter" if words and name == "letter" else name)
            else:
                found.append(f"the letter {constant!r}" if words and step.value == "letter" else repr(constant))
        return found

    @property
    def purpose(self) -> str:
        """One sentence, the last step first."""
        said = self.family.noun
        for step, value in zip(self.steps, self._values(words=True), strict=True):
            among = f" among {said}" if step.role == "keep" and said != self.family.noun else ""
            said = step.words.format(o=said, v=value) + among
        listed = self.family.item and self.steps[-1].role in ("keep", "change")
        return f"Return {'a list of ' if listed else ''}{said}."

    @cached_property
    def expression(self) -> str:
        """The value that the function returns, with as few parentheses as it needs."""
        whole = self.family.parameters[0]
        item = changed = self.family.item
        kept = ""
        for step, value in zip(self.steps, self._values(words=False), strict=True):
            if step.role == "keep":
                kept = step.code.format(o=item, v=value)
            elif step.role == "change":
                changed = step.code.format(o=item, v=value)
            else:
                whole = step.code.format(o=_listed(whole, item, changed, kept), v=value)
                changed, kept = item, ""
        return ast.unparse(ast.parse(_listed(whole, item, changed, kept), mode="eval"))

    @cached_property
    def call(self) -> Callable[..., Any]:
        """The function itself; its text is made of this project's own tables."""
        return eval(f"lambda {', '.join(self.parameters)}: {self.expression}")

    @property
    def tree(self) -> str:
        """The code with its names and values blanked: equal for compositions that differ in those alone."""
        tree = ast.parse(self.expression, mode="eval")
        own = [*self.family.parameters, self.family.item]
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id in own:
                node.id = f"own{own.index(node.id)}"
            elif isinstance(node, ast.Name) and node.id in self.parameters:
                node.id = "value"
        return ast.dump(_Blank().visit(tree))

    def shortened(self) -> list[Shortened]:
        """The function without each of its steps in turn, called with the arguments of the whole."""
        first = 1 if self.family.name == "pair" else 0  # what makes one number of two is no step to leave out
        return [Shortened(self, place) for place in range(first, len(self.steps)) if len(self.steps) > 1]


@dataclass(frozen=True)
class Shortened:
    """A composition without the step at ``place``."""

    whole: Composition
    place: int

    @cached_property
    def left(self) -> Composition:
        steps, constants = list(self.whole.steps), list(self.whole.constants)
        del steps[self.place], constants[self.place]
        return Composition(self.whole.family, tuple(steps), tuple(constants))

    @cached_property
    def gone(self) -> int | None:
        """The place of the parameter that only the step that is left out has asked for."""
        pairs = enumerate(zip(self.whole.steps, self.whole.constants, strict=True))
        valued = [place for place, (step, constant) in pairs if step.value and constant is None]
        if self.place not in valued:
            return None
        return len(self.whole.family.parameters) + valued.index(self.place)

    @cached_property
    def expression(self) -> str:
        """Its value, in the parameters of the whole."""
        names = [name for place, name in enumerate(self.whole.parameters) if place != self.gone]
        return f"(lambda {', '.join(self.left.parameters)}: {self.left.expression})({', '.join(names)})"

    def __call__(self, arguments: Sequence[Any]) -> Any:
        return outcome(self.left.call, [value for place, value in enumerate(arguments) if place != self.gone])


class _Blank(ast.NodeTransformer):
    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Name("value", ast.Load())

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(node.id, ast.Load())


def _listed(whole: str, item: str, changed: str, kept: str) -> str:
    """A comprehension over ``whole``, where there is something to do for each item."""
    if changed == item and not kept:
        return f"({whole})"
    return f"[{changed} for {item} in {whole}{f' if {kept}' if kept else ''}]"


def argument(kind: str, draw: Draw) -> Any:
    """A value for one parameter."""
    if kind == "numbers":
        return [draw.integer(-9, 20) for _ in range(draw.integer(4, 6))]
    if kind == "words":
        return draw.sample(NOUNS, draw.integer(4, 5))
    if kind == "text":
        return " ".join(draw.sample(NOUNS, draw.integer(1, 2)))
    if kind in ("x", "a", "b"):
        return draw.integer(-9, 20)
    return draw.pick(VALUES[kind])


def outcome(call: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """What a function returns, or the name of the error that it raises."""
    try:
        return call(*arguments)
    except (TypeError, ValueError, IndexError, AttributeError, ZeroDivisionError) as error:
        return type(error).__name__


@lru_cache
def _probes(sort: str, kinds: tuple[str, ...]) -> tuple[tuple[Any, ...], ...]:
    """Arguments for a function of these kinds of parameters, whose sequences are numbers, words or text."""
    draw = Draw("probe", sort if "sequence" in kinds else "", *kinds)
    made: dict[str, Callable[[], Any]] = {
        "sequence": lambda: argument(sort, draw) + argument(sort, draw),
        "number": lambda: draw.integer(-6, 12) or 1,
        "letter": lambda: argument("letter", draw),
    }
    return tuple(tuple(made[kind]() for kind in kinds) for _ in range(24))


def behaviours(composition: Composition) -> dict[str, bool]:
    """What a composition does with each sort of arguments that it takes, whatever the order of its parameters.

    True for the sort that it is meant for: see :func:`alike`.
    """
    family = composition.family
    kinds = ["number" if name in "xab" else "sequence" for name in family.parameters]
    kinds += ["letter" if kind == "letter" else "number" for _, kind in composition.asked]
    ordered = tuple(sorted(kinds))
    orders = [places for places in permutations(range(len(kinds))) if tuple(kinds[p] for p in places) == ordered]
    found = {}
    for sort in ("numbers", "words", "text") if "sequence" in kinds else (family.name,):
        done = []
        for places in orders:
            calls = ([probe[places.index(p)] for p in range(len(kinds))] for probe in _probes(sort, ordered))
            done.append([outcome(composition.call, arguments) for arguments in calls])
        if not any(each in ("TypeError", "AttributeError") for each in done[0]):
            name = sort if "sequence" in kinds else ""
            found[f"{ordered} {name} {min(map(repr, done))}"] = sort == family.name
    return found


def alike(one: Mapping[str, bool], other: Mapping[str, bool]) -> bool:
    """Whether two behaviours agree for a sort of arguments that one of them is meant for."""
    return any(meant or other[each] for each, meant in one.items() if each in other)


def by_name(found: Sequence[Composition]) -> list[Composition]:
    """In an order that depends on the names alone."""
    return sorted(found, key=lambda composition: digest("composition", composition.name))


def _candidates() -> Iterator[Composition]:
    """Every composition with all of its values as parameters, the short ones first."""
    for length in (1, 2, 3):
        for family in FAMILIES:
            for roles in (roles for roles in SHAPES[family.name] if len(roles) == length):
                pools = [[p for p in family.primitives if p.role == role] for role in roles]
                fitting = [steps for steps in product(*pools) if len(set(steps)) == length and _fits(steps)]
                found = [Composition(family, steps, (None,) * length) for steps in fitting]
                yield from found if length < 3 else by_name(found)[:LONG]


def _fits(steps: Sequence[Primitive]) -> bool:
    """Whether each step can be applied to what the ones before leave, and one letter at most is asked for.

    The longest of words in another order is left out: it differs from the longest in ties alone.
    """
    kind = ""
    for step in steps:
        if kind not in step.of and step.role == "reduce":
            return False
        kind = step.gives or kind
    names = {step.name for step in steps}
    if names & {"longest", "shortest"} and names & {"sorted", "reversed"}:
        return False
    return sum(step.value == "letter" for step in steps) <= 1


@lru_cache
def compositions() -> tuple[Composition, ...]:
    """Every composition once, with all of its values as parameters: of equal ones the shortest."""
    known: dict[str, bool] = {}
    kept = []
    for candidate in _candidates():
        own = behaviours(candidate) | {candidate.tree: True}
        if not alike(own, known):
            kept.append(candidate)
        known.update({each: meant or known.get(each, False) for each, meant in own.items()})
    return tuple(kept)
