"""A model's answers on edited facts, and on prompts whose answers should not have changed.

:mod:`hiplora.evaluation.edit_measures` judges them. All models, the bare backbone too, get the same questions: greedy
completions of the prompts and paraphrases, slightly longer than the answers, and the log-likelihoods of the answers.
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
from hiplora.tasks.form import encode_pair, encode_prompt, shown_answer, shown_prompt

if TYPE_CHECKING:
    from hiplora.tasks.source import Source

STOPS = ("\n",)  # end a completion, besides the end token
SLACK = 2  # extra tokens: for an article before the answer, a full stop after it, or a sign that the text goes on


@dataclass(frozen=True)
class Reply:
    """The answers after a prompt of an edit: the greedy completion, and the scores of the new and the old answer."""

    text: str
    new: Scored
    old: Scored


@dataclass(frozen=True)
class Neighbour:
    """Scores after a neighbour's prompt: of its own answer, which should still hold, and of the edit's ``new``."""

    answer: Scored
    new: Scored


@dataclass(frozen=True)
class Replies:
    """All answers on one edit; the first prompt is its own, the others are paraphrases."""

    item: EditItem
    prompts: list[Reply]
    neighbours: list[Neighbour]


def replies(answers: Answers, items: Sequence[EditItem]) -> list[Replies]:
    """A model's answers on every edit, in the order of ``items``."""
    prompts = [(prompt, item) for item in items for prompt in (item.prompt, *item.paraphrases)]
    forced = [(prompt, answer) for prompt, item in prompts for answer in (item.new, item.old)]
    beside = [(prompt, known, item) for item in items for prompt, known in item.neighbours]
    forced += [(prompt, answer) for prompt, known, item in beside for answer in (known, item.new)]
    scored = iter(answers.score([_encoded(answers, prompt, following(answer)) for prompt, answer in forced]))
    texts = _completions(answers, prompts)
    asked = [[Reply(next(texts), next(scored), next(scored)) for _ in (item, *item.paraphrases)] for item in items]
    kept = [[Neighbour(next(scored), next(scored)) for _ in item.neighbours] for item in items]
    return [Replies(*each) for each in zip(items, asked, kept, strict=True)]


def _completions(answers: Answers, prompts: Sequence[tuple[str, EditItem]]) -> Iterator[str]:
    """Greedy completions, each at most ``SLACK`` tokens longer than the longer answer of its edit."""
    encode = answers.tokenizer.encode
    lengths = {
        answer: len(encode(following(answer), add_special_tokens=False))
        for answer in {answer for _, item in prompts for answer in (item.new, item.old)}
    }
    groups: dict[int, list[int]] = {}
    for place, (_, item) in enumerate(prompts):
        groups.setdefault(max(lengths[item.new], lengths[item.old]) + SLACK, []).append(place)
    found: dict[int, str] = {}
    for length, places in groups.items():
        shown = [shown_prompt(answers.tokenizer, prompts[place][0]) for place in places]
        wanted = [Wanted(encode_prompt(answers.tokenizer, prompt), 1) for prompt in shown]
        texts = answers.complete(wanted, Decoding(max_new_tokens=length, stops=STOPS))
        found |= {place: text for place, (text,) in zip(places, texts, strict=True)}
    return (found[place] for place in range(len(prompts)))


def _encoded(answers: Answers, prompt: str, answer: str) -> Encoded:
    tokenizer = answers.tokenizer
    return Encoded(*encode_pair(tokenizer, shown_prompt(tokenizer, prompt), shown_answer(tokenizer, answer)))


@dataclass(frozen=True)
class Probes:
    """Unrelated prompts: the first ``counts[task]`` items of each benchmark, in the order of ``tasks``."""

    answers: Answers
    tasks: Sequence[Task]
    counts: Mapping[str, int]
    source: Source
    evaluation: Evaluation

    def scores(self, items: Sequence[EditItem] = ()) -> dict[str, TaskScore]:
        """Benchmark → scores of its probes; with ``items``, each probe comes after the sentence of one of them."""
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
                prompted=lambda number, prompt, first=first: below_edit(prompt, first + number, items),  # type: ignore[misc]
            )
        return found

    def edited(self, items: Sequence[EditItem], *, front: bool) -> list[Scored]:
        """Scores of an edit's ``new`` in place of each probe's answer; with ``front``, after the edit's sentence."""
        asked = []
        for task, first in self._blocks():
            (requests,) = task.likelihood(self.source, self._of(task))
            for number, document in enumerate(requests.documents, start=first):
                new = items[number % len(items)].new
                prompt = below_edit(document["prompt"], number, items if front else ())
                answer = following(new) if document["answer"].startswith(" ") else new
                asked.append(_encoded(self.answers, prompt, answer))
        return self.answers.score(asked)

    def _blocks(self) -> Iterator[tuple[Task, int]]:
        """Each benchmark with the number of its first probe."""
        first = 0
        for task in self.tasks:
            yield task, first
            first += self.counts[task.name]

    def _of(self, task: Task) -> Evaluation:
        return self.evaluation.but(limit=self.counts[task.name])


def below_edit(prompt: str, number: int, items: Sequence[EditItem]) -> str:
    """The prompt of probe ``number`` below the sentence of edit ``number`` mod n; unchanged without items."""
    return f"{items[number % len(items)].sentence}\n{prompt}" if items else prompt
