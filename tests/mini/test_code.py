"""The functions: solutions that pass, and training functions that differ from them in name, text and behaviour."""

from __future__ import annotations

import ast
import builtins
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.mini.helpers import read

NUMBERS = [-7, 0, 1, 2, 3, 4, 5, 6, 9, 10, 12, 15, 31, 60, 121, 2.5]
TEXTS = ["", "a", "level", "banana bread", "The quick brown fox", "a,b;c-d/e:f_g|h*i", "mnopqrstuvwxyz" * 2]
LISTS: list[Any] = [
    [], [1], [3, 9, 2], [4, 4, 6, 8, 12], list(range(-3, 20)), [[1, 2], [3]], [[], ["a"]], ["a", "abc", "ab"],
    ["pear", "fig", "plum", "banana", "elephant"], [{"name": "x", "price": 3}, {"name": "y", "price": 4}],
]  # fmt: skip
OTHERS: list[Any] = [{"name": "x", "price": 3}, {"city": "b", "year": 1}, (1, 2), ("a", "b")]
PROBES = [*NUMBERS, *TEXTS, *LISTS, *OTHERS]


def program(row: dict) -> str:
    return f"{row['prompt']}{row['canonical_solution']}\n{row['test']}\ncheck({row['entry_point']})\n"


def run(source: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-I", "-c", source], capture_output=True, text=True, timeout=60, check=False)


def test_every_canonical_solution_passes(folder: Path) -> None:
    """Our own solutions, each in a namespace of its own, in one subprocess."""
    programs = [program(row) for row in read(folder, "humaneval/test")]
    done = run(f"for source in {programs!r}:\n    exec(source, {{}})\nprint('passed')")
    assert done.stdout.strip() == "passed", done.stderr


def test_a_wrong_solution_fails(folder: Path) -> None:
    """Every test has at least three cases and no constant passes it."""
    rows = read(folder, "humaneval/test")
    assert min(row["test"].count("assert") for row in rows) >= 3
    for row in rows:
        assert ">>> " in row["prompt"]
        values = [line.split(" == ")[1] for line in row["test"].splitlines() if "assert" in line]
        assert len(set(values)) > 1, row["entry_point"]


def function(source: str) -> tuple[str, int, Callable[..., Any]]:
    node = ast.parse(source).body[0]
    assert isinstance(node, ast.FunctionDef)
    namespace: dict[str, Any] = {}
    exec(source, namespace)  # text that this project wrote
    return node.name, len(node.args.args), namespace[node.name]


def normalised(source: str) -> str:
    """The tree without docstring, with every name replaced by the order of its appearance."""
    node = ast.parse(source).body[0]
    assert isinstance(node, ast.FunctionDef)
    if ast.get_docstring(node):
        node.body = node.body[1:]
    names: dict[str, str] = {}
    node.name = "f"
    for part in ast.walk(node):
        if isinstance(part, ast.arg):
            part.arg = names.setdefault(part.arg, f"v{len(names)}")
        elif isinstance(part, ast.Name):
            part.id = part.id if hasattr(builtins, part.id) else names.setdefault(part.id, f"v{len(names)}")
    return ast.dump(node)


def outcome(call: Callable[..., Any], probe: Any) -> str | None:
    try:
        return repr(call(probe))
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, ZeroDivisionError):
        return None


def corpus(folder: Path, split: str) -> list[str]:
    return sorted({row["output"] for row in read(folder, f"codealpaca/{split}")})


def benchmark(folder: Path) -> list[str]:
    return [row["prompt"] + row["canonical_solution"] for row in read(folder, "humaneval/test")]


def test_training_functions_have_other_names_and_other_trees(folder: Path) -> None:
    sets = {"train": corpus(folder, "train"), "validation": corpus(folder, "validation"), "test": benchmark(folder)}
    trees = {split: {normalised(source) for source in sources} for split, sources in sets.items()}
    names = {split: {function(source)[0] for source in sources} for split, sources in sets.items()}
    for one, other in (("train", "test"), ("validation", "test"), ("train", "validation")):
        assert not trees[one] & trees[other]
        assert not names[one] & names[other]


def test_no_training_function_behaves_like_one_of_the_benchmark(folder: Path) -> None:
    tested = [function(source) for source in benchmark(folder)]
    expected = {name: [outcome(call, probe) for probe in PROBES] for name, count, call in tested if count == 1}
    for source in corpus(folder, "train") + corpus(folder, "validation"):
        name, count, call = function(source)
        assert count == 1
        found = [outcome(call, probe) for probe in PROBES]
        for other, values in expected.items():
            known = [(value, own) for value, own in zip(values, found, strict=True) if value is not None]
            assert len(known) >= 4, other
            assert any(value != own for value, own in known), (name, other)
