"""``python -m hiplora.merging ADAPTER ADAPTER … --operator ties --density 0.2 --rank 64 --out DIR``.

Merges adapters (folders, or repositories on the Hub) of any PEFT LoRA and of HiP-LoRA into one stock PEFT LoRA, or with
--fold into the backbone's weights. ``ADAPTER --scale 0.75 --out DIR`` writes one adapter, or the sum of several, with
its update scaled.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiplora.errors import UserError, exit_status
from hiplora.merging import OPERATORS, apply, configured, together
from hiplora.merging.arguments import SCALING, joined, option_table, parser
from hiplora.merging.base import command_line, typed

if TYPE_CHECKING:
    from hiplora.adapters.reading import Adapter
    from hiplora.adapters.trained import Trained
    from hiplora.merging import MergeResult
    from hiplora.merging.base import Operator
    from hiplora.updates import Update


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Read, merge and write; return the report."""
    import torch

    from hiplora.adapters.reading import read_adapter

    operator = chosen(args)
    refuse(args)
    drop = [name for name in (args.without or "").split(",") if name]
    adapters = [read_adapter(source, backbone=args.backbone, drop=drop) for source in args.adapters]
    trained, besides = beside(adapters, drop)
    heritage = inherited(adapters, args.base)
    generator = None if args.seed is None else torch.Generator().manual_seed(args.seed)
    updates, unchanged = complete(adapters)
    result = apply(
        operator,
        [{name: update.to(args.device) for name, update in each.items()} for each in updates],
        generator=generator,
        labels=[a.label for a in adapters],
    )
    base = {"base": heritage["base_model_name_or_path"], "revision": heritage["revision"]}
    about = {"inputs": args.adapters, **base, "seed": args.seed, **unchanged, **besides}
    return write(result, args, trained=trained, heritage=heritage, about=about)


def chosen(args: argparse.Namespace) -> Operator:
    """The operator with its options, checked before anything is read.

    Raises:
        UserError: no operator and no scale, an option that the operator or its rule lacks or that is out of range, no
            seed for an operator that draws, or no rank to which full-rank updates are cut.
    """
    if args.operator is None and args.scale is None:
        raise UserError(
            f"The operator is missing: give --operator with one of {', '.join(OPERATORS)}, or --scale C for C times "
            "the update of one adapter or the sum of several."
        )
    options = {name: getattr(args, name) for name in option_table() if getattr(args, name) is not None}
    operator = configured(args.operator or SCALING, calibration=args.calibration, **options)
    # A configuration lists these beside every rule; here they were typed, and would have no effect.
    rule = getattr(operator, "rule", "ties")
    for name in ("density", "threshold"):
        if name in options and rule != "ties":
            given = typed(name, options[name])
            raise UserError(f"{given} is an option of --rule ties, not of --rule {rule}; leave one of the two out.")
    operator.check_adapters(len(args.adapters))
    if operator.random and args.seed is None:
        raise UserError(f"{operator.what_draws()} draws at random; add a seed, e.g. --seed 0.")
    if operator.full_rank and args.rank is None and not args.fold:
        raise UserError(
            f"--operator {operator.name} gives full-rank updates; give --rank R for a LoRA adapter, or --fold for "
            "weights."
        )
    return operator


