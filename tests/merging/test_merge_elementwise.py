"""Counting threshold, trimming and disjoint mean against sorting and hand-computed entries."""

from __future__ import annotations

import math

import pytest
import torch

from hiplora.merging import merge
from hiplora.merging.elementwise import disjoint_mean, magnitude_threshold, row_blocks
from hiplora.updates import Dense, LowRank


@pytest.mark.parametrize("density", [3e-4, 0.05, 0.2, 0.5, 0.999, 1.0])
def test_threshold_over_a_stream_is_the_kth_largest_magnitude_of_all_of_it(density):
    g = torch.Generator().manual_seed(0)
    stream = [torch.randn(40, 30, generator=g) * 10.0**e for e in (-6, -1, 0)] + [torch.zeros(3, 5)]
    flat = torch.cat([x.flatten() for x in stream]).abs().sort(descending=True).values
    assert magnitude_threshold(lambda: stream, density) == float(flat[round(density * len(flat)) - 1])


def test_threshold_at_density_zero_keeps_nothing_and_equal_magnitudes_stay_together():
    x = torch.tensor([[2.0, -2.0, 1.0, 0.5]])
    assert magnitude_threshold(lambda: [x], 0.0) == math.inf
    # One of four entries is asked for; the two of magnitude 2 cannot be told apart, so both stay.
    merged = merge([{"w": Dense(x)}], "ties", density=0.25).updates["w"].dense()
    assert merged.tolist() == [[2.0, -2.0, 0.0, 0.0]]


def test_disjoint_mean_by_hand():
    parts = [torch.tensor([[1.0, 3.0, 0.0, 2.0, -4.0]]), torch.tensor([[3.0, -1.0, 0.0, -2.0, 0.0]])]
    # Agree: mean of 1 and 3. Disagree, sum 2 > 0: only the 3. Nobody: 0. A tie: no sign, 0. One alone: itself.
    assert disjoint_mean(torch.stack(parts)).tolist() == [[2.0, 3.0, 0.0, 0.0, -4.0]]


def test_row_blocks_cover_the_matrix_and_stay_small():
    g = torch.Generator().manual_seed(0)
    update = LowRank(torch.randn(700, 2, generator=g), torch.randn(2, 1000, generator=g))
    blocks = list(row_blocks(update))
    assert len(blocks) == 3
    torch.testing.assert_close(torch.cat([block for _, block in blocks]), update.dense())
    assert [rows.stop for rows, _ in blocks][-1] == 700
