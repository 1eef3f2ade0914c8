"""Check that the mini scale can distinguish methods: seven conditions, each with its numbers, on validation data.

    python scripts/check_mini.py --results outputs/check           C1 to C4, C6, C7: 8 trainings and their scores
    python scripts/check_mini.py --results outputs/check --only C6,C7       seconds, no model
    python scripts/check_mini.py --results outputs/check --only C5          A/A: 16 more trainings

The conditions use only LoRA (C5: Proj-LoRA) with seeds 7 and 8. The command can be stopped and typed again: everything
is a stage of the ordinary engine, whose records are in the folder that --results names. Methods have the settings of
conf/, as in the tables; KEY=VALUE changes them (training.lr=5e-4). The results are in results/mini/checks.md and
checks.json; those of other settings, or of another arithmetic, are replaced. A condition that does not hold is reported
as failed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mini_conditions import CHECKS, CONDITIONS, Check, Runs

from hiplora.disk import write_atomically, write_json
from hiplora.errors import UserError

SMALL = [
    "training.steps=2", "training.rows_per_step=1", "training.micro_batch_rows=1", "evaluation.limit=12",
    "evaluation.text_tokens=256", "evaluation.code_samples=2", "evaluation.code_max_new_tokens=4",
]  # fmt: skip


def report(out: Path, checks: Sequence[Check], asked: Mapping[str, Any]) -> None:
    """Write the results so far, and those of earlier commands with the same settings, as checks.json and checks.md."""
    out.mkdir(parents=True, exist_ok=True)
    ordered = sorted([*checks, *_earlier(out, checks, asked)], key=lambda check: check.name)
    found = [
        {"name": c.name, "condition": CONDITIONS[c.name], "passed": c.passed, "numbers": c.numbers} for c in ordered
    ]
    write_json(out / "checks.json", {"version": 1, **asked, "checks": found})
    words = ", ".join(f"{name} {value}" for name, value in asked.items())
    lines = ["# Conditions of the mini scale", "", f"By `scripts/check_mini.py` on validation data, LoRA: {words}.", ""]
    for check in ordered:
        first, *rest = check.lines()
        lines += [f"## {first}", "", *(f"- {line.strip()}" for line in rest), ""]
    write_atomically(out / "checks.md", "\n".join(lines).encode())


def _earlier(out: Path, checks: Sequence[Check], asked: Mapping[str, Any]) -> list[Check]:
    """The checks in the folder that this command has not made, if their settings are the same."""
    path = out / "checks.json"
    before = json.loads(path.read_text()) if path.is_file() else {}
    if any(before.get(name) != value for name, value in asked.items()):
        return []
    made = {check.name for check in checks}
    return [Check(c["name"], c["passed"], c["numbers"]) for c in before["checks"] if c["name"] not in made]


def conditions(typed: str) -> list[str]:
    """The conditions that --only names. Raises ArgumentTypeError for an unknown one."""
    if unknown := sorted({*typed.split(",")} - {*CHECKS}):
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is unknown; choose among {','.join(CONDITIONS)}")
    return typed.split(",")


def main(words: Sequence[str] | None = None) -> int:
    """Check and report; the exit status: 1 if a condition failed, 2 if a run was refused."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="further settings of every run")
    p.add_argument("--results", type=Path, required=True, help="folder of records and adapters")
    p.add_argument("--out", type=Path, default=Path("results/mini"), help="folder of checks.md and checks.json")
    p.add_argument(
        "--only",
        type=conditions,
        default=[name for name in CHECKS if name != "C5"],
        help="C1,C2 … (default: all but C5)",
    )
    p.add_argument("--small", action="store_true", help="two steps and a few items: tries the script, means nothing")
    args = p.parse_intermixed_args(words)
    small = SMALL if args.small else []
    runs = Runs(args.results, [*small, *args.settings])
    asked = {**runs.asked(), "small": args.small, "settings": args.settings}
    checks: list[Check] = []
    for name, check in CHECKS.items():
        if name not in args.only:
            continue
        try:
            checks.append(check(runs))
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        print("\n".join(checks[-1].lines()), flush=True)
        report(args.out, checks, asked)
    return int(any(check.passed is False for check in checks))


if __name__ == "__main__":
    sys.exit(main())
