"""The functions: solutions that pass, tests that tell, and splits that share primitives but no function."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from hiplora.mini.code import held_out, trained
from tests.mini.helpers import read

SPLITS = ("train", "validation", "test")
# Arguments that no file holds, of every sort of sequence, and numbers and letters beside them.
SORTS: dict[str, list[Any]] = {
    "numbers": [
        [7, -3, 2, 2, 11, -8, 30, 15, -5, -2], [33, -20, 4, 0, 6, 9, 5, -7, -7, 3], [-12, 17, 3, -6, -6, 8, -9, 7, 2],
        [5, 10, 15, -25, 3, -4, -10, 22, 14], [1, -30, 8, 9, -9, 4, 4, 7, 40], [6, 1, -11, 14, 0, 3, 10, 2, -21],
    ],
    "words": [
        ["pear", "ox", "tulip", "banana", "apricot", "rat", "roast", "strata"],
        ["arrears", "essay", "tart", "oboe", "radar", "ease", "sos", "to"],
        ["echo", "restarted", "solo", "area", "trees", "a", "extra", "ratio", "sauce", "otter", "oats"],
        ["roses", "tomato", "ers", "rations", "estate"], ["essays", "tat", "oboes", "easter", "roast", "arena"],
        ["o", "tomato", "era", "operas", "set", "reset", "antenna", "star", "roosters"],
    ],
    "text": ["a rather short sentence", "roses are rosy to most", "tattoo artists", "some other stories start here"],
}  # fmt: skip
NUMBERS = [3, -5, 4, 7, -2, 9, 8, -14, 2, 5, 1]
LETTERS = "aeorst"


def problems(folder: Path, split: str) -> list[dict[str, str]]:
    """Prompt, body, name and, where it is held out, test of each function."""
    rows = read(folder, "humaneval/test" if split == "test" else f"codealpaca/{split}")
    names = {"instruction": "prompt", "output": "canonical_solution"}
    return [{names.get(key, key): value for key, value in row.items()} for row in rows]


def failed(sources: list[str]) -> list[int]:
    """Which of the programs, text that this project wrote, raise; all run in one subprocess."""
    script = (
        f"for number, source in enumerate({sources!r}):\n"
        "    try:\n        exec(source, {})\n    except Exception:\n        print(number)"
    )
    command = [sys.executable, "-I", "-"]
    done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=120, check=True)
    return [int(line) for line in done.stdout.split()]


def program(row: dict[str, str], body: str) -> str:
    return f"{row['prompt']}{body}\n{row['test']}\ncheck({row['entry_point']})\n"


def doctests(row: dict[str, str]) -> str:
    """The doctests of a prompt as asserts."""
    lines = row["prompt"].splitlines()
    return "\n".join(
        f"assert {line.split('>>> ')[1]} == {lines[number + 1].strip()}"
        for number, line in enumerate(lines)
        if ">>> " in line
    )


def parameters(row: dict[str, str]) -> list[str]:
    (function,) = ast.parse(row["prompt"] + row["canonical_solution"]).body
    assert isinstance(function, ast.FunctionDef)
    return [argument.arg for argument in function.args.args]


@pytest.mark.parametrize("split", SPLITS)
def test_every_solution_passes_its_doctests_and_its_test(folder: Path, split: str) -> None:
    rows = problems(folder, split)
    solved = [f"{row['prompt']}{row['canonical_solution']}\n{doctests(row)}\n" for row in rows]
    if split != "train":
        solved += [program(row, row["canonical_solution"]) for row in rows]
        assert len(rows) == 80
    assert failed(solved) == []


@pytest.mark.parametrize("split", ["validation", "test"])
def test_every_test_fails_an_obviously_wrong_body(folder: Path, split: str) -> None:
    """No body, None, an argument as it is, the first doctest's value, or the function without one of its steps."""
    functions = {problem.function.name: problem.function for problem in held_out(split)}
    wrong = []
    for row in problems(folder, split):
        value = doctests(row).splitlines()[0].split(" == ")[1]
        bodies = ["", "\n    return None", f"\n    return {value}"]
        bodies += [f"\n    return {name}" for name in parameters(row)]
        bodies += [f"\n    return {each.expression}" for each in functions[row["entry_point"]].shortened()]
        wrong += [program(row, body) for body in bodies]
    assert failed(wrong) == list(range(len(wrong)))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_test_uses_inputs_that_the_doctests_do_not(folder: Path, split: str) -> None:
    for row in problems(folder, split):
        shown = {line.split(" == ")[0].split("(", 1)[1] for line in doctests(row).splitlines()}
        asserts = [line for line in row["test"].splitlines() if "assert" in line]
        hidden = {line.split(" == ")[0].split("candidate(", 1)[1] for line in asserts}
        assert (len(shown), len(hidden), len(asserts)) == (2, 5, 5)
        assert not shown & hidden


