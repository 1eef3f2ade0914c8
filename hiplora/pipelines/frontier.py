"""Pipeline ``frontier``: learning against forgetting of one adapter, at several scales and training steps (Figure 7).

If selection has fixed a level for the task, the adapter is measured once more at the scale c that reaches it, and its
own benchmark is scored in full there.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from hiplora import models, selection
from hiplora.config import Positive, Scale
from hiplora.errors import UserError
from hiplora.pipelines.base import Config, Pipeline, Stages, frontier, put_on, replayed, training
from hiplora.pipelines.equal import Curve, curve
from hiplora.stages.frontier import LEARNING, Frontier
from hiplora.stages.make import Wanted
from hiplora.stages.record import Record, Records
from hiplora.stages.score import Score
from hiplora.stages.sources import Backbone
from hiplora.stages.train import Train
from hiplora.tasks import ORDER
from hiplora.tasks.source import Source


class Frontiers(Pipeline):
    """Base of the pipelines that measure frontiers: the ``scales`` c, and the number of items and tokens per point."""

    unscaled: ClassVar[bool] = True

    scales: Annotated[tuple[Scale, ...], Field(strict=False, min_length=1)]
    own_items: Positive
    other_items: Positive
    text_tokens: Annotated[int, Field(ge=2, le=10**9)]

    def check_options(self) -> None:
        if list(self.scales) != sorted({*self.scales}):
            raise UserError(f"{self.typed('scales', list(self.scales))} must increase; name each scale once.")

    def frontier(self, config: Config, of: Backbone | Train) -> Frontier:
        """The frontier of the backbone or of an adapter."""
        items = {"own_items": self.own_items, "other_items": self.other_items}
        return frontier(config, of, scales=self.scales, text_tokens=self.text_tokens, **items)

    def wanted(self, config: Config) -> list[Wanted]:
        """Three stages: the training of a configuration, the backbone's frontier and the adapter's."""
        train = training(config)
        base = Wanted(self.frontier(config, Backbone(model=config.model)), shared=True)
        return [Wanted(train, artefact=False), base, Wanted(self.frontier(config, train))]

    def curves(self, configs: Sequence[Config], *, shared: bool) -> Generator[Any, list[Record], list[Curve]]:
        """The curves of adapters, each with one point more where it crosses the level of its task, if there is one.

        The point is measured at the c that the other points give. Between these the curve is an estimate, which would
        be as far off as the methods are apart. If an adapter must be trained again for it, and comes out different
        (on another machine), its other points are measured again too. Yields the stages that this needs.
        """
        drawn, again = yield from self._curves(configs, shared=shared)
        if again:
            drawn, _ = yield from self._curves(configs, shared=shared)
        return drawn

    def _curves(
        self, configs: Sequence[Config], *, shared: bool
    ) -> Generator[Any, list[Record], tuple[list[Curve], bool]]:
        """The curves, and whether one has a point of another adapter than its other points."""
        wanted = [replace(each, shared=shared or each.shared) for one in configs for each in self.wanted(one)]
        found = {record.id: record for record in (yield wanted)}
        drawn, points, again = [], {}, False
        adapters = []
        for number, config in enumerate(configs):
            _, base, adapter = (found[each.stage.id] for each in self.wanted(config))
            adapters.append(adapter)
            drawn.append(curve(config.task.name, base=base, adapter=adapter))
            c = None if (level := level_of(config)) is None else drawn[-1].reach(level)
            if c is not None and c not in drawn[-1].scales:
                points[number] = self.frontier(config, training(config)).but(scales=(c,), fractions=())
        if points:
            records = yield [Wanted(point, shared=shared) for point in points.values()]
            for number, record in zip(points, records, strict=True):
                drawn[number] = drawn[number].also(record)
                again |= record.needs != adapters[number].needs
        return drawn, again


class FrontierOnly(Frontiers):
    """Training, the backbone's frontier and the adapter's; then its own benchmark at the level, if there is one."""

    def stages(self, config: Config) -> Stages:
        return self._steps(config)

    def _steps(self, config: Config) -> Generator[Any, list[Record], float | None]:
        level, (drawn,) = level_of(config), (yield from self.curves([config], shared=False))
        c = None if level is None else drawn.reach(level)
        if c is not None:
            yield [Wanted(score_at(config, training(config), c))]
        return c

    def conclude(self, config: Config, found: Mapping[str, Record]) -> str:
        """A sentence that says at which c the adapter reaches the level."""
        level, task = level_of(config), config.task.name
        if level is None:
            return no_level(config)
        c = replayed(self._steps(config), found)
        return f"The level of {task}, {level:.4f} nats, is " + ("never reached." if c is None else f"at c = {c:g}.")


class CurveOnly(Frontiers):
    """Training, the backbone's frontier and the adapter's: the stages of a trial in selection (Figure 3)."""

    def stages(self, config: Config) -> Stages:
        return self.wanted(config)


def selected(config: Config) -> selection.Selection | None:
    """The selection that fixes the configuration's levels; None without one, or if it is of another backbone."""
    chosen = selection.read(config.places.results)
    return chosen if chosen is not None and chosen.identity == models.weights(config.model) else None


