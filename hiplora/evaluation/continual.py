"""Figures of continual tuning: one adapter that was trained on T tasks, one after the other.

All are functions of one matrix ``a`` (T + 1, T): ``a[t, i]`` is the score after stage t on the task of stage i + 1, and
row 0 is the bare backbone. Higher scores are better; for likelihoods the matrix is ``−nll``, so that one sign and one
code path serve both. An entry that was not measured is nan, and so is every figure that uses it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hiplora.tasks import primary

Floats = NDArray[np.float64]


def avg_acc(a: ArrayLike) -> float:
    """``mean_i a_{T,i}``: the mean score over all T tasks after the last stage (Lopez-Paz and Ranzato 2017, eq. 2)."""
    return float(_matrix(a)[-1].mean())


def forgetting(a: ArrayLike) -> float:
    """``Σ_{i<T} (max_{i≤l<T} a_{l,i} − a_{T,i}) / (T − 1)``; lower is better, below 0 the tasks gained on average.

    Chaudhry et al. 2018 (arXiv 1801.10112), with the best score since the stage that trained the task. nan for T = 1.
    """
    scores = _matrix(a)
    last = scores.shape[1]
    return _mean(scores[i + 1 : last, i].max() - scores[last, i] for i in range(last - 1))


def bwt(a: ArrayLike) -> float:
    """Backward transfer, ``Σ_{i<T} (a_{T,i} − a_{i,i}) / (T − 1)``; below 0 is forgetting. nan for T = 1.

    Lopez-Paz and Ranzato 2017 (arXiv 1706.08840), eq. 3.
    """
    scores = _matrix(a)
    last = scores.shape[1]
    return _mean(scores[last, i] - scores[i + 1, i] for i in range(last - 1))


def fwt(a: ArrayLike) -> float:
    """Forward transfer, ``Σ_{i>1} (a_{i−1,i} − a_{0,i}) / (T − 1)``: the gain on a task before training on it.

    Lopez-Paz and Ranzato 2017, eq. 4, whose b_i is an untrained network's score: here the bare backbone's, row 0. nan
    for T = 1.
    """
    scores = _matrix(a)
    return _mean(scores[i, i] - scores[0, i] for i in range(1, scores.shape[1]))


def matrix(stages: Sequence[Mapping[str, Any]], tasks: Sequence[str], metric: str | None = None) -> Floats:
    """``a`` (T + 1, T) from the scores of the backbone and of each stage's adapter, by headline score or ``metric``."""
    rows = [[scores[task][primary(task) if metric is None else metric] for task in tasks] for scores in stages]
    return np.array([[math.nan if value is None else value for value in row] for row in rows], dtype=float)


def figures(stages: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> dict[str, float]:
    """Every figure of a sequence of trainings.

    Args:
        stages: benchmark → metrics, of the backbone and then of the adapter after each task.
        tasks: in the order of training.

    Returns:
        ``avg_acc`` in percent, ``forgetting``, ``bwt`` and ``fwt`` in points; ``avg_nll`` in nats per token of the gold
        answers, ``forgetting_nll`` (a rise), ``bwt_nll`` and ``fwt_nll`` (gains); ``text_rise``, the rise of the
        cross-entropy on general text from the backbone to the last adapter, in nats per token.
    """
    score, likelihood = 100 * matrix(stages, tasks), -matrix(stages, tasks, "nll")
    named = {"forgetting": forgetting, "bwt": bwt, "fwt": fwt}
    return {
        "avg_acc": avg_acc(score),
        **{name: function(score) for name, function in named.items()},
        "avg_nll": -avg_acc(likelihood),
        **{f"{name}_nll": function(likelihood) for name, function in named.items()},
        "text_rise": stages[-1]["text"]["nll"] - stages[0]["text"]["nll"],
    }


def _matrix(a: ArrayLike) -> Floats:
    scores = np.asarray(a, dtype=float)
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1] + 1:
        raise ValueError(f"a line of T tasks needs a matrix (T + 1, T) with the backbone as row 0, got {scores.shape}")
    return scores


def _mean(values: Any) -> float:
    found = [*values]
    return float(np.mean(found)) if found else math.nan
