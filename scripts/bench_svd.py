"""Measure the SVD recipes on the 128 attention projections of a model with Llama-3.1-8B's shapes.

    python scripts/bench_svd.py --json svd.json

The weights are synthetic bf16 matrices whose known singular values decay like those of trained attention
weights; making them is not timed, converting them from bf16 is. The script reports:

- ``randomized_seconds``: the paper's recipe (k = 32, 8 extra columns, 2 power iterations), all 128;
  ``randomized_k64_seconds``: the same at the k_max = 64 that the suite caches;
- ``converged_seconds``, ``max_residual``: the converged recipe at k_max = 64, all 128;
- ``over_svd_lowrank``: the time of our randomised recipe over ``torch.svd_lowrank``'s at the same k, extra columns and
  iterations: medians of interleaved repetitions, summed over one matrix per shape, both from bf16;
  ``svd_lowrank_seconds``: its time for all 128;
- ``*_excess_error``, ``*_angle``, ``*_sigma_error``: compared with the exact fp64 SVD of one 1024×4096 matrix:
  ``‖W − W_k‖_F`` over the best possible minus 1, worst principal angle in degrees at k = 32, and worst
  relative error of a singular value; ``exact_seconds``: the time of the exact SVD.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from hiplora.spectral import Basis, principal_angles, truncated_svd
from hiplora.spectral.verify import excess_error

Result = TypeVar("Result")

HIDDEN, KEY_VALUE, LAYERS = 4096, 1024, 32
# (height of the bulk over σ_1, exponent of the head) such that σ_64 / σ_1 is 0.28, 0.34, 0.55 and 0.53: trained
# attention weights have 0.1 to 0.5 (q, k) and 0.2 to 0.8 (v, o), a steep head over a bulk that falls to zero.
PROJECTIONS = {"q": (0.15, 0.45), "k": (0.20, 0.40), "v": (0.45, 0.35), "o": (0.40, 0.35)}
PAPER: dict[str, Any] = {"recipe": "randomized", "oversampling": 8, "power_iterations": 2}


def spectrum(size: int, *, bulk: float, exponent: float, generator: torch.Generator) -> Tensor:
    """Descending singular values (size,): a power-law head over a bulk that falls to zero, with 5 % jitter."""
    rank = torch.arange(1, size + 1)
    head = (1 - bulk) * rank**-exponent
    body = bulk * (1 - (rank - 1) / size)
    jitter = 1 + 0.05 * torch.rand(size, generator=generator)
    return ((head + body) * jitter).sort(descending=True).values * 10


class Weights:
    """Generates matrices of Llama-3.1-8B's attention shapes from one Haar-random basis per side."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._bases = {
            (size, side): torch.linalg.qr(torch.randn(size, size, generator=self._generator))[0]
            for size, side in ((HIDDEN, "in"), (HIDDEN, "out"), (KEY_VALUE, "out"))
        }

    def matrix(self, projection: str) -> Tensor:
        """A bf16 matrix (4096 or 1024, 4096) with a new spectrum and newly shuffled singular vectors."""
        rows = KEY_VALUE if projection in "kv" else HIDDEN
        bulk, exponent = PROJECTIONS[projection]
        values = spectrum(rows, bulk=bulk, exponent=exponent, generator=self._generator)
        left = self._shuffled(self._bases[rows, "out"], rows)
        right = self._shuffled(self._bases[HIDDEN, "in"], rows)
        return ((left * values) @ right.T).bfloat16()

    def _shuffled(self, basis: Tensor, columns: int) -> Tensor:
        return basis[:, torch.randperm(basis.shape[0], generator=self._generator)[:columns]]


def timed(call: Callable[..., Result], *arguments: Any, **options: Any) -> tuple[float, Result]:
    start = time.perf_counter()
    result = call(*arguments, **options)
    return time.perf_counter() - start, result


