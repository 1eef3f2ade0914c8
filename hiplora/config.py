"""The base class of all options, and the identity of results: markers on fields, and the hash derived from them.

Options belong to their owner (a method, an operator, a benchmark, a pipeline): one frozen class there declares and
checks them. The identity of a result is derived from the declarations, never listed: every field enters it unless its
marker says otherwise. Defaults of runs are in ``conf/``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hiplora.errors import UserError

Seed = Annotated[int, Field(ge=0, lt=2**32, examples=[42])]
Positive = Annotated[int, Field(ge=1, le=10**9)]
Natural = Annotated[int, Field(ge=0, le=10**9)]
Length = Annotated[int, Field(ge=1, le=2**20)]  # of a text or a row, in tokens
Scale = Annotated[float, Field(ge=1e-4, le=1e4, examples=[0.75])]  # of an update ΔW after its training
Fraction = Annotated[float, Field(gt=0, lt=1, examples=[0.5])]  # of a training's steps


class Bookkeeping:
    """Marks a field that changes numbers by rounding at most; it does not enter the identity."""


class Place:
    """Marks a field that says where something is found or what it is called; it does not enter the identity.

    What is found enters as a digest (``reads`` of a stage); the device is in ``where``.
    """


class Neutral:
    """Marks a field that is left out of the identity at one constant, so that adding it orphans no record.

    The constant is the value that older results correspond to, never simply the default of conf/.
    """

    def __init__(self, constant: Any) -> None:
        self.constant = constant


class As:
    """Marks a field that enters the identity as ``function(value)``, so that equivalent values are the same."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function


class Generation:
    """Marks a field that says how text is generated, which changes no log-likelihood (:func:`as_likelihood`)."""


class Options(BaseModel):
    """Base of everything that is configured: frozen, unknown keys refused, types not coerced.

    Raise ``version`` when a change of the owner's code changes results: old records are then kept, but no longer
    reused. ``group`` is the prefix of the fields on a command line.

    Raises:
        UserError: a wrong key, type or value, in one sentence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    version: ClassVar[int] = 1
    kind: ClassVar[str] = ""  # enters the identity, for classes that their fields do not tell apart
    group: ClassVar[str] = ""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UserError(_sentence(type(self), error)) from None

    @model_validator(mode="after")
    def _checked(self) -> Self:
        self.check_options()
        return self

    def check_options(self) -> None:
        """Refuse bad combinations of fields, which no range of a single one covers. Raises UserError."""

    @classmethod
    def typed_as(cls, field: str) -> str:
        """The name of a field on the command line, such as ``training.lr``."""
        return f"{cls.group}.{field}" if cls.group else field

    @classmethod
    def typed(cls, field: str, value: Any) -> str:
        """A field with its value as on the command line, such as ``training.lr=0.1``; nested fields as ``a.b=1``."""
        first, dot, rest = field.partition(".")
        return f"{cls.typed_as(first)}{dot}{rest}={value}"

    def but(self, **changes: Any) -> Self:
        """A copy with some fields replaced, checked again."""
        return type(self)(**{**self.fields(), **changes})

    def fields(self) -> dict[str, Any]:
        """Every field's value by name, unchanged."""
        return {name: getattr(self, name) for name in type(self).model_fields}

    def identity(self) -> dict[str, Any]:
        """What identifies this object's results, JSON-serialisable: its version, and its fields by their markers."""
        return _identity(self, lambda inner: inner.reference())

    def more_identity(self) -> dict[str, Any]:
        """What identifies results besides version and fields, such as the name of a subclass."""
        return {}

    def reference(self) -> Any:
        """How this object enters the identity of another; a stage enters by its id."""
        return self.identity()

    def described(self) -> dict[str, Any]:
        """The identity with all nested objects spelt out, for people and for comparing two records."""
        return _identity(self, lambda inner: inner.described())


