"""What a merge reads of a backbone: the way its weights are stored, ties, quantised formats, its revision."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model

from hiplora import HipLoraConfig
from hiplora.adapters.reading import read_adapter
from hiplora.errors import UserError
from tests.merging.folders import edit, load, logits, run
from tests.tuner.helpers import make_llama

CONV1D = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]


def gpt2(folder: Path, *, tied: bool, cls: type = GPT2LMHeadModel) -> Path:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 53, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
    cls(GPT2Config(**sizes, initializer_range=0.3, tie_word_embeddings=tied)).save_pretrained(folder)
    return folder


def adapt(
    base: Path,
    out: Path,
    *,
    seed: int = 1,
    save: dict[str, Any] | None = None,
    method: type = LoraConfig,
    **options: Any,
) -> Tensor:
    """Save an adapter with random factors; the logits of the adapted model."""
    torch.manual_seed(seed)
    model = get_peft_model(load(base), method(**{"r": 2, "task_type": "CAUSAL_LM", **options})).eval()
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(out, **(save or {}))
    return logits(model)


@pytest.mark.parametrize("flag", [True, False])
@pytest.mark.parametrize("use_dora", [True, False], ids=["dora", "lora"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_transposed_weights_are_told_by_the_backbone_whatever_the_flag_says(tied, use_dora, flag, tmp_path):
    base, out = gpt2(tmp_path / "base", tied=tied), tmp_path / "out"
    expected = adapt(base, tmp_path / "a", target_modules=[*CONV1D, "lm_head"], use_dora=use_dora)
    edit(tmp_path / "a" / "adapter_config.json", fan_in_fan_out=flag)
    arguments = (tmp_path / "a", "--operator", "addition", "--backbone", base)
    assert run(*arguments, "--fold", "--out", out) == 0
    torch.testing.assert_close(logits(load(out)), expected, rtol=1e-4, atol=1e-4)
    assert run(*arguments, "--rank", 16, "--out", tmp_path / "adapter") == 0
    stock = PeftModel.from_pretrained(load(base), tmp_path / "adapter").eval()
    torch.testing.assert_close(logits(stock), expected, rtol=1e-4, atol=1e-4)


def test_the_directions_of_transposed_weights_are_those_that_the_tuner_finds(tmp_path, capsys):
    base, unknown = gpt2(tmp_path / "base", tied=True), tmp_path / "unknown"
    options: dict[str, Any] = {"method": HipLoraConfig, "k": 3, "k_max": 4, "svd_cache_dir": str(tmp_path / "cache")}
    expected = adapt(base, tmp_path / "a", target_modules=CONV1D, **options)
    arguments = (tmp_path / "a", "--operator", "addition", "--backbone", base)
    assert run(*arguments, "--fold", "--out", tmp_path / "fold") == 0
    assert run(*arguments, "--out", tmp_path / "adapter") == 0
    stock = PeftModel.from_pretrained(load(base), tmp_path / "adapter").eval()
    for model in (stock, load(tmp_path / "fold")):
        torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-4)

    # Without a model class a square matrix is taken as stored, and the saved identity shows whether that is right.
    make_llama().save_pretrained(tmp_path / "llama")
    adapt(tmp_path / "llama", tmp_path / "b", target_modules=["q_proj"], **options)
    for backbone, adapter, status in ((tmp_path / "llama", "b", 0), (base, "a", 2)):
        shutil.copytree(backbone, unknown, dirs_exist_ok=True)
        edit(unknown / "config.json", model_type="nobody_knows", architectures=["NobodyKnows"])
        merged = ("--operator", "addition", "--backbone", unknown, "--out", tmp_path / f"unknown-{adapter}")
        assert run(tmp_path / adapter, *merged) == status
    assert "another backbone" in capsys.readouterr().err


def test_adapters_that_differ_in_the_flag_alone_are_alike(tmp_path):
    base = gpt2(tmp_path / "base", tied=True)
    single = [adapt(base, tmp_path / "a", target_modules=CONV1D), adapt(base, tmp_path / "b", target_modules=CONV1D)]
    torch.testing.assert_close(*single)
    edit(tmp_path / "b" / "adapter_config.json", fan_in_fan_out=False)
    for label, extra in (("adapter", ()), ("fold", ("--fold", "--backbone", base))):
        arguments = (tmp_path / "a", tmp_path / "b", "--operator", "task_arithmetic", "--scale", 0.5)
        assert run(*arguments, *extra, "--out", tmp_path / label) == 0
    stock = PeftModel.from_pretrained(load(base), tmp_path / "adapter").eval()
    for model in (stock, load(tmp_path / "fold")):
        torch.testing.assert_close(logits(model), single[0], rtol=1e-4, atol=1e-4)


def test_a_checkpoint_without_a_head_has_names_without_the_prefix(tmp_path):
    """As gpt2 on the Hub: ``h.0.attn.c_attn.weight``, where the adapter says ``transformer.h.0.attn.c_attn``."""
    base = gpt2(tmp_path / "base", tied=True, cls=GPT2Model)
    edit(base / "config.json", architectures=["GPT2LMHeadModel"])
    assert "h.0.attn.c_attn.weight" in load_file(base / "model.safetensors")
    expected = adapt(base, tmp_path / "a", target_modules=[*CONV1D, "lm_head"], use_dora=True)
    assert run(tmp_path / "a", "--operator", "addition", "--backbone", base, "--fold", "--out", tmp_path / "out") == 0
    torch.testing.assert_close(logits(load(tmp_path / "out")), expected, rtol=1e-4, atol=1e-4)


def test_without_a_model_class_the_shape_tells_and_a_square_matrix_is_refused(tmp_path, capsys):
    base, unknown = gpt2(tmp_path / "base", tied=True), tmp_path / "unknown"
    expected = adapt(base, tmp_path / "long", target_modules=["c_fc"])
    adapt(base, tmp_path / "square", target_modules=["attn.c_proj"])
    shutil.copytree(base, unknown)
    edit(unknown / "config.json", model_type="nobody_knows", architectures=["NobodyKnows"])
    arguments = ("--operator", "addition", "--backbone", unknown, "--fold", "--out", tmp_path / "out")
    assert run(tmp_path / "square", *arguments) == 2
    assert "transformer.h.0.attn.c_proj is square" in capsys.readouterr().err
    assert run(tmp_path / "long", *arguments) == 0
    shutil.copy(base / "config.json", tmp_path / "out" / "config.json")
    torch.testing.assert_close(logits(load(tmp_path / "out")), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stored", ["embedding", "both", "sharded"])
def test_a_head_tied_to_the_embedding_is_folded_into_a_weight_of_its_own(stored, tmp_path):
    base, out = tmp_path / "base", tmp_path / "out"
    model = make_llama()
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(base, **({"max_shard_size": "5KB"} if stored == "sharded" else {}))
    if stored == "both":
        tensors = load_file(base / "model.safetensors")
        head = tensors["model.embed_tokens.weight"].clone()
        save_file(tensors | {"lm_head.weight": head}, base / "model.safetensors", metadata={"format": "pt"})
    expected = adapt(base, tmp_path / "a", target_modules=["q_proj", "lm_head"])
    arguments = (tmp_path / "a", "--operator", "addition", "--backbone", base)
    assert run(*arguments, "--fold", "--out", out) == 0
    folded = load(out)
    torch.testing.assert_close(logits(folded), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(folded.model.embed_tokens.weight, model.model.embed_tokens.weight)
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is False
    assert json.loads((out / "merge_report.json").read_text())["untied"] == ["lm_head.weight"]
    assert run(*arguments, "--out", tmp_path / "adapter") == 0
    stock = PeftModel.from_pretrained(load(base), tmp_path / "adapter").eval()
    torch.testing.assert_close(logits(stock), expected, rtol=1e-4, atol=1e-4)


def _int8(name: str, weight: Tensor) -> dict[str, Tensor]:
    scale = weight.abs().amax(1)
    return {f"{name}.weight": (weight / scale[:, None] * 127).to(torch.int8), f"{name}.SCB": scale}


QUANTISED: dict[str, Callable[[str, Tensor], dict[str, Tensor]]] = {
    "int8": _int8,
    "nf4": lambda name, w: {
        f"{name}.weight": torch.zeros(w.numel() // 2, 1, dtype=torch.uint8),
        f"{name}.weight.absmax": torch.ones(4),
    },
    "gptq": lambda name, w: {f"{name}.qweight": torch.zeros(3, w.shape[0], dtype=torch.int32)},
    "fp8": lambda name, w: {f"{name}.weight": w.to(torch.float8_e4m3fn)},
    "scaled": lambda name, w: {f"{name}.weight": w.bfloat16(), f"{name}.weight_scale": torch.full((1,), 2.0)},
    "packed": lambda name, w: {f"{name}.weight_packed": torch.zeros(3, 3, dtype=torch.int32)},
}


@pytest.fixture(scope="module")
def readers(tmp_path_factory) -> dict[str, tuple[object, ...]]:
    """Commands that read weights of a backbone, but for ``--backbone`` and ``--out``; ``base`` is the true one."""
    folder = tmp_path_factory.mktemp("readers")
    make_llama().save_pretrained(folder / "base")
    adapt(folder / "base", folder / "dora", target_modules=["q_proj"], use_dora=True)
    adapt(folder / "base", folder / "lora", target_modules=["q_proj"])
    options: dict[str, Any] = {"r": 2, "k": 3, "k_max": 4, "svd_cache_dir": str(folder / "cache")}
    hip = get_peft_model(load(folder / "base"), HipLoraConfig(**options, target_modules=["q_proj"]))
    hip.save_pretrained(folder / "hip")
    addition = ("--operator", "addition")
    return {
        "base": (folder / "base",),
        "fold": (folder / "lora", *addition, "--fold"),
        "dora": (folder / "dora", *addition, "--rank", 8),
        "hip": (folder / "hip", *addition),
    }


@pytest.mark.parametrize("reader", ["fold", "dora", "hip"])
@pytest.mark.parametrize("kind", QUANTISED)
def test_a_quantised_backbone_is_refused_in_one_sentence_wherever_it_is_read(kind, reader, readers, tmp_path, capsys):
    base, quantised = readers["base"][0], tmp_path / kind
    shutil.copytree(base, quantised)
    tensors: dict[str, Tensor] = {}
    for name, weight in load_file(base / "model.safetensors").items():
        module = name.removesuffix(".weight")
        tensors |= QUANTISED[kind](module, weight) if module.endswith("_proj") else {name: weight}
    save_file(tensors, quantised / "model.safetensors", metadata={"format": "pt"})
    assert run(*readers[reader], "--backbone", base, "--out", tmp_path / "right") == 0
    capsys.readouterr()
    assert run(*readers[reader], "--backbone", quantised, "--out", tmp_path / "out") == 2
    printed = capsys.readouterr().err
    assert "layers.0.self_attn.q_proj is quantised (" in printed
    assert "give the backbone in fp32, fp16 or bf16." in printed
    assert not (tmp_path / "out").exists()


def test_the_revision_of_a_backbone_is_carried_along_and_two_are_refused(tmp_path, capsys):
    make_llama().save_pretrained(tmp_path / "base")
    for name, revision in (("a", "step1000"), ("b", "step1000"), ("c", "step2000"), ("d", None), ("e", "main")):
        adapt(tmp_path / "base", tmp_path / name, target_modules=["q_proj"])
        edit(tmp_path / name / "adapter_config.json", revision=revision, base_model_name_or_path="owner/model")

    def merged(*names: str, extra: tuple[object, ...] = ()) -> object:
        out = tmp_path / "-".join((*names, *map(str, extra))).replace("/", "-")
        code = run(*(tmp_path / name for name in names), "--operator", "addition", *extra, "--out", out)
        return json.loads((out / "adapter_config.json").read_text())["revision"] if code == 0 else None

    assert merged("a", "b") == "step1000"
    assert read_adapter(str(tmp_path / "a-b")).revision == "step1000"
    for pair in (("a", "c"), ("a", "d"), ("d", "c")):
        assert merged(*pair) is None
        assert "(revision step" in capsys.readouterr().err
    assert merged("a", "c", extra=("--base", "owner/model")) == "step1000"
    assert merged("a", "c", extra=("--base", "mine")) is None
    assert merged("d", "e") in (None, "main")
    assert (tmp_path / "d-e").is_dir(), "no revision is the revision main"


def test_a_torn_backbone_is_one_sentence(readers, tmp_path, capsys):
    torn = tmp_path / "torn"
    shutil.copytree(readers["base"][0], torn)
    weights = torn / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    for reader in ("fold", "dora", "hip"):
        assert run(*readers[reader], "--backbone", torn, "--out", tmp_path / "out") == 2
        printed = capsys.readouterr().err
        assert "model.safetensors cannot be read" in printed
        assert printed.count("\n") == 1
    (torn / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(UserError, match="is not an index"):
        read_adapter(str(readers["dora"][0]), backbone=torn)
