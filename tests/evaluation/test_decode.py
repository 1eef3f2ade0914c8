"""Generation against transformers, and sampling against the distribution it claims."""

from __future__ import annotations

import pytest
import torch
from transformers.generation.logits_process import TopPLogitsWarper

from hiplora.evaluation import decode
from hiplora.evaluation.decode import Wanted, generate
from hiplora.evaluation.sampling import Decoding, next_tokens, uniforms

PROMPTS = ["The capital of Peru is", "def add(a, b):\n", "### Response:\n", "1 2 3"]


def run(model, tokenizer, wanted, **settings):
    with torch.inference_mode():
        return generate(model, tokenizer, wanted, decoding=Decoding(**settings), batch_tokens=16)


def test_greedy_is_that_of_transformers(model, tokenizer):
    wanted = [Wanted(tokenizer.encode(prompt), 1) for prompt in PROMPTS]
    found = run(model, tokenizer, wanted, max_new_tokens=24, stops=())
    for item, (text,) in zip(wanted, found, strict=True):
        ids = torch.tensor([item.prompt])
        whole = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False)
        assert text == tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True)


def test_a_stop_cuts_where_it_first_occurs(model, tokenizer):
    wanted = [Wanted(tokenizer.encode(prompt), 1) for prompt in PROMPTS]
    whole = [text for (text,) in run(model, tokenizer, wanted, max_new_tokens=24, stops=())]
    stop = whole[0][3:5]
    cut = [text for (text,) in run(model, tokenizer, wanted, max_new_tokens=24, stops=(stop, "never"))]
    assert cut == [text.split(stop)[0] for text in whole]
    assert len(cut[0]) <= 3


@pytest.fixture
def fresh_memory_is_nan():
    """Buffers that torch does not initialise hold nan, as memory that was used before may."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("slots", [1, 3, 100])
def test_each_completion_is_as_if_sampled_alone(model, tokenizer, slots, monkeypatch, fresh_memory_is_nan):
    """Also where the cache is too small for all: sequences without a place are taken up later."""
    longest = max(len(tokenizer.encode(prompt)) for prompt in PROMPTS) + 12
    monkeypatch.setattr(decode, "CPU_CACHE_BYTES", slots * longest * decode.bytes_per_token(model.config, element=4))
    reserved: list[int] = []
    reserve = decode.SlotCache
    monkeypatch.setattr(decode, "SlotCache", lambda **sizes: reserved.append(sizes["slots"]) or reserve(**sizes))
    settings = {"max_new_tokens": 12, "stops": (), "temperature": 0.7, "top_p": 0.9, "seed": 3}
    wanted = [Wanted(tokenizer.encode(prompt), 5) for prompt in PROMPTS]
    found = run(model, tokenizer, wanted, **settings)
    assert len({text for texts in found for text in texts}) > len(PROMPTS), "nothing was sampled"
    for item, texts in zip(wanted, found, strict=True):
        assert texts == [alone(model, tokenizer, item, copy, Decoding(**settings)) for copy in range(5)]
    assert max(reserved) <= 5 * len(PROMPTS), "no more than there is work for"


def alone(model, tokenizer, item: Wanted, copy: int, decoding: Decoding) -> str:
    """One completion, one token and one whole forward pass at a time."""
    numbers = uniforms(item.prompt, copies=item.copies, decoding=decoding)[copy]
    ids = list(item.prompt)
    for number in numbers:
        with torch.inference_mode():
            logits = model(torch.tensor([ids])).logits[:, -1]
        token = next_tokens(logits, torch.tensor([0]), number[None], decoding).item()
        if token == tokenizer.eos_token_id:
            break
        ids.append(token)
    return tokenizer.decode(ids[len(item.prompt) :])


def test_samples_follow_the_seed_and_leave_global_random_states_alone(model, tokenizer):
    wanted = [Wanted(tokenizer.encode(PROMPTS[0]), 4)]
    settings = {"max_new_tokens": 8, "stops": (), "temperature": 1.0}
    before = torch.get_rng_state()
    first = run(model, tokenizer, wanted, seed=1, **settings)
    torch.manual_seed(5)
    assert run(model, tokenizer, wanted, seed=1, **settings) == first
    assert run(model, tokenizer, wanted, seed=2, **settings) != first
    torch.set_rng_state(before)
    run(model, tokenizer, wanted, seed=1, **settings)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("temperature", "top_p"), [(0.2, 0.95), (1.0, 0.5), (1.0, 1.0), (3.0, 0.99)])
def test_tokens_are_drawn_in_proportion_within_the_nucleus(temperature, top_p):
    logits = 2 * torch.randn(2, 300, generator=torch.Generator().manual_seed(0))
    grid = (torch.arange(20_000) + 0.5) / 20_000
    decoding = Decoding(max_new_tokens=1, stops=(), temperature=temperature, top_p=top_p)
    for row in range(2):
        drawn = next_tokens(logits, torch.full((len(grid),), row), grid, decoding)
        kept = TopPLogitsWarper(top_p)(None, logits / temperature) if top_p < 1 else logits / temperature
        expected = kept.softmax(-1)[row]
        frequency = torch.bincount(drawn, minlength=300) / len(grid)
        assert torch.allclose(frequency, expected, atol=2e-4)
