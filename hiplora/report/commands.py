"""The fewest multiruns that cover a set of missing runs, as a user would type them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from hiplora.report.experiment import Wanted

Part = tuple[str, tuple[str, ...]]  # name of the override (empty: not to be joined), its values
Block = tuple[Part, ...]


def sweeps(missing: Sequence[Wanted]) -> list[list[str]]:
    """Overrides of multiruns that together make exactly the missing runs.

    Neighbours that differ in one simple override are joined, ``seed=42`` and ``seed=100`` to
    ``seed=42,100``; where an axis takes several overrides at once its values stay apart.
    """
    lines: list[list[str]] = []
    for fixed in dict.fromkeys((run.group, run.fixed) for run in missing):
        runs = [run for run in missing if (run.group, run.fixed) == fixed]
        blocks = [_block(run) for run in runs]
        for axis in reversed(range(len(blocks[0]))):
            blocks = _join(blocks, axis)
        lines += [[*fixed[1], *(word for part in block for word in _words(part))] for block in blocks]
    return lines


def _block(run: Wanted) -> Block:
    return tuple((_key(part), (" ".join(part),)) for part in run.parts)


def _key(part: tuple[str, ...]) -> str:
    """The override's name where it is a single simple one, else empty: such parts are not joined."""
    simple = len(part) == 1 and not set(part[0]) & set(",[]{}\"'")
    return part[0].split("=", 1)[0] if simple else ""


def _join(blocks: list[Block], axis: int) -> list[Block]:
    """Merge the blocks that differ only in the values of one axis."""
    joined: dict[Block, list[str]] = {}
    for block in blocks:
        key, values = block[axis]
        others = (*block[:axis], (key, () if key else values), *block[axis + 1 :])
        joined.setdefault(others, []).extend(values)
    return [
        (*others[:axis], (others[axis][0], tuple(dict.fromkeys(values))), *others[axis + 1 :])
        for others, values in joined.items()
    ]


def _words(part: Part) -> list[str]:
    key, values = part
    if not key:
        return values[0].split()
    return [f"{key}=" + ",".join(value.split("=", 1)[1] for value in values)]


def shell(words: Sequence[str]) -> str:
    """A command line that can be pasted."""
    return "python -m hiplora.run -m " + " ".join(shlex.quote(word) for word in words)