def function(row: dict[str, str]) -> Callable[..., Any]:
    namespace: dict[str, Any] = {}
    exec(row["prompt"] + row["canonical_solution"], namespace)  # text that this project wrote
    return namespace[row["entry_point"]]


def kinds_of(row: dict[str, str]) -> tuple[str, ...]:
    special = {"numbers": "sequence", "words": "sequence", "text": "sequence", "letter": "letter"}
    return tuple(special.get(name, "number") for name in parameters(row))


def behaviours(row: dict[str, str]) -> dict[str, bool]:
    """What a function does with each sort of arguments that it takes, in every order of its parameters.

    True where the sort is the one that its docstring speaks of.
    """
    call, kinds, found = function(row), kinds_of(row), {}
    for sort, sequences in SORTS.items():
        columns = {"sequence": sequences, "letter": list(LETTERS), "number": NUMBERS}
        turns = [
            [
                columns[kind][(turn * (1 + place) + turn // 11 * place) % len(columns[kind])]
                for place, kind in enumerate(kinds)
            ]
            for turn in range(121)
        ]
        for order in permutations(range(len(kinds))):
            if tuple(kinds[place] for place in order) == kinds:
                done = [outcome(call, [turn[place] for place in order]) for turn in turns]
                if TypeError not in done:
                    found[f"{kinds} {sort} {done}"] = "sequence" not in kinds or sort in parameters(row)
    return found


def outcome(call: Callable[..., Any], arguments: list[Any]) -> Any:
    try:
        return call(*arguments)
    except (TypeError, AttributeError):
        return TypeError
    except (ValueError, IndexError):  # the largest of none
        return None


def blanked(row: dict[str, str]) -> str:
    """The body with its names and values blanked: equal for functions that differ in those alone."""
    (found,) = ast.parse(row["prompt"] + row["canonical_solution"]).body
    assert isinstance(found, ast.FunctionDef)
    names = parameters(row)
    own = names[:2] if names[0] == "a" else names[:1]
    known = {**{name: f"own{place}" for place, name in enumerate(own)}, "x": "item", "word": "item"}
    if own == ["x"]:
        known = {"x": "own0"}
    known |= dict.fromkeys(names[len(own) :], "value")
    return Blank(known).blank(found.body[-1])


class Blank(ast.NodeTransformer):
    def __init__(self, known: dict[str, str]) -> None:
        self.known = known

    def blank(self, node: ast.AST) -> str:
        return ast.dump(self.visit(node))

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Name("value")

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(self.known.get(node.id, node.id))


def test_no_function_of_one_split_is_one_of_another(folder: Path) -> None:
    """Not by its name, not by its code with names and values blanked, not by what it does."""
    names: dict[str, str] = {}
    trees: dict[str, str] = {}
    done: dict[str, list[tuple[str, bool, str]]] = {}
    for split in SPLITS:
        for row in problems(folder, split):
            name = row["entry_point"]
            assert names.setdefault(name, split) == split, name
            assert trees.setdefault(blanked(row), split) == split, name
            for each, meant in behaviours(row).items():
                same = [other for other in done.get(each, []) if other[0] != split and (meant or other[1])]
                assert not same, (name, same)
                done.setdefault(each, []).append((split, meant, name))


def test_the_splits_share_their_primitives() -> None:
    """Nothing is asked of which a training function has not shown the parts."""
    taught = {(p.function.family.name, step.name) for p in trained() for step in p.function.steps}
    for split in ("validation", "test"):
        asked = {(p.function.family.name, step.name) for p in held_out(split) for step in p.function.steps}
        assert asked <= taught
