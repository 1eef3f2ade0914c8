"""The base of merge operators: options as fields, and a plan that merges one matrix at a time."""

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

DRAWS = 3  # part of the identity of operators that draw: raised when they draw differently
# Also in the identity of an operator that draws under calibration=random: raised if its masks change only there.
AFTER_RANDOM = 1
CALIBRATIONS = ("none", "pico", "rescale", "random")
Tasks: TypeAlias = "Sequence[Mapping[str, Update]]"
Density = Annotated[float, Field(gt=0, le=1, examples=[0.2])]
Drop = Annotated[float, Field(ge=0, lt=1, examples=[0.8])]
Threshold = Literal["global", "matrix"]
Weights = Annotated[tuple[float, ...] | None, Field(strict=False, examples=["[1,-0.5]"]), Neutral(None)]

_command: ContextVar[bool] = ContextVar("command", default=False)


@contextmanager
def command_line() -> Iterator[None]:
    """A context in which messages name options as ``--density 0``; elsewhere as ``merge.density=0``."""
    token = _command.set(True)
    try:
        yield
    finally:
        _command.reset(token)


def on_command_line() -> bool:
    """Whether the options are arguments of the command rather than fields of a configuration."""
    return _command.get()


def typed_as(option: str) -> str:
    """An option's name as it is typed: ``--density`` or ``merge.density``; ``operator`` is ``merge`` itself."""
    if on_command_line():
        return f"--{option.replace('_', '-')}"
    return "merge" if option == "operator" else f"merge.{option}"


def typed(option: str, value: Any) -> str:
    """An option with its value as it is typed: ``--density 0`` or ``merge.density=0``."""
    if isinstance(value, list | tuple):
        numbers = ",".join(f"{x:g}" if isinstance(x, float) else str(x) for x in value)
        value = numbers if on_command_line() else f"[{numbers}]"
    value = f"{value:g}" if isinstance(value, float) else value
    if on_command_line():
        return f"{typed_as(option.partition('.')[0])} {value}"
    return f"{typed_as(option)}={value}"


@dataclass(frozen=True)
class Plan:
    """A merge whose global quantities are known: ``matrix(name)`` returns the merged update (m, n) of one matrix.

    ``factored`` says that ``matrix`` forms no dense matrix, so that all results fit in memory at once.
    """

    matrix: Callable[[str], Update]
    factored: bool
    notes: dict[str, Any] = field(default_factory=dict)

    def then(self, finish: Callable[[str, Update], Update]) -> Plan:
        """The same plan with ``finish(name, update)`` applied to every merged matrix."""
        before = self.matrix
        return replace(self, matrix=lambda name: finish(name, before(name)))


def streams(generator: torch.Generator) -> Callable[..., torch.Generator]:
    """A function from a key to its own CPU generator: ``streams(g)(task, "name")``.

    It takes one number from ``generator`` and seeds each generator with that number and the key. So the draws for a
    matrix do not depend on the order of the matrices, on which others there are, or on the device.
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

    ``accepts_dense``: it takes full-rank updates. ``full_rank``: its result is one. ``draws``: it needs a generator.
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
        """Refuse a scale or weights that remove the update, and a scale that the calibration would undo.

        Subclasses that override this call it too. Raises UserError.
        """
        field = type(self).model_fields.get("scale")
        scale = getattr(self, "scale", None)
        if scale == 0:
            raise UserError(f"{typed('scale', scale)} merges to nothing; give another number{self.without_scale()}.")
        if scale is not None and not 1e-4 <= abs(scale) <= 1e4:
            raise UserError(f"{typed('scale', scale)} must be from 1e-4 to 1e4 in magnitude, e.g. 1.0.")
        if self.calibration != "none" and field is not None and scale != field.default:
            raise UserError(
                f"{typed('calibration', self.calibration)} rescales the merged update to the adapters' mean norm, "
                f"whatever {typed_as('scale')} is; leave one of them out."
            )
        weights = getattr(self, "weights", None)
        if weights is not None and not any(weights):
            raise UserError(f"{typed('weights', weights)} merges to nothing; give a number other than 0 to an adapter.")

    def check_adapters(self, number: int) -> None:
        """Refuse weights unless there is one for each of ``number`` adapters. Raises UserError."""
        weights = getattr(self, "weights", None)
        if weights is not None and len(weights) != number:
            raise UserError(
                f"{typed('weights', weights)} is for {len(weights)} adapters, but there are {number}; give one number "
                "for each, in their order."
            )

    def without_scale(self) -> str:
        """The end of a sentence with the alternatives to giving a scale, such as ", or null for the average"."""
        return ""

    @property
    def random(self) -> bool:
        """Whether the operator or its calibration needs a generator."""
        return self.draws or self.calibration == "random"

    def what_draws(self) -> str:
        """The option that needs a generator, as it is typed."""
        return typed("operator", self.name) if self.draws else typed("calibration", self.calibration)

    def more_identity(self) -> dict[str, Any]:
        after = {"shared": AFTER_RANDOM} if self.draws and self.calibration == "random" else {}  # a key of recorded ids
        return {"draws": DRAWS, **after} if self.random else {}

    def plan(self, tasks: Tasks, generator: torch.Generator | None) -> Plan:
        """The plan of a merge. It computes here, streaming, what needs all matrices; ``Plan.matrix`` does the rest."""
        raise NotImplementedError

    def resolved(self) -> dict[str, Any]:
        """Name and options, as a record stores them."""
        return {"operator": self.name, **{k: v for k, v in self.fields().items() if k != "name"}}
