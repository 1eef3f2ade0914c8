"""The grid of runs behind a table, a user's overrides for it, and the multiruns that make its runs.

A file of ``conf/experiment`` names groups of runs, each the product of its axes. A value of an axis is one or more
overrides under a short key (``hip: method=hip``); a plain list is shorthand for ``<axis>=<value>``. ``without`` leaves
parts of the product out: each of its entries lists keys of some axes, and names the runs that have one of each.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hiplora.errors import UserError

EXPERIMENTS = Path(__file__).resolve().parents[2] / "conf" / "experiment"
PAPER = EXPERIMENTS.parents[1] / "results" / "paper" / "values.yaml"
SEED = "seed"  # the axis that is averaged over: training seeds, or sampling seeds of merges


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a grid: its key on each axis (``point``), and the overrides of its group and of each axis."""

    group: str
    pipeline: str
    point: Mapping[str, str]
    fixed: tuple[str, ...]
    parts: tuple[tuple[str, ...], ...]

    @property
    def overrides(self) -> tuple[str, ...]:
        """Hydra overrides of this run, as typed after ``python -m hiplora.run``."""
        return (*self.fixed, *itertools.chain.from_iterable(self.parts))


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The runs that a complete table needs, in order, the names of its rows, and the ``paper``'s values for it."""

    name: str
    title: str
    labels: Mapping[str, str]
    runs: Sequence[Run]
    paper: Mapping[str, Any]

    @property
    def groups(self) -> list[str]:
        """The names of the groups of runs, in order."""
        return list(dict.fromkeys(run.group for run in self.runs))

    def keys(self, group: str, axis: str) -> list[str]:
        """Keys of one axis, in order."""
        return list(dict.fromkeys(run.point[axis] for run in self.runs if run.group == group))

    def paper_value(self, path: str) -> float | None:
        """The paper's value at a path such as ``retain_pp/lora``; None if it states none."""
        value: Any = self.paper
        for key in path.split("/"):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def label(self, *keys: str) -> str:
        """The name of a row, from the names of its keys."""
        return ", ".join(self.labels.get(key, key) for key in keys)


def load(name: str, folder: Path = EXPERIMENTS) -> Experiment:
    """One experiment from its file. Raises UserError if there is none or it does not follow the schema above."""
    import yaml

    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
        raise UserError(f"There is no experiment {name!r}; choose one of {known}.")
    values = yaml.safe_load(PAPER.read_text())
    paper = {**values[name], "source": values["source"]} if name in values else {}
    try:
        raw = yaml.safe_load(path.read_text())
        runs = [run for group, value in raw["groups"].items() for run in product(group, value)]
        return Experiment(name=name, title=raw["title"], labels=raw.get("labels", {}), runs=runs, paper=paper)
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{path} is not an experiment ({reason}); compare it with table1.yaml.") from None


def product(group: str, raw: Mapping[str, Any]) -> list[Run]:
    """Every run of a group, without a user's settings; the last axis varies fastest."""
    axes, pipeline, runs = raw["axes"], raw["pipeline"], []
    fixed = (*([] if pipeline == "single" else [f"pipeline={pipeline}"]), *raw.get("overrides", ()))
    left_out = [{axis: set(map(str, keys)) for axis, keys in part.items()} for part in raw.get("without", ())]
    if unknown := {axis for part in left_out for axis in part} - set(axes):
        raise KeyError(f"without: {', '.join(sorted(unknown))}")
    for keys in itertools.product(*axes.values()):
        point = dict(zip(axes, keys, strict=True))
        if any(all(str(point[axis]) in chosen for axis, chosen in part.items()) for part in left_out):
            continue
        words = [axes[a][key] if isinstance(axes[a], Mapping) else f"{a}={key}" for a, key in point.items()]
        named, parts = {axis: str(key) for axis, key in point.items()}, tuple(tuple(each.split()) for each in words)
        runs.append(Run(group=group, pipeline=pipeline, point=named, fixed=fixed, parts=parts))
    return runs


