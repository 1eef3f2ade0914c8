"""Table 4: every setting of conf/ at both scales, with the mark that says where it comes from. No run is behind it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from hiplora import conf
from hiplora.errors import UserError
from hiplora.report.frame import Evidence
from hiplora.report.notes import file_name
from hiplora.report.stated import TO_BE_GIVEN, Stated, stated
from hiplora.report.table import Cell, Column, Table

COLUMNS = tuple(Column(label=f"scale={scale}", spread="none") for scale in ("mini", "paper"))
SECTIONS = {  # heading → first parts of the names that stand under it
    "Backbone": ("model",),
    "Singular directions": ("svd",),
    "Training": ("training",),
    "Methods": ("method",),
    "Evaluation": ("evaluation", "task"),
    "Merging": ("merging", "merge"),
    "Pipelines": ("efficiency", "pipeline"),
}
GROUPS = ("method", "task", "merge", "pipeline")  # all of whose options are shown
SELECTION = "select"  # the pipeline whose grids are no settings of a run
CAPTION = (
    "A value is what conf/ composes to at that scale; a row is called as it is typed. An option of a group stands in "
    "front of its settings: method=hip has a learning rate of its own where a row says method=hip training.lr, and "
    "training.lr is that of the others."
)
NOTES = (
    "[paper]: stated in the paper. [review]: asked for by its reviewers. [lost]: the paper has a value that did not "
    "reach us, we fixed one. [ours]: not in the paper. [corrected]: the paper's literal text cannot work.",
    "An option that starts from another has rows only for what it changes. A blank is not set at that scale. The grids "
    "of selection stand in conf/pipeline/select.yaml, what each setting means beside it in conf/.",
)


def build(evidence: Evidence) -> Table:
    """A row per setting.

    Raises:
        UserError: with settings of the user's own, which the table would not show, or a field without a mark.
    """
    if evidence.changed:
        raise UserError(f"Table 4 shows conf/ as it is, without {', '.join(evidence.changed)}; leave that out.")
    found: dict[str, dict[str, Stated]] = {column.label: _settings(column.label) for column in COLUMNS}
    names = sorted(dict.fromkeys(name for each in found.values() for name in each), key=_place)
    return Table(
        name=file_name(evidence),
        title=f"Table 4. {evidence.experiment.title}",
        caption=CAPTION,
        columns=COLUMNS,
        cells=tuple(
            _cell(name, column, found[column.label][name])
            for name in names
            for column in COLUMNS
            if name in found[column.label]
        ),
        notes=NOTES,
        sections={heading: [n for n in names if _part(n) in parts] for heading, parts in SECTIONS.items()},
    )


def _settings(scale: str) -> dict[str, Stated]:
    """Every setting at a scale by the name of its row."""
    found: dict[str, Stated] = {}
    for words in _compositions():
        for name, each in stated([scale, *words]).items():
            row = _row(name, each.file)
            if row is not None:
                found.setdefault(row, each)
    return found


def _compositions() -> Iterator[list[str]]:
    """The fewest compositions in which every option of the groups occurs."""
    options = [[f"{group}={each}" for each in _options(group)] for group in GROUPS]
    for words in zip_longest(*options):
        yield [word for word in words if word is not None]


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (conf.CONF_DIR / group).glob("*.yaml") if path.stem != SELECTION)


def _row(name: str, file: str) -> str | None:
    """How a setting is typed: below an option of a group, behind that option. None for what is no setting."""
    group, _, option = file.partition("/")
    if group == "selected":
        return f"method={option.rpartition('/')[2]} {name}"
    if name.endswith(".name") or _part(name) not in {part for parts in SECTIONS.values() for part in parts}:
        return None
    return f"{group}={option} {name}" if group in GROUPS else name


def _place(name: str) -> tuple[int, str]:
    """Where a row stands: by its part, then by its option; rows of one option stay in their order."""
    parts = [part for each in SECTIONS.values() for part in each]
    option, typed, _ = name.rpartition(" ")
    return parts.index(_part(name)), option if typed else ""


def _part(name: str) -> str:
    """The first part of a name; that of the group where an option stands in front."""
    return name.partition(" ")[0].partition("=")[0].partition(".")[0]


def _cell(row: str, column: Column, each: Stated) -> Cell:
    number = each.value if isinstance(each.value, int | float) and not isinstance(each.value, bool) else None
    words = f"{_text(each.value)} [{each.mark}]"
    return Cell(row=row, column=column.label, value=number, n=1, n_expected=1, words=words)


def _text(value: Any) -> str:
    """A value as it is typed."""
    if value == TO_BE_GIVEN:
        return "must be typed"
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
