"""Measure time and memory of merging four rank-16 adapters at the shapes of Llama-3.1-8B's attention.

    python scripts/bench_merging.py --json bench_merging.json [--layers 32] [--threads 1] [--clock cpu]

Each operator merges all layers in a separate process, so that its peak memory can be measured. The speed-ups
compare both routes on the same matrices: one of 4096 × 4096 and one of 1024 × 4096 for addition, the one of
1024 × 4096 where the dense route needs SVDs (a dense SVD of 4096 × 4096 takes minutes; it is timed only with
--large-svd). Nothing is extrapolated. Keys of the flat JSON:

    <operator>_s, <operator>_peak_gb    all layers: seconds, peak resident memory of the process
    start_gb                            the same process with the adapters in memory and nothing merged
    peak_gb                             largest of the peaks
    addition_over_dense, tsvm_over_dense, core_space_over_dense     speed-up: dense seconds / our seconds
    addition_over_peft_cat              speed-up over PEFT's add_weighted_adapter(combination_type="cat")
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hiplora.merging import merge
from hiplora.updates import LowRank, Update

HIDDEN, TASKS, RANK = 4096, 4, 16
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
clock = "wall"
CASES: dict[str, dict[str, Any]] = {
    "addition": {"operator": "addition"},
    "ties": {"operator": "ties"},
    "tsvm": {"operator": "tsvm"},
    "knots": {"operator": "knots"},
    "core_space": {"operator": "core_space"},
    "pico_ties": {"operator": "ties", "calibration": "pico"},
}


def shapes(hidden: int) -> dict[str, tuple[int, int]]:
    """The shapes (m, n) of a layer's projections; four query heads share a key."""
    square, narrow = (hidden, hidden), (hidden // 4, hidden)
    return {"q_proj": square, "k_proj": narrow, "v_proj": narrow, "o_proj": square}


def adapters(layers: int, hidden: int) -> list[dict[str, Update]]:
    """Four adapters with Gaussian factors; only the shapes matter for the time."""
    return [
        {
            f"model.layers.{layer}.self_attn.{name}": gaussian(m, n, seed=layer * 100 + i * 10 + t)
            for layer in range(layers)
            for i, (name, (m, n)) in enumerate(shapes(hidden).items())
        }
        for t in range(TASKS)
    ]


def gaussian(m: int, n: int, *, seed: int) -> LowRank:
    """A Gaussian update with factors B (m, 16), small as after training, and A (16, n)."""
    g = torch.Generator().manual_seed(seed)
    return LowRank(0.01 * torch.randn(m, RANK, generator=g), torch.randn(RANK, n, generator=g) / n**0.5)


def seconds(action: Callable[[], object], repeats: int = 1) -> float:
    """The median time in seconds by the chosen clock; if repeated, after one untimed call."""
    if repeats > 1:
        action()
    times = []
    for _ in range(repeats):
        start = CLOCKS[clock]()
        action()
        times.append(CLOCKS[clock]() - start)
    return statistics.median(times)


def peak_gb() -> float:
    """Peak resident memory of this process in GB (10⁹ bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def run_case(case: str, layers: int, hidden: int) -> dict[str, float]:
    """Time and peak memory of merging all layers; every merged matrix is made once and dropped."""
    tasks = adapters(layers, hidden)
    start_gb = peak_gb()

    def consume() -> None:
        for update in merge(tasks, **CASES[case]).updates.values():
            del update

    took = seconds(consume)
    return {f"{case}_s": took, f"{case}_peak_gb": peak_gb(), "start_gb": start_gb}


def same_matrices(*shapes: tuple[int, int]) -> list[dict[str, Update]]:
    """Four adapters with only these matrices."""
    return [{f"w{i}": gaussian(m, n, seed=10 * i + t) for i, (m, n) in enumerate(shapes)} for t in range(TASKS)]


def addition_ratio(hidden: int) -> dict[str, float]:
    """The speed-up of concatenated factors over the sum of dense products, on one matrix per shape."""
    tasks = same_matrices(*sorted(set(shapes(hidden).values())))
    ours = seconds(lambda: merge(tasks, "addition"), 20)
    dense = seconds(lambda: [sum(task[name].dense() for task in tasks) for name in tasks[0]], 3)
    return {"addition_same_s": ours, "addition_dense_s": dense, "addition_over_dense": dense / ours}


def dense_tsvm(products: list[torch.Tensor]) -> torch.Tensor:
    """TSV-M of the dense matrices by full SVDs, keeping the k leading triplets."""
    k = min(min(products[0].shape) // TASKS, RANK)
    parts = [torch.linalg.svd(x, full_matrices=False) for x in products]
    left, right = (
        torch.linalg.svd(torch.cat(side, dim=1), full_matrices=False)
        for side in ([u[:, :k] for u, _, _ in parts], [vh[:k].mT for _, _, vh in parts])
    )
    return (left[0] @ left[2] * torch.cat([s[:k] for _, s, _ in parts])) @ (right[0] @ right[2]).mT


def svd_ratios(shape: tuple[int, int], suffix: str = "") -> dict[str, float]:
    """The speed-up of TSV-M and Core Space with the TSV rule (the same merge) over dense SVDs of one matrix."""
    tasks = same_matrices(shape)
    expected: list[torch.Tensor] = []
    dense = seconds(lambda: expected.append(dense_tsvm([task["w0"].dense() for task in tasks])))
    result = {f"dense_svd{suffix}_s": dense}
    same: dict[str, dict[str, Any]] = {"tsvm": {}, "core_space": {"rule": "tsvm"}}
    for name, options in same.items():
        ours = seconds(partial(merge, tasks, name, **options), 5)
        merged = merge(tasks, name, **options).updates["w0"].dense()
        error = float(torch.dist(merged, expected[0]) / expected[0].norm())
        result |= {f"{name}_same{suffix}_s": ours, f"{name}_over_dense{suffix}": dense / ours}
        result[f"{name}_difference{suffix}"] = error
    return result


def peft_ratio(hidden: int, layers: int = 2) -> dict[str, float]:
    """The speed-up of our addition over PEFT's concatenation, on a bare module with the same factors."""
    from peft import LoraConfig, get_peft_model

    tasks = adapters(layers, hidden)
    model = torch.nn.Module()
    for name, update in tasks[0].items():
        m, n = update.shape
        model.register_module(name.replace(".", "_"), torch.nn.Linear(n, m, bias=False))
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=[name.replace(".", "_") for name in tasks[0]])
    wrapped: Any = get_peft_model(model, config, adapter_name="t0")  # type: ignore[arg-type]
    for t in range(1, TASKS):
        wrapped.add_adapter(f"t{t}", config)
    names = [f"t{t}" for t in range(TASKS)]

    def concatenate() -> None:
        wrapped.base_model.add_weighted_adapter(names, [1.0] * TASKS, "merged", combination_type="cat")

    times = []
    for _ in range(5):
        times.append(seconds(concatenate))
        wrapped.delete_adapter("merged")
    ours, theirs = seconds(lambda: merge(tasks, "addition"), 20), statistics.median(times)
    return {"peft_cat_s": theirs, "peft_same_s": ours, "addition_over_peft_cat": theirs / ours}


