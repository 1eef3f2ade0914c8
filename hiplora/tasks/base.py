"""Base classes of training corpora and benchmarks; each benchmark is a subclass in a file beside this one.

A task provides the text pairs that an adapter is trained on, and the lm-eval requests that score the benchmark. Both
come from the same ``prompt`` and ``answer``.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from hiplora.config import Options
from hiplora.errors import UserError
from hiplora.tasks.form import Example, Pair, as_shown, encode_pairs, end_of_answer, end_of_shown, render
from hiplora.tokens import in_turns

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hiplora.evaluation.options import Evaluation
    from hiplora.packing.sequences import Encoded
    from hiplora.tasks.source import Source

Item = Mapping[str, Any]
GOLD = "_gold"


@dataclass(frozen=True, kw_only=True)
class Requests:
    """One lm-eval task: its YAML file, the fields that the run's settings override, and its documents in memory."""

    name: str
    yaml: Path
    overrides: dict[str, Any]
    documents: list[dict[str, Any]]


@dataclass(frozen=True)
class Programs:
    """How completions are executed: the sandbox backend asked for, and the timeout of each program in seconds."""

    backend: str
    timeout: float


class Corpus(Options, ABC):
    """The prompts and answers that an adapter is trained on: a benchmark's training corpus, or a batch of edits."""

    name: ClassVar[str]
    own: ClassVar[bool] = False  # whether the rows are the user's, so that no data set has its name

    @abstractmethod
    def trained(self) -> dict[str, Any]:
        """What identifies a training on this corpus, besides the files read."""

    @abstractmethod
    def training_reads(self, source: Source) -> dict[str, str]:
        """Files that a training reads: name → digest or commit."""

    @abstractmethod
    def check_training(self, source: Source) -> None:
        """Refuse, before a training starts, missing or broken files. Raises UserError."""

    @abstractmethod
    def encoded_examples(self, source: Source, tokenizer: PreTrainedTokenizerBase) -> list[Encoded]:
        """Token ids of every training pair."""

    def as_trained(self) -> Self:
        """This corpus with the options that a training on it uses."""
        return self

    def in_words(self, data: str, reads: Mapping[str, str]) -> str:
        """What was trained on, for people, from the kind of data and the digests of what the training has read."""
        return f"{self.name} (data `{data}`)"