def as_likelihood(options: Options) -> dict[str, Any]:
    """The identity of options where only log-likelihoods are measured: without fields marked ``Generation``."""
    fields = type(options).model_fields
    written = {name for name, field in fields.items() if Generation in field.metadata}
    return {name: value for name, value in options.identity().items() if name not in written}


def neutral(options: Options) -> dict[str, Any]:
    """The constants of the fields marked ``Neutral``, nested as in the description, which leaves them out."""
    found: dict[str, Any] = {}
    for name, markers in _identifying(type(options)):
        value = getattr(options, name)
        if Neutral in markers:
            found[name] = markers[Neutral].constant
        elif isinstance(value, Options) and (inner := neutral(value)):
            found[name] = inner
    return found


def digest(identity: Any) -> str:
    """The first 12 hex digits of the SHA-256 of a JSON-serialisable value, independent of the order of keys."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _identity(options: Options, inner: Callable[[Options], Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"kind": options.kind} if options.kind else {}
    found |= {"version": options.version, **options.more_identity()}
    for name, markers in _identifying(type(options)):
        value = getattr(options, name)
        if Neutral in markers and value == markers[Neutral].constant:
            continue
        found[name] = _plain(markers[As].function(value) if As in markers else value, inner)
    return found


@cache
def _identifying(cls: type[Options]) -> tuple[tuple[str, dict[type, Any]], ...]:
    """The fields that enter the identity, each with its markers by their class."""
    fields = {
        name: {type(marker) if not isinstance(marker, type) else marker: marker for marker in field.metadata}
        for name, field in cls.model_fields.items()
    }
    return tuple((name, found) for name, found in fields.items() if Bookkeeping not in found and Place not in found)


def _plain(value: Any, inner: Callable[[Options], Any]) -> Any:
    """A value as JSON-serialisable data: options by ``inner``, tuples as lists."""
    if isinstance(value, Options):
        return inner(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, inner) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, inner) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"{type(value).__name__} cannot be part of an identity; mark the field As(…) or Place.")


def _sentence(cls: type[Options], error: ValidationError) -> str:
    """The first error of a validation in one sentence, with the field's name on the command line."""
    first = error.errors(include_url=False)[0]
    context = first.get("ctx", {})
    if isinstance(context.get("error"), UserError):
        return str(context["error"])
    place = [str(part) for part in first["loc"]]
    name = ".".join([cls.typed_as(place[0]), *place[1:]]) if place else cls.group
    if first["type"] == "missing":
        return f"{name} has no value; add {name}=… to the command."
    if first["type"] == "extra_forbidden":
        return f"{name} is not a field; there are {', '.join(map(cls.typed_as, cls.model_fields))}."
    return f"{cls.typed('.'.join(place), first['input'])} {_wanted(cls, place, first['type'], context)}."


def _wanted(cls: type[Options], place: list[str], kind: str, context: Mapping[str, Any]) -> str:
    field = cls.model_fields.get(place[0]) if place else None
    examples = f", e.g. {field.examples[0]}" if field is not None and field.examples else ""
    bound: Callable[[str], str] = lambda key: str(context.get(key)).removesuffix(".0")  # noqa: E731
    bounds = {
        "greater_than_equal": f"must be at least {bound('ge')}",
        "greater_than": f"must be above {bound('gt')}",
        "less_than_equal": f"must be at most {bound('le')}",
        "less_than": f"must be below {bound('lt')}",
        "finite_number": "must be a finite number",
        "too_short": f"must have at least {bound('min_length')}",
        "literal_error": f"is not known; choose one of {context.get('expected', '')}".replace("'", ""),
    }
    types = {"int": "a whole number", "float": "a number", "string": "text", "bool": "true or false", "tuple": "a list"}
    if kind in bounds:
        return bounds[kind].replace(" or ", ", ") + ("" if kind == "literal_error" else examples)
    wanted = next((words for name, words in types.items() if kind.startswith(name)), "of another type")
    return f"must be {wanted}{examples}"
