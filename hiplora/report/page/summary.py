"""The summary at the top of the page: the question, the answer that the records give, and one picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from hiplora.report.contrasts import DIFFERENCE, VERDICT
from hiplora.report.page.exhibits import Exhibit, Section
from hiplora.report.page.groups import Run
from hiplora.report.table import Table

ANSWERS = "table16"  # its first contrasts answer the project's question
PICTURE = "figure7"
FIRST = "Contrasts: text rise (primary)"
LEAD = {  # by how the verdict starts: the first that fits
    "supported, equal learning not shown": "Forgets less, but equal learning is not shown.",
    "supported": "Yes, at this scale.",
    "not supported": "No, not at this scale.",
    "undecidable": "The runs do not decide it.",
}


@dataclass(frozen=True)
class Summary:
    """``lead`` is the answer in a sentence, ``contrasts`` has the numbers, ``missing`` says how many runs exist.

    ``asked`` says whether any run of the question exists.
    """

    asked: bool
    lead: str
    contrasts: Section | None
    missing: str
    picture: Exhibit | None
    counts: tuple[tuple[str, int], ...]
    backbone: str


def summary(exhibits: Sequence[Exhibit], runs: Sequence[Run], backbones: Sequence[str]) -> Summary:
    """The summary, as far as the runs allow; ``backbones`` names those of the runs."""
    by_name = {each.name: each for each in exhibits}
    of = by_name.get(ANSWERS)
    section, verdict = _answer(of)
    picture = by_name.get(PICTURE)
    missing = (
        "" if of is None or of.there == of.wanted else f"{of.there} of {of.wanted} runs behind the answer are there"
    )
    captions = [each.made.caption.partition(". ")[0] for each in exhibits if each.made is not None and each.filled]
    captions = [caption for caption in captions if caption.startswith("Backbone ")]  # Table 4's is of no run
    return Summary(
        asked=of is not None and of.there > 0,
        lead=next((words for start, words in LEAD.items() if verdict.startswith(start)), ""),
        contrasts=section,
        missing=missing,
        picture=picture if picture is not None and picture.filled else None,
        counts=tuple(Counter(record.kind for run in runs for record in run.records).items()),
        backbone=_backbones(captions, backbones),
    )


def _backbones(captions: Sequence[str], backbones: Sequence[str]) -> str:
    """The backbones of the runs, and the one of the tables and figures, which all have the same."""
    theirs = f"{captions[0]}." if captions else ""
    if len(backbones) > 1:
        runs = f"Runs of {len(backbones)} backbones: {', '.join(backbones)}."
        return f"{runs} Tables and figures: {theirs}" if theirs else runs
    return theirs or "".join(f"Backbone {name}." for name in backbones)


def _answer(of: Exhibit | None) -> tuple[Section | None, str]:
    """The primary contrasts with their verdicts, and the verdict of the first."""
    if of is None or not isinstance(of.made, Table):
        return None, ""
    section = next((each for each in of.sections if each.heading == FIRST), None)
    if section is None:
        return None, ""
    wanted = [number for number, head in enumerate(section.header) if head.text in (DIFFERENCE.label, VERDICT.label)]
    rows = [(row, [cells[number] for number in wanted]) for row, cells in section.rows]
    short = Section(FIRST, [section.header[number] for number in wanted], rows)
    verdict = rows[0][1][-1].text if rows and len(wanted) == 2 else ""
    return (short, verdict) if any(cell.href for _, cells in rows for cell in cells) else (None, "")
