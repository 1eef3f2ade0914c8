"""What selection chose: ``results/<data>/selection.json``, which ``pipeline=select`` writes and later runs read.

Its content is derived from the records that it names; nothing in it depends on when or where it was written.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from hiplora.disk import json_object, sha256, write_atomically, write_json
from hiplora.errors import UserError

NAME = "selection"
Settings = dict[str, Any]  # an option's name on the command line → its value


class Frozen(BaseModel):
    """Base of the file's models."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Matched(Frozen):
    """One adapter at the level of its task.

    ``c`` is the smallest scale at the level. If the adapter never reaches it, ``reached`` is False, and c is the scale
    at which it has learned most. ``lowest`` is the lowest own NLL at any scale (nats per token). At c: ``rises`` holds
    the rises of the NLL over the backbone's by text and benchmark; ``text`` and ``retain_nll`` are the two that an
    objective can use; ``norm`` is ‖c ΔW‖_F. The shares are of the energy of ΔW. ``train`` and ``frontier`` are ids of
    records.
    """

    task: str
    seed: int
    reached: bool
    c: float
    lowest: float
    text: float
    retain_nll: float
    rises: dict[str, float]
    norm: float
    top_share: float | None
    channel_share: float | None
    train: str
    frontier: str


class Trial(Frozen):
    """One candidate of one method: its overrides (``words``), its settings and its results.

    ``stage`` counts a method's stages of trials from 1; ``objective`` is J, None if the adapter never reaches the
    level. For a finalist, ``runs`` are its runs in the finals, and ``final`` is J over those that reach their level.
    """

    method: str
    stage: int
    words: tuple[str, ...]
    settings: Settings
    first: Matched
    objective: float | None
    runs: tuple[Matched, ...] = ()
    final: float | None = None


class Reference(Frozen):
    """The reference of the objective: it defines the ``levels`` of the trials, and its J is 1."""

    words: tuple[str, ...]
    levels: dict[str, float]
    runs: tuple[Matched, ...]


class Selection(Frozen):
    """The file's content.

    ``levels`` are the NLLs, by task, at which methods are compared from now on, on the backbone of this ``identity``;
    ``levels_from`` are the ids of the frontiers behind them. ``winners`` holds the settings of each method's best
    candidate, None if none reached its level; ``gated`` those of the best candidate whose principal channel holds at
    least ``gate`` of the update's energy in every adapter. ``left_out`` gives the reason for each task without a level.
    """

    version: int = 1
    backbone: str
    identity: str
    level_scale: float
    level_gain: float
    gate: float
    objective: tuple[str, ...]
    reference: Reference
    winners: dict[str, Settings | None]
    gated: dict[str, Settings | None]
    levels: dict[str, float]
    levels_from: dict[str, list[str]]
    left_out: dict[str, str] = {}
    trials: list[Trial]


def path(results: Path) -> Path:
    """The file in ``results/<data>``."""
    return results / f"{NAME}.json"


def read(results: Path) -> Selection | None:
    """The selection in ``results/<data>``; None if there is none.

    Raises:
        UserError: the file is damaged.
    """
    file = path(results)
    if not file.is_file():
        return None
    stat = file.stat()
    return _parsed(file, stat.st_ino, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=8)
def _parsed(file: Path, *stat: int) -> Selection:
    """The content of the file, cached by its ``stat``, since every run of a plan reads it."""
    try:
        return Selection.model_validate(json_object(file))
    except (ValueError, ValidationError) as error:
        reason = " ".join(str(error).split())
        again = "restore it from version control, or select again with force=true"
        raise UserError(f"{file} is not a valid selection ({reason}); {again}.") from None


def mark(results: Path) -> dict[str, str]:
    """What a record says about the current selection: the file's digest (12 hex digits); empty without a file."""
    file = path(results)
    return {NAME: sha256(file)[:12]} if file.is_file() else {}


def write(results: Path, selection: Selection, page: str, *, force: bool = False) -> list[Path]:
    """Write the selection and the page that shows it; returns the paths.

    Raises:
        UserError: a different selection exists, whose levels and settings runs may have used; ``force`` replaces it.
    """
    if not force and (there := read(results)) is not None and there.model_dump() != selection.model_dump():
        raise UserError(
            f"{path(results)} holds another selection, which later runs may have used, so nothing was written; "
            "choose another results_dir, or type force=true to replace it (the runs of this selection are kept)."
        )
    shown = results / f"{NAME}.md"
    write_json(path(results), selection.model_dump())  # first: the same command writes the page again
    write_atomically(shown, page.encode())
    return [path(results), shown]
