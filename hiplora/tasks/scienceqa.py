"""ScienceQA: school science, two to five options (Lu et al. 2022, arXiv 2209.09513); Hub id derek-thomas/ScienceQA.

An item (more columns follow; only items without an image are used):
    {"image": null, "question": "Which is a good conductor of heat?", "choices": ["a copper pan", "a wool sock"],
     "answer": 0, "hint": ""}
Its prompt (letter; each option's letter follows it in turn):
    Below is an instruction that … completes the request.\n\n### Instruction:\nWhich is a good conductor of heat?
    A. a copper pan
    B. a wool sock\n\n### Response:\n
Its prompt (cloze; " " and each option's text follow it in turn):
    Which is a good conductor of heat?
A hint comes above the question, on a line of its own. Training uses the same prompts, with the right option.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from hiplora.tasks import choice
from hiplora.tasks.base import Item
from hiplora.tasks.form import Example

if TYPE_CHECKING:
    from hiplora.tasks.source import Source


class ScienceQA(choice.ChoiceTask):
    """Science questions; the training examples have the form of the benchmark's prompts."""

    name = "scienceqa"
    benchmark = "scienceqa"
    training = "scienceqa"
    metrics = ("acc", "nll")
    scores = ("acc",)

    @property
    def form(self) -> str:
        return self.asked

    def as_trained(self) -> Self:
        return self.in_form()

    def training_examples(self, source: Source, split: str = "train") -> list[Example]:
        return [self.example(item, item["answer"]) for item in self.test_items(source, split)]

    def test_items(self, source: Source, split: str = "test") -> list[dict[str, Any]]:
        """Items of a split that have no image, without the image column."""
        from datasets import Image

        rows = source.load(self.benchmark, split)
        if isinstance(rows.features["image"], Image):
            rows = rows.cast_column("image", Image(decode=False))
        without = [row for row, image in enumerate(rows["image"]) if image is None]
        return rows.select(without).remove_columns("image").to_list()

    def question(self, item: Item) -> str:
        return f"{item['hint']}\n{item['question']}" if item["hint"] else item["question"]
