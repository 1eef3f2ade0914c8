"""Log-likelihoods against lm-eval's own model and against a plain forward pass."""

from __future__ import annotations

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from hiplora.evaluation.lm import InMemoryLM
from hiplora.evaluation.scoring import score_continuations
from hiplora.packing.batches import visible
from hiplora.packing.rows import as_trees
from hiplora.packing.sequences import Encoded
from hiplora.tasks.form import encode_pair

REQUESTS = [
    ("The capital of Peru is", " Lima"),
    ("The capital of Peru is", " La Paz"),
    ("The capital of Peru is", " Quito 1 2 3"),
    ("The capital of Peru is", "."),
    ("def add(a, b):\n", "    return a + b\n"),
    ("### Response:\n", "b"),
    ("### Response:\n", "blue sky"),
    ("Name", " the colour of the sky"),
]


def instances(requests: list[tuple[str, str]]) -> list[Instance]:
    return [
        Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=0, metadata=("t", 0, 1)) for pair in requests
    ]


class SeparateHFLM(HFLM):
    """lm-eval's model, scoring the same tokens as ours."""

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        return encode_pair(self.tokenizer, context, continuation)


@pytest.mark.parametrize("batch_tokens", [1, 40, 4096])
def test_log_likelihoods_are_those_of_stock_hflm(model, tokenizer, batch_tokens):
    ours = InMemoryLM(model, tokenizer, batch_tokens=batch_tokens, progress=False).loglikelihood(instances(REQUESTS))
    stock = SeparateHFLM(pretrained=model, tokenizer=tokenizer, batch_size=3)
    theirs = stock.loglikelihood(instances(REQUESTS), disable_tqdm=True)
    assert [answer[0] for answer in ours] == pytest.approx([answer[0] for answer in theirs], abs=1e-4)
    assert [answer[1] for answer in ours] == [answer[1] for answer in theirs]
    assert [answer.tokens for answer in ours] == [len(encode_pair(tokenizer, *pair)[1]) for pair in REQUESTS]


def draw(generator: torch.Generator, length: int) -> list[int]:
    return torch.randint(2, 400, (length,), generator=generator).tolist()


@pytest.fixture
def alike() -> list[Encoded]:
    """Sequences with common beginnings of every kind: in the template, the prompt, the option, and whole."""
    generator = torch.Generator().manual_seed(1)
    template = draw(generator, 5)
    found = [Encoded(draw(generator, n), draw(generator, 3)) for n in (1, 2, 40)]
    for length in (1, 3, 9):
        prompt = template + draw(generator, length)
        option = draw(generator, 4)
        found.extend(Encoded(prompt, option[:count]) for count in (1, 2, 4))
        found.append(Encoded(prompt, option[:2] + draw(generator, 3)))
    return [*found, found[-1], Encoded([*found[-1].prompt, 7], [8])]


@pytest.mark.parametrize("batch_tokens", [1, 64, 4096])
def test_sequences_that_begin_alike_score_as_if_alone(model, alike, batch_tokens):
    with torch.inference_mode():
        found = score_continuations(model, alike, batch_tokens=batch_tokens)
        for asked, scored in zip(alike, found, strict=True):
            logits = model(torch.tensor([asked.prompt + asked.answer])).logits[0].log_softmax(-1)
            picked = logits[len(asked.prompt) - 1 : -1].gather(-1, torch.tensor(asked.answer)[:, None])
            assert scored.log_prob == pytest.approx(picked.sum().item(), abs=1e-4)
            assert scored.tokens == len(asked.answer)


@pytest.mark.parametrize("row_tokens", [1, 30, 256])
def test_rows_hold_every_distinct_beginning_once(alike, row_tokens):
    rows = as_trees(alike, row_tokens=row_tokens)
    assert sorted({owner for row in rows for owner in row.owners}) == list(range(len(alike)))
    for row in rows:
        assert len(row.ids) <= max(row_tokens, 40 + 2)
        beginnings = [
            tuple(row.ids[key] for key in range(len(row.ids)) if seen[key]) for seen in visible(row.positions)
        ]
        assert len(set(beginnings)) == len(beginnings)
        assert [len(beginning) - 1 for beginning in beginnings] == row.positions
    if row_tokens == 256:
        assert len(rows) == 1
        assert len(rows[0].ids) == len({tuple(a.path[: n + 1]) for a in alike for n in range(len(a.path))})


def test_a_long_prompt_loses_its_beginning(model, tokenizer):
    lm = InMemoryLM(model, tokenizer, batch_tokens=64, progress=False)
    prompt, answer = list(range(2, 390)) * 2, [7, 8, 9]
    (scored,) = lm._loglikelihood_tokens([(None, prompt, answer)])
    with torch.inference_mode():
        logits = model(torch.tensor([prompt[-510:] + answer[:-1]])).logits[0].log_softmax(-1)
    assert scored[0] == pytest.approx(logits[-3:].gather(-1, torch.tensor(answer)[:, None]).sum().item(), abs=1e-4)


@pytest.mark.parametrize("which", ["tokenizer", "llama3_tokenizer"])
def test_prompt_and_answer_keep_their_tokens(request, model, which):
    tokenizer = request.getfixturevalue(which)
    lm = InMemoryLM(model, tokenizer, batch_tokens=64, progress=False)
    prompt, answer = lm._encode_pair("### Response:\n", "blue")
    assert tokenizer.decode(prompt, skip_special_tokens=True) == "### Response:\n"
    assert tokenizer.decode(answer) == "blue"
    assert (prompt[0] == tokenizer.bos_token_id) == (which == "llama3_tokenizer")
    assert tokenizer.bos_token_id not in answer


def test_stock_lm_eval_loses_the_newline_that_ours_keeps(model, llama3_tokenizer):
    prompt, answer = HFLM(pretrained=model, tokenizer=llama3_tokenizer)._encode_pair("### Response:\n", "blue")
    assert llama3_tokenizer.decode([*prompt, *answer], skip_special_tokens=True) == "### Response:blue"
