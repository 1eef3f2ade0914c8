"""pass@k against counting every possible draw."""

from __future__ import annotations

from itertools import combinations

import pytest

from hiplora.evaluation.passk import pass_at_k, pass_rates


@pytest.mark.parametrize("samples", [1, 5, 10])
def test_estimate_is_the_share_of_draws_with_a_correct_one(samples):
    for correct in range(samples + 1):
        for k in range(1, samples + 1):
            draws = list(combinations([True] * correct + [False] * (samples - correct), k))
            assert pass_at_k(samples, correct, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_too_few_samples_give_no_number():
    with pytest.raises(ValueError, match="at least 5"):
        pass_at_k(4, 1, 5)
    assert pass_rates([(5, 5), (5, 0)]) == {"pass@1": 0.5, "pass@5": 0.5, "pass@10": None}
