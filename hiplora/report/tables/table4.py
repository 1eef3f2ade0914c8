"""Table 4: every setting of conf/ at both scales, with the mark that says where it comes from. It needs no runs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from hiplora import conf_dir
from hiplora.errors import UserError
from hiplora.report.evidence import Evidence
from hiplora.report.notes import file_name
from hiplora.report.runs.fields import shown
from hiplora.report.stated import TO_BE_GIVEN, Stated, stated
from hiplora.report.table import Cell, Column, Table

COLUMNS = tuple(Column(label=f"scale={scale}", spread="none") for scale in ("mini", "paper"))
SECTIONS = {  # heading → first parts of the names of its rows
    "Backbone": ("model",),
    "Singular directions": ("svd",),
    "Training": ("training",),
    "Methods": ("method",),
    "Evaluation": ("evaluation", "task"),
    "Merging": ("merging", "merge"),
    "Pipelines": ("efficiency", "pipeline"),
}
GROUPS = ("method", "task", "merge", "pipeline")  # groups whose options are all shown
SELECTION = "select"  # the pipeline whose grids are not settings of a run
CAPTION = (
    "A value is what conf/ composes to at that scale; a row is named as it is typed. Settings of one option of a "
    "group have the option in front: a row method=hip training.lr is the learning rate of method=hip, and the row "
    "training.lr that of all other methods."
)
NOTES = (
    "[paper]: stated in the paper. [review]: asked for by its reviewers. [lost]: the paper has a value, which our copy "
    "lacks; we chose one. [ours]: not in the paper. [corrected]: the paper's literal text cannot work.",
    "An option that extends another one has rows only for the settings that it changes. A blank is not set at that "
    "scale. Selection's grids are in conf/pipeline/select.yaml; comments in conf/ explain each setting.",
)


def build(evidence: Evidence) -> Table:
    """A row per setting.

    Raises:
        UserError: the user changed settings, which the table would not show, or a field has no mark.
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
    """Every setting at a scale, by the name of its row."""
    found: dict[str, Stated] = {}
    for words in _compositions():
        for name, each in stated([scale, *words]).items():
            row = _row(name, each.file)
            if row is not None:
                found.setdefault(row, each)
    return found


def _compositions() -> Iterator[list[str]]:
    """Overrides of the fewest compositions in which every option of the groups occurs."""
    options = [[f"{group}={each}" for each in _options(group)] for group in GROUPS]
    for words in zip_longest(*options):
        yield [word for word in words if word is not None]


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (conf_dir.CONF_DIR / group).glob("*.yaml") if path.stem != SELECTION)


def _row(name: str, file: str) -> str | None:
    """A setting's row name: its name as typed, after the option of a group that it belongs to. None if no setting."""
    group, _, option = file.partition("/")
    if group == "selected":
        return f"method={option.rpartition('/')[2]} {name}"
    if name.endswith(".name") or _part(name) not in {part for parts in SECTIONS.values() for part in parts}:
        return None
    return f"{group}={option} {name}" if group in GROUPS else name


def _place(name: str) -> tuple[int, str]:
    """The sort key of a row: its section's part, then its option; rows of one option keep their order."""
    parts = [part for each in SECTIONS.values() for part in each]
    option, typed, _ = name.rpartition(" ")
    return parts.index(_part(name)), option if typed else ""


def _part(name: str) -> str:
    """The first part of a name; with an option in front, the option's group."""
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
    return shown(value)
