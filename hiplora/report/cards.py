"""Model cards of the adapters that a run has scored: their README.md, with the scores filled in."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hiplora.adapters.card import CARD, Scored, add_scores, update_card
from hiplora.adapters.results import MARKER
from hiplora.disk import typed_path
from hiplora.errors import UserError
from hiplora.evaluation.definitions import PREFIX
from hiplora.evaluation.lm_tasks import LmScore
from hiplora.report.runs.predictions import by_benchmark, score
from hiplora.report.scores import NORMAL_95
from hiplora.stages.folders import Folder
from hiplora.stages.record import Record, Sample
from hiplora.stages.results import Metrics, Scores
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
        if not isinstance(outcome.stage, Score) or not isinstance(outcome.stage.of, Adapted | Folder):
            continue
        stage, where = outcome.stage.without_tasks, outcome.record.where
        record = store.current((stage.id, where))
        if record is None or stage.evaluation.splits != "test" or stage.evaluation.limit is not None:
            continue
        try:
            _fill(stage, record, outcome.record, store)
        except (OSError, UserError) as error:
            print(f"note: the model card of {outcome.record.name} was not written ({error})", file=sys.stderr)


def _fill(stage: Score, record: Record, latest: Record, store: Store) -> None:
    """Write the scores of one adapter into its card, beside the backbone's where they are known.

    ``record`` has the benchmarks; ``latest`` is the same, or has tasks of lm-eval that were added to it.
    """
    bare = store.current((stage.but(of=Backbone(model=stage.of.backbone)).id, record.where))
    added = _of_lm_eval(record, bare, latest, store)
    scores = [*_scores(record, bare, store.samples(record), stage), *added]
    if isinstance(stage.of, Folder):
        folder = typed_path(stage.of.path)
        if (folder / MARKER).is_file():  # an export or a merge of ours; a trained adapter's run fills its own card
            add_scores(folder, scores)
        return
    assert isinstance(stage.of, Adapted)
    train = stage.of.train
    training: Any = store.current((train.id, record.where))
    kept = None if training is None else store.artefact(training)
    if training is None or kept is None or training.digest != record.needs.get(training.id):
        return
    if not update_card(kept, train.card(training.result, scores)):
        why = "was changed, or is of an older version"
        print(f"note: {kept / CARD} {why}, and stays as it is; delete it to have it written", file=sys.stderr)


def _scores(record: Record, bare: Record | None, samples: Sequence[Sample], stage: Score) -> Iterator[Scored]:
    """The headline score and the NLL of every benchmark, and the NLL of general text."""
    items, tasks = by_benchmark(samples), {task.name: task for task in stage.benchmarks}
    result: Any = record.result
    before: Mapping[str, Metrics] = {} if bare is None else bare.result.benchmarks  # type: ignore[attr-defined]
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


def _of_lm_eval(record: Record, bare: Record | None, latest: Record, store: Store) -> Iterator[Scored]:
    """The scores of lm-eval's tasks that were added to a record, each with its interval by lm-eval's standard error."""
    before = {} if bare is None else _added(bare, store)
    for name, of in (_added(record, store) | _of_tasks(latest)).items():
        task, base = of.task, before.get(name)
        for metric, value in task.metrics.items() if not task.group else ():
            if value is None:
                continue
            half = NORMAL_95 * task.stderr.get(metric, 0.0)
            yield Scored(
                benchmark=f"{name} (lm-eval)",
                dataset=(f"lm-eval-{name}", f"{name} (lm-eval, version {task.version}, {task.shots or 0} shots)"),
                metric=metric,
                value=value,
                interval=(value - half, value + half) if half else None,
                n=task.n,
                before=base.task.metrics.get(metric) if base is not None and base.read == of.read else None,
            )


@dataclass(frozen=True)
class _Task:
    """The scores of a task of lm-eval, and the digests of its definition and data."""

    task: LmScore
    read: Mapping[str, str]


def _of_tasks(record: Record) -> dict[str, _Task]:
    """The tasks of lm-eval that a record has scored."""
    if not isinstance(record.result, Scores):
        return {}
    reads = {name: digest for name, digest in record.asked.get("reads", {}).items() if name.startswith(PREFIX)}
    return {name: _Task(task, reads) for name, task in record.result.lm_eval.items()}


def _added(record: Record, store: Store) -> dict[str, _Task]:
    """The tasks of lm-eval in the records that added some to this one and have its name."""
    found: dict[str, _Task] = {}
    for records in filter(None, (store.tracked, store.local)):
        for key, (kind, name) in records.names().items():
            other = records.get(key) if (kind, name, key[1]) == (record.kind, record.name, record.where) else None
            if other is not None and other.needs.get(record.id) == record.digest:
                found |= _of_tasks(other)
    return found


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
