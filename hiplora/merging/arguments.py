"""The arguments of ``python -m hiplora.merging``; the options of operators are gathered from their classes."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, get_args, get_origin

from hiplora.errors import UserError
from hiplora.merging import CALIBRATIONS, OPERATORS, operator_class

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

SCALING = "task_arithmetic"  # the operator of --scale without --operator


class Parser(argparse.ArgumentParser):
    """Raises UserError for a wrong argument: one sentence like the command's other errors, without argparse's usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (--help lists the arguments).")


def parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    p = Parser(
        prog="python -m hiplora.merging",
        description="Merge LoRA adapters of one backbone into one adapter, or into its weights.",
    )
    p.add_argument("adapters", nargs="+", metavar="ADAPTER", help="adapter folder, or owner/name[@revision][/folder]")
    p.add_argument(
        "--operator",
        choices=list(OPERATORS),
        help=f"how to merge; with --scale C alone, C times the sum ({SCALING})",
    )
    p.add_argument("--calibration", default="none", choices=CALIBRATIONS, help="applied before the operator")
    p.add_argument("--out", required=True, type=Path, help="folder to write")
    p.add_argument("--rank", type=whole(1), help="cap on the rank of the result; needed by the dense operators")
    p.add_argument(
        "--ranks",
        choices=("one", "own"),
        help="one (default): pad all modules with zeros to one rank, which other tools need; own: keep each rank",
    )
    p.add_argument(
        "--dtype",
        choices=("bfloat16", "float16", "float32"),
        help="of the output; default: the adapters' common dtype, else float32; with --fold, each tensor's own",
    )
    p.add_argument("--seed", type=whole(0, 2**32), help="needed by dare, della and --calibration random")
    p.add_argument("--fold", action="store_true", help="write the backbone's weights with the update folded in")
    p.add_argument("--backbone", type=Path, help="folder of the backbone: for --fold, DoRA, PiSSA, HiP-LoRA, lm_head")
    p.add_argument("--base", help="backbone to name in the output, where the adapters name it differently")
    p.add_argument(
        "--without",
        metavar="NAME,…",
        help="leave out: a module, or modules_to_save, trainable_token_indices, embeddings",
    )
    p.add_argument("--device", default="cpu", help="where to compute: cpu (default) or cuda")
    options = p.add_argument_group(
        "options of operators",
        "In parentheses: the default, then the other values. An option is refused where it does not apply.",
    )
    for name, (kind, users) in option_table().items():
        options.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="X", help=f"of {', '.join(users)}")
    return p


def option_table() -> dict[str, tuple[Callable[[str], Any], list[str]]]:
    """Option name → the function that reads its value, and the operators that have it with defaults and choices."""
    table: dict[str, tuple[Callable[[str], Any], list[str]]] = {}
    for operator in OPERATORS:
        for name, field in operator_class(operator).model_fields.items():
            if name not in ("name", "calibration"):
                table.setdefault(name, (kind(field.annotation), []))[1].append(f"{operator} ({values(field)})")
    return table


def values(field: FieldInfo) -> str:
    """The default of an option, and the other values of a choice: ``ties | addition``."""
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    return " | ".join(dict.fromkeys(map(str, (field.default, *choices))))


def kind(annotation: Any) -> Callable[[str], Any]:
    """The function that reads a field's value from the command line; the operator checks its range."""
    if get_origin(annotation) is Literal:
        return str
    if any(get_origin(inner) is tuple for inner in get_args(annotation)):
        return lambda text: tuple(map(number, text.split(",")))
    return number


def number(text: str) -> float:
    """The text as a float; argparse.ArgumentTypeError if it is not one."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a number") from None


def whole(least: int, below: int | None = None) -> Callable[[str], int]:
    """A function that reads a whole number of at least ``least`` and less than ``below``."""
    wanted = f"a whole number of at least {least}" + (f" and below {below}" if below is not None else "")

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least or (below is not None and int(text) >= below):
            raise argparse.ArgumentTypeError(f"{text} must be {wanted}")
        return int(text)

    return read


def joined(argv: Sequence[str]) -> list[str]:
    """The arguments with a value such as -1e-3 joined to its option by "="; argparse would take it for an option."""
    result: list[str] = []
    for word in argv:
        if result and re.match(r"-([\d.]|inf|nan)", word) and re.fullmatch(r"--[a-z-]+", result[-1]):
            result[-1] += f"={word}"
        else:
            result.append(word)
    return result
