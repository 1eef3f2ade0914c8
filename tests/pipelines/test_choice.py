"""Who wins a selection, on numbers that are written down here."""

from __future__ import annotations

import pytest

from hiplora.errors import UserError
from hiplora.pipelines.choice import check_reference, finalists, objective, passes, ranked, winner
from hiplora.selection import Matched, Trial

PARTS = ("text", "retain_nll")


def matched(text: float = 0.1, retain: float = 0.2, **changes) -> Matched:
    values = {"task": "a", "seed": 7, "reached": True, "c": 0.7, "lowest": 1.0, "text": text, "retain_nll": retain}
    fixed = {"rises": {}, "norm": 1.0, "top_share": None, "channel_share": None, "train": "t", "frontier": "f"}
    return Matched(**{**values, **fixed, **changes})


def trial(name: str, score: float | None, *, final: float | None = None, runs: int = 0, **changes) -> Trial:
    first = matched(reached=score is not None, **changes)
    others = (first,) * runs
    return Trial(
        method="m", stage=1, words=(name,), settings={}, first=first, objective=score, runs=others, final=final
    )


def words(trials: list[Trial]) -> list[str]:
    return [each.words[0] for each in trials]


def test_j_is_the_mean_over_tasks_and_parts_in_units_of_the_reference() -> None:
    runs = [matched(0.1, 0.4), matched(0.3, 0.0, seed=8), matched(0.3, 0.3, task="b")]
    reference = [matched(0.4, 0.1), matched(0.4, 0.3, seed=8), matched(0.1, 0.1, task="b")]
    assert objective(runs, reference, PARTS) == pytest.approx(((0.2 / 0.4) + (0.2 / 0.2) + 3 + 3) / 4)
    assert objective(runs, reference, ["text"]) == pytest.approx((0.5 + 3) / 2)
    assert objective([*runs, matched(9, 9, reached=False)], reference, ["text"]) == pytest.approx((0.5 + 3) / 2)
    assert objective([matched(reached=False)], reference, PARTS) is None
    assert objective(runs[:1], [matched(0.1, 0.2, reached=False)], PARTS) == pytest.approx((1 + 2) / 2)
    check_reference(reference, PARTS)
    with pytest.raises(UserError, match="retain_nll on b is -0"):
        check_reference([*reference, matched(0.1, -0.3, task="b")], PARTS)


def test_who_never_reaches_the_level_comes_last_and_the_closest_of_them_first() -> None:
    tried = [trial("far", None, lowest=2.0), trial("near", None, lowest=1.5), trial("two", 0.9), trial("one", 0.8)]
    assert words(ranked(tried)) == ["one", "two", "near", "far"]
    assert words(finalists(tried, 3, gate=None)) == ["one", "two", "near"]
    assert winner(tried[:2]) is None


def test_of_equal_candidates_the_first_wins() -> None:
    tried = [trial("first", 0.8), trial("second", 0.8)]
    assert words(ranked(tried)) == ["first", "second"]
    assert winner(tried) is tried[0]


def test_the_finals_decide_where_there_are_any() -> None:
    tried = [trial("one", 0.7, runs=2, final=1.1), trial("two", 0.8, runs=2, final=0.9), trial("three", 0.6)]
    assert winner(tried) is tried[1]
    lost = [trial("one", 0.7, runs=2, final=None)]
    assert winner(lost) is None, "it reached the level once, and not in the finals"
    misses = trial("four", 0.5, runs=2, final=0.1).model_copy(update={"runs": (matched(), matched(reached=False))})
    assert winner([*tried, misses]) is tried[1], "who misses the level less often comes first"
    assert winner([*lost, misses]) is misses


def test_the_gate_adds_finalists_and_is_asked_of_every_adapter() -> None:
    still, moving = {"channel_share": 0.001}, {"channel_share": 0.3}
    tried = [trial("a", 0.5, **still), trial("b", 0.6, **still), trial("c", 0.7, **moving), trial("d", 0.8, **moving)]
    assert words(finalists(tried, 1, gate=0.01)) == ["a", "c"]
    assert words(finalists(tried, 1, gate=None)) == ["a"]
    assert winner(tried, gate=0.01) is tried[2]
    assert winner(tried[:2], gate=0.01) is None
    mixed = trial("e", 0.4, **moving).model_copy(update={"runs": (matched(**still),)})
    assert not passes(mixed, 0.01)
    assert not passes(trial("f", 0.4), 0.01), "a method without a channel has no share"
