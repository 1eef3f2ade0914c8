"""Typed configuration: what a run is made of, checked once at the entry.

Hydra composes ``conf/``; :func:`build` turns the result into the dataclasses below. Nothing past the
entry point sees a ``DictConfig``. Defaults live in ``conf/``, checks live in ``__post_init__``; an unknown
key, a missing value or a wrong type is a :class:`~hiplora.errors.UserError`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from hiplora.errors import UserError

if TYPE_CHECKING:
    from hiplora.merging.base import Operator
    from hiplora.methods.base import Method

T = TypeVar("T")


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise UserError(sentence)


def _one_of(field: str, value: str, allowed: tuple[str, ...]) -> None:
    _require(value in allowed, f"{field}={value} is not known; choose one of {', '.join(allowed)}.")


def _at_least(group: str, section: object, least: int, *fields: str) -> None:
    for field in fields:
        value = getattr(section, field)
        _require(value >= least, f"{group}.{field}={value} must be at least {least}.")


def _above_zero(group: str, section: object, **examples: float) -> None:
    for field, example in examples.items():
        value = getattr(section, field)
        _require(value > 0, f"{group}.{field}={value} must be above 0, e.g. {example:g}.")


def _seeds(field: str, seeds: Sequence[int]) -> None:
    for seed in seeds:
        _require(0 <= seed < 2**32, f"{field}={seed} must be a whole number from 0 to {2**32 - 1}, such as 42.")


def _distinct(field: str, values: Sequence[int]) -> None:
    _require(len({*values}) == len(values), f"{field}={values} names a value twice; name each once.")


@dataclass(kw_only=True)
class ModelConfig:
    """The frozen backbone and the modules an adapter is attached to."""

    name: str
    source: str
    path: str
    revision: str | None
    dtype: str
    device: str
    target_modules: list[str]

    def __post_init__(self) -> None:
        _one_of("model.source", self.source, ("packaged", "hub", "folder"))
        _one_of("model.dtype", self.dtype, ("bfloat16", "float32"))
        _one_of("model.device", self.device, ("auto", "cpu", "cuda"))
        _require(bool(self.target_modules), "model.target_modules is empty; name at least one module, e.g. [q_proj].")


@dataclass(kw_only=True)
class DataConfig:
    """Where benchmarks come from; ``name`` is also the folder of their records under ``results/``."""

    name: str
    root: str | None
    revisions: dict[str, str | None]

    def __post_init__(self) -> None:
        _one_of("data.name", self.name, ("mini", "local", "hub"))
        pinned = [name for name, revision in self.revisions.items() if revision]
        _require(
            not pinned or self.name == "hub",
            f"data.revisions.{''.join(pinned[:1])} pins a repository on the Hub, and data={self.name} loads none from "
            "there; leave it out, or type data=hub.",
        )


@dataclass(kw_only=True)
class SvdConfig:
    """How the singular directions of the frozen matrices are computed."""

    recipe: str
    k_max: int
    seed: int
    oversampling: int
    power_iterations: int
    tolerance: float
    exact_up_to: int

    def __post_init__(self) -> None:
        _one_of("svd.recipe", self.recipe, ("auto", "exact", "converged", "randomized"))
        _at_least("svd", self, 1, "k_max")
        _at_least("svd", self, 0, "oversampling", "power_iterations", "exact_up_to")
        _above_zero("svd", self, tolerance=1e-3)
        _seeds("svd.seed", [self.seed])


@dataclass(kw_only=True)
class TrainingConfig:
    """Budget and optimizer of one adapter's training."""

    steps: int
    rows_per_step: int
    micro_batch_rows: int
    row_tokens: int
    lr: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    warmup_ratio: float
    max_grad_norm: float
    checkpoint_every: int
    gradient_checkpointing: bool
    share_prefixes: bool
    log_every: int

    def __post_init__(self) -> None:
        counts = ("steps", "rows_per_step", "micro_batch_rows", "row_tokens", "checkpoint_every", "log_every")
        _at_least("training", self, 1, *counts)
        _at_least("training", self, 0, "weight_decay", "max_grad_norm")  # 0: no decay, no clipping
        _above_zero("training", self, lr=1e-3, eps=1e-8)
        for field in ("beta1", "beta2", "warmup_ratio"):
            value = getattr(self, field)
            _require(0 <= value < 1, f"training.{field}={value} must be in [0, 1).")


@dataclass(kw_only=True)
class EvaluationConfig:
    """How a model is scored on the four benchmarks and on general text."""

    splits: str
    scoring: str
    batch_tokens: int
    gsm8k_max_new_tokens: int
    code_samples: int
    code_temperature: float
    code_top_p: float
    code_max_new_tokens: int
    code_timeout_seconds: float
    code_execution: str
    text_tokens: int
    limit: int | None
    seed: int

    def __post_init__(self) -> None:
        _one_of("evaluation.splits", self.splits, ("test", "validation"))
        _one_of("evaluation.scoring", self.scoring, ("letter", "cloze"))
        _one_of(
            "evaluation.code_execution",
            self.code_execution,
            ("auto", "bubblewrap", "landlock", "off", "unsafe"),
        )
        counts = ("batch_tokens", "gsm8k_max_new_tokens", "code_samples", "code_max_new_tokens")
        _at_least("evaluation", self, 1, *counts)
        _at_least("evaluation", self, 2, "text_tokens")  # the first token has nothing before it
        _above_zero("evaluation", self, code_temperature=0.2, code_timeout_seconds=3)
        _require(0 < self.code_top_p <= 1, f"evaluation.code_top_p={self.code_top_p} must be in (0, 1], e.g. 0.95.")
        _seeds("evaluation.seed", [self.seed])
        _require(
            self.limit is None or self.limit >= 1,
            f"evaluation.limit={self.limit} must be at least 1, or null for all items.",
        )


