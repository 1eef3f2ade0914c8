"""Correlations between the cost of a spectral intervention and its singular value, with intervals and p values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hiplora import stats
from hiplora.report.aggregate import BOOTSTRAP_SEED, Sample
from hiplora.report.evidence import Evidence
from hiplora.report.slots import Number
from hiplora.stages.results import Intervention, Metrics, Probed

COSTS = {"acc": "drop in accuracy", "nll": "rise in NLL"}


@dataclass(frozen=True)
class Correlation:
    """A coefficient with its two-sided p and 95 % percentile interval over resampled interventions."""

    r: float
    p: float
    low: float
    high: float


@dataclass(frozen=True)
class Costs:
    """Singular values (n,) of the perturbed directions, and what perturbing each one cost, by its number."""

    sigma: stats.Floats
    cost: Sample

    def pearson(self) -> Correlation | None:
        """Pearson's r of the cost and log(1 + σ)."""
        return correlation(np.log1p(self.sigma), self.cost.values)

    def spearman(self) -> Correlation | None:
        """Spearman's ρ of the cost and σ."""
        return correlation(self.sigma, self.cost.values, ranks=True)


def costs(evidence: Evidence, perturbation: str, metric: str) -> Costs:
    """The cost of every intervention of one kind, mean over benchmarks; of none without a probe on record."""
    probes = [entry.stage for slot in evidence.slots for entry in slot.entries]
    expected = max((getattr(stage, "count", {}).get(perturbation, 0) for stage in probes), default=0)
    for entry, record in evidence.recorded:
        if isinstance(result := record.result, Probed):
            done = [each for each in result.interventions if each.perturbation == perturbation]
            found = [Number.of(cost(result.base, each, metric), [entry]) for each in done]
            return Costs(np.array([each.sigma for each in done]), Sample(dict(enumerate(found)), expected))
    return Costs(np.array([]), Sample({}, expected))


def cost(base: Mapping[str, Metrics], intervention: Intervention, metric: str) -> float:
    """Mean over benchmarks of the drop in accuracy (points) or of the rise in NLL (nats per token)."""
    changes = [
        _number(scores[metric]) - _number(base[name][metric]) for name, scores in intervention.benchmarks.items()
    ]
    return float(np.mean(changes)) * (-100 if metric == "acc" else 1)


def _number(value: float | None) -> float:
    if value is None:
        raise ValueError("a probe measures every metric of its benchmarks")
    return value


def correlation(x: stats.Floats, y: stats.Floats, *, ranks: bool = False) -> Correlation | None:
    """Pearson's r of paired samples (n,), its p by Student's t, its interval by 10 000 resamples of the pairs.

    With ``ranks`` Spearman's ρ, which is Pearson's r of the ranks; every resample is ranked anew. None with fewer than
    three pairs or if one side does not vary. A resample without variation has no r and is left out.
    """
    from scipy.stats import pearsonr, rankdata

    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    found = pearsonr(*(rankdata(each) if ranks else each for each in (x, y)))
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    drawn = rng.integers(len(x), size=(stats.REPLICATES, len(x)))
    # The range tells what does not vary: equal numbers may differ from their mean in its last bits.
    varied = drawn[(np.ptp(x[drawn], axis=1) > 0) & (np.ptp(y[drawn], axis=1) > 0)]
    one, two = (rankdata(each[varied], axis=1) if ranks else each[varied] for each in (x, y))
    one, two = (each - each.mean(axis=1, keepdims=True) for each in (one, two))
    again = (one * two).sum(axis=1) / np.sqrt((one**2).sum(axis=1) * (two**2).sum(axis=1))
    low, high = stats.percentile_interval(again)
    return Correlation(float(found.statistic), float(found.pvalue), float(low), float(high))
