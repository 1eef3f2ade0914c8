"""Tables 3 and 6 from a probe whose answer is known, against scipy where it has the statistic."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as reference

from hiplora import stats
from hiplora.report.aggregate import BOOTSTRAP_SEED
from hiplora.report.correlation import correlation, cost, costs
from hiplora.report.tables import table3, table6
from hiplora.stages.results import Intervention
from tests.report.evidence import fixture_evidence

ACCURACY, NLL = (column.label for column in table3.COLUMNS)


def test_a_cost_that_is_linear_in_log_sigma_has_correlation_one():
    cell = table3.build(fixture_evidence("table3")).cell("zero", ACCURACY)
    assert (cell.value, cell.ci_low, cell.ci_high) == (pytest.approx(1), pytest.approx(1), pytest.approx(1))
    assert (cell.n, cell.paper) == (8, 0.86)


def test_what_moves_nothing_correlates_with_nothing():
    cell = table3.build(fixture_evidence("table3")).cell("flip", NLL)
    assert (cell.value, cell.n) == (None, 6)


def test_table_6_has_the_coefficients_and_p_of_scipy():
    table, measured = table6.build(fixture_evidence("table6")), costs(fixture_evidence("table6"), "noise", "nll")
    values = [table.cell("noise", column.label).value for column in table6.COLUMNS[4:]]
    pearson = reference.pearsonr(np.log1p(measured.sigma), measured.cost.values)
    spearman = reference.spearmanr(measured.sigma, measured.cost.values)
    assert values == pytest.approx([pearson.statistic, pearson.pvalue, spearman.statistic, spearman.pvalue])


def test_the_interval_holds_a_known_correlation_about_as_often_as_it_says():
    rng, held = np.random.default_rng(0), 0
    for _ in range(60):
        x = rng.normal(size=60)
        found = correlation(x, 0.6 * x + 0.8 * rng.normal(size=60))
        held += found.low <= 0.6 <= found.high
    assert 52 <= held <= 60


def test_every_resample_is_ranked_anew(monkeypatch):
    """Resamples repeat pairs, so their ranks are not those of the whole sample."""
    monkeypatch.setattr(stats, "REPLICATES", 300)
    rng = np.random.default_rng(0)
    x = rng.lognormal(sigma=2, size=20)
    y = x + 20 * rng.normal(size=20)
    drawn = np.random.default_rng(BOOTSTRAP_SEED).integers(20, size=(300, 20))
    expected = stats.percentile_interval([reference.spearmanr(x[each], y[each]).statistic for each in drawn])
    found = correlation(x, y, ranks=True)
    assert (found.low, found.high) == pytest.approx(expected)


def test_a_resample_without_variation_is_left_out():
    """The two pairs that differ are missing from an eighth of the resamples; the others correlate clearly."""
    cost = np.full(30, -1 / 3)
    cost[-2:] = 1.0
    found = correlation(np.arange(30.0), cost)
    assert found.low > 0.1


def test_costs_are_means_over_benchmarks_with_the_sign_of_a_loss():
    base = {"mmlu": {"acc": 0.5, "nll": 2.0}, "scienceqa": {"acc": 0.7, "nll": 1.0}}
    after = {"mmlu": {"acc": 0.4, "nll": 2.5}, "scienceqa": {"acc": 0.7, "nll": 0.9}}
    intervention = Intervention(
        perturbation="zero", matrix="q", direction=0, sigma=1.0, coefficient=-1.0, benchmarks=after
    )
    assert cost(base, intervention, "acc") == pytest.approx(5)
    assert cost(base, intervention, "nll") == pytest.approx(0.2)
