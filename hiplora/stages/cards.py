"""The model card of an adapter that was trained here, with the scores known so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiplora.adapters.card import Card, Scored
from hiplora.stages.results import Adapter

if TYPE_CHECKING:
    from hiplora.methods.base import Method
    from hiplora.models import Model
    from hiplora.training.options import Training


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The inputs of a training that its card shows: the tasks in training order, and the options.

    ``data`` says for each task, in words, what was read.
    """

    record: str
    tasks: Sequence[str]
    data: Sequence[str]
    seed: int
    targets: Sequence[str]
    method: Method
    training: Training
    model: Model


def adapter_card(made: Trained, result: Adapter, scores: Sequence[Scored] = ()) -> Card:
    """The card of a trained adapter; intervals of scores are over the items of each benchmark."""
    about = (
        f"An adapter of the method `{made.method.name}`, trained by the hiplora suite on "
        f"{' and then '.join(made.data)} with seed {made.seed}. It changes "
        f"{', '.join(sorted(result.targets or made.targets))} of every layer."
    )
    return Card(
        title=f"{made.method.name} on {'+'.join(made.tasks)}, seed {made.seed}",
        about=f"{about} {_of_scores(scores)}",
        settings=_settings(made, result),
        base=None if made.model.source == "hub" else made.model.published_as,
        tags=("hiplora", made.method.name),
        scores=scores,
    )


def _of_scores(scores: Sequence[Scored]) -> str:
    if not scores:
        return "Its scores are filled in by a run that scores it on all test items (without `evaluation.limit`)."
    return (
        "Scores were measured on the adapter as it is saved here; intervals hold for other items of the same "
        "benchmark, not for other training seeds."
    )


def _settings(made: Trained, result: Adapter) -> dict[str, Any]:
    """The settings needed to train the adapter again, and the main numbers of its training."""
    model = made.model
    found = Path(model.path).name if model.source == "folder" else model.path
    return {
        "Backbone": f"{model.label} (`{found}`), {model.dtype}",
        "Method": _options(made.method.fields()),
        "Training": _options(made.training.fields()),
        "Examples": f"{result.examples:,}, {result.epochs:.2f} epochs, {result.tokens:,} tokens{_too_long(result)}",
        "Final loss": f"{result.final_loss:.4f} nats per label token, mean of the last tenth of the steps",
        "Parameters": f"{result.trainable_parameters:,} trained, {result.deployed_parameters:,} stored",
        "Record": f"`{made.record}`",
    }


def _too_long(result: Adapter) -> str:
    """The numbers of examples that did not fit a row, in words; empty if all did, or if the record does not say."""
    if not result.cut and not result.dropped:
        return ""
    return f"; {result.cut:,} cut before the end of the answer and {result.dropped:,} left out, too long for a row"


def _options(fields: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in fields.items())
