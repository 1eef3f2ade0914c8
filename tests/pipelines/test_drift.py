"""Drift: angles that are known by construction, the random yardstick, and a stopped run that goes on."""

from __future__ import annotations

import math

import pytest
import torch

from hiplora.errors import UserError
from hiplora.spectral import truncated_svd
from hiplora.stages.drift import Drift, alike, compared
from hiplora.stages.results import MatrixDrift
from hiplora.updates import Dense, LowRank
from tests.pipelines.conftest import Run

SIGMA = torch.tensor([8.0, 7.0, 4.0, 3.0, 2.0, 1.0, 0.5, 0.25])


def moved(angle: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight, and the change that turns its left singular vectors in the plane of the second and third."""
    weight, turn = torch.diag(SIGMA), torch.eye(8)
    turn[1, 1] = turn[2, 2] = math.cos(angle)
    turn[1, 2], turn[2, 1] = -math.sin(angle), math.sin(angle)
    return weight, turn @ weight - weight


def drift_of(angle: float) -> MatrixDrift:
    weight, change = moved(angle)
    old, new = truncated_svd(weight, k=8), truncated_svd(weight + change, k=2)
    return compared(old, new, update=Dense(change), size=0.0)


@pytest.mark.parametrize("degrees", [0.0, 10.0, 40.0, 80.0])
def test_a_subspace_that_is_turned_by_an_angle_drifts_by_it(degrees: float):
    found = drift_of(math.radians(degrees))
    assert found.angle == pytest.approx(degrees, abs=2e-3)
    # Of two left directions one keeps all, the other cos² of its energy inside; the right ones do not move.
    assert found.overlap == pytest.approx(1 - math.sin(math.radians(degrees)) ** 2 / 4, abs=1e-5)
    assert found.gap == pytest.approx((7 - 4) / 8)


def test_a_direction_that_no_old_one_is_close_to_is_an_intruder():
    weight = torch.diag(SIGMA)
    spread = torch.full((8, 1), 8**-0.5)  # 0.35 from every old direction
    change = LowRank(50 * spread, torch.eye(8)[:1])
    old, new = truncated_svd(weight, k=8), truncated_svd(weight + change.dense(), k=2)
    assert compared(old, new, update=change, size=0.0).intruders == 1
    assert drift_of(math.radians(40)).intruders == 0


def test_the_random_update_has_the_rank_and_the_norm_and_is_the_same_again():
    update = LowRank(torch.randn(12, 3), torch.randn(3, 9))
    drawn = alike(update, "q")
    assert drawn.norm() == pytest.approx(update.norm(), rel=1e-5)
    assert int(torch.linalg.matrix_rank(drawn.dense())) == 3
    assert torch.equal(drawn.dense(), alike(update, "q").dense())
    assert not torch.equal(drawn.dense(), alike(update, "k").dense())
    nothing = LowRank(torch.zeros(12, 0), torch.zeros(0, 9))  # what AdaLoRA may leave of a matrix
    assert alike(nothing, "q").norm() == 0


def test_too_few_old_directions_are_refused(configured):
    with pytest.raises(UserError, match=r"pipeline.k=4 must be below svd.k_max=4"):
        configured("pipeline=drift", "method=lora", "pipeline.k=4", "svd.k_max=4").stages()


def test_a_stopped_drift_goes_on(configured, monkeypatch: pytest.MonkeyPatch):
    config = configured("pipeline=drift", "method=lora", "pipeline.k=4", "training.snapshots=[0.5]")
    matrix, calls = Drift._matrix, []

    def stopping(self, *args):
        if len(calls) == 10:  # eight matrices of the first point, two of the second
            raise KeyboardInterrupt
        calls.append(1)
        return matrix(self, *args)

    monkeypatch.setattr(Drift, "_matrix", stopping)
    with pytest.raises(KeyboardInterrupt):
        Run(config)
    again: list[int] = []
    monkeypatch.setattr(Drift, "_matrix", lambda self, *args: again.append(1) or matrix(self, *args))
    result = Run(config).record.result
    assert len(again) == 2 * 8
    assert [(point.fraction, point.random) for point in result.points] == [(0.5, False), (1.0, False), (1.0, True)]
    half, whole, random = (point.matrices for point in result.points)
    assert all(half[name].size < whole[name].size for name in whole)
    assert all(random[name].size == pytest.approx(whole[name].size, rel=1e-3) for name in whole)


def test_the_terminal_shows_the_measures_as_rows(configured):
    text = Run(configured("pipeline=drift", "method=lora", "pipeline.k=4")).text
    head, first = text.splitlines()[:2]
    assert head.split("  ")[-1].strip() == "random update"
    assert first.startswith("overlap with the old subspaces")
    assert max(map(len, text.splitlines()[:8])) < 120
    assert "Adapter: " in text
