"""A user's own data: rows of a file or of a data set on the Hub, as :mod:`hiplora.tasks.own_items` describes them.

A row, with task.columns.prompt=q and task.columns.answer=a:
    {"q": "What is the capital of Peru?", "a": "Lima"}
Its prompt:
    Below is an instruction that … completes the request.\n\n### Instruction:
    What is the capital of Peru?\n\n### Response:\n
Its answer: "Lima". A conversation takes the form of the tokenizer's chat template; options are scored as in the other
benchmarks (evaluation.scoring).

Splits: the share ``held_out`` of the rows, chosen by a hash of the prompt, is kept out of training, half for validation
and half for the test. A split with a file of its own is read from that file instead. Metrics (``metric``):
    exact_match  the greedy answer equals the right one, apart from white space
    contains     the greedy answer contains the right one, ignoring case
    choice       the likeliest option is the right one
    nll          nothing is generated
With every metric, the right answer's negative log-likelihood per token is measured too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PrivateAttr

from hiplora.config import Generation, Length, Place
from hiplora.disk import typed_path
from hiplora.errors import UserError
from hiplora.hub import commit
from hiplora.tasks.base import GOLD, Item, Requests
from hiplora.tasks.choice import ChoiceTask
from hiplora.tasks.files import sha256
from hiplora.tasks.form import Example, Pair, chat_pair, render
from hiplora.tasks.own_items import Columns, items_of
from hiplora.tasks.own_rows import Placed, file_rows, hub_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hiplora.evaluation.options import Evaluation
    from hiplora.packing.sequences import Encoded
    from hiplora.tasks.source import Source

WRITTEN = ("exact_match", "contains")  # metrics of a generated answer
STOPS = {"line": "\n", "paragraph": "\n\n"}


def _typed(columns: Any) -> Any:
    return Columns(**columns) if isinstance(columns, Mapping) else columns


class Custom(ChoiceTask):
    """A user's own data. With ``layout=auto`` the first row's columns decide the layout.

    Generation stops at the end token, at a line break or an empty line (``stop``), or after ``max_new_tokens``.
    """

    name = "custom"
    metrics = ("acc", "nll")
    scores = ("acc",)
    own = True

    file: Annotated[str | None, Place]
    validation_file: Annotated[str | None, Place]
    test_file: Annotated[str | None, Place]
    dataset: Annotated[str | None, Place]
    subset: Annotated[str | None, Place]
    split: Annotated[str, Place]
    revision: Annotated[str | None, Place]
    columns: Annotated[Columns, BeforeValidator(_typed)]
    layout: Literal["auto", "prompt", "instruction", "messages"]
    metric: Literal["exact_match", "contains", "choice", "nll"]
    held_out: Annotated[float, Field(ge=0.01, le=0.9, examples=[0.1])]
    max_new_tokens: Annotated[Length, Generation]
    stop: Annotated[Literal["line", "paragraph"], Generation]
    _tokenizer: PreTrainedTokenizerBase | None = PrivateAttr(default=None)

    @classmethod
    def typed_as(cls, field: str) -> str:
        return "evaluation.scoring" if field == "scoring" else f"task.{field}"

    def check_options(self) -> None:
        super().check_options()
        if (self.file is None) == (self.dataset is None):
            raise UserError("task=custom reads one file or one data set; type task.file=F or task.dataset=owner/name.")
        if self.dataset is None and (self.revision is not None or self.subset is not None):
            raise UserError("task.revision and task.subset need a data set on the Hub; type task.dataset=owner/name.")

    @property
    def measured(self) -> tuple[str, ...]:
        return ("nll",) if self.metric == "nll" else self.metrics

    def in_words(self, data: str, reads: Mapping[str, str]) -> str:
        files = (f"`{name}` {digest[:12]}" for name, digest in reads.items())
        return f"{self.name} ({', '.join(files)})"

    def metric_in_words(self, metric: str) -> str:
        return f"{metric} ({self.metric})" if metric == "acc" else metric

    @property
    def choosing(self) -> bool:
        """Whether the data is scored as multiple choice."""
        return self.metric == "choice"

    @property
    def form(self) -> str:
        return self.asked if self.choosing else super().form

    def trained(self) -> dict[str, Any]:
        """The form, the columns and which rows are kept out of training; files enter the id by their digests."""
        kept = [part for part, own in (("validation", self.validation_file), ("test", self.test_file)) if own is None]
        fields = {
            "columns": self.columns.identity(),
            "layout": self.layout,
            "held_out": self.held_out,
            "kept_out": kept,
        }
        return super().trained() | fields | {"choosing": self.choosing, "end": self._end}

    @property
    def _end(self) -> str:
        """The text that ends a trained answer in raw text, which has no end token, so that generation stops there."""
        return STOPS[self.stop] if self.metric in WRITTEN and not self.ends else ""

    def as_trained(self) -> Self:
        return self.in_form() if self.choosing else self

    def written_tokens(self, source: Source, split: str) -> int:
        return self.max_new_tokens if self.metric in WRITTEN else 0

    def training_reads(self, source: Source) -> dict[str, str]:
        return self._identified("train")

    def check_training(self, source: Source) -> None:
        """Refuse rows that would be trained on although a file for another split has their prompt. Raises UserError."""
        trained = {_asked(item) for item in self._items("train")}
        for split in ("validation", "test"):
            if (file := self._file(split)) is None:
                continue
            places = [place for place, _ in self._rows(split)]
            both = [n for n, item in enumerate(self._items(split)) if _asked(item) in trained]
            if both:
                raise UserError(
                    f"task.{split}_file={file} has {len(both)} of {len(places)} rows whose prompt is trained on, first "
                    f"{places[both[0]]}; remove them there, or from the rows to train on."
                )

    def asked_reads(self, source: Source, split: str = "test") -> dict[str, str]:
        return self._identified(split)

    def check_asked(self, source: Source, split: str = "test") -> None:
        self._items(split)

    def spoken_by(self, tokenizer: PreTrainedTokenizerBase) -> Self:
        copy = self.model_copy()
        copy._tokenizer = tokenizer
        return copy

    def already_in_turns(self, source: Source, split: str) -> bool:
        return any("messages" in item for item in self._items(split))

    def test_items(self, source: Source, split: str = "test") -> list[dict[str, Any]]:
        return self._items(split)

    def training_examples(self, source: Source, split: str = "train") -> list[Example]:
        return [_example(item) for item in self._items(split)]

    def training_pairs(self, source: Source, split: str = "train") -> list[Pair]:
        items = self._items(split)
        return [Pair(item["id"], self.prompt(item), self.answer(item) + self._end) for item in items]

    def encoded_examples(self, source: Source, tokenizer: PreTrainedTokenizerBase) -> list[Encoded]:
        if self._tokenizer is None:
            return self.spoken_by(tokenizer).encoded_examples(source, tokenizer)
        return super().encoded_examples(source, tokenizer)

    def question(self, item: Item) -> str:
        return f"{item['instruction']}\n{item['input']}" if item["input"] else item["instruction"]

    def prompt(self, item: Item) -> str:
        return super().prompt(item) if self.choosing else self._pair(item).prompt

    def answer(self, item: Item) -> str:
        return super().answer(item) if self.choosing else self._pair(item).answer

    def requests(self, source: Source, evaluation: Evaluation) -> list[Requests]:
        items = self.limited(source, evaluation)
        gold = self.gold(items, self.name + GOLD)
        if self.metric == "nll":
            return [gold]
        if self.choosing:
            yaml, overrides, documents = "custom_choice.yaml", {}, [self.document(item) for item in items]
        else:
            yaml, documents = "custom.yaml", [self._written(item) for item in items]
            settings = {"do_sample": False, "max_gen_toks": self.max_new_tokens, "until": [STOPS[self.stop]]}
            overrides = {"generation_kwargs": settings}
        path = Path(__file__).with_name(yaml)
        asked = Requests(name=self.name, yaml=path, overrides=overrides, documents=documents)
        return [asked] if self.choosing else [asked, gold]

    def _written(self, item: Item) -> dict[str, Any]:
        """An item whose answer is generated, as a document for lm-eval."""
        return {"id": item["id"], "prompt": self.prompt(item), "answer": _output(item), "metric": self.metric}

    def sample(self, logged: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        if self.choosing:
            return super().sample(logged)
        gold = logged[self.name + GOLD]
        if self.metric == "nll":
            return {"id": gold["doc"]["id"], "nll": gold["nll"]}
        entry = logged[self.name]
        (text,) = entry["filtered_resps"]
        return {"id": entry["doc"]["id"], "text": text, "acc": entry["acc"], "nll": gold["nll"]}

    def given(self, item: Item, sample: Mapping[str, Any]) -> str | None:
        return super().given(item, sample) if self.choosing else sample.get("text")

    def as_scored(self) -> Self:
        """This task: its template is also the form of the prompts that are scored, but for options to choose from."""
        return super().as_scored() if self.choosing else self

    def _pair(self, item: Item) -> Pair:
        if "messages" not in item:
            return render(_example(item), self.form)
        if self._tokenizer is None:
            raise UserError(
                "The text of a conversation depends on the tokenizer's chat template, and no tokenizer is loaded here."
            )
        return chat_pair(self._tokenizer, item["id"], item["messages"])

    def _file(self, split: str) -> str | None:
        """The file given for this split alone; None if the split is a share of the common rows."""
        return {"validation": self.validation_file, "test": self.test_file}.get(split)

    def _option(self, split: str) -> str:
        """The option that names the file of a split."""
        return f"task.{split}_file" if self._file(split) else "task.file"

    def _rows(self, split: str) -> tuple[Placed, ...]:
        own = self._file(split) or self.file
        if own is not None:
            return file_rows(typed_path(own), option=self._option(split))
        (revision,) = self._identified(split).values()
        return hub_rows(str(self.dataset), self.subset, self.split, revision)

    def _identified(self, split: str) -> dict[str, str]:
        """Name and digest of the file that a split is read from, or the commit of a data set on the Hub."""
        own = self._file(split)
        if own is None and self.dataset is not None:
            name = "/".join(filter(None, (self.dataset, self.subset, self.split)))
            return {f"{name} ({split})": commit(self.dataset, self.revision, kind="dataset", field="task.revision")}
        path = typed_path(own or str(self.file))
        file_rows(path, option=self._option(split))  # raises UserError if the path or a line of the file is wrong
        return {f"custom/{split}" if own or split == "train" else f"custom/{split} held out of train": sha256(path)}

    def _items(self, split: str) -> list[dict[str, Any]]:
        """The items of one split. Raises UserError if there are none, or a row is wrong."""
        own = self._file(split)
        name = split if own is not None else "train"
        rows = self._rows(split)
        found = items_of(rows, self.columns, layout=self.layout, choices=self.choosing, split=name)
        kept = [own is not None or self._part(item) == split for item in found]
        items = list(compress(found, kept))
        if not items:
            raise UserError(
                f"None of {len(found)} row(s) of {own or self.file or self.dataset} is in the {split} part at "
                f"task.held_out={self.held_out:g}; type another number, give more rows, or name a file with "
                "task.validation_file=F or task.test_file=F."
            )
        if self.template is not None and any("messages" in item for item in items):
            raise UserError(
                f"task.template={self.template} is not for messages, which have the form of the tokenizer's chat "
                "template; leave it out."
            )
        if self.metric in WRITTEN:
            self._check_lines([place for place, _ in compress(rows, kept)], items)
        return items

    def _check_lines(self, places: Sequence[str], items: Sequence[Item]) -> None:
        """Refuse an answer that contains the stop, because generation could not finish it. Raises UserError."""
        stop = STOPS[self.stop]
        broken = next((n for n, item in enumerate(items) if stop in _output(item).rstrip()), None)
        if broken is not None:
            more = "type task.stop=paragraph" if self.stop == "line" else "type task.metric=nll"
            raise UserError(
                f"{places[broken]} has an answer of several lines, and generation stops at task.stop={self.stop}; "
                f"{more}."
            )

    def _part(self, item: Item) -> str:
        """The split of a row, by its prompt alone, so that the order does not matter and no prompt is in two splits."""
        digest = hashlib.sha256(_asked(item).encode()).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        if place < self.held_out / 2:
            return "test" if self.test_file is None else "train"
        return "validation" if place < self.held_out and self.validation_file is None else "train"


def _asked(item: Item) -> str:
    """What a row asks, as a text that identifies it."""
    return json.dumps(item["messages"][:-1] if "messages" in item else [item["instruction"], item["input"]])


def _output(item: Item) -> str:
    """The answer as text."""
    return item["messages"][-1]["content"] if "messages" in item else item["output"]


def _example(item: Item) -> Example:
    """A row with its output, before any template."""
    return Example(id=item["id"], instruction=item["instruction"], input=item["input"], output=item["output"])


def process_results(document: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Whether the generated text equals or contains the answer, for lm-eval; runs of white space count as one space."""
    written, wanted = (" ".join(text.split()) for text in (results[0], document["answer"]))
    if document["metric"] == "contains":
        return {"acc": float(wanted.casefold() in written.casefold())}
    return {"acc": float(written == wanted)}