class Task(Corpus):
    """A benchmark and its training corpus. A subclass adds its generation settings (lengths, samples) as fields.

    Args:
        scoring: ``letter`` or ``cloze``: how multiple-choice options are scored.
        template: ``alpaca`` or ``plain``: the form of training examples; None takes the task's own.
        target: ``answer`` or ``solution`` (word problems): what the model is trained to write and scored on.
    """

    benchmark: ClassVar[str]
    training: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]]  # what an evaluation reports
    scores: ClassVar[tuple[str, ...]]  # the metrics that enter a merge's mean drop; the headline score first
    targets: ClassVar[tuple[str, ...]] = ("answer",)  # the values that ``target`` may have
    styled: ClassVar[bool] = False  # whether its NLL depends on answer style: then Retain-NLL leaves it out

    scoring: Literal["letter", "cloze"] = "cloze"
    template: Literal["alpaca", "plain"] | None = None
    target: Literal["answer", "solution"] = "answer"

    @classmethod
    def typed_as(cls, field: str) -> str:
        """``task.template``, ``evaluation.scoring``; a benchmark's own fields as ``evaluation.<name>_<field>``."""
        shared = {"scoring": "evaluation.scoring", "template": "task.template", "target": "task.target"}
        return shared.get(field, f"evaluation.{cls.name}_{field}")

    def check_options(self) -> None:
        if self.target not in self.targets:
            raise UserError(
                f"task.target={self.target} is for gsm8k; {self.name} has only answers, so type task.target=answer."
            )

    def more_identity(self) -> dict[str, Any]:
        return {"name": self.name}

    def trained(self) -> dict[str, Any]:
        """What identifies a training on this task; how the benchmark is scored does not enter."""
        fields = {"name": self.name, "version": self.version, "form": self.form, "target": self.target}
        return fields if self.ends else fields | {"ends": False}

    def training_reads(self, source: Source) -> dict[str, str]:
        return source.reads(self.trains_on)

    def check_training(self, source: Source) -> None:
        source.check(self.trains_on)

    def asked_reads(self, source: Source, split: str = "test") -> dict[str, str]:
        """Files that an evaluation on a split reads, as :meth:`training_reads`."""
        return source.reads(*self.reads(split))

    def check_asked(self, source: Source, split: str = "test") -> None:
        """Refuse, before an evaluation starts, missing or broken files. Raises UserError."""
        source.check(*self.reads(split))

    def spoken_by(self, tokenizer: PreTrainedTokenizerBase) -> Self:
        """This task bound to a tokenizer; only conversations depend on it, through its chat template."""
        return self

    def already_in_turns(self, source: Source, split: str) -> bool:
        """Whether prompts are in the chat template's form already: ``model.chat_template`` does not wrap these."""
        return False

    def as_scored(self) -> Self:
        """This task as a benchmark: a template is for its training examples alone, and scores stay comparable."""
        return self.but(template=None)

    @property
    def measured(self) -> tuple[str, ...]:
        """The ``metrics`` that these options measure; the others are None in the scores."""
        return self.metrics

    def metric_in_words(self, metric: str) -> str:
        """A metric with what these options make of it, for people."""
        return metric

    def written_tokens(self, source: Source, split: str) -> int:
        """Longest generation after a prompt of a split, in tokens; 0 if nothing is generated there."""
        return 0

    @property
    def programs(self) -> Programs | None:
        """How completions are executed; None if the benchmark does not ask for programs."""
        return None

    @property
    def form(self) -> str:
        """Template of the prompts: ``alpaca`` unless ``template`` names another."""
        return self.template or "alpaca"

    @property
    def ends(self) -> bool:
        """Whether a trained answer ends with the end token.

        In raw text it does not: text goes on after a sentence, and the end token would teach the model to stop there.
        """
        return self.form != "plain"

    def reads(self, split: str = "test") -> tuple[tuple[str, str], ...]:
        """(Data set, split) pairs that an evaluation on ``split`` reads."""
        return ((self.benchmark, split),)

    @property
    def trains_on(self) -> tuple[str, str]:
        """(Data set, split) pair that a training reads."""
        return self.training, "train"

    @abstractmethod
    def training_examples(self, source: Source, split: str = "train") -> list[Example]:
        """Instruction, input and output of every training example; ``split`` is ``train`` or ``validation``."""

    @abstractmethod
    def prompt(self, item: Item) -> str:
        """The prompt of a benchmark item."""

    @abstractmethod
    def answer(self, item: Item) -> str:
        """The right answer, as it should follow the prompt."""

    @abstractmethod
    def requests(self, source: Source, evaluation: Evaluation) -> list[Requests]:
        """The lm-eval tasks that score this benchmark."""

    @abstractmethod
    def sample(self, logged: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """The prediction stored for one item: its id and the model's outputs, never the benchmark's text.

        ``logged`` maps the name of each lm-eval task of :meth:`requests` to what lm-eval logged for the item.
        """

    def given(self, item: Item, sample: Mapping[str, Any]) -> str | None:
        """The model's answer to an item, for people, from its :meth:`sample`; None if it was only scored."""
        return sample.get("text")

    def training_pairs(self, source: Source, split: str = "train") -> list[Pair]:
        """Prompts and answers to train on."""
        return [render(example, self.form) for example in self.training_examples(source, split)]

    def encoded_examples(self, source: Source, tokenizer: PreTrainedTokenizerBase) -> list[Encoded]:
        """Token ids of every training pair. Answers get the tokens of :func:`end_of_answer` if :attr:`ends` is true.

        With ``model.chat_template``, every answer ends with the template's end of a turn.
        """
        from hiplora.packing.sequences import Encoded

        pairs = self.training_pairs(source)
        if in_turns(tokenizer):
            wrapped = not self.already_in_turns(source, "train")
            pairs, end = [as_shown(tokenizer, pair) if wrapped else pair for pair in pairs], end_of_shown(tokenizer)
        else:
            end = end_of_answer(tokenizer) if self.ends else []
        return [Encoded(prompt, [*answer, *end]) for prompt, answer in encode_pairs(tokenizer, pairs)]

    def test_items(self, source: Source, split: str = "test") -> list[dict[str, Any]]:
        """The benchmark's items in the Hub's schema, each with its ``id``."""
        return source.load(self.benchmark, split).to_list()

    def limited(self, source: Source, evaluation: Evaluation) -> list[dict[str, Any]]:
        """The items of a split that a run scores: ``evaluation.limit`` of them, the first or drawn ones.

        Of two limits, the smaller one's items are among the larger one's.

        Raises:
            UserError: there is none.
        """
        items = self.test_items(source, evaluation.splits)
        if evaluation.take == "drawn" and evaluation.limit is not None:
            items = sorted(items, key=lambda item: hashlib.sha256(str(item["id"]).encode()).digest())
        items = items[: evaluation.limit]
        if not items:
            raise UserError(
                f"{self.name} has no item to score in evaluation.splits={evaluation.splits} of its data; put some "
                "there, or choose the other split."
            )
        return items

    def likelihood(self, source: Source, evaluation: Evaluation) -> list[Requests]:
        """The requests of a run that scores only the log-likelihoods of the gold answers."""
        return [self.gold(self.limited(source, evaluation), self.name + GOLD)]

    def gold(self, items: Sequence[Item], name: str) -> Requests:
        """Requests for the log-likelihood of the right answer to each item."""
        documents = [{"id": item["id"], "prompt": self.prompt(item), "answer": self.answer(item)} for item in items]
        return Requests(name=name, yaml=Path(__file__).with_name("gold.yaml"), overrides={}, documents=documents)


def asked_reads(tasks: Iterable[Task], source: Source, split: str) -> dict[str, str]:
    """Files that an evaluation of several tasks on a split reads."""
    return {name: found for task in tasks for name, found in task.asked_reads(source, split).items()}


def instruction_examples(source: Source, dataset: str, split: str) -> list[Example]:
    """Examples of an instruction corpus with the columns instruction, input and output."""
    rows = source.load(dataset, split)
    return [
        Example(id=row["id"], instruction=row["instruction"], input=row["input"], output=row["output"])
        for row in rows.select_columns(["id", "instruction", "input", "output"]).to_list()
    ]
