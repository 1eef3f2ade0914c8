"""Results other than scores and trainings, in a run's part of the page and in lists of records."""

from __future__ import annotations

import pytest

from hiplora.report.drift import ends
from hiplora.report.result_tables import TABLES, result_table
from hiplora.report.runs.text import headline
from hiplora.stages.results import (
    RESULTS,
    Adapter,
    Cost,
    Costs,
    Drifted,
    DriftPoint,
    Frontier,
    Intervention,
    MatrixDrift,
    Point,
    Probed,
    Scores,
)  # fmt: skip


def drift_point(*overlaps: float, **place) -> DriftPoint:
    matrices = {
        f"m{number}": MatrixDrift(overlap=each, angle=10 * number, gap=0.01, share=None, intruders=number, size=0.5)
        for number, each in enumerate(overlaps)
    }
    return DriftPoint(**{"fraction": 1.0, "random": False, **place}, matrices=matrices)


DRIFTED = Drifted(
    k=8, seconds=1, points=[drift_point(0.7, fraction=0.5), drift_point(0.8, 1.0), drift_point(0.6, random=True)]
)


def cells(result) -> dict[str, list[str]]:
    return dict(result_table(result)[1])


def test_every_kind_of_result_has_a_place_on_the_page():
    ours = {kind for kind in RESULTS.values() if kind.__module__.startswith("hiplora.")}  # tests add kinds of their own
    assert ours == {*TABLES, Scores, Adapter}


def test_drift_by_hand():
    found = cells(DRIFTED)
    assert [*found] == ["after 50 %", "finished", "random update"]
    assert found["finished"] == ["0.9000", "5.0", "10.0", "1.00", "0.0", "0.50", "50.00"]
    assert headline(DRIFTED) == "of the 8 leading ones 90.00 % remain (random 60.00 %), 0.50 intruders per matrix"
    alone = DRIFTED.model_copy(update={"points": DRIFTED.points[:2]})
    assert [*ends(alone)] == ["finished"]
    assert "random" not in headline(alone)
    assert headline(alone.model_copy(update={"points": []})) == ""


def test_a_probe_leaves_out_what_was_not_measured():
    shared = {"matrix": "m", "direction": 0, "sigma": 1.0, "coefficient": -1.0}
    scores = [{"mmlu": {"nll": nll}, "code": {"nll": None}} for nll in (2.5, 2.2, None)]
    tried = [Intervention(perturbation="zero", benchmarks=each, **shared) for each in scores]
    found = cells(Probed(base={"mmlu": {"nll": 2.0}, "code": {"nll": 1.0}}, interventions=tried, seconds=1))
    assert found == {"zero": ["2", "0.35000", "0.35000", "0.50000"]}


@pytest.mark.parametrize(
    ("place", "row"),
    [((0.0, 1.0), "backbone"), ((0.5, 1.0), "c = 0.5"), ((1.0, 1.0), "as trained"),
     ((1.0, 0.5), "after 50 % of the steps")],
)  # fmt: skip
def test_a_frontier_names_its_points(place, row):
    scale, fraction = place
    point = Point(
        scale=scale, fraction=fraction, norm=2.0, top_share=None,
        learning={"gsm8k": {"nll": 1.5}}, benchmarks={"text": {"nll": 3.0}},
    )  # fmt: skip
    assert cells(Frontier(points=[point], seconds=1)) == {row: ["2.00", "1.500", "3.000"]}


def test_costs_are_medians_of_the_turns():
    cost = Cost(tokens_per_second=[90.0, 100.0, 300.0], peak_memory_bytes=1_500_000_000, uses_svd=False)
    assert cells(Costs(methods={"lora": cost}, svd_seconds=1, svd_cache_bytes=1)) == {"lora": ["100", "1.50"]}
