"""Model cards of the adapters that a run has scored: their README.md, with the scores filled in."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hiplora.adapters.card import CARD, Scored, update_card
from hiplora.errors import UserError
from hiplora.report.runs.predictions import by_benchmark, score
from hiplora.stages.record import Record, Sample
from hiplora.stages.results import Metrics
from hiplora.stages.score import Score
from hiplora.stages.sources import Adapted, Backbone
from hiplora.stats import proportion_interval, t_interval
from hiplora.tasks import TASKS, primary
from hiplora.tasks.origins import ORIGINS

if TYPE_CHECKING:
    from hiplora.stages.make import Outcome
    from hiplora.stages.store import Store
    from hiplora.tasks.base import Task


def fill_cards(outcomes: Sequence[Outcome], store: Store) -> None:
    """Write the scores of a run into the cards of its adapters, if these are here and are the ones scored.

    Scores on validation, and those of a part of the items (``evaluation.limit``), are left out. A card that cannot be
    written causes a note on stderr and stops nothing.
    """
    for outcome in outcomes:
        if not isinstance(outcome.stage, Score) or not isinstance(outcome.stage.of, Adapted):
            continue
        try:
            _fill(outcome.stage.without_tasks, outcome.stage.of, outcome.record.where, store)
        except (OSError, UserError) as error:
            print(f"note: the model card of {outcome.record.name} was not written ({error})", file=sys.stderr)


def _fill(stage: Score, of: Adapted, where: str, store: Store) -> None:
    """Write the card of one adapter, with the backbone's scores on the same benchmarks where they are known."""
    record, training = (store.current((each.id, where)) for each in (stage, of.train))
    folder = None if training is None else store.artefact(training)
    full = stage.evaluation.splits == "test" and stage.evaluation.limit is None
    if record is None or training is None or folder is None or not full:
        return
    if training.digest == record.needs.get(training.id):
        bare = store.current((stage.but(of=Backbone(model=of.backbone)).id, where))
        before: Mapping[str, Metrics] = {} if bare is None else bare.result.benchmarks  # type: ignore[attr-defined]
        result: Any = training.result
        card = of.train.card(result, [*_scores(record, before, store.samples(record), stage)])
        if not update_card(folder, card):
            why = "was changed, or is of an older version"
            print(f"note: {folder / CARD} {why}, and stays as it is; delete it to have it written", file=sys.stderr)


def _scores(record: Record, before: Mapping[str, Metrics], samples: Sequence[Sample], stage: Score) -> Iterator[Scored]:
    """The headline score and the NLL of every benchmark, and the NLL of general text."""
    items, tasks = by_benchmark(samples), {task.name: task for task in stage.benchmarks}
    result: Any = record.result
    for name, metrics in result.benchmarks.items():
        for metric in (*([primary(name)] if name in TASKS else []), "nll"):
            value = metrics.get(metric)
            if value is None:
                continue
            each = [*items.get(name, {}).values()]
            yield Scored(
                benchmark=name,
                dataset=_dataset(name, tasks.get(name), stage.data.name),
                metric=tasks[name].metric_in_words(metric) if name in tasks else metric,
                value=value,
                interval=_interval(metric, each),
                n=int(metrics.get("n") or metrics["tokens"] or 0),
                before=before.get(name, {}).get(metric),
            )


def _dataset(name: str, task: Task | None, data: str) -> tuple[str, str]:
    """What the Hub calls the data of a benchmark or text, and its name; only data from the Hub have a name there."""
    if task is not None and task.own:
        return task.name, f"{task.name}, rows of the author's own"
    if data != "hub":
        return f"hiplora-{data}-{name}", f"{name} (data {data} of hiplora)"
    return ORIGINS[name if task is None else task.benchmark].hub_id, name


def _interval(metric: str, items: Sequence[Sample]) -> tuple[float, float] | None:
    """The 95 % interval over the items: Student-t of an NLL, Wilson's of an accuracy; None for a single number."""
    if metric == "nll":
        values = [item["nll"] for item in items if item.get("nll") is not None]
        return t_interval(values) if len(values) > 1 else None
    shares = [share for share in map(score, items) if share is not None]
    return proportion_interval(sum(shares) / len(shares), len(shares)) if shares else None