def in_subprocess(case: str, args: argparse.Namespace) -> dict[str, float]:
    """The results of one case, in a new process."""
    command = [sys.executable, __file__, "--case", case, "--layers", str(args.layers), "--threads", str(args.threads)]
    command += ["--clock", args.clock, "--hidden", str(args.hidden)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(printed.splitlines()[-1])


def main(words: Sequence[str] | None = None) -> None:
    """Measure all cases, print the results and write them as JSON."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--json", type=Path, help="file to write")
    p.add_argument("--layers", type=int, default=32, help="layers of the full merges (default 32)")
    p.add_argument("--hidden", type=int, default=HIDDEN, help="hidden size of the model (default 4096)")
    p.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of torch (default: all)")
    p.add_argument(
        "--clock", choices=list(CLOCKS), default="wall", help="cpu: for a machine that is also doing other work"
    )
    p.add_argument("--large-svd", action="store_true", help="also time the dense SVDs of a 4096 × 4096 matrix")
    p.add_argument("--case", choices=list(CASES), help=argparse.SUPPRESS)
    args = p.parse_args(words)
    global clock
    clock = args.clock
    torch.set_num_threads(args.threads)
    if args.case:
        print(json.dumps(run_case(args.case, args.layers, args.hidden)))
        return
    result: dict[str, Any] = {name: getattr(args, name) for name in ("clock", "hidden", "layers", "threads")}
    for case in CASES:
        result |= in_subprocess(case, args)
        print(f"{case}: {result[f'{case}_s']:.2f} s, peak {result[f'{case}_peak_gb']:.2f} GB", flush=True)
    result["peak_gb"] = max(result[f"{case}_peak_gb"] for case in CASES)
    narrow, wide = sorted(set(shapes(args.hidden).values()))
    result |= addition_ratio(args.hidden) | svd_ratios(narrow) | peft_ratio(args.hidden)
    if args.large_svd:
        result |= svd_ratios(wide, "_large")
    for key, value in result.items():
        print(f"{key}: {value}")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
