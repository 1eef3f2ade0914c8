"""pass@k: the probability that one of k sampled programs passes (Chen et al. 2021, arXiv 2107.03374, eq. 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from math import comb
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hiplora.evaluation.sandbox import Verdict

KS = (1, 5, 10)


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Unbiased estimate ``1 - C(n - c, k) / C(n, k)`` from n samples, c of them correct.

    Raises:
        ValueError: fewer samples than k.
    """
    if samples < k:
        raise ValueError(f"pass@{k} needs at least {k} samples, there are {samples}.")
    return 1.0 - comb(samples - correct, k) / comb(samples, k)


def pass_rates(counts: Sequence[tuple[int, int]]) -> dict[str, float | None]:
    """Mean pass@1, @5 and @10 over problems, from (samples, correct) of each; None if a problem has too few samples."""
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
    problems: Sequence[Mapping[str, Any]],
    completions: Sequence[Sequence[str]],
    *,
    execution: str,
    timeout: float,
    progress: bool = True,
) -> list[list[Verdict]]:
    """Verdicts on every completion of every problem, from running them in the sandbox; identical ones run once.

    Args:
        problems: each with ``prompt``, ``test`` and ``entry_point``.
        completions: the sampled programs of each problem, without the prompt.
        execution: ``evaluation.code_execution``.
        timeout: wall-clock limit of one program in seconds.
        progress: show a progress bar.
    """
    from tqdm import tqdm

    from hiplora.evaluation.sandbox import Check, choose_backend, run_many

    checks = [
        Check(
            prompt=problem["prompt"],
            completion=text,
            test=problem["test"],
            entry_point=problem["entry_point"],
            timeout=timeout,
        )
        for problem, texts in zip(problems, completions, strict=True)
        for text in texts
    ]
    with tqdm(total=len(checks), desc="executing", unit="answer", disable=not progress) as bar:
        verdicts = iter(run_many(checks, choose_backend(execution), on_done=bar.update))
    return [list(islice(verdicts, len(texts))) for texts in completions]
