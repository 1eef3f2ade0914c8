"""A small training on the tiny Llama, for tests in this process and for ones that get killed."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

from hiplora.compose import compose
from hiplora.methods import METHODS
from hiplora.methods.base import Method, Setup
from hiplora.packing.sequences import Encoded
from hiplora.spectral.options import Svd
from hiplora.training.options import Training
from hiplora.training.trainer import TrainResult, train
from tests.stopping import stopped

TRAINING = Training(
    steps=8,
    rows_per_step=3,
    micro_batch_rows=2,
    row_tokens=64,
    lr=1e-2,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    weight_decay=0.01,
    warmup_ratio=0.03,
    max_grad_norm=1.0,
    checkpoint_every=3,
    gradient_checkpointing=False,
    share_prefixes=True,
    log_every=2,
)
# What conf/ says of a method, smaller, and with dropout whatever was selected; a method without an option ignores it.
SMALL = {
    "r": 4, "k": 8, "alpha": None, "dropout": 0.05, "init_r": 6, "target_r": 4, "clients": 3, "average_every": 2,
    "cut": 0.5,
}  # fmt: skip


def small(name: str, *words: str) -> Method:
    method = compose([f"method={name}", *words]).method
    return method.but(**{option: value for option, value in SMALL.items() if option in method.fields()})


OPTIONS: dict[str, Method] = {name: small(name) for name in METHODS}
VARIANTS: dict[str, Method] = {  # of these methods, for what their defaults do not show
    "rslora_plus": OPTIONS["lora"].but(rslora=True, lora_plus=4.0),
    "lora_fa": OPTIONS["lora"].but(freeze_a=True),
    "hip_absolute": small("hip_absolute"),
    "hip_plus": OPTIONS["hip"].but(lora_plus=4.0),
    "proj_random": small("proj", "method.basis=random"),
    "lora_inside": small("proj", "method.side=inside"),
    "lora_inside_random": small("proj", "method.side=inside", "method.basis=random"),
}
SETUP = Setup(
    targets=("q_proj", "k_proj", "v_proj", "o_proj"),
    svd=Svd(
        recipe="auto",
        k_max=16,
        seed=0,
        oversampling=8,
        power_iterations=2,
        tolerance=1e-3,
        exact_up_to=2048,
    ),
    training=TRAINING,
)


def training(**changes: Any) -> Training:
    return TRAINING.but(**changes)


def examples(count: int = 40, *, seed: int = 0) -> list[Encoded]:
    rng = random.Random(seed)

    def ids(shortest: int, longest: int) -> list[int]:
        return [rng.randrange(2, 300) for _ in range(rng.randint(shortest, longest))]

    return [Encoded(ids(3, 25), ids(1, 15)) for _ in range(count)]


def attached(folder: Path, method: Method, *, dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    set_seed(7)
    return method.attach(model, setup=replace(SETUP, training=training(**changes)))


def fit(
    model: Any,
    folder: Path,
    method: Method,
    checkpoints: Path,
    *,
    seed: int = 42,
    tracker: Any = None,
    **changes: Any,
) -> TrainResult:
    return train(
        model,
        AutoTokenizer.from_pretrained(folder),
        examples(),
        method=method,
        training=training(**changes),
        seed=seed,
        checkpoint_dir=checkpoints,
        tracker=tracker,
    )


def interrupted_fit(model: Any, folder: Path, method: Method, checkpoints: Path, *, at: int, **changes: Any) -> None:
    """Like :func:`fit`, but for Ctrl-C in the hook after step ``at``."""
    with stopped(method, at=at):
        fit(model, folder, method, checkpoints, **changes)


def adapter(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def same(left: Any, right: Any) -> bool:
    """Whether two states are equal bit for bit: tensors, plain values, and mappings of them."""
    if isinstance(left, Mapping):
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    return type(left) is type(right) and left == right


def run_to_file(folder: Path, method: str, checkpoints: Path, out: Path, steps: int) -> None:
    """What a killed process does: train, then leave the adapter in a file."""
    torch.set_num_threads(1)
    model = attached(folder, OPTIONS[method], dtype=torch.bfloat16)
    result = fit(model, folder, OPTIONS[method], checkpoints, steps=steps)
    torch.save({"adapter": adapter(model), "curve": result.curve, "resumed": result.resumed_from}, out)
