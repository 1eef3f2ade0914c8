from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from hiplora.packing.batches import micro_batch
from hiplora.packing.rows import first_fit
from hiplora.packing.sequences import Encoded
from hiplora.training.stream import epoch_rows, fit
from tests.training.worker import examples


@torch.no_grad()
def test_packed_examples_do_not_see_each_other(tiny: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
    rows = first_fit(examples(), row_tokens=64, order=range(40))[:4]
    batch = micro_batch(rows, pad_id=0)
    inputs = {key: batch[key] for key in ("input_ids", "position_ids")}
    packed = model(**inputs, use_cache=False).logits
    masked = model(**inputs, use_cache=False, attention_mask=torch.ones_like(batch["input_ids"])).logits
    assert len(rows) > 1
    assert any(row.inputs < batch["input_ids"].shape[1] for row in rows)  # padding is in play too

    worst, worst_masked = 0.0, 0.0
    for number, row in enumerate(rows):
        start = 0
        for example in row.examples:
            alone = model(torch.tensor([(example.prompt + example.answer)[:-1]]), use_cache=False).logits[0]
            place = (number, slice(start, start + example.inputs))
            worst = max(worst, float((packed[place] - alone).abs().max()))
            worst_masked = max(worst_masked, float((masked[place] - alone).abs().max()))
            start += example.inputs
    assert worst < 1e-5
    assert worst_masked > 1e-2  # the naive way leaks: this is what the test is there to notice


def test_labels_are_the_answers_and_nothing_else() -> None:
    encoded = examples(6)
    rows = first_fit(encoded, row_tokens=64, order=range(6))
    batch = micro_batch(rows, pad_id=0)
    answers = [example.answer for row in rows for example in row.examples]
    assert batch["label_ids"].tolist() == [token for answer in answers for token in answer]
    # a label inside an answer is predicted from the position that reads the token before it
    flat = batch["input_ids"].flatten()
    for row_answer, end in zip(answers, torch.tensor([len(a) for a in answers]).cumsum(0).tolist(), strict=True):
        index = batch["label_index"][end - len(row_answer) : end]
        assert flat[index[1:]].tolist() == row_answer[:-1]
    assert batch["tokens"] == sum(example.tokens for example in encoded)
    assert batch["examples"] == 6


def test_packing_is_complete_tight_and_reproducible() -> None:
    encoded = examples(300)
    rows = epoch_rows(encoded, row_tokens=64, seed=1, epoch=0)
    assert sorted(map(id, (e for row in rows for e in row.examples))) == sorted(map(id, encoded))
    assert max(row.inputs for row in rows) <= 64
    assert sum(row.inputs for row in rows) / (64 * len(rows)) > 0.9
    assert rows == epoch_rows(encoded, row_tokens=64, seed=1, epoch=0)
    assert rows != epoch_rows(encoded, row_tokens=64, seed=1, epoch=1)
    assert rows != epoch_rows(encoded, row_tokens=64, seed=2, epoch=0)


def test_long_examples_are_cut_or_left_out_and_counted() -> None:
    long_answer, long_prompt, right = Encoded([1] * 4, [2] * 9), Encoded([1] * 9, [2]), Encoded([1] * 4, [2] * 5)
    fitted = fit([long_answer, long_prompt, right], row_tokens=8)
    assert fitted.examples == [right, right]
    assert (fitted.truncated, fitted.dropped) == (1, 1)
    with pytest.raises(ValueError, match="does not fit"):
        first_fit([long_answer], row_tokens=8, order=[0])
    with pytest.raises(ValueError, match="without answer"):
        fit([Encoded([1], [])], row_tokens=8)
