"""Cross-entropy on text against transformers' own loss, window by window."""

from __future__ import annotations

import pytest
import torch

from hiplora.errors import UserError
from hiplora.evaluation import text
from hiplora.tasks.source import Data, Source


def test_cross_entropy_is_the_mean_loss_over_fixed_windows(monkeypatch, model, tokenizer, data):
    monkeypatch.setattr(text, "WINDOW", 32)
    source = Source(data)
    found = text.text_cross_entropy(model, tokenizer, source, tokens=80, batch_tokens=64)
    ids = tokenizer.encode(source.load("text", "test")["text"][0], add_special_tokens=False)[:80]
    windows = [torch.tensor([ids[start : start + 32]]) for start in range(0, 80, 32)]
    with torch.inference_mode():
        losses = [(model(window, labels=window).loss.item(), window.shape[1] - 1) for window in windows]
    assert found["tokens"] == sum(count for _, count in losses) == 77
    assert found["nll"] == pytest.approx(sum(loss * count for loss, count in losses) / 77, abs=1e-5)


def test_a_text_without_two_tokens_is_told(tmp_path, model, tokenizer):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "test.jsonl").write_text('{"text": ""}\n')
    with pytest.raises(UserError, match=r"text \(test\) has fewer than the 2 tokens"):
        text.text_cross_entropy(
            model, tokenizer, Source(Data(name="local", root=str(tmp_path), revisions={})), tokens=80
        )
