from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from transformers import Adafactor, AutoModelForCausalLM, Trainer, TrainingArguments

from hiplora import HipLoraCallback
from hiplora.errors import UserError
from hiplora.packing.sequences import Encoded
from tests.training.worker import VARIANTS, adapter, attached, examples, fit


class Ordered(Trainer):
    """A stock Trainer that reads its examples in order."""

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler:
        return torch.utils.data.SequentialSampler(self.train_dataset)


def arguments(folder: Path, **changes: Any) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        per_device_train_batch_size=1,
        **changes,
    )


def test_stock_trainer_with_the_callback_takes_our_steps(tiny: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Same rows, same order: one row per micro-batch, three per step, in both trainers."""
    encoded = [Encoded(list(range(2, 12)), list(range(20 + i, 30 + i))) for i in range(6)]
    method = VARIANTS["hip_absolute"].but(dropout=0.0, stability=3.0, lr_scale=4.0)
    ours, stock = attached(tiny, method), attached(tiny, method)
    before = adapter(stock)
    monkeypatch.setattr("tests.training.worker.examples", lambda: encoded)
    monkeypatch.setattr(torch, "randperm", lambda n, **_: torch.arange(n))
    fit(ours, tiny, method, tmp_path / "ours", steps=2, micro_batch_rows=1, row_tokens=19, warmup_ratio=0)

    labels = [[-100] * len(e.prompt) + e.answer for e in encoded]
    rows = [{"input_ids": e.prompt + e.answer, "labels": targets} for e, targets in zip(encoded, labels, strict=True)]
    options = arguments(tmp_path / "stock", max_steps=2, gradient_accumulation_steps=3, lr_scheduler_type="constant")
    optimizer = torch.optim.AdamW(stock.base_model.param_groups(lr=1e-2, weight_decay=0.01))
    callbacks = [HipLoraCallback()]
    Ordered(stock, options, train_dataset=rows, optimizers=(optimizer, None), callbacks=callbacks).train()
    for name, value in adapter(ours).items():
        torch.testing.assert_close(adapter(stock)[name], value, rtol=1e-3, atol=2e-5)
        assert not torch.equal(before[name], value)
    layer = stock.get_base_model().model.layers[0].self_attn.q_proj
    basis = layer.basis("default")
    assert (basis.U[:, :8].mT @ layer.lora_B["default"].weight).abs().max().item() < 1e-6


def test_it_refuses_what_it_cannot_serve(tiny: Path, tmp_path: Path, monkeypatch: Any) -> None:
    plain = AutoModelForCausalLM.from_pretrained(tiny)
    rows = [{"input_ids": example.prompt, "labels": example.prompt} for example in examples(2)]
    with pytest.raises(UserError, match="HipLoraConfig"):
        Trainer(plain, arguments(tmp_path), train_dataset=rows, callbacks=[HipLoraCallback()]).train()
    scaled = attached(tiny, VARIANTS["hip_absolute"].but(lr_scale=4.0))
    warming = arguments(tmp_path, warmup_steps=3)
    trainer = Trainer(scaled, warming, train_dataset=rows, callbacks=[HipLoraCallback()])
    with pytest.raises(UserError, match=r"rate of φ at .* is 5e-05, but lr_scale=4 times that of A is 0\.0002; give"):
        trainer.train()
    own = Adafactor(scaled.parameters(), relative_step=True)
    with pytest.raises(UserError, match="sets its own learning rates"):
        HipLoraCallback().on_train_begin(warming, trainer.state, trainer.control, model=scaled, optimizer=own)
    precision, kind = AcceleratorState._shared_state, PartialState._shared_state
    for where, name, value, what in (  # as ``accelerate launch`` sets them
        (precision, "_mixed_precision", "fp16", "the mixed precision fp16"),
        (kind, "distributed_type", DistributedType.FSDP, "the distributed type FSDP"),
        (vars(warming), "_n_gpu", 2, "2 GPUs in one process"),
    ):
        with monkeypatch.context() as launched:
            launched.setitem(where, name, value)
            with pytest.raises(UserError, match=f"has {what}; change"):
                HipLoraCallback().on_train_begin(warming, trainer.state, trainer.control, model=scaled)
