"""Figures of continual tuning against matrices whose forgetting and transfer are known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from hiplora.evaluation.continual import avg_acc, bwt, figures, forgetting, fwt, matrix

# Rows: backbone, then after stages 1, 2, 3. The first task is best after stage 2, not after its own.
A = [
    [50, 40, 10],
    [80, 45, 12],
    [85, 70, 16],
    [75, 66, 30],
]


def test_by_hand() -> None:
    assert avg_acc(A) == pytest.approx((75 + 66 + 30) / 3)
    assert forgetting(A) == pytest.approx(((85 - 75) + (70 - 66)) / 2), "over T − 1, best before the last stage"
    assert bwt(A) == pytest.approx(((75 - 80) + (66 - 70)) / 2)
    assert fwt(A) == pytest.approx(((45 - 40) + (16 - 10)) / 2), "against the bare backbone, nothing else subtracted"


@pytest.mark.parametrize("tasks", [2, 3, 4, 7])
def test_a_known_loss_per_stage(tasks: int) -> None:
    """Each task is at 90 after its own stage and loses 3 points in each one after it; before, it gains 2 per stage."""
    stages, own = np.ogrid[0 : tasks + 1, 1 : tasks + 1]
    a = np.where(stages >= own, 90.0 - 3 * (stages - own), 40.0 + 2 * stages)
    lost = sum(3 * (tasks - i) for i in range(1, tasks)) / (tasks - 1)
    assert forgetting(a) == pytest.approx(lost)
    assert bwt(a) == pytest.approx(-lost), "what only falls is lost from where its own stage left it"
    assert fwt(a) == pytest.approx(sum(2 * (i - 1) for i in range(2, tasks + 1)) / (tasks - 1))
    assert avg_acc(a) == pytest.approx(sum(90 - 3 * (tasks - i) for i in range(1, tasks + 1)) / tasks)


def test_nothing_is_forgotten_where_nothing_moves_and_less_than_nothing_where_it_rises() -> None:
    assert (forgetting([[1, 1], [5, 1], [5, 5]]), bwt([[1, 1], [5, 1], [5, 5]])) == (0, 0)
    assert forgetting([[1, 1], [5, 1], [8, 5]]) == -3


def test_the_backbone_row_and_the_last_task_are_no_part_of_forgetting() -> None:
    assert forgetting([[99, 99], [80, 98], [75, 1]]) == 5


def test_a_single_task_has_no_transfer() -> None:
    assert avg_acc([[10], [30]]) == 30
    assert all(math.isnan(function([[10], [30]])) for function in (forgetting, bwt, fwt))


def test_a_matrix_without_its_backbone_row_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the backbone as row 0, got \(3, 3\)"):
        forgetting(A[1:])


def scored(acc: list[float | None], nll: list[float], text: float) -> dict[str, Any]:
    names = {"mmlu": "acc", "code": "pass@1"}
    both = zip(names.items(), acc, nll, strict=True)
    return {**{task: {metric: a, "nll": n} for (task, metric), a, n in both}, "text": {"nll": text}}


STAGES = [scored([0.5, 0.1], [2.0, 1.5], 3.0), scored([0.7, 0.2], [1.0, 1.4], 3.1), scored([0.6, 0.4], [1.2, 0.7], 3.3)]


def test_figures_of_scores_and_of_log_likelihoods_have_one_sign() -> None:
    found = figures(STAGES, ["mmlu", "code"])
    assert found == pytest.approx(
        {
            "avg_acc": 50, "forgetting": 10, "bwt": -10, "fwt": 10,
            "avg_nll": 0.95, "forgetting_nll": 0.2, "bwt_nll": -0.2, "fwt_nll": 0.1, "text_rise": 0.3,
        }
    )  # fmt: skip
    assert matrix(STAGES, ["code"]).tolist() == [[0.1], [0.2], [0.4]]


def test_what_was_not_measured_makes_no_number() -> None:
    without = [*STAGES[:2], scored([0.6, None], [1.2, 0.7], 3.3)]
    found = figures(without, ["mmlu", "code"])
    assert math.isnan(found["avg_acc"])
    assert found["forgetting"] == pytest.approx(10), "the last task's last score is no part of it"
    assert found["avg_nll"] == pytest.approx(0.95)
    blind = [scored([None, None], [2.0, 1.5], 3.0), *STAGES[1:]]
    assert math.isnan(figures(blind, ["mmlu", "code"])["fwt"])
