"""pass@k: the chance that one of k sampled programs passes its tests (Chen et al. 2021, arXiv 2107.03374, eq. 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hiplora.evaluation.sandbox import Verdict

KS = (1, 5, 10)


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Unbiased estimate ``1 - C(n - c, k) / C(n, k)`` from c correct ones of n samples.

    Raises:
        ValueError: fewer samples than k.
    """
    if samples < k:
        raise ValueError(f"pass@{k} needs at least {k} samples, there are {samples}.")
    return 1.0 - comb(samples - correct, k) / comb(samples, k)


def pass_rates(counts: Sequence[tuple[int, int]]) -> dict[str, float | None]:
    """Mean pass@1, @5 and @10 over problems, from (samples, correct) each; None where the samples are too few."""
    if not counts:
        return {f"pass@{k}": None for k in KS}
    fewest = min(samples for samples, _ in counts)
    return {
        f"pass@{k}": sum(pass_at_k(samples, correct, k) for samples, correct in counts) / len(counts)
        if fewest >= k
        else None
        for k in KS
    }


def judge(
    problems: Sequence[Mapping[str, Any]], completions: Sequence[Sequence[str]], *, execution: str, timeout: float
) -> list[list[Verdict]]:
    """Execute every completion of every problem in the sandbox; identical ones of a problem run once.

    Args:
        problems: each with ``prompt``, ``test`` and ``entry_point``.
        completions: the sampled programs of each, without the prompt.
        execution: ``evaluation.code_execution``.
        timeout: wall clock of one program in seconds.
    """
    from hiplora.evaluation.sandbox import Check, choose_backend, run_many

    distinct = {(index, text): None for index, texts in enumerate(completions) for text in texts}
    checks = [
        Check(
            prompt=problems[index]["prompt"],
            completion=text,
            test=problems[index]["test"],
            entry_point=problems[index]["entry_point"],
            timeout=timeout,
        )
        for index, text in distinct
    ]
    verdicts = run_many(checks, choose_backend(execution))
    found = dict(zip(distinct, verdicts, strict=True))
    return [[found[index, text] for text in texts] for index, texts in enumerate(completions)]
