"""What is held out and yet told in a training corpus: countries, things, problems and functions, in any wording.

    leaks(folder)  # {"mmlu": [], "scienceqa": [], "gsm8k": [], "code": []}

The rows are read back from the files: what a text is about is looked up by its words, whatever wrote it.
"""

from __future__ import annotations

import ast
import builtins
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hiplora.mini import science, world
from hiplora.mini.facts import countries
from hiplora.mini.problems.templates import recognised

TRAINING = ("alpaca", "scienceqa", "gsm8k", "codealpaca")
HELD_OUT = ("validation", "test")

Row = dict[str, Any]


def leaks(folder: Path) -> dict[str, list[str]]:
    """What of each benchmark's validation and test is told in the training files below a folder of mini data."""
    texts = [text for name in TRAINING for row in read(folder, f"{name}/train") for text in _texts(row)]
    found: dict[str, Callable[[], Iterator[str]]] = {
        "mmlu": lambda: _countries(texts),
        "scienceqa": lambda: _things(texts),
        "gsm8k": lambda: _problems(folder, texts),
        "code": lambda: _functions(folder),
    }
    return {name: list(search()) for name, search in found.items()}


def read(folder: Path, name: str) -> list[Row]:
    """Rows of a file of the mini data; none where there is no such file."""
    path = folder / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def _texts(row: Row) -> list[str]:
    """Everything that a run may see of a training row; the rule in front of a question is a text of its own."""
    if "choices" in row:
        case = row["hint"].removeprefix(row["lecture"])
        return [row["lecture"], " ".join([case, row["question"], row["choices"][row["answer"]], row["solution"]])]
    return [" ".join(str(value) for value in row.values())]


def mentions(text: str, phrase: str) -> bool:
    """Whole words only: "Niger" is not in "Nigeria"."""
    return phrase in text and re.search(rf"(?<![\w-]){re.escape(phrase)}(?![\w-])", text) is not None


def _bare(name: str) -> str:
    return name.removeprefix("the ")


def _countries(texts: list[str]) -> Iterator[str]:
    """Held-out countries that a text names at all; a longer name of another country is not one."""
    trained = [_bare(country.name) for country in countries() if world.assigned().get(country.name) == "train"]
    for country in (country for split in HELD_OUT for country in world.members(split)):
        name = _bare(country.name)
        longer = [other for other in trained if name in other]
        if any(mentions(_without(text, longer), name) for text in texts if name in text):
            yield name


def _without(text: str, names: list[str]) -> str:
    for name in names:
        text = text.replace(name, "")
    return text


def _things(texts: list[str]) -> Iterator[str]:
    """Things and cases of held-out science questions that a text asks about, or tells with their answer."""
    known = {question.group for question in science.selected("train")}
    for question in (question for split in HELD_OUT for question in science.selected(split)):
        thing = re.sub(r"^(a|an|the) ", "", question.group)
        told = (mentions(text, thing) and mentions(text, question.right) for text in texts if thing in text)
        asked = (question.stem in text and question.hint in text for text in texts)
        if question.group in known or any(told) or any(asked):
            yield question.group


def _problems(folder: Path, texts: list[str]) -> Iterator[str]:
    """Held-out word problems whose kind is asked with the same numbers, whatever the story, names and things."""
    trained = {(kind, *sorted(numbers)) for text in texts for kind, numbers in recognised(text)}
    for row in (row for split in HELD_OUT for row in read(folder, f"gsm8k/{split}")):
        if any((kind, *sorted(numbers)) in trained for kind, numbers in recognised(row["question"])):
            yield row["question"]


def _functions(folder: Path) -> Iterator[str]:
    """Held-out functions whose name or tree is one of the training corpus."""
    trained = [_source(row) for row in read(folder, "codealpaca/train")]
    names, trees = {called(source) for source in trained}, {tree(source) for source in trained}
    held_out = [*read(folder, "codealpaca/validation"), *read(folder, "humaneval/test")]
    for source in map(_source, held_out):
        if called(source) in names or tree(source) in trees:
            yield called(source)


def _source(row: Row) -> str:
    """A function as Python: a problem of the benchmark, or a row of the corpus with or without its signature."""
    if "canonical_solution" in row:
        return row["prompt"] + row["canonical_solution"]
    return row["output"] if row["output"].startswith("def ") else row["instruction"] + row["output"]


def _parsed(source: str) -> ast.FunctionDef:
    found = ast.parse(source).body[0]
    if not isinstance(found, ast.FunctionDef):
        raise ValueError(f"{source!r} is no function")
    return found


def called(source: str) -> str:
    return _parsed(source).name


def tree(source: str) -> str:
    """The tree of a function without its docstring, every name in it replaced by the order of its appearance."""
    node = _parsed(source)
    if ast.get_docstring(node):
        node.body = node.body[1:]
    order: dict[str, str] = {}
    node.name = "f"
    for part in ast.walk(node):
        if isinstance(part, ast.arg):
            part.arg = order.setdefault(part.arg, f"v{len(order)}")
        elif isinstance(part, ast.Name) and not hasattr(builtins, part.id):
            part.id = order.setdefault(part.id, f"v{len(order)}")
    return ast.dump(node)
