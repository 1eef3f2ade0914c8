"""Verdicts on arms whose values are known: how often chance decides, and what takes support away."""

from __future__ import annotations

import numpy as np
import pytest

from hiplora import stats
from hiplora.report import contrasts
from hiplora.report.aggregate import Sample
from hiplora.report.contrasts import MARGIN, OWN, SECOND, VERDICT, Measure
from hiplora.report.slots import Number
from hiplora.report.tables import table16


def sample(values) -> Sample:
    return Sample({str(n): Number(float(v), (f"r{n}",)) for n, v in enumerate(values)}, len(values))


@pytest.mark.parametrize(("spread", "common"), [(0.03, "not supported"), (0.4, "undecidable")])
def test_verdicts_of_arms_that_are_alike_come_at_the_right_rates(spread, common):
    rng, names = np.random.default_rng(0), {pair: " − ".join(pair) for pair in table16.PAIRS}
    counts = {"supported": 0, "not supported": 0, "undecidable": 0}
    wrong, repetitions = 0, 150
    for _ in range(repetitions):
        arms = {arm: sample(rng.normal(1, spread, size=6)) for pair in table16.PAIRS for arm in pair}
        cells = contrasts.cells(names, Measure(of=arms.__getitem__, margin=0.1))
        found = [cell.words for cell in cells if cell.column == VERDICT.label]
        wrong += "supported" in found
        for verdict in found:
            counts[verdict] += 1
    assert wrong / repetitions <= 0.05, "Holm keeps the whole family at 5 %"
    assert counts[common] / (5 * repetitions) > 0.9


def test_a_missing_contrast_makes_the_others_no_easier():
    """It counts as tested with p = 1, so that an arm's failure to reach the level lends no significance to another."""
    values = [-0.5, -0.52, -0.3]
    found = contrasts.family({("a", "b"): sample(values), ("c", "d"): sample([]), ("e", "f"): sample([-9])})
    there, alone = found["a", "b"], stats.paired_t(values)
    assert there is not None
    assert found["c", "d"] is found["e", "f"] is None
    assert there.corrected == pytest.approx(3 * alone.p)
    assert there.detectable == pytest.approx(stats.smallest_detectable(alone.std, 3, alpha=0.05 / 3, power=0.8))


def test_without_a_margin_nothing_is_decided():
    arms = {"hip": sample([-0.5, -0.52, -0.51]), "proj": sample([0.0, 0.0, 0.0])}
    found = contrasts.cells({("hip", "proj"): "row"}, Measure(of=arms.__getitem__, margin=None))
    cells = {cell.column: cell for cell in found}
    assert cells[VERDICT.label].words == "undecidable: no margin"
    assert cells[MARGIN.label].value is None


@pytest.mark.parametrize(
    ("text", "second", "own", "verdict"),
    [
        ("better", [-0.1, -0.2, -0.1], [0.1, 0.0, 0.2], "supported"),
        ("better", [0.1, 0.2, 0.1], [0.1, 0.0, 0.2], "undecidable: second text disagrees"),
        ("better", [], [0.1, 0.0, 0.2], "undecidable: second text is missing"),
        ("better", [-0.1, -0.2, -0.1], [-3.0, 1.0, -4.0], "supported, equal learning not shown"),
        ("worse", [0.1, 0.2, 0.1], [-3.0, 1.0, -4.0], "not supported"),
        ("worse", [-0.1, -0.2, -0.1], [0.1, 0.0, 0.2], "undecidable: second text disagrees"),
        ("worse", [], [0.1, 0.0, 0.2], "undecidable: second text is missing"),
        ("alike", [-0.1, -0.2, -0.1], [0.1, 0.0, 0.2], "not supported"),
    ],
)
def test_a_check_that_disagrees_takes_a_verdict_by_significance_away(text, second, own, verdict):
    texts = {"better": [-0.5, -0.52, -0.51], "worse": [0.5, 0.52, 0.51], "alike": [0.02, 0.01, 0.02]}
    arms = {"hip": {"text": texts[text], "second": second, "own": own}}
    arms["lora"] = {name: [0.0] * len(values) for name, values in arms["hip"].items()}

    def of(name):
        return lambda arm: sample(arms[arm][name])

    measure = Measure(of=of("text"), margin=0.1, checks=[(SECOND, of("second"))], own=of("own"))
    cells = {cell.column: cell for cell in contrasts.cells({("hip", "lora"): "row"}, measure)}
    assert cells[VERDICT.label].words == verdict
    assert ("not shown" in cells[OWN.label].words) == (min(own) < 0)
