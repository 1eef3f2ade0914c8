"""Counting threshold, trimming and disjoint mean against sorting and hand-computed entries."""

from __future__ import annotations

import math

import pytest
import torch

from hiplora.merging import blocks, merge, thresholds
from hiplora.merging.blocks import every_block, fuse_blocks, on_all_cores
from hiplora.merging.elementwise import disjoint_mean, trimmed
from hiplora.merging.thresholds import magnitude_threshold, sampled
from hiplora.updates import Deferred, Dense, LowRank, Principal


def walk(stream: list[torch.Tensor]):
    """A walk over blocks that are there; a function may overwrite what it gets."""
    return lambda action: (action(x.clone()) for x in stream)


@pytest.mark.parametrize("density", [3e-4, 0.05, 0.2, 0.5, 0.999, 1.0])
def test_threshold_over_a_stream_is_the_kth_largest_magnitude_of_all_of_it(density):
    g = torch.Generator().manual_seed(0)
    stream = [torch.randn(40, 30, generator=g) * 10.0**e for e in (-6, -1, 0)] + [torch.zeros(3, 5)]
    flat = torch.cat([x.flatten() for x in stream]).abs().sort(descending=True).values
    assert magnitude_threshold(walk(stream), density) == float(flat[round(density * len(flat)) - 1])


def test_threshold_at_density_zero_keeps_nothing_and_equal_magnitudes_stay_together():
    x = torch.tensor([[2.0, -2.0, 1.0, 0.5]])
    assert magnitude_threshold(walk([x]), 0.0) == math.inf
    # One of four entries is asked for; the two of magnitude 2 cannot be told apart, so both stay.
    merged = merge([{"w": Dense(x)}], "ties", density=0.25).updates["w"].dense()
    assert merged.tolist() == [[2.0, -2.0, 0.0, 0.0]]


def entries(kind: str) -> list[torch.Tensor]:
    """Streams on which a guess may be right, wrong or of no use."""
    g = torch.Generator().manual_seed(0)
    plain = torch.randn(200, 50, generator=g)
    return {
        "plain": [plain, plain[:30] * 3],
        "scales": [plain * 10.0**e for e in (-30, -6, 0, 30)],
        "few values": [plain.round(), (2 * plain).round() / 2],
        "constant": [torch.full((100, 20), -0.7)],
        "mostly zero": [plain * (plain > 2), torch.zeros(100, 100)],
        "zeros": [torch.zeros(40, 50)],
        "denormal": [plain * 1e-42],
        "extremes": [torch.tensor([[0.0, -0.0, 1e-45, 3.4e38, -3.4e38, 1.0]])],
    }[kind]


KINDS = ["plain", "scales", "few values", "constant", "mostly zero", "zeros", "denormal", "extremes"]


