from __future__ import annotations

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import PrivateAttr
from torch.nn.utils import get_total_norm
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from hiplora.errors import UserError
from hiplora.methods import METHODS
from hiplora.methods.hip import Hip
from hiplora.packing.batches import micro_batch
from hiplora.packing.sequences import Encoded
from hiplora.training import checkpoint
from hiplora.training.loss import label_loss
from hiplora.training.stream import epoch_rows
from hiplora.training.trainer import NonFiniteLossError, _optimizers, train
from tests.training import worker
from tests.training.worker import OPTIONS, VARIANTS, adapter, attached, examples, fit, interrupted_fit, same, training


class Watched(Hip):
    """HiP that keeps the gradients of each step, and can be made to fail after one."""

    _gradients: list[dict[str, torch.Tensor]] = PrivateAttr(default_factory=list)

    def after_step(self, peft_model: Any, step: int) -> None:
        named = peft_model.named_parameters()
        self._gradients.append({n: p.grad.clone() for n, p in named if p.requires_grad})
        super().after_step(peft_model, step)


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_gradient_does_not_depend_on_the_split(tiny: Path, tmp_path: Path, rows: int) -> None:
    method = Watched(**OPTIONS["hip"].but(dropout=0.0, stability=5.0).fields())
    model = attached(tiny, method)
    with torch.no_grad():
        for parameter in model.base_model.principal_parameters():
            parameter.copy_(torch.linspace(-1, 1, parameter.numel()))
    batch = micro_batch(epoch_rows(examples(), row_tokens=64, seed=42, epoch=0)[:5], pad_id=0)
    loss = label_loss(model, batch) / len(batch["label_ids"])
    penalty = model.base_model.stability_penalty()
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    expected = dict(zip(named, torch.autograd.grad(loss + penalty, [*named.values()]), strict=True))

    result = fit(model, tiny, method, tmp_path, steps=1, rows_per_step=5, micro_batch_rows=rows, max_grad_norm=0)
    assert result.curve[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert result.curve[0]["penalty"] == pytest.approx(penalty.item(), rel=1e-5)
    for name, gradient in method._gradients[0].items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("most", [0.1, 0.0])
def test_gradients_are_clipped_to_the_norm(tiny: Path, tmp_path: Path, most: float) -> None:
    """The optimizer steps with clipped gradients, and with unchanged ones at 0; the curve has their norm before."""
    method = Watched(**OPTIONS["hip"].fields())
    result = fit(attached(tiny, method), tiny, method, tmp_path, max_grad_norm=most)
    before = [entry["grad_norm"] for entry in result.curve]
    assert min(before) > 0.1
    stepped = [float(get_total_norm(gradients.values())) for gradients in method._gradients]
    assert stepped == pytest.approx([most or norm for norm in before], rel=1e-4)


@pytest.mark.parametrize("name", ["rslora_plus", "proj", "hip_plus", "osf"])
def test_weight_decay_shrinks_the_parameters_of_every_group(tiny: Path, tmp_path: Path, name: str) -> None:
    """One step shrinks them by learning rate × decay, whatever the gradient is."""
    method = {**OPTIONS, **VARIANTS}[name]
    ends, decay = [], 10.0
    for weight_decay in (0.0, decay):
        model = attached(tiny, method, lr=1e-3)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.normal_(std=0.1, generator=generator)
        method.after_step(model, 0)
        before = adapter(model)
        fit(model, tiny, method, tmp_path / str(weight_decay), steps=1, lr=1e-3, weight_decay=weight_decay)
        ends.append(adapter(model))
    named = {id(p): key for key, p in model.named_parameters()}
    for group in method.param_groups(model, training=training(lr=1e-3)):
        for key in (named[id(parameter)] for parameter in group["params"]):
            shrunk = ends[0][key] - ends[1][key]
            torch.testing.assert_close(shrunk, group["lr"] * decay * before[key], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_interrupted_training_ends_with_the_same_bits(tiny: Path, tmp_path: Path, name: str) -> None:
    method = OPTIONS[name]
    whole, broken = attached(tiny, method, dtype=torch.bfloat16), attached(tiny, method, dtype=torch.bfloat16)
    before = adapter(whole)
    result = fit(whole, tiny, method, tmp_path / "whole", snapshots=(0.25, 0.5))
    assert all(not torch.equal(value, before[name]) for name, value in adapter(whole).items())
    assert all(p.dtype is torch.float32 for p in adapter(whole).values())

    interrupted_fit(broken, tiny, method, tmp_path / "broken", at=5, snapshots=(0.25, 0.5))
    torch.rand(3)  # the generators are somewhere else
    again = attached(tiny, method, dtype=torch.bfloat16)
    resumed = fit(again, tiny, method, tmp_path / "broken", snapshots=(0.25, 0.5))
    assert resumed.resumed_from == 3
    assert same(adapter(whole), adapter(again))
    assert same(result.native, resumed.native)
    assert result.snapshots.keys() == {2, 4}, "the first came back with the checkpoint, the second was lost with step 4"
    assert same(result.snapshots, resumed.snapshots)
    timeless: dict[str, Any] = {"seconds": 0, "elapsed": [], "tokens_per_second": 0, "resumed_from": None}
    assert replace(resumed, **timeless) == replace(result, **timeless)


def test_a_checkpoint_that_lacks_a_snapshot_is_not_gone_on_from(tiny: Path, tmp_path: Path) -> None:
    method = OPTIONS["hip"]
    interrupted_fit(attached(tiny, method), tiny, method, tmp_path, at=5)
    kept = fit(attached(tiny, method), tiny, method, tmp_path, snapshots=(0.5,))
    assert kept.resumed_from == 3, "step 4 was still to come"
    other = tmp_path.parent / f"{tmp_path.name}-other"
    shutil.copytree(tmp_path, other)
    afresh = fit(attached(tiny, method), tiny, method, tmp_path, snapshots=(0.25,))
    assert afresh.resumed_from is None
    assert afresh.snapshots.keys() == {2}
    assert same(afresh.native, kept.native)
    interrupted_fit(attached(tiny, method), tiny, method, other, at=5, snapshots=(0.25,))
    again = fit(attached(tiny, method), tiny, method, other, snapshots=(0.25,))
    assert again.resumed_from == 3, "the checkpoints of the first training do not displace those of the second"


def test_shared_prefixes_train_the_same_adapter(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template = list(range(2, 22))
    alike = [Encoded([*template, *example.prompt], example.answer) for example in examples()]
    monkeypatch.setattr(worker, "examples", lambda: alike)
    method = OPTIONS["hip"].but(dropout=0.0)
    results, adapters = [], []
    for share in (True, False):
        model = attached(tiny, method)
        results.append(fit(model, tiny, method, tmp_path / str(share), share_prefixes=share))
        adapters.append(adapter(model))
    assert [result.share_prefixes for result in results] == [True, False]
    assert results[0].tokens == results[1].tokens
    assert results[0].final_loss == pytest.approx(results[1].final_loss, rel=1e-4)
    for name, value in adapters[0].items():
        torch.testing.assert_close(value, adapters[1][name], rtol=1e-2, atol=1e-4)


def test_a_llama_that_reads_no_rows_trains_the_same_adapter(tiny: Path, tmp_path: Path) -> None:
    """With eager attention every example has its own row, and the model keeps its attention."""
    method = OPTIONS["hip"].but(dropout=0.0)
    packed, apart = attached(tiny, method), attached(tiny, method)
    apart.get_base_model().set_attn_implementation("eager")
    results = [fit(model, tiny, method, tmp_path / str(id(model)), steps=3) for model in (packed, apart)]
    assert [result.share_prefixes for result in results] == [True, False]
    assert results[0].final_loss == pytest.approx(results[1].final_loss, rel=1e-4)
    for name, value in adapter(packed).items():
        torch.testing.assert_close(value, adapter(apart)[name], rtol=1e-2, atol=1e-4)


def test_the_generator_of_the_trainings_gpu_alone_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    generators = {torch.device("cuda", 1): torch.tensor([7])}
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: generators[device])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: generators.update({device: state}))
    kept = checkpoint.random_states(torch.device("cuda", 1))
    before = torch.rand(1)
    checkpoint.set_random_states(kept, torch.device("cuda", 0))  # resumed where fewer GPUs are visible
    assert generators[torch.device("cuda", 0)] == 7
    assert torch.equal(torch.rand(1), before)


def test_torn_checkpoints_are_ignored_and_two_are_kept(tiny: Path, tmp_path: Path) -> None:
    method = OPTIONS["hip"]
    model, again = attached(tiny, method), attached(tiny, method)
    result = fit(model, tiny, method, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000006", "step-00000008"]
    assert [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()] == result.curve
    assert result.epochs == pytest.approx(8 * 3 / len(epoch_rows(examples(), row_tokens=64, seed=42, epoch=0)), rel=0.2)

    torn = tmp_path / "step-00000008" / "state.pt"
    torn.write_bytes(torn.read_bytes()[:-100])
    resumed = fit(again, tiny, method, tmp_path)
    assert resumed.resumed_from == 6
    assert same(adapter(model), adapter(again))
    progress = tmp_path / "step-00000008" / "progress.json"
    whole = progress.read_text()
    for broken in (whole.replace('"tokens": ', '"tokens": 1', 1), "[]", "{}", whole[:-9]):
        progress.write_text(broken)
        kept = checkpoint.newest(tmp_path, fingerprint=json.loads(whole)["fingerprint"])
        assert kept is not None
        assert kept[1]["step"] == 6
    progress.write_text(whole)
    assert fit(attached(tiny, method), tiny, method, tmp_path).resumed_from == 8
    with pytest.raises(UserError, match=r"other settings, another seed, other examples or parameters of other shapes:"):
        fit(attached(tiny, method), tiny, method, tmp_path, seed=43)


def test_a_full_disk_is_told_and_loses_nothing(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = OPTIONS["hip"]
    write = checkpoint._write

    def full_from_step_6(path: Path, content: bytes) -> None:
        if (tmp_path / "step-00000003").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_write", full_from_step_6)
        with pytest.raises(UserError, match="disk is full"):
            fit(attached(tiny, method), tiny, method, tmp_path)
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-00000003"]
    assert not (tmp_path / checkpoint.TEMPORARY).exists()
    assert fit(attached(tiny, method), tiny, method, tmp_path).resumed_from == 3


@pytest.mark.parametrize("where", ["loss", "gradient", "penalty"])
def test_a_non_finite_number_stops_before_the_step(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    method = OPTIONS["hip"]
    model = attached(tiny, method)
    good: list[dict[str, torch.Tensor]] = []
    after_step, extra_loss = Hip.after_step, Hip.extra_loss

    def poison(self: Hip, peft_model: Any, step: int) -> None:
        after_step(self, peft_model, step)
        if step == 4:
            good.append(adapter(peft_model))
            if where == "loss":
                peft_model.get_base_model().model.norm.weight.data[0] = float("nan")
            elif where == "gradient":
                peft_model.base_model.principal_parameters()[2].register_hook(lambda g: g * float("inf"))
            else:
                monkeypatch.setattr(Hip, "extra_loss", lambda self, m: extra_loss(self, m) * float("nan"))

    monkeypatch.setattr(Hip, "after_step", poison)
    told = {"loss": "micro-batch 1 of 2", "gradient": r"lora_phi", "penalty": "extra loss of method hip"}[where]
    with pytest.raises(NonFiniteLossError, match=rf"step 5.*{told}"):
        fit(model, tiny, method, tmp_path)
    assert same(adapter(model), good[0])
    assert (tmp_path / "step-00000003").is_dir()
    assert len((tmp_path / "curve.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize("name", ["lora", "hip"])
def test_what_the_last_step_leaves_is_checked(tiny: Path, tmp_path: Path, name: str, monkeypatch) -> None:
    """No loss comes after it."""
    method = OPTIONS[name]
    beyond = training().model_copy(update={"steps": 1, "lr": 1e39})  # more than a user may ask for
    monkeypatch.setattr(worker, "training", lambda **_: beyond)
    with pytest.raises(NonFiniteLossError, match=r"after step 1, .* not finite in .*lora_\w+.*not saved.*training\.lr"):
        fit(attached(tiny, method), tiny, method, tmp_path)
    monkeypatch.undo()
    assert list(tmp_path.glob("step-*")) == []
    fit(attached(tiny, method), tiny, method, tmp_path / "right", steps=1)


def test_recomputing_activations_changes_no_bit_and_is_switched_off_again(tiny: Path, tmp_path: Path) -> None:
    method = OPTIONS["hip"]
    plain, recomputed = attached(tiny, method), attached(tiny, method)
    passes = {id(plain): 0, id(recomputed): 0}
    for model in (plain, recomputed):

        def count(*_: Any, of: int = id(model)) -> None:
            passes[of] += 1

        model.get_base_model().model.layers[0].input_layernorm.register_forward_pre_hook(count)
    fit(plain, tiny, method, tmp_path / "plain", steps=2)
    fit(recomputed, tiny, method, tmp_path / "recomputed", steps=2, gradient_checkpointing=True)
    assert passes[id(recomputed)] > passes[id(plain)], "nothing was computed twice"
    assert same(adapter(plain), adapter(recomputed))
    lm = recomputed.get_base_model()
    assert lm.config.use_cache
    assert not lm.is_activation_checkpointing
    assert not lm(torch.tensor([[1, 2]]), output_hidden_states=True).hidden_states[0].requires_grad
    assert not recomputed.training


def test_warm_up_moves_at_once_and_scales_each_group() -> None:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.1 * scale} for scale in (1, 5)]
    optimizer, schedule = _optimizers(groups, training(steps=100))
    rates = []
    for _ in range(5):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    assert [rate[0] for rate in rates] == pytest.approx([0.1 / 3, 0.2 / 3, 0.1, 0.1, 0.1])
    assert [rate[1] for rate in rates] == pytest.approx([5 * rate[0] for rate in rates])


def test_what_does_not_fit_a_row_is_counted(tiny: Path, tmp_path: Path) -> None:
    found = fit(attached(tiny, OPTIONS["lora"]), tiny, OPTIONS["lora"], tmp_path, steps=1, row_tokens=20)
    fitting = [example for example in examples() if len(example.prompt) <= 20]
    cut = [example for example in fitting if example.inputs > 20]
    assert (found.examples, found.cut, found.dropped) == (len(fitting), len(cut), len(examples()) - len(fitting))
    assert 0 < found.cut < found.examples
    assert found.dropped


def test_no_example_fits(tiny: Path, tmp_path: Path) -> None:
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(tiny)
    method = OPTIONS["lora"]
    with pytest.raises(UserError, match="row_tokens=2"):
        train(
            attached(tiny, method),
            tokenizer,
            examples(),
            method=method,
            training=training(row_tokens=2),
            seed=1,
            checkpoint_dir=tmp_path,
        )


class Tracked:
    """A tracker and its run that take down what they are told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def start(self, *, resumed: bool) -> Tracked:
        self.told.append(resumed)
        return self

    def curve(self, entries: list[dict[str, float]]) -> None:
        self.told += [entry["step"] for entry in entries]

    def finish(self, *, failed: bool) -> None:
        self.told.append(failed)


def test_what_is_tracked_is_whole_also_when_no_step_is_left(tiny: Path, tmp_path: Path) -> None:
    method, first, again = OPTIONS["lora"], Tracked(), Tracked()
    fit(attached(tiny, method), tiny, method, tmp_path, tracker=first)
    fit(attached(tiny, method), tiny, method, tmp_path, tracker=again)  # killed before the adapter was saved
    assert first.told == [False, *range(1, 9), False]
    assert again.told == [True, *range(1, 9), False]
