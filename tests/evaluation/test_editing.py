"""Edits measured: closed forms of a model that follows a script, and a random model against plain forward passes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from hiplora.evaluation import edit_measures as judge
from hiplora.evaluation.answers import Answers
from hiplora.evaluation.decode import Wanted
from hiplora.evaluation.editing import Probes, below_edit, replies
from hiplora.evaluation.engine import evaluate
from hiplora.evaluation.sampling import Decoding
from hiplora.evaluation.scoring import Scored
from hiplora.packing.decoder import evaluating
from hiplora.packing.sequences import Encoded
from hiplora.tasks.edit_items import EditItem
from hiplora.tasks.source import Source
from tests.tiny import benchmark


class Letters:
    """A tokenizer of single characters."""

    name_or_path = "letters"

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [ord(letter) for letter in text]


class Scripted:
    """Answers that are known: log p per token of an answer after a prompt, and the completion of every prompt."""

    tokenizer = Letters()

    def __init__(self, log_probs: dict[str, dict[str, float]], texts: dict[str, str]) -> None:
        self.log_probs, self.texts = log_probs, texts
        self.decodings: list[Decoding] = []

    def score(self, asked: list[Encoded]) -> list[Scored]:
        return [self._scored(*("".join(map(chr, ids)) for ids in (each.prompt, each.answer))) for each in asked]

    def _scored(self, prompt: str, answer: str) -> Scored:
        assert answer.startswith(" "), "one space, and it is the answer's"
        mean = self.log_probs[prompt][answer[1:]]
        return Scored(mean * len(answer), self.texts[prompt].startswith(answer), len(answer))

    def complete(self, wanted: list[Wanted], decoding: Decoding) -> list[list[str]]:
        self.decodings.append(decoding)
        return [[self.texts["".join(map(chr, each.prompt))]] for each in wanted]


def item(number: int, category: str, *, old: str, new: str) -> EditItem:
    return EditItem(
        id=str(number), place="", category=category, relation="r", subject=str(number), prompt=f"{number} is", old=old,
        new=new, answers=(old,), paraphrases=(f"{number} a", f"{number} b"), neighbours=((f"{number} n", "own"),),
    )  # fmt: skip


ITEMS = [
    item(0, "entity", old="red", new="blue"),  # generated, and likelier
    item(1, "entity", old="red", new="greenish"),  # generated, yet the sum of the longer answer is the lower one
    item(2, "entity", old="red", new="blue"),  # begins with the answer and continues, so it is another answer
    item(3, "temporal", old="red", new="blue"),  # still the old one
]
SCRIPT = Scripted(
    log_probs={
        **{f"{each.id} {form}": {each.old: -1.0, each.new: -0.5} for each in ITEMS for form in ("is", "a", "b")},
        "1 is": {"red": -1.0, "greenish": -0.5},
        "2 is": {"red": -1.0, "blue": -0.9},
        "3 is": {"red": -0.1, "blue": -2.0},
        **{f"{each.id} n": {"own": -1.0, each.new: -4.0} for each in ITEMS},
        "3 n": {"own": -3.0, "blue": -1.0},
    },
    texts={
        "0 is": " The blue.", "1 is": " Greenish", "2 is": " blue whale", "3 is": " red",
        **{f"{each.id} {form}": " red" for each in ITEMS for form in ("a", "b")},
        **{f"{each.id} n": " own" for each in ITEMS},
        "0 b": " blue", "3 n": " other",
    },
)  # fmt: skip


def test_outcomes_and_means_by_hand() -> None:
    found = replies(SCRIPT, ITEMS)  # type: ignore[arg-type]
    longest = (len(" blue") + 2, len(" greenish") + 2)
    assert SCRIPT.decodings == [Decoding(max_new_tokens=length, stops=("\n",)) for length in longest]
    # Sums: four letters and the space, −4 of red; −2.5, −4.5, −4.5 and −10 of the new ones.
    assert {name: judge.bits(flags) for name, flags in judge.outcomes(found).items()} == {
        "generated": "1100",
        "begins": "0010",  # " The blue." and " Greenish" begin with other tokens
        "preferred": "1000",
        "believed": "0111",
    }
    means = judge.means(found)
    assert means.keys() == {"all", "entity", "temporal"}
    assert means["all"]["log_p_new"] == pytest.approx(-(0.5 + 0.5 + 0.9 + 2.0) / 4)
    assert means["entity"]["sum_log_p_new"] == pytest.approx(-(2.5 + 4.5 + 4.5) / 3)
    assert means["temporal"]["sum_log_p_old"] == pytest.approx(-0.4)
    assert (means["entity"]["tokens_new"], means["entity"]["tokens_old"]) == (pytest.approx(19 / 3), 4)
    # Of paraphrases the new answer is likelier but for the long one; one of eight is generated.
    assert means["all"]["paraphrase_preferred"] == pytest.approx(6 / 8)
    assert means["all"]["paraphrase_generated"] == pytest.approx(1 / 8)
    assert means["all"]["paraphrase_success"] == pytest.approx(6 / 8)
    assert means["all"]["neighbourhood"] == pytest.approx(3 / 4)
    assert means["all"]["neighbourhood_begins"] == pytest.approx(3 / 4)
    assert means["temporal"]["neighbour_log_p_answer"] == pytest.approx(-3)


def test_a_probe_belongs_to_the_edit_of_its_number() -> None:
    found = judge.probe_means(["entity", "temporal"], {"x": [1.0, 2.0, 3.0]})
    assert found == {"all": {"x": 2.0}, "entity": {"x": 2.0}, "temporal": {"x": 2.0}}
    assert below_edit("Why?", 5, ITEMS) == "1 is greenish.\nWhy?"
    assert below_edit("Why?", 5, ()) == "Why?"


def plain(model: Any, prompt: list[int], answer: list[int]) -> float:
    """Log-probability of an answer by one forward pass over the whole sequence."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    return -float(F.cross_entropy(logits, torch.tensor(answer), reduction="sum"))


