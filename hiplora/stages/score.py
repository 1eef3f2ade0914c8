"""Kind ``score``: scores on benchmarks and general text of any source: the backbone, an adapter or a merge."""

from __future__ import annotations

import time
from functools import cached_property
from typing import Annotated, Any, ClassVar

from pydantic import Field

from hiplora import models
from hiplora.config import Neutral, Place, as_likelihood
from hiplora.errors import UserError
from hiplora.evaluation import item_texts
from hiplora.evaluation.lm_tasks import LmTasks
from hiplora.evaluation.options import Evaluation
from hiplora.stages.base import Job, Made, Source, Stage
from hiplora.stages.results import Metrics, Scores
from hiplora.stages.train import Train
from hiplora.tasks.base import Task, asked_reads
from hiplora.tasks.source import Data
from hiplora.tasks.source import Source as DataSource


class Score(Stage):
    """Scores of the backbone with a source on it, on the ``benchmarks`` and on general texts.

    All are measured on the split ``evaluation.splits``. If only likelihoods are scored, generation settings do not
    enter the id. With ``lm_tasks`` the stage needs the score without them and copies its numbers, so that adding
    lm-eval tasks repeats no benchmark.
    """

    kind: ClassVar[str] = "score"

    of: Source
    benchmarks: Annotated[tuple[Task, ...], Field(strict=False)]
    evaluation: Evaluation
    data: Annotated[Data, Place]
    lm_tasks: Annotated[LmTasks | None, Neutral(None)] = None

    @cached_property
    def without_tasks(self) -> Score:
        """The same stage without lm-eval's tasks."""
        return self.but(lm_tasks=None)

    def identity(self) -> dict[str, Any]:
        return super().identity() | self._likelihoods()

    def described(self) -> dict[str, Any]:
        return super().described() | self._likelihoods()

    def _likelihoods(self) -> dict[str, Any]:
        """The fields whose identity differs if only likelihoods are scored; empty for a full score."""
        if not self.evaluation.likelihood_only:
            return {}
        asked = [as_likelihood(task) for task in self.benchmarks]
        return {"benchmarks": asked, "evaluation": as_likelihood(self.evaluation)}

    def needs(self) -> tuple[Stage, ...]:
        plain = () if self.lm_tasks is None else (self.without_tasks,)
        return (*self.of.made_from(), *plain)

    def reads(self) -> dict[str, str]:
        source, split = DataSource(self.data), self.evaluation.splits
        theirs = {} if self.lm_tasks is None else self.lm_tasks.reads()
        asked = asked_reads(self.benchmarks, source, split)
        return {**self.of.reads(), **asked, **source.reads(*self._general()), **theirs}

    def _general(self) -> list[tuple[str, str]]:
        """(Data set, split) pairs of general text."""
        return [(name, self.evaluation.splits) for name in self.texts()]

    def texts(self) -> list[str]:
        """Names of the general texts that the data has."""
        return DataSource(self.data).texts(self.evaluation.splits)

    def where(self) -> str:
        return self.of.backbone.where()

    def name(self) -> str:
        return self.of.name()

    def check(self) -> None:
        """Refuse a missing sandbox too, if the evaluation will need one. Raises UserError."""
        self.of.check()
        models.check(self.of.backbone)
        source = DataSource(self.data)
        trained = [made for made in self.of.made_from() if isinstance(made, Train)]
        for train in (each for made in trained for each in made.line() if each.task.own):
            train.task.check_training(source)  # of an adapter that is there, too: rows to score may be trained on
        for task in self.benchmarks:
            task.check_asked(source, self.evaluation.splits)
        source.check(*self._general())
        self._check_lengths()
        self._sandbox()
        if self.lm_tasks is not None:
            from hiplora.evaluation.harness import check

            backbone = self.of.backbone
            check(self.lm_tasks, positions=models.positions(backbone), begins=models.begins(backbone))

    def _check_lengths(self) -> None:
        """Refuse a generation length that leaves the backbone no position for the prompt. Raises UserError."""
        asked = () if self.evaluation.likelihood_only else self.benchmarks
        source = DataSource(self.data)
        written = {task: task.written_tokens(source, self.evaluation.splits) for task in asked}
        most = models.positions(self.of.backbone) if any(written.values()) else None
        for task, tokens in written.items():
            if most is not None and tokens >= most:
                option = task.typed_as("max_new_tokens")
                raise UserError(
                    f"{option}={tokens} leaves no position for a prompt: the backbone {self.of.backbone.label} has "
                    f"{most}, so type {option}=N with a smaller number."
                )

    def _sandbox(self) -> str:
        """The backend that executes model-written code, or ``off`` if none is executed."""
        from hiplora.evaluation.sandbox import choose_backend

        benchmarks = () if self.evaluation.likelihood_only else self.benchmarks
        asked = {task.programs.backend for task in benchmarks if task.programs is not None}
        return ", ".join(sorted("off" if each == "off" else choose_backend(each).name for each in asked)) or "off"

    def run(self, job: Job) -> Made:
        started = time.perf_counter()
        backbone = models.load(self.of.backbone)
        with self.of.on(backbone, job) as loaded:
            if self.lm_tasks is None:
                benchmarks, samples = self._scores(loaded.model, backbone.tokenizer, job)
                found: dict[str, Any] = {"benchmarks": benchmarks, "sandbox": self._sandbox(), "report": loaded.report}
            else:
                found, samples = self._of_lm_eval(self.lm_tasks, loaded.model, backbone.tokenizer, job)
        result = Scores(**found, seconds=round(time.perf_counter() - started, 2))
        return Made(result, models.describe(backbone), samples)

    def _of_lm_eval(
        self, asked: LmTasks, model: Any, tokenizer: Any, job: Job
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The fields of the result, and the predictions of lm-eval's tasks; the needed record keeps the others."""
        from hiplora.evaluation.harness import score

        plain: Any = job.needs[self.without_tasks.id].result
        found, samples, texts = score(model, tokenizer, asked=asked, evaluation=self.evaluation, parts=job.parts)
        copied = {"benchmarks": plain.benchmarks, "sandbox": plain.sandbox, "report": plain.report}
        return {**copied, "lm_eval": found, "texts": item_texts.keep(job.texts, texts)}, samples

    def _scores(self, model: Any, tokenizer: Any, job: Job) -> tuple[dict[str, Metrics], list[dict[str, Any]]]:
        """Metrics by benchmark, and per-sample predictions; finished parts of an interrupted run are reused."""
        from hiplora.evaluation.engine import evaluate

        source = DataSource(self.data)
        # Texts come first because they take seconds: a model with non-finite outputs is refused before the benchmarks.
        texts: dict[str, Metrics] = {}
        for name in self.texts():
            text = job.parts.get(name)
            if text is None:
                text = self._text(model, tokenizer, name)
                self.of.check_finite({name: text})
                job.parts.keep({name: text})
            texts[name] = text
        found = evaluate(
            model, tokenizer, tasks=self.benchmarks, source=source, evaluation=self.evaluation, parts=job.parts
        )
        metrics: dict[str, Metrics] = {name: {**score.metrics, "n": score.n} for name, score in found.items()}
        self.of.check_finite(metrics)
        samples = [{"benchmark": name, **sample} for name, score in found.items() for sample in score.samples]
        return metrics | texts, samples

    def _text(self, model: Any, tokenizer: Any, name: str) -> Metrics:
        from hiplora.evaluation.text import text_cross_entropy

        asked = self.evaluation
        return {
            **text_cross_entropy(
                model, tokenizer, DataSource(self.data), tokens=asked.text_tokens, dataset=name, split=asked.splits
            )
        }
