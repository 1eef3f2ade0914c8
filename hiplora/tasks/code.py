"""HumanEval: functions from their docstrings (Chen et al. 2021, arXiv 2107.03374); Hub id openai/openai_humaneval.

An item:
    {"task_id": "HumanEval/0", "prompt": "def add(a, b):\n    \"\"\"Sum of a and b.\"\"\"\n", "entry_point": "add",
     "canonical_solution": "    return a + b\n", "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n"}
The prompt is the item's own, unchanged; the model continues it up to one of the stops: the official ones, and the end
of a Markdown code block, with which chat models close a program. A completion whose first token is the end token is an
empty program. It fails like any other, and the share of empty ones is a metric.

Training corpus: CodeAlpaca, in the Alpaca format. Its held-out part is the validation split, scored by NLL only: no
code is sampled there. The corpus of the mini data holds functions (a row has ``entry_point``). These are trained in the
benchmark's form: signature and docstring, then the body. Its held-out rows have a ``test`` and are executed:
    {"instruction": "def add(a, b):\n    \"\"\"Sum …\"\"\"", "input": "", "output": "\n    return a + b",
     "entry_point": "add", "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n"}

A trained body ends as in a source file, with blank lines and the next ``def``, which is one of the stops. It gets no
end token: after raw text the model would learn it for all text, and expect prose to end after each line.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from hiplora.config import As, Generation, Length
from hiplora.tasks.base import GOLD, Item, Programs, Requests, Task, instruction_examples
from hiplora.tasks.form import Example, Pair, encode_pairs, render
from hiplora.tokens import in_turns

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hiplora.evaluation.options import Evaluation
    from hiplora.packing.sequences import Encoded
    from hiplora.tasks.source import Source

STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint", "\n```")
ENDING = "\n\n\ndef"  # ends a trained body, as in a file of functions


def _verdicts(execution: str) -> str:
    """``execution`` as it enters the identity: all sandboxes give the same verdicts, ``off`` and ``unsafe`` do not."""
    return execution if execution in ("off", "unsafe") else "sandboxed"


class Code(Task):
    """Program synthesis; pass@k over sampled completions, executed in the sandbox.

    ``samples`` completions per problem, each of at most ``max_new_tokens``, are drawn at ``temperature`` from the
    nucleus ``top_p``; each runs for at most ``timeout_seconds``. ``execution``: off leaves pass@k empty, unsafe runs
    without a sandbox, and all others give the same verdicts.
    """

    name = "code"
    benchmark = "humaneval"
    training = "codealpaca"
    version = 2
    metrics = ("pass@1", "pass@5", "pass@10", "empty", "nll")
    scores = ("pass@1", "pass@5", "pass@10")

    samples: Annotated[int, Generation, Field(ge=1, le=10_000)]
    temperature: Annotated[float, Generation, Field(ge=0.01, le=10, examples=[0.2])]
    top_p: Annotated[float, Generation, Field(ge=0.01, le=1, examples=[0.95])]
    max_new_tokens: Annotated[Length, Generation]
    timeout_seconds: Annotated[float, Generation, Field(ge=0.05, le=3600, examples=[3])]
    execution: Annotated[Literal["auto", "bubblewrap", "landlock", "off", "unsafe"], As(_verdicts), Generation]

    @property
    def programs(self) -> Programs:
        return Programs(self.execution, self.timeout_seconds)

    @property
    def form(self) -> str:
        """``own`` by default: functions in the benchmark's form, everything else in the Alpaca format."""
        return self.template or "own"

    def more_identity(self) -> dict[str, Any]:
        return {**super().more_identity(), "stops": list(STOPS)}

    def trained(self) -> dict[str, Any]:
        return {**super().trained(), "ending": ENDING}

    def written_tokens(self, source: Source, split: str) -> int:
        return self.max_new_tokens if self._executes(source, split) else 0

    def _executes(self, source: Source, split: str) -> bool:
        """Whether completions are sampled and executed: not on validation if the held-out pairs have no tests."""
        if self.execution == "off":
            return False
        return split != "validation" or "test" in source.load(self.training, split).column_names

    def reads(self, split: str = "test") -> tuple[tuple[str, str], ...]:
        """HumanEval, or for ``validation`` the held-out part of CodeAlpaca."""
        return ((self.training if split == "validation" else self.benchmark, split),)

    def training_examples(self, source: Source, split: str = "train") -> list[Example]:
        return instruction_examples(source, self.training, split)

    def _as_asked(self, source: Source, split: str) -> bool:
        """Whether the corpus holds functions and they are trained in the benchmark's form."""
        return self.template != "alpaca" and "entry_point" in source.load(self.training, split).column_names

    def training_pairs(self, source: Source, split: str = "train") -> list[Pair]:
        form = "plain" if self.template == "plain" or self._as_asked(source, split) else "alpaca"
        return [render(example, form) for example in self.training_examples(source, split)]

    def encoded_examples(self, source: Source, tokenizer: PreTrainedTokenizerBase) -> list[Encoded]:
        """Token ids of every training pair; a function in the benchmark's form ends with the next ``def``.

        With ``model.chat_template`` it ends with the template's end of a turn, as every answer does.
        """
        if in_turns(tokenizer) or not self._as_asked(source, "train"):
            return super().encoded_examples(source, tokenizer)
        from hiplora.packing.sequences import Encoded

        ending = tokenizer.encode(ENDING, add_special_tokens=False)
        encoded = encode_pairs(tokenizer, self.training_pairs(source))
        return [Encoded(prompt, [*answer, *ending]) for prompt, answer in encoded]

    def test_items(self, source: Source, split: str = "test") -> list[dict[str, Any]]:
        """HumanEval's problems; for ``validation``, held-out training pairs in the same columns.

        CodeAlpaca has pairs with an empty output; they are left out, because an empty answer has no NLL.
        """
        if split != "validation":
            return [item | {"id": item["task_id"]} for item in source.load(self.benchmark, split).to_list()]
        rows = source.load(self.training, split)
        if "test" in rows.column_names:
            renamed = {"instruction": "prompt", "output": "canonical_solution"}
            return rows.rename_columns(renamed).remove_columns("input").to_list()
        pairs = [pair for pair in self.training_pairs(source, split) if pair.answer]
        return [{"id": pair.id, "prompt": pair.prompt, "canonical_solution": pair.answer} for pair in pairs]

    def prompt(self, item: Item) -> str:
        return item["prompt"]

    def answer(self, item: Item) -> str:
        return item["canonical_solution"]

    def requests(self, source: Source, evaluation: Evaluation) -> list[Requests]:
        items = self.limited(source, evaluation)
        gold = self.gold(items, self.name + GOLD)
        if not self._executes(source, evaluation.splits):
            return [gold]
        columns = ("id", "prompt", "test", "entry_point")
        documents = [{column: item[column] for column in columns} for item in items]
        samples = self.samples
        overrides = {
            "repeats": samples,
            "generation_kwargs": {
                "do_sample": True,
                "temperature": self.temperature,
                "top_p": self.top_p,
                "top_k": 0,
                "max_gen_toks": self.max_new_tokens,
                "until": list(STOPS),
            },
            "filter_list": [{"name": "all", "filter": [{"function": "take_first_k", "k": samples}]}],
        }
        yaml = Path(__file__).with_name("code.yaml")
        return [Requests(name=self.name, yaml=yaml, overrides=overrides, documents=documents), gold]

    def sample(self, logged: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        gold = logged[self.name + GOLD]
        kept = {"id": gold["doc"]["id"], "nll": gold["nll"]}
        if self.name not in logged:
            return kept
        return kept | {"completions": list(logged[self.name]["filtered_resps"][0])}

    def given(self, item: Item, sample: Mapping[str, Any]) -> str | None:
        """The first completion whose verdict is that of the majority."""
        completions = sample.get("completions", [])
        passed = [verdict == "passed" for verdict in sample.get("verdicts", [])]
        most = 2 * sum(passed) >= len(passed)
        agreeing = (text for text, well in zip(completions, passed, strict=False) if well == most)
        return next(agreeing, next(iter(completions), None))


def process_results(document: Mapping[str, Any], results: list[Any]) -> dict[str, float]:
    """Number of completions of one problem, for lm-eval; the sandbox judges them once all are generated."""
    return {"completions": float(len(results[0]))}