@dataclass(kw_only=True)
class TaskConfig:
    """What an adapter is trained on, and in which form."""

    name: str
    template: str | None
    target: str

    def __post_init__(self) -> None:
        if self.template is not None:
            _one_of("task.template", self.template, ("alpaca", "plain"))
        _one_of("task.target", self.target, ("answer", "solution"))


@dataclass(kw_only=True)
class MergingConfig:
    """Which adapters a merge run merges: sizes of the task subsets, tuples per size, seeds to draw from."""

    sizes: list[int]
    instances: int
    training_seeds: list[int]

    def __post_init__(self) -> None:
        _require(
            bool(self.sizes) and all(2 <= size <= 4 for size in self.sizes),
            f"merging.sizes={self.sizes} must hold numbers of tasks from 2 to 4, e.g. [2,3,4].",
        )
        _at_least("merging", self, 1, "instances")
        _require(bool(self.training_seeds), "merging.training_seeds is empty; name at least one seed, e.g. [42].")
        _seeds("merging.training_seeds", self.training_seeds)
        _distinct("merging.sizes", self.sizes)
        _distinct("merging.training_seeds", self.training_seeds)


@dataclass(kw_only=True)
class RunConfig:
    """One run: everything that its records depend on."""

    pipeline: str
    method: Method
    task: TaskConfig
    merge: Operator
    seed: int
    scale: str
    model: ModelConfig
    data: DataConfig
    svd: SvdConfig
    training: TrainingConfig
    evaluation: EvaluationConfig
    merging: MergingConfig
    logging: str
    force: bool
    save_basis: bool
    outputs_dir: str
    results_dir: str

    def __post_init__(self) -> None:
        _one_of("logging", self.logging, ("plain", "wandb"))

    def resolved(self) -> dict[str, Any]:
        """Plain nested dictionary of every field, as a record stores it."""
        return asdict(self)

    def but(self, **changes: Any) -> RunConfig:
        """A copy with some top-level fields replaced."""
        return replace(self, **changes)


def digest(identity: Mapping[str, Any]) -> str:
    """First 12 hexadecimal digits of the SHA-256 of a JSON-serialisable mapping, independent of key order."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _typed(cls: type[T], raw: Mapping[str, Any], group: str) -> T:
    """Build a dataclass from plain values; OmegaConf checks keys and types."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        checked = OmegaConf.merge(OmegaConf.structured(cls), dict(raw))
        values: Any = OmegaConf.to_container(checked, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        sentence = str(error).splitlines()[0].rstrip(".")
        key = getattr(error, "full_key", None) or getattr(error, "key", None) or ""
        raise UserError(f"{group}.{key}: {sentence}; see conf/{group.split('.')[0]} for the fields.") from None
    for key, value in values.items():
        if isinstance(value, float):  # a record holds no other, and no range refuses both nan and infinity
            _require(math.isfinite(value), f"{group}.{key}={value} must be a finite number.")
    return cls(**values)


def build(
    raw: Mapping[str, Any],
    *,
    method_class: Callable[[str], type[Method]],
    operator_class: Callable[[str], type[Operator]],
) -> RunConfig:
    """Typed configuration from the plain, resolved dictionary that Hydra composed.

    The two look-ups are the registries': the options of a method or merge operator are the fields of its class.

    Raises:
        UserError: an unknown or missing key, a value of the wrong type or out of its range.
    """
    sections = {
        "model": ModelConfig,
        "data": DataConfig,
        "svd": SvdConfig,
        "training": TrainingConfig,
        "evaluation": EvaluationConfig,
        "task": TaskConfig,
        "merging": MergingConfig,
    }
    texts = ("scale", "logging", "outputs_dir", "results_dir")
    flags = ("force", "save_basis")
    groups = (*sections, "method", "merge", "seed", "pipeline")
    unknown = sorted(set(raw) - {*groups, *texts, *flags})
    _require(not unknown, f"{', '.join(unknown)}: no such key; see conf/config.yaml for the ones there are.")
    absent = [key for key in (*groups, *texts, *flags) if raw.get(key) is None]
    _require(not absent, f"{', '.join(absent)}: no value; leave out what removes it, or see conf/config.yaml.")
    for group in groups:
        _require(
            isinstance(raw[group], Mapping), f"{group}={raw[group]} is no option; see conf/{group} for those there are."
        )
    for flag in flags:
        _require(isinstance(raw[flag], bool), f"{flag}={raw[flag]} must be true or false.")
    return RunConfig(
        method=_typed(method_class(_name(raw, "method")), raw["method"], "method"),
        merge=_typed(operator_class(_name(raw, "merge")), raw["merge"], "merge"),
        seed=_seed(raw["seed"]),
        pipeline=_name(raw, "pipeline"),
        **{name: _typed(cls, raw[name], name) for name, cls in sections.items()},  # type: ignore[arg-type]
        **{name: str(raw[name]) for name in texts},  # type: ignore[arg-type]
        **{name: raw[name] for name in flags},
    )


def _name(raw: Mapping[str, Any], group: str) -> str:
    name = raw[group].get("name")
    _require(isinstance(name, str), f"{group}.name={name} must be a name; see conf/{group} for those there are.")
    return name


def _seed(raw: Mapping[str, Any]) -> int:
    value = raw.get("value")
    if not isinstance(value, int) or isinstance(value, bool):
        raise UserError(f"seed.value={value} must be a whole number from 0; type seed=custom seed.value=7.")
    _seeds("seed.value", [value])
    return value
