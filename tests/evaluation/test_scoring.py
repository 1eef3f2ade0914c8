"""Log-likelihoods against lm-eval's own model and against a plain forward pass."""

from __future__ import annotations

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from hiplora.evaluation.lm import InMemoryLM
from hiplora.evaluation.rows import build_row
from hiplora.evaluation.scoring import Continuations, score_continuations
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


def test_options_behind_one_prompt_score_as_if_alone(model):
    generator = torch.Generator().manual_seed(1)
    draw = lambda length: torch.randint(2, 400, (length,), generator=generator).tolist()  # noqa: E731
    asked = [Continuations(draw(n), [draw(k) for k in (1, 4, 2, 7)[: 1 + n % 4]]) for n in (1, 2, 3, 5, 9, 31)]
    with torch.inference_mode():
        found = score_continuations(model, asked, batch_tokens=64, max_length=512)
        for item, options in zip(asked, found, strict=True):
            for option, scored in zip(item.options, options, strict=True):
                logits = model(torch.tensor([[*item.prompt, *option]])).logits[0].log_softmax(-1)
                picked = logits[len(item.prompt) - 1 : -1].gather(-1, torch.tensor(option)[:, None])
                assert scored.log_prob == pytest.approx(picked.sum().item(), abs=1e-4)


def test_a_long_prompt_loses_its_beginning(model):
    prompt, option = list(range(2, 300)), [7, 8, 9]
    row = build_row(prompt, [option, [5]], max_length=100)
    assert row.ids[:98] == prompt[-98:] and row.ids[98:] == [7, 8]
    assert row.positions[-2:] == [98, 99]


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
