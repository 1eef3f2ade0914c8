"""The settings of conf/: every value of a composition, with the mark of the line that it comes from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiplora import conf_dir
from hiplora.compose import raw_composition
from hiplora.errors import UserError

if TYPE_CHECKING:
    from yaml import Node

REFERENCE = re.compile(r"\$\{.*\}")  # to another field, which has the mark
MARK = re.compile(r"\[(paper|review|lost|ours|corrected)\]")
TO_BE_GIVEN = "???"  # the value of a field that must be given on the command line
NO_FIELDS = ("defaults", "hydra")  # keys of conf/ that are Hydra's


@dataclass(frozen=True)
class Stated:
    """A resolved value, the mark of its line, and the file of conf/ with that line, without its suffix."""

    value: Any
    mark: str
    file: str


def stated(overrides: Sequence[str]) -> dict[str, Stated]:
    """Every field that overrides compose to, by its name on the command line, in the order of the files; cached.

    A field that refers to another one is left out; a field that must be given is :data:`TO_BE_GIVEN`.

    Raises:
        UserError: the overrides do not compose, or a field has no mark.
    """
    return _stated(conf_dir.CONF_DIR, tuple(overrides))


@cache
def _stated(folder: Path, overrides: tuple[str, ...]) -> dict[str, Stated]:
    from hiplora.hydra_compose import files

    raw, found = raw_composition(overrides, missing=True), {}
    for file, section in files(overrides):
        for name, mark in marks(folder / f"{file}.yaml").items():
            typed = f"{section}.{name}" if section else name
            found[typed] = Stated(reduce(lambda value, key: value[key], typed.split("."), raw), mark, file)
    return found


@cache
def marks(path: Path) -> dict[str, str]:
    """The mark of every field of a file, by its name there; for a list over several lines, the marks of these lines.

    Raises:
        UserError: a field has none.
    """
    import yaml

    text = path.read_text()
    return {name: _mark(path, text.splitlines(), name, node) for name, node in _fields(yaml.compose(text))}


def _fields(node: Node, prefix: str = "") -> Iterator[tuple[str, Node]]:
    for key, value in node.value:
        if value.id == "mapping":
            yield from _fields(value, f"{prefix}{key.value}.") if key.value not in NO_FIELDS else ()
        elif key.value not in NO_FIELDS and not (value.id == "scalar" and REFERENCE.fullmatch(value.value)):
            yield f"{prefix}{key.value}", value


def _mark(path: Path, lines: Sequence[str], name: str, node: Node) -> str:
    """The first mark after a value; its comment may mention others for further options."""
    if node.id == "sequence" and not node.flow_style:
        return ", ".join(dict.fromkeys(_mark(path, lines, name, item) for item in node.value))
    end = node.end_mark
    found = MARK.search(lines[end.line][end.column :])
    if found is None:
        raise UserError(
            f"{path}:{end.line + 1}: {name} has no mark; say in a comment after it where its value comes from, as in "
            "`# [ours] …` (conf/config.yaml explains the marks)."
        )
    return found[1]
