"""``python -m hiplora.merging ADAPTER ADAPTER … --operator ties --density 0.2 --rank 64 --out DIR``.

Merges adapter folders (or repositories on the Hub) of any stock PEFT LoRA and of HiP-LoRA into one stock
LoRA adapter, or with --fold into the backbone's weights.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiplora.errors import UserError
from hiplora.merging import CALIBRATIONS, OPERATORS, merge, operator_class

if TYPE_CHECKING:
    from hiplora.adapters.reading import Adapter
    from hiplora.adapters.trained import Trained
    from hiplora.updates import Update


def parser() -> argparse.ArgumentParser:
    """Arguments; the options of all operators are gathered from their classes."""
    p = argparse.ArgumentParser(
        prog="python -m hiplora.merging",
        description="Merge LoRA adapters of one backbone into one adapter, or into its weights.",
    )
    p.add_argument("adapters", nargs="+", metavar="ADAPTER", help="adapter folder, or owner/name[@revision][/folder]")
    p.add_argument("--operator", required=True, choices=list(OPERATORS), help="how to merge")
    p.add_argument("--calibration", default="none", choices=CALIBRATIONS, help="applied in front of the operator")
    p.add_argument("--out", required=True, type=Path, help="folder to write")
    p.add_argument("--rank", type=int, help="cap on the rank of the result; needed by the dense operators")
    p.add_argument("--seed", type=int, help="needed by dare, della and --calibration random")
    p.add_argument("--fold", action="store_true", help="write the backbone's weights with the update folded in")
    p.add_argument("--backbone", type=Path, help="folder of the backbone: for --fold, DoRA, HiP-LoRA, lm_head")
    p.add_argument("--base", help="name of the backbone to write; also says that differently named ones are the same")
    p.add_argument(
        "--without",
        metavar="NAME,…",
        help="leave out: a module, or modules_to_save, trainable_token_indices, embeddings",
    )
    p.add_argument("--device", default="cpu", help="where to compute: cpu (default) or cuda")
    options = p.add_argument_group("options of operators (each one is refused where it does not apply)")
    for name, (kind, users) in option_table().items():
        options.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="X", help=f"of {', '.join(users)}")
    return p


def option_table() -> dict[str, tuple[type, list[str]]]:
    """Option name → its type and, with their defaults, the operators that have it."""
    table: dict[str, tuple[type, list[str]]] = {}
    for operator in OPERATORS:
        for name, field in operator_class(operator).model_fields.items():
            if name not in ("name", "calibration"):
                kind = str if field.annotation is str else float
                table.setdefault(name, (kind, []))[1].append(f"{operator} ({field.default})")
    return table


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Read, merge, write; the report."""
    import torch

    from hiplora.adapters.reading import read_adapter

    refuse(args)
    drop = [name for name in (args.without or "").split(",") if name]
    adapters = [read_adapter(source, backbone=args.backbone, drop=drop) for source in args.adapters]
    trained, besides = beside(adapters, drop)
    heritage = inherited(adapters, args.base)
    generator = None if args.seed is None else torch.Generator().manual_seed(args.seed)
    options = {name: getattr(args, name) for name in option_table() if getattr(args, name) is not None}
    updates, unchanged = complete(adapters)
    result = merge(
        [{name: update.to(args.device) for name, update in each.items()} for each in updates],
        args.operator,
        calibration=args.calibration,
        generator=generator,
        labels=[a.label for a in adapters],
        **options,
    )
    base = {"base": heritage["base_model_name_or_path"], "revision": heritage["revision"]}
    report = {"inputs": args.adapters, **base, "seed": args.seed, **unchanged, **besides, **result.report}
    return write(result.updates, args, trained=trained, heritage=heritage, report=report)


