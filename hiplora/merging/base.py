"""What a merge operator is: options as fields, and a plan that merges one matrix at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from hiplora.config import Options
from hiplora.errors import UserError

if TYPE_CHECKING:
    import torch

    from hiplora.updates import Update

DRAWS = 3  # raised when operators draw in another way; results of the others stay
CALIBRATIONS = ("none", "pico", "rescale", "random")
Tasks: TypeAlias = "Sequence[Mapping[str, Update]]"


@dataclass(frozen=True)
class Plan:
    """A merge whose global quantities are known: ``matrix(name)`` gives the merged update of one matrix.

    ``factored`` says that ``matrix`` forms nothing dense, so that all results may be held at once.
    """

    matrix: Callable[[str], Update]
    factored: bool
    notes: dict[str, Any] = field(default_factory=dict)

    def then(self, finish: Callable[[str, Update], Update]) -> Plan:
        """The same plan with ``finish(name, update)`` applied to every merged matrix."""
        before = self.matrix
        return replace(self, matrix=lambda name: finish(name, before(name)))


def streams(generator: torch.Generator) -> Callable[..., torch.Generator]:
    """Generators of their own, on the CPU, for whatever they are asked for by: ``streams(g)(task, "name")``.

    One number is drawn from ``generator``; so what is drawn for a matrix does not depend on when it is asked for,
    on which others there are, or on the device.
    """
    import hashlib

    import torch

    base = int(torch.randint(1 << 62, (), generator=generator, device=generator.device))

    def stream(*key: object) -> torch.Generator:
        text = hashlib.sha256("/".join(map(str, (base, *key))).encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(text[:8], "big") >> 1)

    return stream


class Operator(Options):
    """Base of all operators; a subclass adds its options as fields and implements :meth:`plan`.

    ``accepts_dense``: full-rank updates are welcome. ``draws``: a generator is needed.
    """

    group: ClassVar[str] = "merge"
    accepts_dense: ClassVar[bool] = False
    draws: ClassVar[bool] = False

    name: str
    calibration: Literal["none", "pico", "rescale", "random"] = "none"

    def check_options(self) -> None:
        """Refuse a scale that leaves nothing, or that the calibration would undo; a subclass calls this too."""
        field = type(self).model_fields.get("scale")
        scale = getattr(self, "scale", None)
        if scale is not None and not 1e-4 <= abs(scale) <= 1e4:
            null = ", or null for the average" if field is not None and field.default is None else ""
            raise UserError(f"merge.scale={scale} must be from 1e-4 to 1e4, or below 0 by as much, e.g. 1.0{null}.")
        if self.calibration != "none" and field is not None and getattr(self, "scale", None) != field.default:
            raise UserError(
                f"merge.calibration={self.calibration} brings the merged update to the mean norm of the adapters, "
                "whatever merge.scale is; leave one of them out."
            )

    @property
    def random(self) -> bool:
        """Whether a generator is needed, by the operator or by its calibration."""
        return self.draws or self.calibration == "random"

    def more_identity(self) -> dict[str, Any]:
        return {"draws": DRAWS} if self.random else {}

    def plan(self, tasks: Tasks, generator: torch.Generator | None) -> Plan:
        """Whatever needs all matrices at once is done here, streaming; the rest is left to ``Plan.matrix``."""
        raise NotImplementedError

    def resolved(self) -> dict[str, Any]:
        """Name and options, as a record stores them."""
        return {"operator": self.name, **{k: v for k, v in self.fields().items() if k != "name"}}

    def _one_of(self, option: str, allowed: Sequence[str]) -> None:
        value = getattr(self, option)
        if value not in allowed:
            raise UserError(f"merge.{option}={value} is not known; choose one of {', '.join(allowed)}.")

    def _between(self, option: str, least: float, most: float) -> None:
        value = getattr(self, option)
        if not least <= value <= most:
            raise UserError(f"merge.{option}={value} must be from {least:g} to {most:g}, e.g. 0.2.")