def test_a_random_model_against_plain_forward_passes(model, llama3_tokenizer) -> None:
    tokenizer, (one, other, *_) = llama3_tokenizer, ITEMS
    with evaluating(model):
        found = replies(Answers(model, tokenizer, batch_tokens=64, progress=False), [one, other])
    for each in found:
        prompts, both = [each.item.prompt, *each.item.paraphrases], (each.item.new, each.item.old)
        longest = 2 + max(len(tokenizer.encode(f" {answer}", add_special_tokens=False)) for answer in both)
        for prompt, reply in zip(prompts, each.prompts, strict=True):
            ids = tokenizer.encode(prompt)
            assert ids[0] == tokenizer.bos_token_id
            for answer, scored in ((each.item.new, reply.new), (each.item.old, reply.old)):
                behind_it = tokenizer.encode(f" {answer}", add_special_tokens=False)
                assert scored.tokens == len(behind_it)
                assert scored.log_prob == pytest.approx(plain(model, ids, behind_it), abs=1e-3)
            written = model.generate(torch.tensor([ids]), max_new_tokens=longest, do_sample=False, pad_token_id=1)[
                0, len(ids) :
            ]
            assert reply.text == tokenizer.decode(written, skip_special_tokens=True).split("\n")[0]
        ((prompt, answer),) = each.item.neighbours
        behind_it = tokenizer.encode(f" {answer}", add_special_tokens=False)
        assert each.neighbours[0].answer.log_prob == pytest.approx(
            plain(model, tokenizer.encode(prompt), behind_it), abs=1e-3
        )


def test_probes_are_those_of_the_benchmark_and_change_behind_an_edit(model, tokenizer, data, evaluation) -> None:
    tasks = [benchmark("mmlu"), benchmark("gsm8k")]
    with evaluating(model):
        answers = Answers(model, tokenizer, batch_tokens=256, progress=False)
        probes = Probes(answers, tasks, {"mmlu": 2, "gsm8k": 3}, Source(data), evaluation)
        found, front = probes.scores(), probes.scores(ITEMS)
        new = [probes.edited(ITEMS, front=each) for each in (False, True)]
    limited = [evaluation.but(limit=2), evaluation]
    for task, how in zip(tasks, limited, strict=True):
        alone = evaluate(model, tokenizer, tasks=[task], source=Source(data), evaluation=how, progress=False)
        assert json.dumps(found[task.name].samples) == json.dumps(alone[task.name].samples)
    ids = tokenizer.encode("0 is blue.\nThe capital of Peru is"), tokenizer.encode(" Lima")
    assert front["mmlu"].samples[0]["log_probs"][0] == pytest.approx(plain(model, *ids) / len(ids[1]), abs=1e-3)
    # The third probe of all is the first word problem. It belongs to the third edit, whose answer stands as its own.
    prompt = tasks[1].prompt(Source(data).load("gsm8k", "test").to_list()[0])
    for scores, words in zip(new, (prompt, f"2 is blue.\n{prompt}"), strict=True):
        expected = plain(model, tokenizer.encode(words), tokenizer.encode("blue"))
        assert scores[2].log_prob == pytest.approx(expected, abs=1e-3)
    assert len(new[0]) == 5
