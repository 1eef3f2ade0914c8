"""MMLU: four-option questions on 57 subjects (Hendrycks et al. 2021, arXiv 2009.03300); Hub id cais/mmlu, subset all.

An item:
    {"question": "What is the capital of Peru?", "subject": "geography",
     "choices": ["Cusco", "Lima", "Quito", "La Paz"], "answer": 1}
Its prompt (letter; each option's letter follows it in turn):
    Below is an instruction that … completes the request.\n\n### Instruction:\nWhat is the capital of Peru?
    A. Cusco
    B. Lima
    C. Quito
    D. La Paz\n\n### Response:\n
Its prompt (cloze; " " and each option's text follow it in turn), for a question that is a sentence to complete:
    The capital of Peru is

As in the paper, the adapter is trained on general instructions (Alpaca), not on the benchmark.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hiplora.tasks import choice
from hiplora.tasks.base import Item, instruction_examples
from hiplora.tasks.form import Example

if TYPE_CHECKING:
    from hiplora.tasks.source import Source


class MMLU(choice.ChoiceTask):
    """World knowledge; ``acc`` is over all items, ``acc_macro`` is the mean of the subjects' accuracies."""

    name = "mmlu"
    benchmark = "mmlu"
    training = "alpaca"
    metrics = ("acc", "acc_macro", "nll")
    scores = ("acc",)

    def training_examples(self, source: Source, split: str = "train") -> list[Example]:
        return instruction_examples(source, self.training, split)

    def question(self, item: Item) -> str:
        return item["question"]

    def document(self, item: Item) -> dict[str, Any]:
        return super().document(item) | {"subject": item["subject"]}


def process_results(document: Mapping[str, Any], results: Sequence[Any]) -> dict[str, Any]:
    """Scores of one item, for lm-eval; ``acc_macro`` carries its subject to the aggregation."""
    scores = choice.process_results(document, results)
    return scores | {"acc_macro": (document["subject"], scores["acc"])}


def mean_over_subjects(scores: Sequence[tuple[str, float]]) -> float:
    """Mean over subjects of the mean over their items."""
    subjects: dict[str, list[float]] = defaultdict(list)
    for subject, score in scores:
        subjects[subject].append(score)
    return sum(sum(values) / len(values) for values in subjects.values()) / len(subjects)
