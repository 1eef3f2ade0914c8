"""``python -m hiplora.spectral verify``: compares the singular directions that runs use with the exact SVD.

    python -m hiplora.spectral verify                                   the default backbone, all matrices
    python -m hiplora.spectral verify model=folder model.path=DIR       any override of hiplora.run
    python -m hiplora.spectral verify scale=paper svd.recipe=converged --k 32 --limit 4
    python -m hiplora.spectral verify --matrix layers.3.self_attn.q_proj

It reads the directions of all target matrices from the file that a run with these overrides reads. If the file is
missing, it computes and stores them as the run would. Each compared matrix costs one dense SVD in fp64: minutes for a
large one.
"""

from __future__ import annotations

import argparse
import sys
from itertools import islice
from typing import TYPE_CHECKING

from hiplora.errors import UserError, exit_status
from hiplora.suite import check_installed

if TYPE_CHECKING:
    from torch import Tensor

    from hiplora.pipelines.base import Config
    from hiplora.spectral.cache import Directions


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 0, or 2 after a UserError."""
    options = _parser().parse_intermixed_args(arguments)

    def command() -> int:
        _verify(options)
        return 0

    return exit_status(command)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m hiplora.spectral", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["verify"], help="print residuals, excess errors and principal angles")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, as for python -m hiplora.run")
    parser.add_argument("--k", type=int, default=32, help="leading directions compared (default %(default)s)")
    parser.add_argument("--limit", type=int, help="compare only the first N matrices")
    parser.add_argument(
        "--matrix", action="append", metavar="NAME", help="compare only this matrix; the end of its name is enough"
    )
    return parser


def _verify(options: argparse.Namespace) -> None:
    check_installed()
    from hiplora.compose import compose
    from hiplora.spectral.verify import compare_all, table

    chosen = [] if any(word.startswith("method") for word in options.overrides) else ["method=lora"]  # it has no k
    config = compose([*chosen, *options.overrides])
    _check(options, config)
    weights, found = _directions(config)
    compared = _chosen(weights, options)
    source = "read from" if found.cached else "not in the cache, so computed now and stored in"
    print(f"{config.model.label}: {len(weights)} matrices, svd.recipe={config.svd.recipe}, key {found.key}")
    print(f"{options.k} of {config.svd.k_max} directions, {source} {found.path}")
    for line in table(compare_all(compared, found.bases, k=options.k)):
        print(line, flush=True)


def _check(options: argparse.Namespace, config: Config) -> None:
    if not 1 <= options.k <= config.svd.k_max:
        raise UserError(
            f"--k {options.k} directions cannot be compared: a run has svd.k_max={config.svd.k_max}; "
            f"give --k from 1 to {config.svd.k_max}."
        )
    if options.limit is not None and options.limit < 1:
        raise UserError(f"--limit {options.limit} compares no matrix; give 1 or more, or leave it out.")


def _directions(config: Config) -> tuple[dict[str, Tensor], Directions]:
    """Weights and singular directions of every target, found as attaching an adapter finds them."""
    from hiplora import models
    from hiplora.methods.base import Setup
    from hiplora.methods.proj import basis_options
    from hiplora.spectral.cache import load_or_compute
    from hiplora.stages.targets import resolved
    from hiplora.tuner.registration import HipLoraConfig
    from hiplora.tuner.targets import find_targets, weights_of

    model = models.load(config.model).model
    targets = resolved(model, config.model.target_modules)
    setup = Setup(targets=targets, svd=config.svd, training=config.training)
    adapter = HipLoraConfig(k=1, **basis_options(setup))  # k and r of a method leave the directions as they are
    weights = weights_of(find_targets(model, adapter))
    return weights, load_or_compute(weights, **adapter.svd_options, cache_dir=adapter.cache_dir)


def _chosen(weights: dict[str, Tensor], options: argparse.Namespace) -> dict[str, Tensor]:
    """The matrices whose names, or ends of names, were given with --matrix (else all), up to ``--limit`` of them."""
    ends = [f".{name}" for name in options.matrix or ()]
    for end in ends:
        if not any(f".{name}".endswith(end) for name in weights):
            some = ", ".join(list(weights)[:4])
            raise UserError(
                f"--matrix {end[1:]} is none of the {len(weights)} targets, such as {some}; give one of those."
            )
    named = {name: w for name, w in weights.items() if not ends or f".{name}".endswith(tuple(ends))}
    return dict(islice(named.items(), options.limit))


if __name__ == "__main__":
    sys.exit(main())
