"""Contrasts of arms, paired by training seed: Student-t tests, Holm's correction over a family, verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from hiplora import stats
from hiplora.report.aggregate import Sample
from hiplora.report.table import Cell, Column, number_text

Of = Callable[[str], Sample]  # values of an arm by seed
Pair = tuple[str, str]
POWER = 0.8
ACCURACY = -3.0  # pp; if the lower bound of the difference is below this, equal learning is not shown

DIFFERENCE = Column(label="Difference", decimals=3, spread="ci", level="t")
P = Column(label="p (Holm)", decimals=4, spread="none")
NARROW = Column(label="90 % interval", decimals=3, spread="ci", level="t")
MARGIN = Column(label="Margin", decimals=3, spread="none")
DETECTABLE = Column(label="Detectable", decimals=3, spread="none")
VERDICT = Column(label="Verdict", spread="none")
SIGNS = Column(label="Signs by task", spread="none")
SECOND = Column(label="Second text agrees", decimals=3, spread="ci", level="t")
TRAINING = Column(label="Along the training agrees", decimals=3, spread="ci", level="t")
EVERYONE = Column(label="With those never at the level", decimals=3, spread="ci", level="t")
OWN = Column(label="Own score (pp)", decimals=1, spread="ci", level="t")
COLUMNS = (DIFFERENCE, P, NARROW, MARGIN, DETECTABLE, VERDICT, SIGNS, SECOND, TRAINING, EVERYONE, OWN)


@dataclass(frozen=True, kw_only=True)
class Measure:
    """How arms are compared: the measure ``of`` an arm, the ``margin`` in its unit, and which direction is ``better``.

    ``unjudged`` is printed instead of a verdict where the margin is None.
    ``checks`` are further measures whose sign must agree; ``everyone`` is the measure including the adapters that never
    reach the level; ``own`` is the score that must not fall; ``tasks`` is the measure for each task alone.
    """

    of: Of
    margin: float | None
    unjudged: str = "undecidable: no margin"
    better: Literal["up", "down"] = "down"
    checks: Sequence[tuple[Column, Of]] = ()
    everyone: Of | None = None
    own: Of | None = None
    tasks: Sequence[Of] = ()


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """The first arm minus the second; ``corrected`` is the p value corrected by Holm.

    ``detectable`` is the smallest difference with a power of 80 % at Holm's strictest step, in the measure's unit.
    """

    paired: stats.Paired
    corrected: float
    detectable: float


def family(samples: Mapping[Pair, Sample]) -> dict[Pair, Contrast | None]:
    """Contrasts corrected together; None, but counted as tested, for a pair with fewer than two common seeds."""
    tests = {pair: stats.paired_t(sample.values) if len(sample.of) > 1 else None for pair, sample in samples.items()}
    corrected = stats.holm([1.0 if test is None else test.p for test in tests.values()])
    found: dict[Pair, Contrast | None] = {}
    for (pair, test), p in zip(tests.items(), corrected, strict=True):
        found[pair] = None
        if test is not None:
            alpha = stats.SIGNIFICANT / len(tests)
            detectable = stats.smallest_detectable(test.std, test.n, alpha=alpha, power=POWER)
            found[pair] = Contrast(paired=test, corrected=p, detectable=detectable)
    return found


def cells(names: Mapping[Pair, str], measure: Measure) -> Iterator[Cell]:
    """The cells of one row for each pair of arms; ``names`` gives the rows' names."""
    samples = {pair: difference(pair, measure.of) for pair in names}
    contrasts = family(samples)
    for pair, row in names.items():
        sample, contrast = samples[pair], contrasts[pair]
        yield sample.mean_cell(row, DIFFERENCE)
        if measure.everyone is not None:  # also where too few seeds are at the level for a test
            yield difference(pair, measure.everyone).mean_cell(row, EVERYONE)
        if contrast is None:
            missing = [P, NARROW, MARGIN, DETECTABLE, VERDICT, SIGNS, *(column for column, _ in measure.checks)]
            yield from (sample.cell(row, column, None) for column in [*missing, *([OWN] if measure.own else [])])
            continue
        checked = [(column, difference(pair, of)) for column, of in measure.checks]
        agreed = {column.label: _same_sign(sample, other) for column, other in checked}
        own = difference(pair, measure.own) if measure.own is not None else None
        yield sample.cell(row, P, contrast.corrected)
        yield sample.cell(row, MARGIN, measure.margin)
        yield sample.cell(row, DETECTABLE, contrast.detectable)
        low, high = (number_text(end, NARROW) for end in contrast.paired.narrow)
        yield sample.cell(row, NARROW, contrast.paired.mean, words=f"[{low}, {high}]")
        yield sample.cell(row, VERDICT, contrast.paired.mean, words=judged(contrast, measure, agreed, own))
        yield sample.cell(row, SIGNS, contrast.paired.mean, words=signs([difference(pair, of) for of in measure.tasks]))
        yield from (_check(row, column, other, agreed[column.label]) for column, other in checked)
        if own is not None:
            yield _own(row, own)


def difference(pair: Pair, of: Of) -> Sample:
    """The first arm minus the second, for the seeds that both have."""
    return of(pair[0]).minus(of(pair[1]))


def judged(contrast: Contrast, measure: Measure, agreed: Mapping[str, bool | None], own: Sample | None = None) -> str:
    """The verdict in words, with a remark if the first arm does not learn as much.

    A verdict by significance is undecidable if a check has the opposite sign or is missing; checks do not touch
    equivalence (the 90 % interval inside the margin), which has no sign.
    """
    if measure.margin is None:
        return measure.unjudged
    verdict = stats.verdict(contrast.paired, corrected=contrast.corrected, margin=measure.margin, better=measure.better)
    if verdict == "undecidable" or stats.inside_margin(contrast.paired, measure.margin):
        return verdict
    if against := [_against(label, same) for label, same in agreed.items() if not same]:
        return f"undecidable: {' and '.join(against)}"
    learned = verdict != "supported" or own is None or learns_as_much(own)
    return verdict if learned else f"{verdict}, equal learning not shown"


def _against(label: str, same: bool | None) -> str:
    return label.removesuffix("agrees").lower() + ("is missing" if same is None else "disagrees")


def learns_as_much(own: Sample) -> bool:
    """Whether the one-sided 95 % lower bound of the difference in the own score is at least −3 pp."""
    return len(own.of) > 1 and stats.t_interval(own.values, level=0.9)[0] >= ACCURACY


def signs(samples: Sequence[Sample]) -> str:
    """The signs of the samples' means, joined by spaces; · for zero or an empty sample."""
    means = [sample.mean if sample.of else 0.0 for sample in samples]
    return " ".join("+" if mean > 0 else "−" if mean < 0 else "·" for mean in means)


def _same_sign(one: Sample, other: Sample) -> bool | None:
    return one.mean * other.mean > 0 if one.of and other.of else None


def _check(row: str, column: Column, sample: Sample, same: bool | None) -> Cell:
    if same is None:
        return sample.cell(row, column, None)
    return sample.cell(
        row, column, sample.mean, words=f"{'yes' if same else 'no'} ({number_text(sample.mean, column)})"
    )


def _own(row: str, sample: Sample) -> Cell:
    if len(sample.of) < 2:
        return sample.cell(row, OWN, None)
    low = stats.t_interval(sample.values, level=0.9)[0]
    words = f"{number_text(sample.mean, OWN)} (≥ {number_text(low, OWN)})"
    words += "" if learns_as_much(sample) else ", equal learning not shown"
    return sample.cell(row, OWN, sample.mean, ci_low=low, words=words)
