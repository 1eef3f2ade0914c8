"""Model cards of the adapters that a run has scored: those beside the weights, with the scores filled in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hiplora.adapters.card import Scored, write_card
from hiplora.report.runs.predictions import by_benchmark, score
from hiplora.stages.record import Record, Sample
from hiplora.stages.results import Metrics
from hiplora.stages.score import Score
from hiplora.stages.sources import Adapted, Backbone
from hiplora.stats import proportion_interval, t_interval
from hiplora.tasks import TASKS, primary

if TYPE_CHECKING:
    from hiplora.stages.make import Outcome
    from hiplora.stages.store import Store

TEXTS = ("text", "text_sampled")  # one number each, over tokens of a few documents: no items to take an interval over


def fill_cards(outcomes: Sequence[Outcome], store: Store) -> None:
    """Write the scores of a run into the cards of its adapters, where these are here and are the ones scored."""
    scored = [outcome for outcome in outcomes if isinstance(outcome.stage, Score)]
    bare = next((each.record for each in scored if isinstance(_of(each), Backbone)), None)
    before: Mapping[str, Metrics] = {} if bare is None else bare.result.benchmarks  # type: ignore[attr-defined]
    for outcome in scored:
        of = _of(outcome)
        if not isinstance(of, Adapted):
            continue
        training = store.current((of.train.id, outcome.record.where))
        folder = None if training is None else store.artefact(training)
        if training is not None and folder is not None and training.digest == outcome.record.needs.get(training.id):
            result: Any = training.result
            numbers = [*_scores(outcome.record, before, store.samples(outcome.record))]
            write_card(folder, of.train.card(result, numbers))


def _of(outcome: Outcome) -> Any:
    return outcome.stage.of  # type: ignore[attr-defined]


def _scores(record: Record, before: Mapping[str, Metrics], samples: Sequence[Sample]) -> Iterator[Scored]:
    """The headline score and the NLL of every benchmark, and the NLL of general text."""
    items = by_benchmark(samples)
    result: Any = record.result
    for name, metrics in result.benchmarks.items():
        for metric in (*([primary(name)] if name in TASKS else []), "nll"):
            value = metrics.get(metric)
            if value is None:
                continue
            each = [*items.get(name, {}).values()]
            yield Scored(
                benchmark=name,
                metric=metric,
                value=value,
                interval=_interval(metric, each),
                n=int(metrics.get("n") or metrics["tokens"] or 0),
                before=before.get(name, {}).get(metric),
            )


def _interval(metric: str, items: Sequence[Sample]) -> tuple[float, float] | None:
    """Over the items: Student-t of an NLL, Wilson's of a share of right answers; None for a single number."""
    if metric == "nll":
        values = [item["nll"] for item in items if item.get("nll") is not None]
        return t_interval(values) if len(values) > 1 else None
    shares = [share for share in map(score, items) if share is not None]
    return proportion_interval(sum(shares) / len(shares), len(shares)) if shares else None
