"""What a benchmark is to the rest of the project; one subclass per file beside this one.

A task knows two things: which pairs of text an adapter is trained on, and which requests its benchmark makes of a
model. Both come from the same ``prompt`` and ``answer``.
"""

from __future__ import annotations

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
    """One lm-eval task: its YAML, what the run's settings change in it, and its documents in memory."""

    name: str
    yaml: Path
    overrides: dict[str, Any]
    documents: list[dict[str, Any]]


@dataclass(frozen=True)
class Programs:
    """How a benchmark's completions are run as programs: the sandbox asked for, and seconds of wall clock for each."""

    backend: str
    timeout: float


class Corpus(Options, ABC):
    """What an adapter is trained on: prompts and answers. A benchmark brings its own; a batch of edits is one too."""

    name: ClassVar[str]

    @abstractmethod
    def trained(self) -> dict[str, Any]:
        """What tells a training on this corpus from others, beside the files that are read."""

    @abstractmethod
    def training_reads(self, source: Source) -> dict[str, str]:
        """Files that a training reads: name → what identifies its content."""

    @abstractmethod
    def check_training(self, source: Source) -> None:
        """Refuse, before a training starts, files that it could not read. Raises UserError."""

    @abstractmethod
    def encoded_examples(self, source: Source, tokenizer: PreTrainedTokenizerBase) -> list[Encoded]:
        """Token ids of every training pair."""

    def as_trained(self) -> Self:
        """This corpus in the form in which a run trains on it."""
        return self


class Task(Corpus):
    """A benchmark and its training corpus. A subclass adds how it is asked (lengths, samples) as fields of its own.

    Args:
        scoring: ``letter`` or ``cloze``: how multiple-choice options are asked for.
        template: ``alpaca`` or ``plain``: the form of training examples; None takes the task's own.
        target: ``answer`` or ``solution`` (word problems): what is trained and asked for.
    """

    benchmark: ClassVar[str]
    training: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]]  # what an evaluation reports
    scores: ClassVar[tuple[str, ...]]  # those of them that a merge's mean drop counts; the headline score first
    targets: ClassVar[tuple[str, ...]] = ("answer",)  # what it can be trained and asked for
    styled: ClassVar[bool] = False  # its NLL follows the style of answers: beside Retain-NLL, not in it

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
                f"task.target={self.target} is for gsm8k; {self.name} has answers only, so type task.target=answer."
            )

    def more_identity(self) -> dict[str, Any]:
        return {"name": self.name}

    def trained(self) -> dict[str, Any]:
        """What tells a training on this task from others: how the benchmark is asked is no part of it."""
        told = {"name": self.name, "version": self.version, "form": self.form, "target": self.target}
        return told if self.ends else told | {"ends": False}

    def training_reads(self, source: Source) -> dict[str, str]:
        return source.reads(self.trains_on)

    def check_training(self, source: Source) -> None:
        source.check(self.trains_on)

    def asked_reads(self, source: Source, split: str = "test") -> dict[str, str]:
        """Files that an evaluation on a split reads, as :meth:`training_reads`."""
        return source.reads(*self.reads(split))

    def check_asked(self, source: Source, split: str = "test") -> None:
        """Refuse, before an evaluation starts, files that it could not read. Raises UserError."""
        source.check(*self.reads(split))

    def spoken_by(self, tokenizer: PreTrainedTokenizerBase) -> Self:
        """This task as a model with this tokenizer is asked; only a conversation depends on it."""
        return self

    def already_in_turns(self, source: Source, split: str) -> bool:
        """Whether prompts have the form of the chat template already, so that ``model.chat_template`` adds nothing."""
        return False

    @property
    def measured(self) -> tuple[str, ...]:
        """Those of ``metrics`` that these options give; the others are None."""
        return self.metrics

    def written_tokens(self, source: Source, split: str) -> int:
        """Most tokens that the model is asked to write behind a prompt of a split; 0 where it only reads there."""
        return 0

    @property
    def programs(self) -> Programs | None:
        """How completions are run, where the benchmark asks for programs."""
        return None

    @property
    def form(self) -> str:
        """Template of the prompts, ``alpaca`` unless another was asked for."""
        return self.template or "alpaca"

    @property
    def ends(self) -> bool:
        """Whether a trained answer ends with the end token.

        In raw text it does not: text continues after a sentence, and the end token would teach the model to stop there.
        """
        return self.form != "plain"

    @property
    def datasets(self) -> tuple[str, ...]:
        """Data sets that the evaluation reads, for the fingerprint."""
        return (self.benchmark,)

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
        """What the model is shown of a benchmark item."""

    @abstractmethod
    def answer(self, item: Item) -> str:
        """What should follow the prompt."""

    @abstractmethod
    def requests(self, source: Source, evaluation: Evaluation) -> list[Requests]:
        """The lm-eval tasks that score this benchmark."""

    @abstractmethod
    def sample(self, logged: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """What is kept of one item: its id and the model's outputs, never the benchmark's text.

        ``logged`` maps the name of each lm-eval task of :meth:`requests` to what lm-eval logged for the item.
        """

    def given(self, item: Item, sample: Mapping[str, Any]) -> str | None:
        """What a model answered to an item, for people, from what :meth:`sample` kept; None where nothing was asked."""
        return sample.get("text")

    def training_pairs(self, source: Source, split: str = "train") -> list[Pair]:
        """Prompts and answers to train on."""
        return [render(example, self.form) for example in self.training_examples(source, split)]

    def encoded_examples(self, source: Source, tokenizer: PreTrainedTokenizerBase) -> list[Encoded]:
        """Token ids of every training pair; answers end as :func:`end_of_answer` says where the form has an end.

        A turn of a chat always has one.
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
        """The items that a run asks: one split, its first ``evaluation.limit``. UserError where there is none."""
        items = self.test_items(source, evaluation.splits)[: evaluation.limit]
        if not items:
            raise UserError(
                f"{self.name} has no item to ask in evaluation.splits={evaluation.splits} of its data; put more there, "
                "or choose the other split."
            )
        return items

    def likelihood(self, source: Source, evaluation: Evaluation) -> list[Requests]:
        """The requests of a run that asks for the gold answers' log-likelihoods alone."""
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
