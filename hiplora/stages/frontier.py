"""Kind ``frontier``: what an adapter has learned against what it has forgotten, at several sizes of its update.

The scores are cheap because nothing is generated: they are log-likelihoods of the gold answers to some items of every
benchmark, and of general text. They are measured with the trained update scaled, c ΔW, and with the update at
several steps of the training.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from hiplora import models
from hiplora.config import As, Fraction, Neutral, Place, Positive, Scale, as_likelihood
from hiplora.errors import UserError
from hiplora.evaluation.options import Evaluation
from hiplora.models import Model
from hiplora.parts import Parts
from hiplora.spectral.options import Svd
from hiplora.stages import energy, results
from hiplora.stages.base import Job, Made, Stage
from hiplora.stages.results import Metrics, Point
from hiplora.stages.sources import Backbone, Scaled, Snapshot, trained_updates
from hiplora.stages.train import Train
from hiplora.tasks.base import Task, asked_reads
from hiplora.tasks.source import Data
from hiplora.tasks.source import Source as DataSource

if TYPE_CHECKING:
    from hiplora.spectral.recipes import Basis
    from hiplora.updates import Update

LEARNING = "validation"  # the split that measures learning, so that scales are never chosen on test


class Frontier(Stage):
    """One point for each of ``scales`` (of the finished update) and each of ``fractions`` (of the training's steps).

    The adapter's own benchmark is measured on ``own_items`` of validation, every benchmark on ``other_items`` of
    ``evaluation.splits``. The backbone has one point, and every benchmark counts as its own. ``svd`` computes the
    directions for ``top_share``. Generation settings do not enter the identity, because nothing is generated.
    """

    kind: ClassVar[str] = "frontier"

    of: Backbone | Train
    scales: Annotated[tuple[Scale, ...], Field(strict=False)]
    fractions: Annotated[tuple[Fraction, ...], Field(strict=False)]
    benchmarks: Annotated[tuple[Task, ...], Field(strict=False), As(lambda tasks: [as_likelihood(t) for t in tasks])]
    evaluation: Annotated[Evaluation, As(lambda asked: as_likelihood(asked.but(likelihood_only=True)))]
    own_items: Positive
    other_items: Positive
    data: Annotated[Data, Place]
    svd: Annotated[Svd | None, Neutral(None)] = None

    def check_options(self) -> None:
        if isinstance(self.of, Train) != bool(self.scales or self.fractions):
            raise UserError(
                "A frontier of an adapter needs scales or fractions of its training; the backbone's takes neither."
            )
        if not self._own():
            raise UserError("A frontier needs the benchmark that its adapter was trained on; add it to the benchmarks.")

    @property
    def model(self) -> Model:
        """The backbone."""
        return self.of.model

    def needs(self) -> tuple[Stage, ...]:
        return (self.of.keeping(*self.fractions),) if isinstance(self.of, Train) else ()

    def reads(self) -> dict[str, str]:
        of = self.of.reads() if isinstance(self.of, Backbone) else {}
        source = DataSource(self.data)
        learning, others = self._own(), self.benchmarks
        asked = asked_reads(learning, source, LEARNING) | asked_reads(others, source, self.evaluation.splits)
        return {**of, **asked, **source.reads(*self._texts())}

    def where(self) -> str:
        return self.model.where()

    def name(self) -> str:
        return self.of.name()

    def check(self) -> None:
        models.check(self.model)
        source = DataSource(self.data)
        for tasks, split in ((self._own(), LEARNING), (self.benchmarks, self.evaluation.splits)):
            for task in tasks:
                task.check_asked(source, split)
        source.check(*self._texts())

    def run(self, job: Job) -> Made:
        from tqdm import tqdm

        started = time.perf_counter()
        backbone = models.load(self.model)
        directions = self._directions(backbone, job)
        points = []
        for scale, fraction, source in tqdm(self._sources(), desc="frontier", unit="point"):
            place = f"{scale}/{fraction}"
            if job.parts.get(place) is None:
                updates = {} if isinstance(source, Backbone) else source.updates(backbone, job)
                point = Point(
                    scale=scale,
                    fraction=fraction,
                    norm=energy.norm(updates),
                    top_share=None if directions is None else energy.top_share(updates, directions),
                    **self._scores(backbone, source, updates),
                )
                job.parts.keep({place: point.model_dump()})
            points.append(Point(**job.parts.get(place)))
        seconds = round(time.perf_counter() - started, 2)
        return Made(results.Frontier(points=points, seconds=seconds), models.describe(backbone))

    def _sources(self) -> list[tuple[float, float, Backbone | Scaled | Snapshot]]:
        """The points as (scale, fraction of the steps, source)."""
        if isinstance(self.of, Backbone):
            return [(0.0, 0.0, self.of)]
        scaled = [(scale, 1.0, Scaled(of=self.of, scale=scale)) for scale in self.scales]
        return [*scaled, *((1.0, part, Snapshot(train=self.of, fraction=part)) for part in self.fractions)]

    def _directions(self, backbone: models.Backbone, job: Job) -> dict[str, Basis] | None:
        if self.svd is None or isinstance(self.of, Backbone):
            return None
        return energy.bases(backbone.model, trained_updates(self.of, backbone, job), self.svd)

    def _scores(
        self, backbone: models.Backbone, source: Backbone | Scaled | Snapshot, updates: dict[str, Update]
    ) -> dict[str, dict[str, Metrics]]:
        """Scores of the backbone with an update on it: ``learning`` and ``benchmarks`` of a :class:`Point`."""
        from hiplora.merging.attached import attached

        answers = Parts(None)  # shared within the point: in selection both kinds of scores are on the same items
        with attached(backbone.model, updates):
            texts = self._general(backbone)  # comes first, because it finds non-finite outputs within a second
            source.check_finite(texts)
            learning = self._learning(backbone, answers)
            split, items = self.evaluation.splits, self.other_items
            others = self._asked(backbone, self.benchmarks, answers, split=split, items=items, likelihood_only=True)
        source.check_finite(learning | others)
        return {"learning": learning, "benchmarks": others | texts}

    def _general(self, backbone: models.Backbone) -> dict[str, Metrics]:
        from hiplora.evaluation.text import text_cross_entropy

        source, tokens = DataSource(self.data), self.evaluation.text_tokens
        model, tokenizer = backbone.model, backbone.tokenizer
        return {
            name: {**text_cross_entropy(model, tokenizer, source, tokens=tokens, dataset=name, split=split)}
            for name, split in self._texts()
        }

    def _learning(self, backbone: models.Backbone, answers: Parts) -> dict[str, Metrics]:
        """Scores of the adapter's own benchmark, with the accuracy if that follows from likelihoods too."""
        source = DataSource(self.data)
        found: dict[str, Metrics] = {}
        for writes in (False, True):
            tasks = [task for task in self._own() if bool(task.written_tokens(source, LEARNING)) is writes]
            if tasks:
                asked = self._asked(
                    backbone, tasks, answers, split=LEARNING, items=self.own_items, likelihood_only=writes
                )
                found |= asked
        return found

    def _asked(
        self,
        backbone: models.Backbone,
        tasks: Sequence[Task],
        answers: Parts,
        *,
        split: str,
        items: int,
        likelihood_only: bool,
    ) -> dict[str, Metrics]:
        """Benchmark → metrics on ``items`` of its items, with the number of items as ``n``."""
        from hiplora.evaluation.engine import evaluate

        limit = min(items, self.evaluation.limit or items)
        found = evaluate(
            backbone.model,
            backbone.tokenizer,
            tasks=tasks,
            source=DataSource(self.data),
            evaluation=self.evaluation.but(splits=split, limit=limit, likelihood_only=likelihood_only),
            progress=False,
            parts=answers,
        )
        return {
            name: {**{metric: value for metric, value in score.metrics.items() if value is not None}, "n": score.n}
            for name, score in found.items()
        }

    def _own(self) -> list[Task]:
        """The benchmark that the adapter was trained on; for the backbone, all benchmarks."""
        of = self.of
        return [task for task in self.benchmarks if isinstance(of, Backbone) or task.name == of.task.name]

    def _texts(self) -> list[tuple[str, str]]:
        """(Data set, split) pairs of general text."""
        split = self.evaluation.splits
        return [(name, split) for name in DataSource(self.data).texts(split)]
