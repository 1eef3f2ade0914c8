"""The grid of runs behind a table, read from ``conf/experiment/<name>.yaml``.

A file names its groups of runs. A group is the product of its axes; each value of an axis is one or more Hydra
overrides under a short key (``hip: method=hip``), and a plain list is shorthand for ``<axis>=<value>``::

    title: Single-task fine-tuning
    labels: {hip: HiP-LoRA}
    groups:
      single:
        pipeline: single
        overrides: []
        axes: {method: {hip: method=hip}, task: [mmlu, gsm8k], seed: [42, 100, 2024]}
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiplora.errors import UserError

EXPERIMENTS = Path(__file__).resolve().parents[2] / "conf" / "experiment"
Axes = Mapping[str, Mapping[str, tuple[str, ...]]]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One run of a grid: its place in each axis, and the overrides of each axis that compose it."""

    group: str
    pipeline: str
    point: Mapping[str, str]
    fixed: tuple[str, ...]
    parts: tuple[tuple[str, ...], ...]

    @property
    def overrides(self) -> tuple[str, ...]:
        """Hydra overrides of this run, as typed after ``python -m hiplora.run``."""
        return (*self.fixed, *(word for part in self.parts for word in part))


@dataclass(frozen=True, kw_only=True)
class Group:
    """A product of axes over one pipeline."""

    name: str
    pipeline: str
    overrides: tuple[str, ...]
    axes: Axes

    def wanted(self) -> Iterator[Wanted]:
        """Every run of the product, last axis fastest."""
        default = () if self.pipeline == "single" else (f"pipeline={self.pipeline}",)
        for keys in itertools.product(*self.axes.values()):
            point = dict(zip(self.axes, keys, strict=True))
            yield Wanted(
                group=self.name,
                pipeline=self.pipeline,
                point=point,
                fixed=(*default, *self.overrides),
                parts=tuple(self.axes[axis][key] for axis, key in point.items()),
            )


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What a table needs to be complete, and how its rows are called."""

    name: str
    title: str
    labels: Mapping[str, str]
    groups: Mapping[str, Group]

    def wanted(self) -> list[Wanted]:
        """Every run of every group, in the order in which they should be made."""
        return [run for group in self.groups.values() for run in group.wanted()]

    def keys(self, group: str, axis: str) -> list[str]:
        """Keys of one axis, in order."""
        return list(self.groups[group].axes[axis])

    def label(self, key: str) -> str:
        """Name of a key in the table."""
        return self.labels.get(key, key)


def names(folder: Path = EXPERIMENTS) -> list[str]:
    """Names of all experiments."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load(name: str, folder: Path = EXPERIMENTS) -> Experiment:
    """Read one experiment.

    Raises:
        UserError: no such experiment, or a file that does not follow the schema above.
    """
    import yaml

    path = folder / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"There is no experiment {name!r}; choose one of {', '.join(names(folder))}.")
    try:
        raw = yaml.safe_load(path.read_text())
        groups = {key: _group(key, value) for key, value in raw["groups"].items()}
        return Experiment(name=name, title=raw["title"], labels=raw.get("labels", {}), groups=groups)
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{path} is not an experiment ({reason}); compare it with table1.yaml.") from None


def _group(name: str, raw: Mapping[str, Any]) -> Group:
    return Group(
        name=name,
        pipeline=raw["pipeline"],
        overrides=tuple(raw.get("overrides", ())),
        axes={axis: _axis(axis, values) for axis, values in raw["axes"].items()},
    )


def _axis(axis: str, values: Mapping[str, str] | Sequence[Any]) -> dict[str, tuple[str, ...]]:
    if isinstance(values, Mapping):
        return {str(key): tuple(overrides.split()) for key, overrides in values.items()}
    return {str(value): (f"{axis}={value}",) for value in values}