def level_of(config: Config) -> float | None:
    """The NLL at which adapters of the configuration's task are compared.

    None if selection has fixed none, or measured it otherwise than the configuration measures its adapters.
    """
    chosen = selected(config)
    if chosen is None or _measured_otherwise(config, chosen):
        return None
    return chosen.levels.get(config.task.name)


def _measured_otherwise(config: Config, chosen: selection.Selection) -> str | None:
    """Why the level of the configuration's task cannot be compared with its adapters' own NLL, in words; else None."""
    task, folder = config.task.name, config.places.tracked / Frontier.kind
    now: dict[str, Any] = {}
    for id in chosen.levels_from.get(task, ()):
        asked = _listed(folder.parent, folder.stat().st_mtime_ns).asked(id) if folder.is_dir() else None
        if asked is None:
            return f"the record {id}, from which it follows, is not in {folder}"
        now = now or _own_measure(config)
        then = _measure(asked, task, now["the validation data"])
        if differ := [name for name in now if now[name] != then[name]]:
            return f"it was measured with another setting of {', '.join(differ)}"
    return None


def _own_measure(config: Config) -> dict[str, Any]:
    """What the own NLL of the configuration's adapters depends on besides the adapter."""
    assert isinstance(config.pipeline, Frontiers)
    asked = config.pipeline.frontier(config, Backbone(model=config.model)).described()
    return _measure(asked, config.task.name, config.task.asked_reads(Source(config.data), LEARNING))


def _measure(asked: Mapping[str, Any], task: str, files: Iterable[str]) -> dict[str, Any]:
    """What the NLL of a task on validation depends on, by options, from what a frontier was asked."""
    evaluation = {name: value for name, value in asked["evaluation"].items() if name not in ("splits", "text_tokens")}
    return {
        "model.dtype or model.chat_template": asked["of"]["model"],
        "evaluation.scoring, task.template or task.target": next(
            (each for each in asked["benchmarks"] if each["name"] == task), None
        ),
        "pipeline.own_items or evaluation.limit": [asked["own_items"], evaluation],
        "the validation data": {name: asked["reads"].get(name) for name in files},
    }


@lru_cache(maxsize=4)
def _listed(folder: Path, changed: int) -> Records:
    """The records below a folder; cached, because a plan asks for every run. ``changed`` is the folder's time."""
    return Records(folder)


def no_level(config: Config) -> str:
    """Why the configuration's task has no level, in a sentence."""
    file, task = selection.path(config.places.results), config.task.name
    there, chosen = selection.read(config.places.results), selected(config)
    if there is not None and chosen is None:
        return (
            f"{task} has no level: {file} is of another backbone, {there.backbone}; choose another results_dir and run "
            "pipeline=select there."
        )
    if chosen is not None and (why := _measured_otherwise(config, chosen)):
        return f"{task} has no level here: {file} has one, but {why}. Change that, or choose another results_dir."
    if chosen is not None and task in chosen.left_out:
        return f"{task} has no level in {file}: {chosen.left_out[task]}."
    if config.task.own:
        return (
            f"{task} has no level, as pipeline=select fixes those of {', '.join(ORDER)} alone; choose one of these, or "
            "score the adapter at other sizes with evaluation.scale=C."
        )
    return f"No level of {task} is fixed in {file}; pipeline=select fixes it."


def score_at(config: Config, train: Train, c: float) -> Score:
    """The full score of an adapter, at scale ``c``, on its own benchmark."""
    own = tuple(task for task in config.benchmarks if task.name == config.task.name)
    return Score(of=put_on(train, c), benchmarks=own, evaluation=config.evaluation, data=config.data)
