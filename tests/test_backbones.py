"""Every family of backbones: the same numbers as plain forward passes, and adapters that stock PEFT reads."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import set_seed

from hiplora import models
from hiplora.adapters.exporting import export_lora
from hiplora.adapters.writing import write_lora
from hiplora.errors import UserError
from hiplora.evaluation.decode import Wanted, generate
from hiplora.evaluation.sampling import Decoding
from hiplora.evaluation.scoring import score_continuations
from hiplora.merging import merge
from hiplora.models import Model
from hiplora.packing import agreement
from hiplora.packing.batches import micro_batch
from hiplora.packing.decoder import evaluating
from hiplora.packing.rows import first_fit
from hiplora.packing.sequences import Encoded
from hiplora.stages.targets import resolved, target_shapes
from hiplora.stages.train import put_on
from hiplora.training.loss import label_loss
from hiplora.training.trainer import train
from hiplora.tuner.targets import matrix_of
from tests.backbones import FAMILIES, PLAIN, WINDOW, backbone
from tests.training.worker import OPTIONS, SETUP, training

STEM = [(5 * number) % 300 + 2 for number in range(WINDOW + 8)]  # longer than a window, so that it shows
SEQUENCES = [
    Encoded([*STEM, 7, 8], [9, 10, 11]),
    Encoded([*STEM, 7, 12], [13, 14]),
    Encoded([20, 21, 22], [23]),
    Encoded([*STEM, *range(40, 52)], [3, 4]),
]
METHODS = ("hip", "lora", "proj")
LOGGER = "hiplora.packing.agreement"


@pytest.fixture(scope="module", autouse=True)
def _forget() -> Iterator[None]:
    yield
    models.forget()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: backbone(tmp_path_factory.mktemp(name), name) for name in (*FAMILIES, *PLAIN)}


def options(path: Path, **changes: Any) -> Model:
    fields = {"name": "tiny", "source": "folder", "revision": None, "dtype": "float32", "device": "cpu"}
    return Model(**{**fields, "path": str(path), "target_modules": "auto", **changes})


def logits(model: nn.Module, ids: list[int]) -> Tensor:
    """Of a plain forward pass (L, vocabulary)."""
    with evaluating(model):
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()


def log_prob(model: nn.Module, sequence: Encoded) -> float:
    values = logits(model, sequence.path)[sequence.first :].log_softmax(-1)
    return float(values[torch.arange(len(sequence.targets)), sequence.targets].sum())


def greedy(model: nn.Module, prompt: list[int], length: int) -> list[int]:
    ids = list(prompt)
    for _ in range(length):
        ids.append(int(logits(model, ids)[-1].argmax()))
        if ids[-1] == 1:
            break
    return ids[len(prompt) :]


@pytest.mark.parametrize("family", [*FAMILIES, *PLAIN])
def test_evaluation_and_loss_are_those_of_plain_forward_passes(
    folders: dict[str, Path], family: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a family can share prefixes and rows it does; where it cannot, that is noticed and said."""
    loaded = models.load(options(folders[family]))
    model, tokenizer = loaded.model, loaded.tokenizer
    with caplog.at_level(logging.WARNING, LOGGER):
        assert agreement.reads_trees(model) is agreement.reads_rows(model) is (family in FAMILIES)
    assert bool(caplog.records) is (family in PLAIN)

    with evaluating(model):
        scored = score_continuations(model, SEQUENCES, batch_tokens=200)
    assert [each.log_prob for each in scored] == pytest.approx([log_prob(model, each) for each in SEQUENCES], rel=1e-4)

    decoding = Decoding(max_new_tokens=6, stops=())
    wanted = [Wanted(each.prompt, 2) for each in SEQUENCES]
    with evaluating(model):
        written = generate(model, tokenizer, wanted, decoding=decoding, batch_tokens=200)
    for prompt, texts in zip(wanted, written, strict=True):
        ids = greedy(model, prompt.prompt, 6)
        kept = ids[:-1] if ids[-1] == 1 else ids
        alone, together = tokenizer.batch_decode([prompt.prompt[-1:], [*prompt.prompt[-1:], *kept]])
        assert texts == [together[len(alone) :]] * 2

    lines = first_fit(SEQUENCES, row_tokens=96, order=range(len(SEQUENCES)))
    assert len(lines) < len(SEQUENCES)
    batch = micro_batch(lines, pad_id=0, apart=not agreement.reads_rows(model))
    expected = -sum(log_prob(model, each) for each in SEQUENCES)
    with evaluating(model):
        assert label_loss(model, batch).item() == pytest.approx(expected, rel=1e-4)


