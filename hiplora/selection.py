"""What selection chose: ``results/<data>/selection.json``, which ``pipeline=select`` writes and what follows reads.

Everything in it is derived from records, which it names; nothing in it depends on when or where it was written.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from hiplora.disk import json_object, sha256, write_atomically, write_json
from hiplora.errors import UserError

NAME = "selection"
Settings = dict[str, Any]  # an option as it is typed → its value


class Frozen(BaseModel):
    """Base of what the file holds."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Matched(Frozen):
    """One adapter at the level of its task.

    ``c`` is the smallest scale with that NLL; where the adapter never gets there, ``reached`` is False, and c is the
    scale at which it has learned most. ``lowest`` is the lowest own NLL at any scale. At c: ``rises`` of the NLL over
    the backbone by text and benchmark, ``text`` and ``retain_nll`` those that count, ``norm`` ‖c ΔW‖_F. The shares are
    of the energy of ΔW. ``train`` and ``frontier`` are ids of records.
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
    """One candidate of one method: what was typed beyond the method's start, and how it came out.

    ``stage`` counts a method's batches of trials from 1; ``objective`` is J, None where the adapter never reaches the
    level. Of a finalist, ``runs`` are those of the finals, and ``final`` is J over those of them that reach theirs.
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
    """What the objective is measured against: the ``levels`` come from it, and it has J = 1."""

    words: tuple[str, ...]
    levels: dict[str, float]
    runs: tuple[Matched, ...]


class Selection(Frozen):
    """``levels`` are the NLLs at which methods are compared from now on, by task; ``levels_from`` their frontiers' ids.

    ``winners`` holds the settings of each method's best candidate, None where none reached its level; ``gated`` those
    of the best whose principal channel holds at least ``gate`` of the update's energy in every adapter. ``left_out``
    says of each task that was to have a level and has none why.
    """

    version: int = 1
    backbone: str
    level_scale: float
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
    """What was selected; None where selection has not been run.

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
    """The file as it is with this ``stat``: every run of a plan asks for it."""
    try:
        return Selection.model_validate(json_object(file))
    except (ValueError, ValidationError) as error:
        reason = " ".join(str(error).split())
        again = "take it from version control, or select again with force=true"
        raise UserError(f"{file} is no selection ({reason}); {again}.") from None


def mark(results: Path) -> dict[str, str]:
    """What a record says of the selection that was there when it was made: the file's digest; nothing without one."""
    file = path(results)
    return {NAME: sha256(file)[:12]} if file.is_file() else {}


def write(results: Path, selection: Selection, page: str, *, force: bool = False) -> list[Path]:
    """Write the selection and the page that shows it; the paths.

    Raises:
        UserError: there is another one, from which runs may have their levels and settings; ``force`` replaces it.
    """
    if not force and (there := read(results)) is not None and there.model_dump() != selection.model_dump():
        raise UserError(
            f"{path(results)} holds another selection, and what was run since stands on it; nothing was written. "
            "Choose another results_dir, or type force=true to replace it: the runs of this selection are kept."
        )
    shown = results / f"{NAME}.md"
    write_atomically(shown, page.encode())
    write_json(path(results), selection.model_dump())
    return [path(results), shown]