def refuse(args: argparse.Namespace) -> None:
    """Refuse arguments that would otherwise fail only after everything has been read and merged.

    Raises:
        UserError: options that exclude each other, a missing device, an --out folder that must not be replaced.
    """
    import torch

    from hiplora.adapters.results import check_result
    from hiplora.merging.output import COMMAND

    if args.fold and not args.backbone:
        raise UserError("--fold needs the backbone's folder; add --backbone DIR.")
    for option in ("rank", "ranks"):
        if args.fold and getattr(args, option) is not None:
            raise UserError(
                f"--{option} applies to a written adapter, but --fold writes the backbone's weights; leave it out."
            )
    try:
        torch.empty(0, device=args.device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {args.device} is not there ({str(error).splitlines()[0]}); try cpu.") from None
    check_result(args.out, command=COMMAND, option="--out", inputs=inputs(args))


def inputs(args: argparse.Namespace) -> list[Path]:
    """The folders that the command reads."""
    return [*map(Path, args.adapters), *([args.backbone] if args.backbone else [])]


def write(
    result: MergeResult,
    args: argparse.Namespace,
    *,
    trained: Trained,
    heritage: dict[str, Any],
    about: dict[str, Any],
) -> dict[str, Any]:
    """Write the adapter or the folded backbone with its report and card; return the report."""
    from hiplora.adapters.files import locate
    from hiplora.adapters.results import result_folder
    from hiplora.adapters.writing import DTYPES, common_dtype, write_lora
    from hiplora.merging.output import COMMAND, write_folded, write_merge_card, write_report
    from hiplora.tuner.identity import PREFIX

    dtype = DTYPES[args.dtype] if args.dtype else None
    with result_folder(args.out, command=COMMAND, option="--out", inputs=inputs(args)) as folder:
        if args.fold:
            written = write_folded(result.updates, args.backbone, folder, trained=trained, dtype=dtype)
        else:
            written = write_lora(
                result.updates,
                folder,
                rank=args.rank,
                ranks=args.ranks or "one",
                dtype=dtype or common_dtype(map(locate, args.adapters)),
                beside={PREFIX + key: tensor for key, tensor in trained.beside().items()},
                **heritage,
                **trained.config(),
            )
        # result.report is complete only after the last matrix was computed: only then it has "zero".
        report = {**about, **result.report, **written}
        write_report(report, folder)
        write_merge_card(report, folder)
    return report


def beside(adapters: Sequence[Adapter], drop: Sequence[str]) -> tuple[Trained, dict[str, Any]]:
    """The merged tensors that the adapters trained besides their updates, and the notes for the report.

    The notes also go to stderr.

    Raises:
        UserError: these tensors cannot be merged, or --without names a module that no adapter has.
    """
    unused = sorted(set(drop) - {name for adapter in adapters for name in adapter.dropped})
    if unused:
        raise UserError(f"--without {unused[0]} has no effect: none of the adapters has it; drop it.")
    trained, whose = together.trained_together(adapters)
    notes = [note for adapter in adapters for note in adapter.notes]
    notes += [f"{a.label} is merged without its {', '.join(sorted(a.dropped))}." for a in adapters if a.dropped]
    notes += whose
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    return trained, {"notes": notes} if notes else {}


def complete(adapters: Sequence[Adapter]) -> tuple[list[dict[str, Update]], dict[str, Any]]:
    """The adapters' updates on the union of their modules and, for the report, the modules that each one lacks.

    The lacking modules also go to stderr: they may mean that the adapters do not belong together.
    """
    filled, lacking = together.complete(adapters)
    for label, names in lacking.items():
        print(f"{label} does not adapt {names[0]} ({len(names)} such): its update is 0 there.", file=sys.stderr)
    return filled, {"unadapted": lacking}


def inherited(adapters: Sequence[Adapter], base: str | None) -> dict[str, Any]:
    """The merged adapter's configuration fields that come from its inputs: backbone, revision, task type, layout.

    Raises:
        UserError: the adapters name different backbones or revisions, and there is no --base.
    """
    bases = {(a.base, a.revision or "main"): a for a in adapters if a.base}
    if base is None and len(bases) > 1:
        one, two = list(bases.values())[:2]
        raise UserError(
            f"{one.label} was trained on {_named(one)} and {two.label} on {_named(two)}; merge adapters of one "
            f"backbone, or add --base {one.base} if these are two names of the same one."
        )
    named = next((a for a in bases.values() if base in (None, a.base)), None)
    return {
        "base_model_name_or_path": base or (named.base if named else None),
        "revision": named.revision if named else None,
        "task_type": next((a.task_type for a in adapters if a.task_type), None),
        "fan_in_fan_out": any(a.fan_in_fan_out for a in adapters),  # PEFT corrects the flag by each module's class
    }


def _named(adapter: Adapter) -> str:
    return f"{adapter.base} (revision {adapter.revision})" if adapter.revision else f"{adapter.base}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 2 after a UserError."""

    def command() -> int:
        with command_line():
            args = parser().parse_args(joined(sys.argv[1:] if argv is None else argv))
            report = run(args)
        if report.get("zero"):
            print("Every merged update is 0: nothing of these adapters is left with these options.", file=sys.stderr)
        print(f"{args.out}: {summary(report)}")
        return 0

    return exit_status(command)


def summary(report: Mapping[str, Any]) -> str:
    """One line on what was written: ranks, errors, padding."""
    if "folded" in report:
        return f"backbone with {report['folded']} matrices updated"
    own = report["min_rank"] < report["rank"] and not report["padded"]
    ranks = f"ranks {report['min_rank']} to {report['rank']}" if own else f"rank {report['rank']}"
    line = f"LoRA of {ranks}, relative error {report['relative_error']:.2e}"
    if report["dtype"] != "float32":
        line += f"; {report['dtype']} rounds by {report['rounding_error']:.2e} (--dtype float32 keeps all digits)"
    if report["padded"]:
        line += (
            f"; {report['padded']} of {report['modules']} modules have a smaller rank, from {report['min_rank']} on, "
            "and are padded with zeros (--ranks own keeps each rank)"
        )
    return line


if __name__ == "__main__":
    sys.exit(main())
