"""Cross-entropy on text against transformers' own loss, window by window."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from hiplora.errors import UserError
from hiplora.evaluation import text
from hiplora.tasks.source import Data, Source


def test_cross_entropy_is_the_mean_loss_over_fixed_windows(monkeypatch, model, tokenizer, data):
    monkeypatch.setattr(text, "WINDOW", 32)
    source = Source(data)
    found = text.text_cross_entropy(model, tokenizer, source, tokens=80, batch_tokens=64)
    ids = tokenizer.encode(source.load("text", "test")["text"][0], add_special_tokens=False)[:80]
    expected, count = mean_loss(model, [ids[start : start + 32] for start in range(0, 80, 32)])
    assert found["tokens"] == count == 77
    assert found["nll"] == pytest.approx(expected, abs=1e-5)


def test_a_window_is_no_longer_than_the_model_can_read(tokenizer, data):
    torch.manual_seed(0)
    short = GPT2LMHeadModel(GPT2Config(vocab_size=400, n_positions=64, n_embd=32, n_layer=1, n_head=2)).eval()
    source = Source(data)
    found = text.text_cross_entropy(short, tokenizer, source, tokens=150)
    ids = tokenizer.encode(source.load("text", "test")["text"][0], add_special_tokens=False)[:150]
    expected, count = mean_loss(short, [ids[start : start + 64] for start in range(0, 150, 64)])
    assert found["tokens"] == count == 147
    assert found["nll"] == pytest.approx(expected, abs=1e-5)


def test_sampled_texts_are_read_each_alone(tmp_path, model, tokenizer):
    texts = ["The capital of Peru is Lima.", "def add(a, b):", "The brown fox jumps over the lazy dog. 12 + 30 = 42."]
    (tmp_path / "text_sampled").mkdir()
    (tmp_path / "text_sampled" / "validation.jsonl").write_text("".join(f'{{"text": "{text}"}}\n' for text in texts))
    source = Source(Data(name="local", root=str(tmp_path), revisions={}))
    alone = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    alone[2] = alone[2][: 30 - len(alone[0]) - len(alone[1])]
    found = text.text_cross_entropy(model, tokenizer, source, tokens=30, dataset="text_sampled", split="validation")
    expected, count = mean_loss(model, alone)
    assert found["tokens"] == count == 27
    assert found["nll"] == pytest.approx(expected, abs=1e-5)


def mean_loss(model, windows):
    """Transformers' mean loss per token that has one before it in its window, and how many there are."""
    with torch.inference_mode():
        losses = [
            model(torch.tensor([ids]), labels=torch.tensor([ids])).loss.item() * (len(ids) - 1) for ids in windows
        ]
    count = sum(len(ids) - 1 for ids in windows)
    return sum(losses) / count, count


def test_a_text_without_two_tokens_is_told(tmp_path, model, tokenizer):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "test.jsonl").write_text('{"text": ""}\n')
    with pytest.raises(UserError, match=r"text \(test\) has fewer than the 2 tokens"):
        text.text_cross_entropy(
            model, tokenizer, Source(Data(name="local", root=str(tmp_path), revisions={})), tokens=80
        )
