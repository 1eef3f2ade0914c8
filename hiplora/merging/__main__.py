"""``python -m hiplora.merging ADAPTER ADAPTER … --operator ties --density 0.2 --rank 64 --out DIR``.

Merges adapter folders (or repositories on the Hub) of any stock PEFT LoRA and of HiP-LoRA into one stock
LoRA adapter, or with --fold into the backbone's weights.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiplora.errors import UserError
from hiplora.merging import CALIBRATIONS, OPERATORS, merge, operator_class

if TYPE_CHECKING:
    from hiplora.merging.reader import Adapter


def parser() -> argparse.ArgumentParser:
    """Arguments; the options of all operators are gathered from their classes."""
    p = argparse.ArgumentParser(
        prog="python -m hiplora.merging",
        description="Merge LoRA adapters of one backbone into one adapter, or into its weights.",
    )
    p.add_argument("adapters", nargs="+", metavar="ADAPTER", help="adapter folder, or owner/name on the Hub")
    p.add_argument("--operator", required=True, choices=list(OPERATORS), help="how to merge")
    p.add_argument("--calibration", default="none", choices=CALIBRATIONS, help="applied in front of the operator")
    p.add_argument("--out", required=True, type=Path, help="folder to write")
    p.add_argument("--rank", type=int, help="cap on the rank of the result; needed by the dense operators")
    p.add_argument("--seed", type=int, help="needed by dare, della and --calibration random")
    p.add_argument("--fold", action="store_true", help="write the backbone's weights with the update folded in")
    p.add_argument("--backbone", type=Path, help="folder of the backbone; for --fold, DoRA and HiP-LoRA")
    p.add_argument("--base", help="name of the backbone to write; also says that differently named ones are the same")
    p.add_argument("--device", default="cpu", help="where to compute: cpu (default) or cuda")
    options = p.add_argument_group("options of operators (each one is refused where it does not apply)")
    for name, (kind, users) in option_table().items():
        options.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="X", help=f"of {', '.join(users)}")
    return p


def option_table() -> dict[str, tuple[type, list[str]]]:
    """Option name → its type and, with their defaults, the operators that have it."""
    table: dict[str, tuple[type, list[str]]] = {}
    for operator in OPERATORS:
        for f in fields(operator_class(operator)):
            if f.name not in ("name", "calibration"):
                kind = str if f.type == "str" else float
                table.setdefault(f.name, (kind, []))[1].append(f"{operator} ({f.default})")
    return table


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Read, merge, write; the report."""
    import torch

    from hiplora.merging.reader import read_adapter
    from hiplora.merging.writer import write_folded, write_lora, write_report

    if args.fold and not args.backbone:
        raise UserError("--fold needs the backbone's folder; add --backbone DIR.")
    if args.rank is not None and args.rank < 1:
        raise UserError(f"--rank {args.rank} must be at least 1.")
    adapters = [read_adapter(source, backbone=args.backbone) for source in args.adapters]
    base = common_base(adapters, args.base)
    generator = None if args.seed is None else torch.Generator().manual_seed(args.seed)
    options = {name: getattr(args, name) for name in option_table() if getattr(args, name) is not None}
    result = merge(
        [{name: u.to(args.device) for name, u in a.updates.items()} for a in adapters],
        args.operator,
        calibration=args.calibration,
        generator=generator,
        labels=[a.label for a in adapters],
        **options,
    )
    first = adapters[0]
    if args.fold:
        if first.fan_in_fan_out:
            raise UserError("--fold does not support backbones with transposed weights (Conv1D); write an adapter.")
        written = write_folded(result.updates, args.backbone, args.out)
    else:
        written = write_lora(
            result.updates,
            args.out,
            rank=args.rank,
            base=base,
            task_type=first.task_type,
            fan_in_fan_out=first.fan_in_fan_out,
        )
    report = {"inputs": args.adapters, "base": base, "seed": args.seed, **result.report, **written}
    write_report(report, args.out)
    return report


def common_base(adapters: Sequence[Adapter], base: str | None) -> str | None:
    """The backbone all adapters name.

    Raises:
        UserError: they name different ones, and --base does not say that they are the same.
    """
    bases = {a.base: a.label for a in adapters if a.base}
    if base is None and len(bases) > 1:
        (one, first), (two, second) = list(bases.items())[:2]
        raise UserError(
            f"{first} was trained on {one} and {second} on {two}; merge adapters of one backbone, "
            f"or add --base {one} if these are two names of the same one."
        )
    if len({a.fan_in_fan_out for a in adapters}) > 1:
        raise UserError(
            "Some of these adapters have transposed weights (fan_in_fan_out) and some not; merge like ones."
        )
    return base or next(iter(bases), None)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: 0, or 2 with one sentence on stderr."""
    args = parser().parse_args(argv)
    try:
        report = run(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.fold:
        print(f"{args.out}: backbone with {report['folded']} matrices updated")
    else:
        print(f"{args.out}: LoRA of rank {report['rank']}, relative error {report['relative_error']:.2e}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