def test_a_window_would_show(folders: dict[str, Path]) -> None:
    """The sequences are long enough for it: without its window, Mistral says something else."""
    model = models.load(options(folders["mistral"])).model
    before = log_prob(model, SEQUENCES[0])
    model.config.sliding_window = None
    try:
        assert abs(log_prob(model, SEQUENCES[0]) - before) > 1e-2
    finally:
        model.config.sliding_window = WINDOW


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_are_trained_saved_merged_and_exported(
    folders: dict[str, Path], family: str, name: str, tmp_path: Path
) -> None:
    loaded, method = models.load(options(folders[family])), OPTIONS[name]
    targets = resolved(loaded.model, ("auto",))
    shapes = target_shapes(loaded.model, targets)
    method.check(shapes)
    bare = logits(loaded.model, STEM)
    brief = training(steps=2, checkpoint_every=2, lr=3e-2)
    set_seed(1)
    with put_on(method, lambda: method.attach(loaded.model, setup=replace(SETUP, targets=targets))) as model:
        trained = train(
            model, loaded.tokenizer, SEQUENCES, method=method, training=brief, seed=1, checkpoint_dir=tmp_path / "kept"
        )
        assert math.isfinite(trained.final_loss)
        method.save(model, tmp_path / "adapter")
        updates, adapted = method.updates(model), logits(model, STEM)
    assert updates.keys() == shapes.keys()
    assert {key: tuple(update.shape) for key, update in updates.items()} == shapes
    assert not torch.allclose(adapted, bare, atol=1e-3)
    assert torch.equal(logits(loaded.model, STEM), bare)

    with put_on(method, lambda: method.load(loaded.model, tmp_path / "adapter")) as model:
        assert torch.equal(logits(model, STEM), adapted)

    stock = tmp_path / "adapter"
    if name != "lora":
        stock = export_lora(tmp_path / "adapter", tmp_path / "stock", backbone=loaded.model)
    write_lora(merge([updates, updates], "addition").updates, tmp_path / "merged", task_type="CAUSAL_LM")
    with folded(loaded.model, updates, 2.0):
        twice = logits(loaded.model, STEM)
    for folder, expected in ((stock, adapted), (tmp_path / "merged", twice)):
        model = PeftModel.from_pretrained(loaded.model, str(folder))
        torch.testing.assert_close(logits(model, STEM), expected, rtol=1e-3, atol=1e-3)
        merged = model.merge_and_unload(safe_merge=True)
        torch.testing.assert_close(logits(merged, STEM), expected, rtol=1e-3, atol=1e-3)
        models.forget()
        loaded = models.load(options(folders[family]))


class folded:
    """Within the context the backbone's own weights are ``W + c ΔW``."""

    def __init__(self, model: nn.Module, updates: Any, c: float) -> None:
        self.model, self.updates, self.c = model, updates, c

    def __enter__(self) -> None:
        self.kept = {name: matrix_of(name, self.model.get_submodule(name)).clone() for name in self.updates}
        for name, update in self.updates.items():
            matrix_of(name, self.model.get_submodule(name)).add_(self.c * update.dense())

    def __exit__(self, *_: object) -> None:
        for name, weight in self.kept.items():
            matrix_of(name, self.model.get_submodule(name)).copy_(weight)


