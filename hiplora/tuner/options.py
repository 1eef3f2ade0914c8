"""The ranges of HiP-LoRA's options, stated once for the library and for the suite; loads no PEFT."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from hiplora.errors import UserError
from hiplora.spectral.names import MOST_OVERSAMPLING, MOST_POWER_ITERATIONS, RECIPES, TOLERANCES

PARAMETERIZATIONS = ("absolute", "relative")
BASES = ("singular", "random")
SIDES = ("outside", "inside")
INITS = (True, False, "gaussian")
MOST_ALPHA = 1e6

Rule: TypeAlias = Callable[[Any], str | None]
"""What a value must be, as the end of a sentence; None for a valid value."""


def check_options(*, prefix: str = "", **options: Any) -> None:
    """Refuse options of HiP-LoRA that are out of range or exclude each other.

    Args:
        prefix: what a user types in front of the name: ``method.`` on the suite's command line, nothing in Python.
        **options: options of HipLoraConfig; ``lora_`` and ``svd_`` may be left out, as in the suite's configurations.
            Options without a range pass.

    Raises:
        UserError: one sentence about the first wrong option, which begins with its name.
    """
    for name, value in options.items():
        rule = RULES.get(name.removeprefix("svd_").removeprefix("lora_"))
        wanted = rule(value) if rule else None
        if wanted:
            raise UserError(f"{prefix}{name}={value!r} {wanted}.")
    k, k_max = options.get("k"), options.get("k_max")
    singular = options.get("basis", "singular") == "singular"  # random directions are drawn, as many as k
    if singular and k is not None and k_max is not None and k > k_max:
        raise UserError(
            f"{prefix}k={k} exceeds {prefix}k_max={k_max}, the number of directions computed; raise {prefix}k_max."
        )
    if options.get("basis_seed", 0) != 0 and options.get("basis", "random") != "random":
        raise UserError(f"{prefix}basis_seed={options['basis_seed']} has no effect without {prefix}basis=random.")
    if options.get("principal", True):
        _check_principal(prefix, options)
    else:
        _check_residual_alone(prefix, options)


def _check_principal(prefix: str, options: Mapping[str, Any]) -> None:
    for name, needed in (("basis", "singular"), ("side", "outside")):
        if options.get(name, needed) != needed:
            raise UserError(
                f"{prefix}{name}={options[name]} needs principal=False: a principal channel has singular directions "
                "and a residual outside them; drop one of the two."
            )


def _check_residual_alone(prefix: str, options: Mapping[str, Any]) -> None:
    if options.get("zero_init", False):
        raise UserError(f"{prefix}zero_init=True needs principal=True, since it sets φ; drop one of the two.")
    if not options.get("project_residual", True):
        raise UserError(
            f"{prefix}principal=False with project_residual=False is plain LoRA; use peft.LoraConfig for it."
        )
    r, k = options.get("r"), options.get("k")
    if options.get("side") == "inside" and r is not None and k is not None and r > k:
        raise UserError(
            f"{prefix}r={r} exceeds {prefix}k={k}, the largest rank of an update inside k directions; lower {prefix}r."
        )


def _whole(least: int, most: int = 10**9) -> Rule:
    def rule(value: Any) -> str | None:
        fits = isinstance(value, int) and not isinstance(value, bool)
        if fits and value > most:
            return f"must be at most {most}"
        return None if fits and value >= least else f"must be a whole number of at least {least}"

    return rule


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _from(least: float, most: float) -> Rule:
    def rule(value: Any) -> str | None:
        return None if _number(value) and least <= value <= most else f"must be a number from {least:g} to {most:g}"

    return rule


def _alpha(value: Any) -> str | None:
    if value is None or (_number(value) and 0 < value <= MOST_ALPHA):
        return None
    more = f" and at most {MOST_ALPHA:g}" if _number(value) and value > 0 else ""
    return f"must be more than 0{more}, or left out for twice the rank"


def _dropout(value: Any) -> str | None:
    return None if _number(value) and 0 <= value < 1 else "must be at least 0 and less than 1"


def _flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "must be true or false"


def _one_of(*choices: Any) -> Rule:
    *others, last = map(str, choices)

    def rule(value: Any) -> str | None:
        return None if value in choices else f"is not known; choose {', '.join(others)} or {last}"

    return rule


def _pattern(rule: Rule) -> Rule:
    def each(pattern: Any) -> str | None:
        wrong = ((key, rule(value)) for key, value in (pattern or {}).items() if rule(value))
        return next((f"is out of range at {key}, which {wanted}" for key, wanted in wrong), None)

    return each


RULES: dict[str, Rule] = {
    "r": _whole(1),
    "alpha": _alpha,
    "dropout": _dropout,
    "rank_pattern": _pattern(_whole(1)),
    "alpha_pattern": _pattern(_from(1e-6, MOST_ALPHA)),
    "init_lora_weights": _one_of(*INITS),
    "k": _whole(1),
    "basis": _one_of(*BASES),
    "basis_seed": _whole(0, 2**32 - 1),
    "side": _one_of(*SIDES),
    "principal": _flag,
    "project_residual": _flag,
    "parameterization": _one_of(*PARAMETERIZATIONS),
    "zero_init": _flag,
    "stability": _from(0, 1e6),
    "gamma": _from(0, 10),
    "lr_scale": _from(1e-4, 1e4),
    "save_basis": _flag,
    "k_max": _whole(1),
    "recipe": _one_of(*RECIPES),
    "seed": _whole(0, 2**32 - 1),
    "oversampling": _whole(0, MOST_OVERSAMPLING),
    "power_iterations": _whole(0, MOST_POWER_ITERATIONS),
    "tolerance": _from(*TOLERANCES),
    "exact_up_to": _whole(0),
}
