"""GSM8K: grade-school word problems (Cobbe et al. 2021, arXiv 2110.14168); Hub id openai/gsm8k, subset main.

An item:
    {"question": "Ann has 3 apples and buys 2. How many has she?", "answer": "She has 3+2=<<3+2=5>>5.\n#### 5"}
Its prompt:
    Below is an instruction that … completes the request.\n\n### Instruction:
    Ann has 3 apples and buys 2. How many has she?\n\n### Response:\n
Its answer: "5" (target=answer), or the worked solution without the calculator's marks (target=solution). In training
the end token follows, or in raw text (template=plain) the string at which generation stops.

The model answers greedily up to a line break (target=answer) or an empty line (target=solution); the last number
counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from hiplora.config import Generation, Length
from hiplora.tasks.base import GOLD, Item, Requests, Task
from hiplora.tasks.form import Example, Pair, render
from hiplora.tasks.numbers import final_answer, last_number

if TYPE_CHECKING:
    from hiplora.evaluation.options import Evaluation
    from hiplora.tasks.source import Source

CALCULATOR = re.compile(r"<<[^<>]*>>")


class GSM8K(Task):
    """Word problems; exact match of the final number. ``max_new_tokens`` bounds a greedy answer."""

    name = "gsm8k"
    benchmark = "gsm8k"
    training = "gsm8k"
    metrics = ("acc", "nll")
    scores = ("acc",)
    styled = True  # an answer that begins with other words changes the NLL by a nat in either direction
    targets = ("answer", "solution")

    max_new_tokens: Annotated[Length, Generation]

    def written_tokens(self, source: Source, split: str) -> int:
        return self.max_new_tokens

    def training_examples(self, source: Source, split: str = "train") -> list[Example]:
        return [self.example(item) for item in self.test_items(source, split)]

    def training_pairs(self, source: Source, split: str = "train") -> list[Pair]:
        """Prompts and answers to train on; in raw text, which has no end token, answers end with :attr:`stop`."""
        pairs = super().training_pairs(source, split)
        return pairs if self.ends else [pair._replace(answer=pair.answer + self.stop) for pair in pairs]

    @property
    def stop(self) -> str:
        """The string that ends an answer besides the end token; a worked solution has several lines."""
        return "\n\n" if self.target == "solution" else "\n"

    def example(self, item: Item) -> Example:
        """A problem with its output: the final number or the worked solution."""
        solution = CALCULATOR.sub("", item["answer"])
        output = solution if self.target == "solution" else final_answer(item)
        return Example(id=item["id"], instruction=item["question"], output=output)

    def prompt(self, item: Item) -> str:
        return render(self.example(item), self.form).prompt

    def answer(self, item: Item) -> str:
        return render(self.example(item), self.form).answer

    def requests(self, source: Source, evaluation: Evaluation) -> list[Requests]:
        items = self.limited(source, evaluation)
        documents = [{"id": item["id"], "prompt": self.prompt(item), "answer": final_answer(item)} for item in items]
        settings = {"do_sample": False, "max_gen_toks": self.max_new_tokens, "until": [self.stop]}
        yaml = Path(__file__).with_name("gsm8k.yaml")
        asked = Requests(name=self.name, yaml=yaml, overrides={"generation_kwargs": settings}, documents=documents)
        return [asked, self.gold(items, self.name + GOLD)]

    def sample(self, logged: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        entry = logged[self.name]
        (text,) = entry["filtered_resps"]
        return {
            "id": entry["doc"]["id"],
            "text": text,
            "extracted": last_number(text),
            "acc": entry["acc"],
            "nll": logged[self.name + GOLD]["nll"],
        }


def process_results(document: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Exact match of the last number, for lm-eval."""
    extracted = last_number(results[0])
    return {"acc": float(extracted is not None and extracted == last_number(document["answer"]))}