def test_a_conv1d_is_merged_and_unmerged_in_place(folders: dict[str, Path]) -> None:
    """The layer of GPT-2 stores its weight the other way round."""
    loaded = models.load(options(folders["gpt2"]))
    method, targets = OPTIONS["hip"], resolved(loaded.model, ("auto",))
    with put_on(method, lambda: method.attach(loaded.model, setup=replace(SETUP, targets=targets))) as model:
        for parameter in model.parameters():
            if parameter.requires_grad:
                nn.init.normal_(parameter, std=0.2)
        adapted = logits(model, STEM)
        weights = {name: value.clone() for name, value in model.named_parameters()}
        model.merge_adapter()
        torch.testing.assert_close(logits(model, STEM), adapted, rtol=1e-3, atol=1e-3)
        model.unmerge_adapter()
        assert all(torch.equal(weights[name], value) for name, value in model.named_parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_words_for_target_modules(folders: dict[str, Path], family: str) -> None:
    model = models.load(options(folders[family])).model
    assert resolved(model, ("auto",)) == FAMILIES[family][2]
    found = target_shapes(model, resolved(model, ("all-linear",)))
    peft = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    theirs = {key.partition(".lora_A")[0] for key in peft.state_dict() if ".lora_A." in key}
    models.forget()
    linear = {name for name in theirs if not (family == "mixtral" and ".mlp." in name)}  # PEFT adapts parameters there
    assert {f"base_model.model.{name}" for name in found} == linear


@pytest.mark.parametrize(
    ("family", "targets", "words"),
    [
        (
            "mixtral",
            ["q_proj", "gate_up_proj"],
            r"gate_up_proj, but model\.layers\.0\.mlp\.experts\.gate_up_proj .*4 × ",
        ),
        (
            "mixtral",
            ["experts"],
            r"experts, but .* is a parameter .* of MixtralExperts, not a linear layer; choose among k_",
        ),
        ("mixtral", ["mlp.gate"], "mlp.gate, but .* of MixtralTopKRouter, not a linear layer"),
        ("gpt2", ["c_attn", "wte"], "names wte, whose weight this backbone shares with lm_head"),
        (
            "phi3",
            ["q_proj"],
            "q_proj, but no linear layer .* type model.target_modules=auto .* choose among .*qkv_proj",
        ),
    ],
)
def test_what_is_no_linear_layer_is_refused_by_name(
    folders: dict[str, Path], family: str, targets: list[str], words: str
) -> None:
    model = models.load(options(folders[family])).model
    with pytest.raises(UserError, match=words):
        target_shapes(model, resolved(model, targets))


def test_a_quantised_layer_is_refused_by_name(folders: dict[str, Path]) -> None:
    model = models.load(options(folders["llama"])).model
    layer = model.get_submodule("model.layers.1.self_attn.k_proj")
    layer.weight = nn.Parameter(torch.zeros(16, 32, dtype=torch.int8), requires_grad=False)
    with pytest.raises(UserError, match=r"model\.layers\.1\.self_attn\.k_proj, which .* is quantised \(int8\)"):
        target_shapes(model, resolved(model, ("auto",)))
    models.forget()


def test_auto_needs_attention(folders: dict[str, Path]) -> None:
    model = models.load(options(folders["mamba"])).model
    with pytest.raises(UserError, match="auto finds no linear layer in an attention module of this MambaForCausalLM"):
        resolved(model, ("auto",))


def test_a_micro_batch_counts_and_labels_the_same_apart() -> None:
    lines = first_fit(SEQUENCES, row_tokens=96, order=range(len(SEQUENCES)))
    one, other = (micro_batch(lines, pad_id=0, apart=apart) for apart in (False, True))
    for name in ("tokens", "examples"):
        assert one[name] == other[name]
    assert torch.equal(one["label_ids"], other["label_ids"])
    assert other["position_ids"] is None
    assert len(other["input_ids"]) == len(SEQUENCES)
    read = [F.pad(torch.tensor(each.path), (0, other["input_ids"].shape[1] - each.inputs)) for each in SEQUENCES]
    assert sorted(other["input_ids"].tolist()) == sorted(row.tolist() for row in read), "whatever their order"
