"""Small Python functions, composed of primitives: the mini counterparts of HumanEval and of CodeAlpaca.

    {"task_id": "mini/0", "prompt": "def sum_even_of_numbers(numbers):\\n    \\"\\"\\"Return …",
     "entry_point": "sum_even_of_numbers", "canonical_solution": "\\n    return sum([x for x in …",
     "test": "def check(candidate):\\n    assert …"}
    {"instruction": "def sum_odd_of_numbers(numbers):\\n    \\"\\"\\"Return …", "input": "",
     "output": "\\n    return …", "entry_point": "sum_odd_of_numbers"}

A function is trained in the form in which it is asked: signature and docstring with doctests, then the body. Training,
validation and test share the primitives; a composition of them belongs to one split.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from textwrap import indent
from typing import Any

from hiplora.mini.code.functions import Composition, Shortened, alike, argument, behaviours, by_name, compositions
from hiplora.mini.code.primitives import VALUES
from hiplora.mini.draw import Draw

TRAINING = {"numbers": 450, "words": 400, "text": 250, "number": 200, "pair": 200}
TURNS = 12  # most functions of one composition in training
DOCTESTS, ASSERTS = 2, 5
PARAMETERS = 3  # at most
TRIES = 40
# Functions of test and of validation, by family and steps.
HELD_OUT = {
    "numbers": {1: 6, 2: 14, 3: 3},
    "words": {1: 6, 2: 11, 3: 2},
    "text": {1: 4, 2: 8, 3: 1},
    "number": {1: 3, 2: 8},
    "pair": {1: 1, 2: 11, 3: 2},
}

Arguments = tuple[Any, ...]


@dataclass(frozen=True)
class Problem:
    """A function with its values chosen, and the arguments of its doctests and asserts."""

    function: Composition
    shown: Sequence[Arguments]
    hidden: Sequence[Arguments]

    @property
    def prompt(self) -> str:
        function = self.function
        doctests = "\n".join(f">>> {call}\n{value}" for call, value in self._cases(function.name, self.shown))
        docstring = indent(f'"""{function.purpose}\n\n{doctests}\n"""', "    ")
        return f"def {function.name}({', '.join(function.parameters)}):\n{docstring}"

    @property
    def body(self) -> str:
        # the line break belongs to the answer: after a break that stands alone a small model ends the code block
        return f"\n    return {self.function.expression}"

    @property
    def test(self) -> str:
        lines = [f"    assert {call} == {value}\n" for call, value in self._cases("candidate", self.hidden)]
        return f"def check(candidate):\n{''.join(lines)}"

    def _cases(self, name: str, cases: Sequence[Arguments]) -> Iterator[tuple[str, str]]:
        call = self.function.call
        for arguments in cases:
            yield f"{name}({', '.join(map(repr, arguments))})", repr(call(*arguments))


def _chosen(composition: Composition, draw: Draw) -> Composition:
    """The composition with some of its values as constants, the others as parameters."""
    constants: list[int | str | None] = []
    room = PARAMETERS - len(composition.family.parameters)
    for step in composition.steps:
        asked = bool(step.value) and room > 0 and draw.integer(0, 1) == 1
        room -= asked
        constants.append(None if asked or not step.value else draw.pick(VALUES[step.value]))
    return replace(composition, constants=tuple(constants))


def _problem(composition: Composition, salt: object, *, asserts: int) -> Problem | None:
    """The composition with values and arguments; None where no arguments tell it from something simpler."""
    draw = Draw("function", composition.name, salt)
    function = _chosen(composition, draw)
    kinds = [*function.family.parameters, *(kind for _, kind in function.asked)]
    shorter = function.shortened()
    for _ in range(TRIES):
        cases = _cases(function, kinds, draw, wanted=DOCTESTS + asserts)
        if len(cases) < DOCTESTS + asserts:
            return None
        shown, hidden = cases[:DOCTESTS], cases[DOCTESTS:]
        if _tells(function, shorter, shown) and (not hidden or _tells(function, shorter, hidden)):
            return Problem(function, shown, hidden)
    return None


def _tells(function: Composition, shorter: Sequence[Shortened], cases: Sequence[Arguments]) -> bool:
    """Whether the cases fail what returns a constant or one of its arguments, or leaves out a step."""
    values = [function.call(*arguments) for arguments in cases]
    lazy = [*zip(*cases, strict=True), *(tuple(call(arguments) for arguments in cases) for call in shorter)]
    return len(set(map(repr, values))) > 1 and tuple(values) not in lazy


def _cases(function: Composition, kinds: Sequence[str], draw: Draw, *, wanted: int) -> list[Arguments]:
    """Different arguments for which the function returns something that is not empty, if enough can be drawn."""
    cases: list[Arguments] = []
    for _ in range(TRIES):
        arguments = tuple(argument(kind, draw) for kind in kinds)
        if arguments not in cases and _useful(function, arguments):
            cases.append(arguments)
        if len(cases) == wanted:
            break
    return cases


def _useful(function: Composition, arguments: Arguments) -> bool:
    try:
        return function.call(*arguments) not in ("", [])
    except (ValueError, IndexError):  # the largest of no numbers
        return False


@lru_cache
def _splits() -> tuple[dict[str, tuple[Problem, ...]], tuple[Composition, ...]]:
    """The functions of test and validation, one for each composition, and the compositions left for training."""
    found: dict[str, list[Problem]] = {"test": [], "validation": []}
    left = []
    groups = {(name, steps): count for name, counts in HELD_OUT.items() for steps, count in counts.items()}
    room = {split: dict(groups) for split in found}
    for composition in by_name(compositions()):
        group = composition.family.name, len(composition.steps)
        split = next((split for split in found if room[split].get(group)), None)
        if split is None:
            left.append(composition)
        elif (problem := _problem(composition, split, asserts=ASSERTS)) is not None:
            found[split].append(problem)
            room[split][group] -= 1
    return {split: tuple(problems) for split, problems in found.items()}, tuple(left)


def held_out(split: str) -> tuple[Problem, ...]:
    return _splits()[0][split]


def _new(problem: Problem, taken: Sequence[Mapping[str, bool]]) -> bool:
    mine = behaviours(problem.function)
    return not any(alike(mine, other) for other in taken)


@lru_cache
def trained() -> tuple[Problem, ...]:
    """The functions of training: none does what one of the others does."""
    held = (problem for split in ("validation", "test") for problem in held_out(split))
    taken = [behaviours(problem.function) for problem in held]
    found: dict[str, Problem] = {}
    room = dict(TRAINING)
    for turn in range(TURNS):
        for composition in _splits()[1]:
            family = composition.family.name
            problem = _problem(composition, turn, asserts=0) if room[family] else None
            if problem is not None and problem.function.purpose not in found and _new(problem, taken):
                found[problem.function.purpose] = problem
                room[family] -= 1
    return tuple(Draw("trained").shuffled(list(found.values())))


def problems() -> list[dict[str, str]]:
    """HumanEval's columns."""
    return [
        {
            "task_id": f"mini/{number}",
            "prompt": problem.prompt,
            "entry_point": problem.function.name,
            "canonical_solution": problem.body,
            "test": problem.test,
        }
        for number, problem in enumerate(held_out("test"))
    ]


def instructions(split: str) -> list[dict[str, str]]:
    """CodeAlpaca's columns and the function's name; held-out ones carry HumanEval's test, with which they are run."""
    chosen = trained() if split == "train" else held_out(split)
    rows = []
    for problem in chosen:
        row = {"instruction": problem.prompt, "input": "", "output": problem.body, "entry_point": problem.function.name}
        rows.append(row if split == "train" else row | {"test": problem.test})
    return rows
