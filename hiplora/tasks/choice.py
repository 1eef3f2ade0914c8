"""Base class of multiple-choice benchmarks: prompts with options, and their scoring.

``letter``: the prompt lists the options, and their letters are compared by log-likelihood. ``cloze``: each option's
text follows the raw question (a sentence to be completed), and options are compared by mean log-probability per token.
The form of the prompt follows from the scoring alone, so that scores of different adapters are comparable.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hiplora.tasks.base import Item, Requests, Task
from hiplora.tasks.form import LETTERS, Example, Pair, listed, render

if TYPE_CHECKING:
    from hiplora.evaluation.options import Evaluation
    from hiplora.tasks.source import Source


class ChoiceTask(Task):
    """A benchmark whose items have ``choices`` and, in ``answer``, the index of the right one."""

    @abstractmethod
    def question(self, item: Item) -> str:
        """The question with its context, without the options."""

    @property
    def choosing(self) -> bool:
        """Whether the task is scored as multiple choice."""
        return True

    @property
    def asked(self) -> str:
        """Template of the benchmark's prompts, which the scoring decides: ``alpaca`` or ``plain``."""
        return "alpaca" if self.scoring == "letter" else "plain"

    def example(self, item: Item, option: int) -> Example:
        """An item with one of its options as the output."""
        choices = list(item["choices"])
        if self.scoring == "letter":
            return Example(id=item["id"], instruction=listed(self.question(item), choices), output=LETTERS[option])
        return Example(id=item["id"], instruction=self.question(item), output=choices[option])

    def pair(self, item: Item, option: int) -> Pair:
        """Prompt of an item with one option as its answer."""
        return render(self.example(item, option), self.asked)

    def prompt(self, item: Item) -> str:
        return self.pair(item, 0).prompt

    def answer(self, item: Item) -> str:
        return self.pair(item, int(item["answer"])).answer

    def in_form(self) -> Self:
        """This task with ``template`` turned into ``scoring``: plain to cloze, alpaca to letter, None to no change."""
        scoring = {"plain": "cloze", "alpaca": "letter", None: self.scoring}[self.template]
        return self.but(scoring=scoring, template=None)

    def options(self, item: Item) -> list[str]:
        """Text of every option as it follows the prompt."""
        return [self.pair(item, option).answer for option in range(len(item["choices"]))]

    def document(self, item: Item) -> dict[str, Any]:
        """An item as a document for lm-eval."""
        gold = int(item["answer"])
        return {"id": item["id"], "prompt": self.prompt(item), "options": self.options(item), "gold": gold}

    def requests(self, source: Source, evaluation: Evaluation) -> list[Requests]:
        documents = [self.document(item) for item in self.limited(source, evaluation)]
        yaml = Path(__file__).with_name(f"{self.name}.yaml")
        return [Requests(name=self.name, yaml=yaml, overrides={}, documents=documents)]

    def sample(self, logged: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        entry = logged[self.name]
        means = mean_log_probs(entry["filtered_resps"])
        return {
            "id": entry["doc"]["id"],
            "gold": entry["doc"]["gold"],
            "chosen": chosen(means),
            "log_probs": [round(mean, 4) for mean in means],
            "acc": entry["acc"],
            "nll": entry["nll"],
        }

    def given(self, item: Item, sample: Mapping[str, Any]) -> str | None:
        return self.options(item)[sample["chosen"]] if "chosen" in sample else None


def mean_log_probs(results: Sequence[Any]) -> list[float]:
    """Mean log-probability per token of each option, in nats."""
    return [result.log_prob / result.tokens for result in results]


def chosen(means: Sequence[float]) -> int:
    """Index of the likeliest option; ties go to the first."""
    return max(range(len(means)), key=means.__getitem__)


def process_results(document: Mapping[str, Any], results: Sequence[Any]) -> dict[str, Any]:
    """Accuracy and gold-answer NLL (nats per token) of one item, for lm-eval.

    For a letter, one token, the mean is the log-likelihood.
    """
    means = mean_log_probs(results)
    gold = document["gold"]
    return {"acc": float(chosen(means) == gold), "nll": -means[gold]}