def whole_model(weights: Weights, *, distinct: int) -> dict[str, float]:
    """Seconds of each recipe over all 128 projections; only ``distinct`` layers are generated, and reused."""
    recipes: dict[str, dict[str, Any]] = {
        "randomized_seconds": {"k": 32, **PAPER},
        "randomized_k64_seconds": {"k": 64, **PAPER},
        "converged_seconds": {"k": 64, "recipe": "converged"},
    }
    numbers = dict.fromkeys([*recipes, "max_residual"], 0.0)
    workspace = torch.empty(HIDDEN * HIDDEN)
    layer: list[Tensor] = []
    for index in tqdm(range(LAYERS), desc="layers", unit="layer"):
        if index % (LAYERS // distinct) == 0:
            layer = [weights.matrix(projection) for projection in PROJECTIONS]
        for name, options in recipes.items():
            for weight in layer:
                seconds, basis = timed(truncated_svd, weight, seed=index, workspace=workspace, **options)
                numbers[name] += seconds
                if options["recipe"] == "converged":
                    numbers["max_residual"] = max(numbers["max_residual"], basis.residual)
    return numbers


def against_lowrank(weights: Weights, *, repetitions: int) -> dict[str, float]:
    """Our randomised recipe and ``torch.svd_lowrank``, interleaved, on one matrix per shape."""
    workspace = torch.empty(HIDDEN * HIDDEN)
    ours = lowrank = 0.0
    for projection in ("q", "k"):
        weight = weights.matrix(projection)
        pairs = []
        for _ in range(repetitions + 1):
            mine, _ = timed(truncated_svd, weight, k=32, workspace=workspace, **PAPER)
            theirs, _ = timed(lowrank_from_bf16, weight, columns=40)
            pairs.append((mine, theirs))
        median_mine, median_theirs = (statistics.median(column) for column in zip(*pairs[1:], strict=True))
        ours, lowrank = ours + median_mine, lowrank + median_theirs
    return {"over_svd_lowrank": ours / lowrank, "svd_lowrank_seconds": 64 * lowrank}


def lowrank_from_bf16(weight: Tensor, *, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """``torch.svd_lowrank`` on a bf16 weight; it takes fp32 only, so the conversion is timed, as in our recipe."""
    return torch.svd_lowrank(weight.float(), q=columns, niter=2)


def against_exact(weights: Weights) -> dict[str, float]:
    """Errors and angles of the iterative recipes on a 1024×4096 matrix, for the leading 32 of 64 directions."""
    weight = weights.matrix("v")
    seconds, exact = timed(truncated_svd, weight, k=64, recipe="exact")
    numbers = {"exact_seconds": seconds}
    for recipe in ("randomized", "converged"):
        basis = truncated_svd(weight, k=64, recipe=recipe)
        numbers |= {f"{recipe}_{name}": value for name, value in errors(weight, basis, exact, k=32).items()}
    return numbers


def errors(weight: Tensor, basis: Basis, exact: Basis, *, k: int) -> dict[str, float]:
    kept, best = basis.first(k), exact.first(k)
    angle = max(principal_angles(kept.U, best.U)[-1], principal_angles(kept.V, best.V)[-1])
    return {
        "excess_error": excess_error(weight, kept, best),
        "angle": float(angle.rad2deg()),
        "sigma_error": float(((kept.S - best.S) / best.S).abs().max()),
    }


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    parser.add_argument("--distinct", type=int, default=4, choices=(1, 2, 4, 8, 16, 32), help="layers to make")
    parser.add_argument("--repetitions", type=int, default=9, help="of the comparison with torch.svd_lowrank")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(words)
    weights = Weights(arguments.seed)
    numbers: dict[str, object] = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    numbers |= {"cores": os.cpu_count() or 0, "k_max": 64, "k": 32, "tolerance": 1e-3}
    numbers |= against_lowrank(weights, repetitions=arguments.repetitions)
    numbers |= against_exact(weights)
    numbers |= whole_model(weights, distinct=arguments.distinct)
    text = json.dumps(numbers, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
