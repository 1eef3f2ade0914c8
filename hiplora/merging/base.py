"""What a merge operator is: options as fields, and a plan that merges one matrix at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Field

from hiplora.config import Neutral, Options
from hiplora.errors import UserError

if TYPE_CHECKING:
    import torch

    from hiplora.updates import Update

DRAWS = 3  # raised when operators draw in another way; results of the others stay
CALIBRATIONS = ("none", "pico", "rescale", "random")
Tasks: TypeAlias = "Sequence[Mapping[str, Update]]"
Density = Annotated[float, Field(gt=0, le=1, examples=[0.2])]
Drop = Annotated[float, Field(ge=0, lt=1, examples=[0.8])]
Threshold = Literal["global", "matrix"]
Weights = Annotated[tuple[float, ...] | None, Field(strict=False, examples=["[1,-0.5]"]), Neutral(None)]

_command: ContextVar[bool] = ContextVar("command", default=False)


@contextmanager
def command_line() -> Iterator[None]:
    """Inside, messages name options as the command has them, ``--density 0``; elsewhere ``merge.density=0``."""
    token = _command.set(True)
    try:
        yield
    finally:
        _command.reset(token)


def on_command_line() -> bool:
    """Whether options were typed as arguments of the command rather than fields of a configuration."""
    return _command.get()


def typed_as(option: str) -> str:
    """An option's name as it is typed: ``--density`` or ``merge.density``; ``operator`` is ``merge`` itself."""
    if on_command_line():
        return f"--{option.replace('_', '-')}"
    return "merge" if option == "operator" else f"merge.{option}"


def typed(option: str, value: Any) -> str:
    """An option with its value as they are typed: ``--density 0`` or ``merge.density=0``."""
    if isinstance(value, list | tuple):
        numbers = ",".join(f"{x:g}" if isinstance(x, float) else str(x) for x in value)
        value = numbers if on_command_line() else f"[{numbers}]"
    value = f"{value:g}" if isinstance(value, float) else value
    if on_command_line():
        return f"{typed_as(option.partition('.')[0])} {value}"
    return f"{typed_as(option)}={value}"


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

    ``accepts_dense``: full-rank updates are welcome. ``full_rank``: the result is one. ``draws``: a generator
    is needed.
    """

    group: ClassVar[str] = "merge"
    accepts_dense: ClassVar[bool] = False
    draws: ClassVar[bool] = False
    full_rank: ClassVar[bool] = False

    name: str
    calibration: Literal["none", "pico", "rescale", "random"] = "none"

    @classmethod
    def typed_as(cls, field: str) -> str:
        return typed_as(field)

    @classmethod
    def typed(cls, field: str, value: Any) -> str:
        return typed(field, value)

    def check_options(self) -> None:
        """Refuse a scale that removes the update or that the calibration would undo. Subclasses call this too."""
        field = type(self).model_fields.get("scale")
        scale = getattr(self, "scale", None)
        if scale == 0:
            raise UserError(f"{typed('scale', scale)} merges to nothing; give another number{self.without_scale()}.")
        if scale is not None and not 1e-4 <= abs(scale) <= 1e4:
            raise UserError(f"{typed('scale', scale)} must be from 1e-4 to 1e4, or below 0 by as much, e.g. 1.0.")
        if self.calibration != "none" and field is not None and scale != field.default:
            raise UserError(
                f"{typed('calibration', self.calibration)} brings the merged update to the mean norm of the adapters, "
                f"whatever {typed_as('scale')} is; leave one of them out."
            )
        weights = getattr(self, "weights", None)
        if weights is not None and not any(weights):
            raise UserError(f"{typed('weights', weights)} merges to nothing; give a number other than 0 to an adapter.")

    def check_adapters(self, number: int) -> None:
        """Refuse weights that are not one for each of so many adapters. Raises UserError."""
        weights = getattr(self, "weights", None)
        if weights is not None and len(weights) != number:
            raise UserError(
                f"{typed('weights', weights)} is for {len(weights)} adapters, but there are {number}; give one number "
                "for each, in their order."
            )

    def without_scale(self) -> str:
        """What else than a number the scale may be, to end a sentence with."""
        return ""

    @property
    def random(self) -> bool:
        """Whether a generator is needed, by the operator or by its calibration."""
        return self.draws or self.calibration == "random"

    def what_draws(self) -> str:
        """The option that makes a generator necessary, as it is typed."""
        return typed("operator", self.name) if self.draws else typed("calibration", self.calibration)

    def more_identity(self) -> dict[str, Any]:
        return {"draws": DRAWS} if self.random else {}

    def plan(self, tasks: Tasks, generator: torch.Generator | None) -> Plan:
        """Whatever needs all matrices at once is done here, streaming; the rest is left to ``Plan.matrix``."""
        raise NotImplementedError

    def resolved(self) -> dict[str, Any]:
        """Name and options, as a record stores them."""
        return {"operator": self.name, **{k: v for k, v in self.fields().items() if k != "name"}}