@dataclass(frozen=True, kw_only=True)
class Request:
    """A user's overrides by what they apply to: every run, a part of the grid, Hydra itself."""

    settings: tuple[str, ...]
    part: dict[str, set[str]]
    hydra: tuple[str, ...]

    def includes(self, run: Run) -> bool:
        """Whether a run lies in the part of the grid that was asked for."""
        return all(run.point[axis] in chosen for axis, chosen in self.part.items() if axis in run.point)


def request(experiment: Experiment, overrides: Sequence[str]) -> Request:
    """Sort the overrides. Raises UserError if one is malformed, not part of the grid, or force=true."""
    part: dict[str, set[str]] = {}
    for word in overrides:
        axis, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{word!r} is not an override; type key=value, e.g. scale=mini.")
        if axis == "force":
            raise UserError("A table reuses its records; to redo a run type python -m hiplora.run … force=true.")
        if known := dict.fromkeys(run.point[axis] for run in experiment.runs if axis in run.point):
            part[axis] = set(value.split(","))
            if unknown := ",".join(sorted(part[axis] - set(known))):
                raise UserError(f"{axis}={unknown} is not part of {experiment.name}; choose among {', '.join(known)}.")
    hydra = tuple(word for word in overrides if word.startswith("hydra"))
    settings = tuple(word for word in overrides if word not in hydra and word.partition("=")[0] not in part)
    return Request(settings=settings, part=part, hydra=hydra)


def with_settings(runs: Sequence[Run], settings: Sequence[str], compose: Callable[[Sequence[str]], Any]) -> list[Run]:
    """Runs with the user's settings, except for settings that a row fixes itself, which define the row.

    An option of a method goes to the rows whose method has it. Raises UserError if a setting applies to no run.
    """
    special = [word for word in settings if word.startswith("method.")]
    given = []
    for run in runs:
        own = {word.partition("=")[0] for word in run.overrides}
        try:
            method = compose(run.overrides).method if special else None
        except UserError:  # the table shows the row with the reason
            method = None
        options = [word for word in special if hasattr(method, word.partition("=")[0].removeprefix("method."))]
        words = [*(word for word in settings if word not in special), *options]
        given.append([word for word in words if word.partition("=")[0] not in own])
    idle = sorted(set(settings) - {word for words in given for word in words})
    if runs and idle:
        raise UserError(f"{', '.join(idle)} applies to no row: no method here has it, or every row fixes it itself.")
    return [replace(run, fixed=(*words, *run.fixed)) for run, words in zip(runs, given, strict=True)]


def sweeps(runs: Sequence[Run]) -> list[list[str]]:
    """Overrides of multiruns that together make these runs, as few as possible.

    A value that consists of several overrides is not joined with others.
    """
    lines: list[list[str]] = []
    for group, fixed in dict.fromkeys((run.group, run.fixed) for run in runs):
        blocks = [tuple(map(_override, run.parts)) for run in runs if (run.group, run.fixed) == (group, fixed)]
        for axis in reversed(range(len(blocks[0]))):
            joined: dict[Any, dict[str, None]] = {}
            for block in blocks:  # blocks that differ only in the values of this axis become one
                name, values = block[axis]
                others = (*block[:axis], (name, () if name else values), *block[axis + 1 :])
                joined.setdefault(others, {}).update(dict.fromkeys(values))
            blocks = [(*o[:axis], (o[axis][0], tuple(values)), *o[axis + 1 :]) for o, values in joined.items()]
        typed = [[f"{name}={','.join(values)}" if name else values[0] for name, values in block] for block in blocks]
        lines += [[*fixed, *(word for words in line for word in words.split())] for line in typed]
    return lines


def _override(part: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Name and value of a single simple override, which can be joined; otherwise an empty name and the whole text."""
    simple = len(part) == 1 and not set(part[0]) & set(",[]{}\"'")
    name, _, value = part[0].partition("=") if simple else ("", "", " ".join(part))
    return name, (value,)
