"""What adapters train beside their updates: whole modules, embeddings, single tokens; merged, folded, left out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from hiplora import HipLoraConfig
from hiplora.adapters.reading import read_adapter
from hiplora.errors import UserError
from tests.merging.folders import load, logits, perturbed, run
from tests.tuner.helpers import make_llama

HEAD = {"modules_to_save": ["lm_head"]}
PARTS: dict[str, dict[str, Any]] = {
    "head": HEAD,
    "embedding": {"modules_to_save": ["embed_tokens"]},
    "both": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "norms": {"modules_to_save": ["input_layernorm", "norm"]},
    "tokens": {"trainable_token_indices": [3, 7]},
    "tokens by name": {"trainable_token_indices": {"embed_tokens": [3, 7]}},
}


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def base(request, tmp_path) -> Path:
    model = make_llama()
    model.config.tie_word_embeddings = request.param
    model.tie_weights()
    model.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def adapt(base: Path, out: Path, *, seed: int = 1, method: type = LoraConfig, **options: Any) -> Tensor:
    """Save an adapter that looks trained; the logits of the adapted model."""
    given = {"r": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM", **options}
    model = perturbed(get_peft_model(load(base), method(**given)), seed)
    model.save_pretrained(out)
    return logits(model)


def close(model: Any, expected: Tensor) -> None:
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", [LoraConfig, HipLoraConfig], ids=["lora", "hip"])
@pytest.mark.parametrize("options", PARTS.values(), ids=PARTS)
def test_what_one_adapter_trained_is_taken(options, method, base, tmp_path, capsys):
    hip = {"k": 3, "save_basis": True} if method is HipLoraConfig else {}
    expected = adapt(base, tmp_path / "a", method=method, **hip, **options)
    adapt(base, tmp_path / "zero")  # without it; its update is taken times 0 below
    arguments = (tmp_path / "a", "--operator", "addition", "--backbone", base)
    assert run(*arguments, "--out", tmp_path / "merged") == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert [bool(re.search(r"(\S+ is that|and \d+ more trained modules are those) of ", note)) for note in notes] == [
        True
    ]
    close(PeftModel.from_pretrained(load(base), tmp_path / "merged"), expected)
    assert run(*arguments, "--fold", "--out", tmp_path / "folded") == 0
    close(load(tmp_path / "folded"), expected)
    again = read_adapter(str(tmp_path / "merged"), backbone=base).trained
    first = read_adapter(str(tmp_path / "a"), backbone=base).trained
    assert set(again.beside()) == set(first.beside())
    for key, tensor in first.beside().items():
        torch.testing.assert_close(again.beside()[key], tensor)


def test_a_tied_head_that_is_stored_too_keeps_its_values_apart(tmp_path):
    model = make_llama()
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(tmp_path / "base")
    path = tmp_path / "base" / "model.safetensors"
    head = load_file(path)["model.embed_tokens.weight"]
    save_file(load_file(path) | {"lm_head.weight": head.clone()}, path, metadata={"format": "pt"})
    expected = adapt(tmp_path / "base", tmp_path / "a", modules_to_save=["embed_tokens"])
    arguments = ("--operator", "addition", "--backbone", tmp_path / "base", "--fold", "--out", tmp_path / "out")
    assert run(tmp_path / "a", *arguments) == 0
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False
    assert json.loads((tmp_path / "out" / "merge_report.json").read_text())["untied"] == ["lm_head.weight"]
    close(load(tmp_path / "out"), expected)


def test_what_all_trained_is_averaged_and_named(base, tmp_path, capsys):
    for seed, name in enumerate("ab"):
        adapt(base, tmp_path / name, seed=seed, **HEAD)
    adapt(base, tmp_path / "c", seed=3)
    out = tmp_path / "out"
    assert run(*(tmp_path / name for name in "abc"), "--operator", "addition", "--out", out) == 0
    printed = capsys.readouterr().err
    assert f"lm_head.weight is the mean of those of {tmp_path / 'a'}, {tmp_path / 'b'}." in printed
    assert json.loads((out / "merge_report.json").read_text())["notes"][-1] in printed
    heads = [read_adapter(str(folder)).trained.tensors["lm_head.weight"] for folder in (tmp_path / "a", tmp_path / "b")]
    merged = PeftModel.from_pretrained(load(base), out)
    torch.testing.assert_close(merged.base_model.model.lm_head.modules_to_save["default"].weight, sum(heads) / 2)


def test_rows_of_tokens_are_averaged_token_by_token(base, tmp_path):
    for seed, (name, tokens) in enumerate({"a": [3, 7], "b": [7, 9]}.items()):
        adapt(base, tmp_path / name, seed=seed, trainable_token_indices=tokens)
    assert run(tmp_path / "a", tmp_path / "b", "--operator", "addition", "--out", tmp_path / "out") == 0
    a, b, out = (read_adapter(str(tmp_path / n)).trained.tokens["model.embed_tokens"] for n in ("a", "b", "out"))
    assert list(out) == [3, 7, 9]
    for token, row in {3: a[3], 7: (a[7] + b[7]) / 2, 9: b[9]}.items():
        torch.testing.assert_close(out[token], row)
    model = PeftModel.from_pretrained(load(base), tmp_path / "out")
    embedded = model.get_input_embeddings()(torch.tensor([7]))[0]
    torch.testing.assert_close(embedded, (a[7] + b[7]) / 2)


def test_what_has_no_sense_together_is_refused_by_name_and_can_be_left_out(base, tmp_path, capsys):
    adapt(base, tmp_path / "head", **HEAD)
    adapt(base, tmp_path / "adapted", target_modules=["q_proj", "lm_head"])
    wide = make_llama()
    wide.resize_token_embeddings(60)
    wide.save_pretrained(tmp_path / "wide")
    adapt(tmp_path / "wide", tmp_path / "wider", modules_to_save=["lm_head"])
    adapt(base, tmp_path / "plain", seed=1)

    def merged(*names: str, extra: tuple[object, ...] = ()) -> int:
        folders = (tmp_path / name for name in names)
        return run(*folders, "--operator", "addition", "--base", base, *extra, "--out", tmp_path / "out")

    assert merged("head", "adapted", extra=("--backbone", base)) == 2
    assert "lm_head trained as a whole" in capsys.readouterr().err
    assert merged("head", "wider") == 2
    assert "which have no mean; add --without lm_head" in capsys.readouterr().err
    for words in ("lm_head", "modules_to_save"):
        assert merged("head", "wider", extra=("--without", words)) == 0
        assert f"is merged without its {words}." in capsys.readouterr().err
        read = read_adapter(str(tmp_path / "out"))
        assert not read.trained.tensors
        assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["modules_to_save"] is None
    assert merged("head", "adapted", extra=("--without", "lm_head", "--backbone", base)) == 0
    assert set(read_adapter(str(tmp_path / "out")).updates) == {f"model.layers.{i}.self_attn.q_proj" for i in (0, 1)}
    assert merged("plain", extra=("--without", "lm_head")) == 2
    assert "has no effect: none of the adapters has it" in capsys.readouterr().err
    arguments = (tmp_path / "wider", "--operator", "addition", "--fold", "--backbone", base)
    assert run(*arguments, "--out", tmp_path / "fold") == 2
    assert "so it cannot be folded in; write an adapter, or add --without lm_head" in capsys.readouterr().err


def test_something_promised_that_is_not_there_is_refused(base, tmp_path, capsys):
    for name, options, word in (("m", HEAD, "modules_to_save"), ("t", {"trainable_token_indices": [3]}, "token")):
        adapt(base, tmp_path / name, **options)
        path = tmp_path / name / "adapter_model.safetensors"
        save_file({key: tensor for key, tensor in load_file(path).items() if ".lora_" in key}, path)
        assert run(tmp_path / name, "--operator", "addition", "--out", tmp_path / "out") == 2
        printed = capsys.readouterr().err
        assert word in printed
        assert "incomplete" in printed


def test_embeddings_that_were_resized_go_along(tmp_path):
    """PEFT saves the embeddings of a model with other rows than its backbone has."""
    make_llama().save_pretrained(tmp_path / "base")
    model = load(tmp_path / "base")
    model.resize_token_embeddings(60)
    tuned = perturbed(get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")))
    tuned.save_pretrained(tmp_path / "a", save_embedding_layers=True)
    assert run(tmp_path / "a", "--operator", "addition", "--out", tmp_path / "out") == 0
    again = load(tmp_path / "base")
    again.resize_token_embeddings(60)
    close(PeftModel.from_pretrained(again, tmp_path / "out"), logits(tuned))
    assert run(tmp_path / "a", "--operator", "addition", "--without", "embeddings", "--out", tmp_path / "less") == 0
    assert not read_adapter(str(tmp_path / "less")).trained.tensors


def test_trained_biases_are_refused_by_the_field_that_asked_for_them(tmp_path):
    model = make_llama()
    model.config.attention_bias = True
    type(model)(model.config).save_pretrained(tmp_path / "base")
    adapt(tmp_path / "base", tmp_path / "a", bias="all")
    with pytest.raises(UserError, match='bias="all"'):
        read_adapter(str(tmp_path / "a"), backbone=tmp_path / "base")
