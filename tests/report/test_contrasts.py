"""Verdicts on arms whose values are known: how often chance decides, and what takes support away."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numpy as np
import pytest

from hiplora.report import contrasts
from hiplora.report.aggregate import Sample
from hiplora.report.contrasts import OWN, SECOND, VERDICT, Measure
from hiplora.report.slots import Number
from hiplora.report.tables import table16


@pytest.fixture(scope="module", autouse=True)
def frozen() -> Iterator[None]:
    """What is imported is left out of the garbage collections that statsmodels starts for Holm."""
    gc.freeze()
    yield
    gc.unfreeze()


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


@pytest.mark.parametrize(
    ("second", "own", "verdict"),
    [
        ([-0.1, -0.2, -0.1], [0.1, 0.0, 0.2], "supported"),
        ([0.1, 0.2, 0.1], [0.1, 0.0, 0.2], "undecidable: second text disagrees"),
        ([], [0.1, 0.0, 0.2], "undecidable: second text is missing"),
        ([-0.1, -0.2, -0.1], [-3.0, 1.0, -4.0], "supported, equal learning not shown"),
    ],
)
def test_a_check_that_disagrees_takes_support_away(second, own, verdict):
    arms = {"hip": {"text": [-0.5, -0.52, -0.51], "second": second, "own": own}}
    arms["lora"] = {name: [0.0] * len(values) for name, values in arms["hip"].items()}

    def of(name):
        return lambda arm: sample(arms[arm][name])

    measure = Measure(of=of("text"), margin=0.1, checks=[(SECOND, of("second"))], own=of("own"))
    cells = {cell.column: cell for cell in contrasts.cells({("hip", "lora"): "row"}, measure)}
    assert cells[VERDICT.label].words == verdict
    assert ("not shown" in cells[OWN.label].words) == ("not shown" in verdict)
