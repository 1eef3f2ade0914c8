"""What a model says of facts that were edited, and of what should have stayed as it was: asked here, judged elsewhere.

Everything is asked in one way of every model, the bare backbone too: greedy completions of the prompts and their
paraphrases, no longer than the longest answer, and the log-likelihoods of the answers behind them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hiplora.evaluation.answers import Answers
from hiplora.evaluation.decode import Wanted
from hiplora.evaluation.engine import TaskScore, evaluate
from hiplora.evaluation.options import Evaluation
from hiplora.evaluation.sampling import Decoding
from hiplora.evaluation.scoring import Scored
from hiplora.packing.sequences import Encoded
from hiplora.tasks.base import Task
from hiplora.tasks.edit_items import EditItem, following
from hiplora.tasks.form import encode_pair, encode_prompt

if TYPE_CHECKING:
    from hiplora.tasks.source import Source

STOPS = ("\n",)  # of a completion, beside the end token


@dataclass(frozen=True)
class Reply:
    """What follows a prompt of an edit: the greedy completion, and the two answers as they are scored there."""

    text: str
    new: Scored
    old: Scored


@dataclass(frozen=True)
class Neighbour:
    """What follows a prompt that should have stayed: its own answer, and the ``new`` of the edit beside it."""

    answer: Scored
    new: Scored


@dataclass(frozen=True)
class Replies:
    """All that is asked of one edit; the first prompt is its own, the others are paraphrases."""

    item: EditItem
    prompts: list[Reply]
    neighbours: list[Neighbour]


def replies(answers: Answers, items: Sequence[EditItem]) -> list[Replies]:
    """What a model says of every edit."""
    prompts = [(prompt, item) for item in items for prompt in (item.prompt, *item.paraphrases)]
    forced = [(prompt, answer) for prompt, item in prompts for answer in (item.new, item.old)]
    beside = [(prompt, known, item) for item in items for prompt, known in item.neighbours]
    forced += [(prompt, answer) for prompt, known, item in beside for answer in (known, item.new)]
    scored = iter(answers.score([_encoded(answers, prompt, following(answer)) for prompt, answer in forced]))
    texts = _completions(answers, items, [prompt for prompt, _ in prompts])
    asked = [[Reply(next(texts), next(scored), next(scored)) for _ in (item, *item.paraphrases)] for item in items]
    kept = [[Neighbour(next(scored), next(scored)) for _ in item.neighbours] for item in items]
    return [Replies(*each) for each in zip(items, asked, kept, strict=True)]


def _completions(answers: Answers, items: Sequence[EditItem], prompts: Sequence[str]) -> Iterator[str]:
    """Greedy completions, one token longer than the longest answer: an answer that goes on is another one."""
    encode = answers.tokenizer.encode
    every = [following(answer) for item in items for answer in (item.new, item.old)]
    longest = max(len(encode(answer, add_special_tokens=False)) for answer in every)
    decoding = Decoding(max_new_tokens=longest + 1, stops=STOPS)
    wanted = [Wanted(encode_prompt(answers.tokenizer, prompt), 1) for prompt in prompts]
    return (text for (text,) in answers.complete(wanted, decoding))


def _encoded(answers: Answers, prompt: str, answer: str) -> Encoded:
    return Encoded(*encode_pair(answers.tokenizer, prompt, answer))


@dataclass(frozen=True)
class Probes:
    """Unrelated prompts: the first ones of some benchmarks, ``counts`` of each, in this order."""

    answers: Answers
    tasks: Sequence[Task]
    counts: Mapping[str, int]
    source: Source
    evaluation: Evaluation

    def scores(self, items: Sequence[EditItem] = ()) -> dict[str, TaskScore]:
        """How every probe is answered; where items are given, behind the sentence of one of them each."""
        found: dict[str, TaskScore] = {}
        for task, first in self._blocks():
            found |= evaluate(
                self.answers.model,
                self.answers.tokenizer,
                tasks=[task],
                source=self.source,
                evaluation=self._of(task),
                progress=self.answers.progress,
                parts=self.answers.parts,
                prompted=lambda number, prompt, first=first: behind(prompt, first + number, items),  # type: ignore[misc]
            )
        return found

    def edited(self, items: Sequence[EditItem], *, front: bool) -> list[Scored]:
        """The ``new`` of an edit in the place of every probe's answer; ``front``: behind the edit's sentence."""
        asked = []
        for task, first in self._blocks():
            (requests,) = task.likelihood(self.source, self._of(task))
            for number, document in enumerate(requests.documents, start=first):
                new = items[number % len(items)].new
                prompt = behind(document["prompt"], number, items if front else ())
                answer = following(new) if document["answer"].startswith(" ") else new
                asked.append(_encoded(self.answers, prompt, answer))
        return self.answers.score(asked)

    def _blocks(self) -> Iterator[tuple[Task, int]]:
        """Every benchmark with the number of its first probe."""
        first = 0
        for task in self.tasks:
            yield task, first
            first += self.counts[task.name]

    def _of(self, task: Task) -> Evaluation:
        return self.evaluation.but(limit=self.counts[task.name])


def behind(prompt: str, number: int, items: Sequence[EditItem]) -> str:
    """The prompt of a probe below the sentence of the edit that it belongs to; as it is where there are no items."""
    return f"{items[number % len(items)].sentence}\n{prompt}" if items else prompt
