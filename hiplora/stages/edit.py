"""Kind ``edit``: a model's answers on batches of edited facts and on unrelated prompts, before or after the edit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from hiplora import models
from hiplora.config import As, Place, Positive
from hiplora.errors import UserError
from hiplora.evaluation.options import Evaluation
from hiplora.stages.base import Job, Made, Source, Stage
from hiplora.stages.results import Edited, EditedBatch
from hiplora.tasks.base import Task, asked_reads
from hiplora.tasks.edits import EditBatch
from hiplora.tasks.source import Data
from hiplora.tasks.source import Source as DataSource

if TYPE_CHECKING:
    from hiplora.evaluation.editing import Probes, Replies
    from hiplora.evaluation.engine import TaskScore


class Edit(Stage):
    """Asks the items of ``batches``, and the first ``probes`` (benchmark → number) of the split ``evaluation.splits``.

    An adapter is measured on the one batch it was trained on; the backbone, which gives the answers before the edit, on
    all batches in one stage, so that it answers the probes once. The predictions hold the answers on every item.
    """

    kind: ClassVar[str] = "edit"

    of: Source
    batches: Annotated[tuple[EditBatch, ...], Field(strict=False, min_length=1)]
    probes: dict[str, Positive]
    benchmarks: Annotated[tuple[Task, ...], Field(strict=False, min_length=1)]
    evaluation: Annotated[  # which items the probes are
        Evaluation, As(lambda asked: asked.splits if asked.take == "first" else [asked.splits, asked.take])
    ]
    data: Annotated[Data, Place]

    def needs(self) -> tuple[Stage, ...]:
        return self.of.made_from()

    def reads(self) -> dict[str, str]:
        sets = {name: digest for batch in self.batches for name, digest in batch.edits.reads().items()}
        asked = asked_reads(self.benchmarks, DataSource(self.data), self.evaluation.splits)
        return {**self.of.reads(), **sets, **asked}

    def where(self) -> str:
        return self.of.backbone.where()

    def name(self) -> str:
        return self.of.name()

    def check(self) -> None:
        self.of.check()
        models.check(self.of.backbone)
        for task in self.benchmarks:
            task.check_asked(DataSource(self.data), self.evaluation.splits)
        self._check_probes(DataSource(self.data))
        for batch in self.batches:
            batch.items()

    def run(self, job: Job) -> Made:
        from hiplora.evaluation.answers import Answers
        from hiplora.evaluation.editing import Probes
        from hiplora.packing.decoder import evaluating

        started = time.perf_counter()
        source = DataSource(self.data)
        backbone = models.load(self.of.backbone)
        with self.of.on(backbone, job) as loaded, evaluating(loaded.model):
            answers = Answers(
                loaded.model, backbone.tokenizer, batch_tokens=self.evaluation.batch_tokens, parts=job.parts
            )
            probes = Probes(answers, self.benchmarks, self.probes, source, self.evaluation)
            plain = probes.scores()
            made = [_batch(probes, batch, plain) for batch in self.batches]
        batches = [batch for batch, _ in made]
        self.of.check_finite({f"edits, {group}": means for each in batches for group, means in each.means.items()})
        result = Edited(batches=batches, right=_right(plain), seconds=round(time.perf_counter() - started, 2))
        samples = [sample for _, samples in made for sample in samples]
        return Made(result, models.describe(backbone), [*samples, *_probe_samples(plain)])

    def _check_probes(self, source: DataSource) -> None:
        """Refuse conversations as probes, and more probes than the benchmark has items. Raises UserError."""
        for task in self.benchmarks:
            if task.already_in_turns(source, self.evaluation.splits):
                raise UserError(
                    f"pipeline.probes.{task.name} asks for probes from conversations, which an edit cannot be put in "
                    "front of; leave it out, or give the columns prompt and answer."
                )
            asked, there = self.probes[task.name], len(task.test_items(source, self.evaluation.splits))
            if there < asked:
                raise UserError(
                    f"pipeline.probes.{task.name}={asked} asks for more than the {there} items of {task.name} in "
                    f"pipeline.splits={self.evaluation.splits}; type pipeline.probes.{task.name}={there}."
                )


def _batch(probes: Probes, batch: EditBatch, plain: dict[str, TaskScore]) -> tuple[EditedBatch, list[dict[str, Any]]]:
    """The results of one batch, and the model's answers on each of its items."""
    from hiplora.evaluation import edit_measures as judge
    from hiplora.evaluation.editing import replies

    items = batch.items()
    found = replies(probes.answers, items)
    front = probes.scores(items)
    categories = [item.category for item in items]
    probed = judge.probe_means(
        categories,
        {
            "probe_log_p_gold": _gold(plain),
            "probe_log_p_new": [judge.per_token(each) for each in probes.edited(items, front=False)],
            "front_log_p_gold": _gold(front),
            "front_log_p_new": [judge.per_token(each) for each in probes.edited(items, front=True)],
        },
    )
    means = judge.means(found)
    result = EditedBatch(
        categories={name: judge.bits(each == name for each in categories) for name in sorted({*categories})},
        outcomes={name: judge.bits(flags) for name, flags in judge.outcomes(found).items()},
        front=_right(front),
        means={group: {**figures, **probed.get(group, {})} for group, figures in means.items()},
    )
    return result, [_sample(each, batch.number) for each in found]


def _right(scores: dict[str, TaskScore]) -> dict[str, str]:
    """Benchmark → which of its items were answered right, as a string of 0 and 1."""
    from hiplora.evaluation.edit_measures import bits

    return {name: bits(sample["acc"] == 1 for sample in score.samples) for name, score in scores.items()}


def _gold(scores: dict[str, TaskScore]) -> list[float]:
    """Mean log-probability per token of the right answer to every probe."""
    return [-sample["nll"] for score in scores.values() for sample in score.samples]


def _sample(found: Replies, batch: int) -> dict[str, Any]:
    """The predictions on one item: ids, completions, and ``[log p, tokens, whether greedy]`` of every scored answer."""

    def scored(*each: Any) -> list[Any]:
        return [[round(one.log_prob, 4), one.tokens, one.greedy] for one in each]

    return {
        "batch": batch,
        "id": found.item.id,
        "category": found.item.category,
        "prompts": [{"text": each.text, "new_old": scored(each.new, each.old)} for each in found.prompts],
        "neighbours": [{"answer_new": scored(each.answer, each.new)} for each in found.neighbours],
    }


def _probe_samples(scores: dict[str, TaskScore]) -> Sequence[dict[str, Any]]:
    return [{"benchmark": name, **sample} for name, score in scores.items() for sample in score.samples]