@pytest.mark.parametrize("density", [1e-4, 0.01, 0.2, 0.5, 0.97, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_a_threshold_guessed_from_a_sample_is_exact_whatever_the_sample(kind, density, monkeypatch):
    stream = entries(kind)
    flat = torch.cat([x.flatten() for x in stream]).abs()
    wanted = round(density * len(flat))
    expected = float(flat.sort(descending=True).values[wanted - 1]) if wanted else math.inf
    g = torch.Generator().manual_seed(1)
    fair = flat[torch.randint(len(flat), (500,), generator=g)]
    samples = [None, flat, fair, -fair, fair * 1.5, fair / 1e4, torch.zeros(10), torch.ones(1)]
    assert {magnitude_threshold(walk(stream), density, sample=sample) for sample in samples} == {expected}
    monkeypatch.setattr(thresholds, "HELD", 5)  # too much is inside any bracket
    assert magnitude_threshold(walk(stream), density, sample=fair) == expected


def test_a_fair_sample_saves_the_second_walk_and_a_misleading_one_costs_a_third():
    stream, walks = entries("plain"), []
    flat = torch.cat([x.flatten() for x in stream])

    def walked(action):
        walks.append(1)
        return walk(stream)(action)

    for sample, count in ((flat[::20], 1), (None, 2), (flat * 100, 3)):
        walks.clear()
        magnitude_threshold(walked, 0.2, sample=sample)
        assert len(walks) == count


@pytest.mark.parametrize("form", ["factors", "dense", "principal"])
def test_sampled_entries_are_entries_and_the_same_ones_each_time(form, monkeypatch):
    g = torch.Generator().manual_seed(0)
    factors = [LowRank(torch.randn(m, 2, generator=g), torch.randn(2, 90, generator=g)) for m in (300, 20)]
    thin = [(torch.linalg.qr(f.B)[0], torch.linalg.qr(f.A.mT)[0]) for f in factors]
    updates = {
        "factors": factors,
        "dense": [Dense(f.dense()) for f in factors],
        "principal": [Principal(U, torch.tensor([3.0, -1.0]), V) for U, V in thin],
    }[form]
    assert sampled(updates) is None  # too few to be worth it
    monkeypatch.setattr(thresholds, "SAMPLED", 1000)
    sample = sampled(updates)
    assert 1000 <= len(sample) <= 1002
    assert torch.equal(sample, sampled(updates))
    every = torch.cat([u.dense().flatten() for u in updates])
    assert float((sample[:, None] - every).abs().min(dim=1).values.max()) < 1e-5
    merged = merge([{str(i): u for i, u in enumerate(updates)}], "ties", density=0.3)
    assert merged.report["thresholds"] == [float(every.abs().sort(descending=True).values[round(0.3 * len(every)) - 1])]
    assert sampled([*updates, Deferred(lambda: updates[0].dense(), updates[0].shape)]) is None


@pytest.mark.parametrize("kind", KINDS)
def test_trimming_keeps_what_reaches_the_cut_to_the_last_bit(kind):
    for x in entries(kind):
        for cut in (0.0, 1e-45, 0.7, float(x.abs().flatten()[7 % x.numel()]), 3.4e38, math.inf):
            expected = torch.where(x.abs() >= cut, x, 0.0)
            assert torch.equal(trimmed(x, cut), expected)
            assert torch.equal(trimmed(x.flatten()[:7], cut), expected.flatten()[:7])


def test_disjoint_mean_is_that_of_a_loop():
    g = torch.Generator().manual_seed(0)
    for tasks in (1, 2, 5, 12):
        x = torch.randn(tasks, 30, 40, generator=g).round(decimals=1)
        agree = x * x.sum(dim=0) > 0
        expected = torch.where(agree, x, 0.0).sum(dim=0) / agree.sum(dim=0).clamp(min=1)
        assert torch.equal(disjoint_mean(x), expected)


def test_disjoint_mean_by_hand():
    parts = [torch.tensor([[1.0, 3.0, 0.0, 2.0, -4.0]]), torch.tensor([[3.0, -1.0, 0.0, -2.0, 0.0]])]
    # Agree: mean of 1 and 3. Disagree, sum 2 > 0: only the 3. Nobody: 0. A tie: no sign, 0. One alone: itself.
    assert disjoint_mean(torch.stack(parts)).tolist() == [[2.0, 3.0, 0.0, 0.0, -4.0]]


def factors(kind: str, generator: torch.Generator) -> list[LowRank]:
    """Matrices of one adapter whose entries are easy or hard to guess a threshold of."""
    shapes = [(50, 40), (10, 40), (30, 70)]
    drawn = [(torch.randn(m, 3, generator=generator), torch.randn(3, n, generator=generator)) for m, n in shapes]
    made = {
        "gaussian": drawn,
        "duplicates": [(B.round(), A.sign()) for B, A in drawn],
        "mostly zero": [(B * (torch.arange(len(B)) % 10 == 0)[:, None], A) for B, A in drawn],
        "one entry rules": [(B.where(torch.arange(len(B))[:, None] > 0, B * 1e6), A) for B, A in drawn],
        "scales": [(B * 10.0**e, A) for e, (B, A) in zip((-9, 0, 5), drawn, strict=True)],
    }[kind]
    return [LowRank(B, A) for B, A in made]


@pytest.mark.parametrize("sampling", ["fair", "misleading", "none"])
@pytest.mark.parametrize("density", [1e-4, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("kind", ["gaussian", "duplicates", "mostly zero", "one entry rules", "scales"])
def test_ties_over_all_matrices_is_that_of_a_full_sort(kind, density, sampling, monkeypatch):
    monkeypatch.setattr(thresholds, "SAMPLED", {"fair": 300, "misleading": 300, "none": 1 << 19}[sampling])
    if sampling == "misleading":
        monkeypatch.setattr(thresholds, "sampled", lambda updates: 1e3 * sampled(updates))
    monkeypatch.setattr(blocks, "BLOCK_ENTRIES", 400)
    g = torch.Generator().manual_seed(0)
    tasks = [dict(zip("abc", factors(kind, g), strict=True)) for _ in range(3)]
    found = merge(tasks, "ties", density=density)
    dense = [{name: torch.cat([*every_block([u], torch.clone)]) for name, u in task.items()} for task in tasks]
    cuts = []
    for task in dense:
        every = torch.cat([x.flatten() for x in task.values()]).abs().sort(descending=True).values
        wanted = round(density * len(every))
        cuts.append(float(every[wanted - 1]) if wanted else math.inf)
    assert found.report["thresholds"] == [None if math.isinf(cut) else cut for cut in cuts]
    for name in "abc":
        left = [torch.where(task[name].abs() >= cut, task[name], 0.0) for task, cut in zip(dense, cuts, strict=True)]
        assert torch.equal(found.updates[name].dense(), disjoint_mean(torch.stack(left)))


def test_threads_change_neither_a_merge_nor_torch(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_ENTRIES", 400)
    monkeypatch.setattr(thresholds, "SAMPLED", 300)
    g = torch.Generator().manual_seed(0)
    tasks = [dict(zip("abc", factors("gaussian", g), strict=True)) for _ in range(3)]
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            with torch.inference_mode(threads == 3):
                found.append({name: update.dense() for name, update in merge(tasks, "ties").updates.items()})
            assert torch.get_num_threads() == threads
        with pytest.raises(ZeroDivisionError):
            on_all_cores(lambda part: 1 // 0, range(9), device=torch.device("cpu"))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0][name], found[1][name]) for name in "abc")


def test_rules_that_draw_meet_the_blocks_in_order(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_ENTRIES", 400)
    update, seen = Dense(torch.arange(6000.0).view(100, 60)), []
    fuse_blocks([update, update], lambda x: seen.append(float(x[0, 0, 0])) or x[0], in_order=True)
    assert seen == sorted(seen)
    assert len(seen) > 10


def test_blocks_cover_the_matrix_and_stay_small():
    g = torch.Generator().manual_seed(0)
    update = LowRank(torch.randn(700, 2, generator=g), torch.randn(2, 1000, generator=g))
    found = [*every_block([update], torch.clone)]
    assert len(found) == math.ceil(700 / (blocks.BLOCK_ENTRIES // 1000))
    torch.testing.assert_close(torch.cat(found), update.dense())