def refuse(args: argparse.Namespace) -> None:
    """Refuse what could only fail after everything has been read and merged.

    Raises:
        UserError: options that do not go together, a device that is not there, a folder that must be kept.
    """
    import torch

    from hiplora.adapters.results import check_result
    from hiplora.merging.output import COMMAND

    if args.fold and not args.backbone:
        raise UserError("--fold needs the backbone's folder; add --backbone DIR.")
    if args.fold and args.rank is not None:
        raise UserError("--rank is of the adapter that is written; with --fold, which writes weights, leave it out.")
    if args.rank is not None and args.rank < 1:
        raise UserError(f"--rank {args.rank} must be at least 1.")
    try:
        torch.empty(0, device=args.device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {args.device} is not there ({str(error).splitlines()[0]}); try cpu.") from None
    check_result(args.out, command=COMMAND, option="--out", inputs=inputs(args))


def inputs(args: argparse.Namespace) -> list[Path]:
    """The folders that the command reads."""
    return [*map(Path, args.adapters), *([args.backbone] if args.backbone else [])]


def write(
    updates: Mapping[str, Update],
    args: argparse.Namespace,
    *,
    trained: Trained,
    heritage: dict[str, Any],
    report: dict[str, Any],
) -> dict[str, Any]:
    """Write the adapter or the folded backbone with its report; the report."""
    from hiplora.adapters.results import result_folder
    from hiplora.adapters.writing import write_lora
    from hiplora.merging.output import COMMAND, write_folded, write_report
    from hiplora.tuner.identity import PREFIX

    with result_folder(args.out, command=COMMAND, option="--out", inputs=inputs(args)) as folder:
        if args.fold:
            written = write_folded(updates, args.backbone, folder, trained=trained)
        else:
            kept = {PREFIX + key: tensor for key, tensor in trained.beside().items()}
            written = write_lora(updates, folder, rank=args.rank, beside=kept, **heritage, **trained.config())
        report = {**report, **written}
        write_report(report, folder)
    return report


def beside(adapters: Sequence[Adapter], drop: Sequence[str]) -> tuple[Trained, dict[str, Any]]:
    """What the adapters trained beside their updates, merged; the notes of all go to stderr, and into the report.

    Raises:
        UserError: it does not go together, or --without names what none of them has.
    """
    from hiplora.adapters.trained import check_apart, merge_trained

    unused = sorted(set(drop) - {name for adapter in adapters for name in adapter.dropped})
    if unused:
        raise UserError(f"--without {unused[0]} leaves nothing out, as none of the adapters has it; leave it off.")
    check_apart([(a.label, a.updates, a.trained) for a in adapters])
    trained, sources = merge_trained([a.label for a in adapters], [a.trained for a in adapters])
    notes = [note for adapter in adapters for note in adapter.notes]
    notes += [f"{a.label} is merged without its {', '.join(sorted(a.dropped))}." for a in adapters if a.dropped]
    for name, labels in sources.items():
        notes.append(f"{name} is {'the mean of those' if len(labels) > 1 else 'that'} of {', '.join(labels)}.")
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    return trained, {"notes": notes} if notes else {}


def complete(adapters: Sequence[Adapter]) -> tuple[list[dict[str, Update]], dict[str, Any]]:
    """The adapters' updates on all modules that any of them adapts, and which modules each one leaves alone.

    An adapter that does not adapt a module has the update 0 there, in every operator. That is told, as it can also be
    a sign of adapters that do not belong together; adapters without a common module are refused as such.
    """
    from hiplora.updates import zero

    every = {name: update.shape for adapter in adapters for name, update in adapter.updates.items()}
    if not set.intersection(*(set(adapter.updates) for adapter in adapters)):
        raise UserError("These adapters have no adapted module in common; merge adapters of one backbone.")
    lacking = {a.label: sorted(set(every) - set(a.updates)) for a in adapters}
    for label, names in lacking.items():
        if names:
            print(f"{label} does not adapt {names[0]} ({len(names)} such): its update is 0 there.", file=sys.stderr)
    filled = [{name: a.updates.get(name) or zero(shape) for name, shape in sorted(every.items())} for a in adapters]
    return filled, {"unadapted": {label: names for label, names in lacking.items() if names}}


def inherited(adapters: Sequence[Adapter], base: str | None) -> dict[str, Any]:
    """What the merged adapter says of its backbone: the name and revision that all adapters name, the task.

    Raises:
        UserError: they name different ones, and --base does not say that they are the same.
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
        "fan_in_fan_out": any(a.fan_in_fan_out for a in adapters),  # PEFT goes by the class of each module
    }


def _named(adapter: Adapter) -> str:
    return f"{adapter.base} (revision {adapter.revision})" if adapter.revision else f"{adapter.base}"


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
