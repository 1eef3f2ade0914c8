"""The functions of the code benchmark, read from the text of code/solutions/*.py.

Nothing is imported or run here. The doctests of a function are its cases; the first one stays in the prompt.
"""

from __future__ import annotations

import ast
import doctest
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

SOLUTIONS = Path(__file__).parent / "solutions"


@dataclass(frozen=True)
class Function:
    """`body` is indented source ending in a newline; a case is (call, expected value), both Python source."""

    name: str
    parameters: str
    purpose: str
    body: str
    cases: tuple[tuple[str, str], ...]


def _parsed(source: str) -> Iterator[Function]:
    lines = source.splitlines(keepends=True)
    for node in ast.parse(source).body:
        if not isinstance(node, ast.FunctionDef):
            continue
        document = ast.get_docstring(node) or ""
        examples = doctest.DocTestParser().get_examples(document)
        yield Function(
            name=node.name,
            parameters=ast.unparse(node.args),
            purpose=document.split("\n\n")[0],
            body="".join(lines[node.body[1].lineno - 1 : node.end_lineno]),
            cases=tuple((example.source.strip(), example.want.strip()) for example in examples),
        )


@lru_cache
def functions() -> tuple[Function, ...]:
    paths = sorted(path for path in SOLUTIONS.glob("*.py") if path.name != "__init__.py")
    return tuple(function for path in paths for function in _parsed(path.read_text(encoding="utf-8")))
