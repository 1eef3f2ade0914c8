"""Table 5: the cost of training with each method, relative to LoRA, measured in one process."""

from collections.abc import Iterator
from statistics import fmean, median

from hiplora.report.evidence import Evidence
from hiplora.report.notes import table
from hiplora.report.slots import Entry
from hiplora.report.table import Cell, Column, Table, number_text
from hiplora.stages.results import Costs

REFERENCE = "lora"
RATIO = Column(label="tokens/s over LoRA's", decimals=3, better="up", spread="none")
SPEED = Column(label="tokens/s", decimals=0, better="up", spread="none", paper="{method}/tok_per_s")
MEMORY = Column(label="peak memory (GB)", decimals=2, better="down", spread="none", paper="{method}/peak_gb")
SVD = Column(label="SVD (min)", decimals=2, better="down", spread="none", paper="{method}/svd_minutes")
CACHE = Column(label="SVD cache (GB)", decimals=3, better="down", spread="none", paper="{method}/svd_cache_gb")
COLUMNS = (RATIO, SPEED, MEMORY, SVD, CACHE)
NOTES = (
    "All methods train in one process and take turns, each round starting with another method; forward, backward, "
    "clipping, AdamW, penalty and retraction are timed, after a warm-up. Prompt and answer tokens count, padding does "
    "not. Ratio: mean over the rounds of a method's speed over LoRA's in the same round, in brackets the smallest and "
    "the largest; tokens/s: median over the turns. Only the ratios carry over to other machines.",
    "Peak memory: torch's on a GPU; on a CPU that of the whole process, with weights and libraries. The SVD is "
    "computed once per backbone and then read from its cache; its time and the size of the cache are single "
    "measurements; blank for a method without one.",
)


def build(evidence: Evidence) -> Table:
    """One row per method."""
    cells = [cell for key in evidence.experiment.labels for cell in _row(evidence, key)]
    return table(evidence, "Table 5", columns=COLUMNS, cells=cells, notes=NOTES, counted="turns")


def _row(evidence: Evidence, method: str) -> Iterator[Cell]:
    measured = ((entry, record.result) for entry, record in evidence.recorded if isinstance(record.result, Costs))
    entry, result = next(measured, (Entry(role="efficiency"), None))
    cost = result.methods.get(method) if result is not None else None
    values: dict[str, float] = {}
    words = ""
    if result is not None and cost is not None:
        speeds, reference = cost.tokens_per_second, result.methods[REFERENCE].tokens_per_second
        ratios = [one / other for one, other in zip(speeds, reference, strict=True)]
        values = {
            RATIO.label: fmean(ratios),
            SPEED.label: median(speeds),
            MEMORY.label: cost.peak_memory_bytes / 1e9,
        }
        mean, least, most = (number_text(value, RATIO) for value in (fmean(ratios), min(ratios), max(ratios)))
        words = f"{mean}{entry.marks} [{least}, {most}] ({len(ratios)})"  # all turns: no interval
        if cost.uses_svd:
            values[SVD.label] = result.svd_seconds / 60
            values[CACHE.label] = result.svd_cache_bytes / 1e9
    turns = len(cost.tokens_per_second) if cost is not None else 0
    for column in COLUMNS:
        if cost is not None and column.label not in values:
            continue  # not defined for this method
        once = column in (SVD, CACHE)
        yield Cell(
            row=evidence.experiment.label(method),
            column=column.label,
            value=values.get(column.label),
            n=min(turns, 1) if once else turns,
            n_expected=1 if once else turns or 1,
            paper=evidence.experiment.paper_value(column.paper.format(method=method)),
            marks=entry.marks,
            runs=entry.runs,
            words=words if column is RATIO else "",
        )
