"""Merges by the command line, with stock PEFT as the judge: sums, weights, scales, folding; what is left alone."""

from __future__ import annotations

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from hiplora.adapters.reading import read_adapter
from tests.limits import gone_reader, small_files
from tests.merging.folders import assert_close, edited, load, only, run, targets


def test_addition_by_command_is_exact_in_stock_peft(adapters, backbone, tmp_path, capsys):
    (plain, a), (patterns, b), (rslora, c) = (adapters[k] for k in ("plain", "patterns", "rslora"))
    assert run(plain, patterns, rslora, "--operator", "addition", "--out", tmp_path) == 0
    assert "relative error 0.00e+00" in capsys.readouterr().out
    merged = PeftModel.from_pretrained(load(backbone), tmp_path).merge_and_unload()
    before, after = targets(load(backbone)), targets(merged)
    for name in before:
        torch.testing.assert_close(after[name] - before[name], a[name] + b[name] + c[name], rtol=1e-4, atol=1e-6)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["rank_pattern"], config["alpha_pattern"]) == (11, 11, {}, {})
    assert json.loads((tmp_path / "merge_report.json").read_text())["operator"] == "addition"


def test_weights_by_command_negative_ones_too(adapters, tmp_path, capsys):
    (plain, a), (rslora, b) = adapters["plain"], adapters["rslora"]
    for words in (("--weights", "-1,0.5"), ("--weights=-1,0.5",), ("--weights", "-1e0,.5")):
        assert run(plain, rslora, "--operator", "addition", *words, "--out", tmp_path / "out") == 0
        assert_close(read_adapter(str(tmp_path / "out")).updates, {n: -a[n] + b[n] / 2 for n in a})
        assert json.loads((tmp_path / "out" / "merge_report.json").read_text())["weights"] == [-1, 0.5]
    for operator, weights, sentence in (
        ("ties", "1", "--weights 1 is for 1 adapters, but there are 2; give one number for each, in their order."),
        ("ties", "1,nan", "--weights nan must be a finite number"),
        ("ties", "1,x", "argument --weights: x is not a number"),
        ("dare", "0,0", "--weights 0,0 merges to nothing"),
        ("tsvm", "1,2", "--operator tsvm has no option --weights; it has --scale"),
    ):
        words = ("--operator", operator, "--weights", weights, "--rank", 4, "--out", tmp_path / "no")
        assert run(plain, rslora, *words) == 2
        assert sentence in capsys.readouterr().err


def test_one_adapter_or_the_sum_of_several_is_written_scaled(adapters, backbone, tmp_path, capsys):
    (plain, a), (rslora, b) = adapters["plain"], adapters["rslora"]
    assert run(plain, "--scale", 0.75, "--out", tmp_path / "one") == 0
    assert_close(read_adapter(str(tmp_path / "one")).updates, {name: 0.75 * delta for name, delta in a.items()})
    loaded = PeftModel.from_pretrained(load(backbone), tmp_path / "one").merge_and_unload()
    before, after = targets(load(backbone)), targets(loaded)
    for name, delta in a.items():
        torch.testing.assert_close(after[name] - before[name], 0.75 * delta, rtol=1e-4, atol=1e-6)
    assert run(plain, rslora, "--scale", 0.5, "--out", tmp_path / "two") == 0
    assert_close(read_adapter(str(tmp_path / "two")).updates, {name: 0.5 * (a[name] + b[name]) for name in a})
    capsys.readouterr()
    for words, told in (
        (["--scale", 0], "--scale 0 merges to nothing"),
        (["--scale", "nan"], "--scale nan must be a finite number"),
        ([], "give --operator with one of addition"),
    ):
        assert run(plain, *words, "--out", tmp_path / "none") == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_an_adapter_without_a_module_leaves_it_to_the_others(adapters, tmp_path, capsys):
    plain, rslora = adapters["plain"], adapters["rslora"]
    q = only(plain[0], tmp_path / "q", "q_proj")
    assert run(rslora[0], q, "--operator", "addition", "--out", tmp_path / "out") == 0
    assert "does not adapt model.layers.0.self_attn.v_proj (2 such)" in capsys.readouterr().err
    merged = read_adapter(str(tmp_path / "out")).updates
    assert_close(merged, {name: d + ("q_proj" in name) * plain[1][name] for name, d in rslora[1].items()})


def test_folding_changes_the_target_weights_and_nothing_else(adapters, backbone, tmp_path):
    folders = [adapters[k][0] for k in ("plain", "dora")]
    arguments = ("--operator", "addition", "--backbone", backbone, "--fold", "--out", tmp_path)
    assert run(*folders, *arguments) == 0
    before, after = (load_file(d / "model.safetensors") for d in (backbone, tmp_path))
    expected = {n: adapters["plain"][1][n] + adapters["dora"][1][n] for n in adapters["plain"][1]}
    assert set(before) == set(after)
    for key in before:
        delta = expected.get(key.removesuffix(".weight"))
        torch.testing.assert_close(after[key], before[key] if delta is None else before[key] + delta, rtol=0, atol=1e-6)
    AutoModelForCausalLM.from_pretrained(tmp_path)


@pytest.mark.parametrize("how", ["adapter", "fold"])
def test_a_merge_that_leaves_nothing_says_so(how, adapters, backbone, tmp_path, capsys):
    fold = ("--fold", "--backbone", backbone) if how == "fold" else ("--rank", 4)
    words = ("--operator", "ties", "--density", "1e-9", *fold, "--out", tmp_path / "out")
    assert run(adapters["plain"][0], *words) == 0
    assert "Every merged update is 0" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "merge_report.json").read_text())["zero"] is True


def test_nothing_that_was_there_is_lost(adapters, backbone, tmp_path, capsys):
    plain, rslora = (adapters[kind][0] for kind in ("plain", "rslora"))
    copy, out, full = edited(plain, tmp_path / "copy"), tmp_path / "out", tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    before = (copy / "adapter_model.safetensors").read_bytes()
    addition = (copy, rslora, "--operator", "addition")
    for place, sentence in ((copy, "is one of the inputs"), (full, "something other"), (full / "notes.txt", "a file")):
        assert run(*addition, "--out", place) == 2
        assert sentence in capsys.readouterr().err
    assert (copy / "adapter_model.safetensors").read_bytes() == before
    assert run(*addition, "--out", out) == 0
    first = (out / "adapter_model.safetensors").read_bytes()
    # It fails while it writes: a number does not fit.
    assert run(*addition, "--weights", "1e9,1", "--dtype", "float16", "--out", out) == 2
    assert (out / "adapter_model.safetensors").read_bytes() == first
    (out / "scores.json").write_text("mine")
    assert run(copy, "--operator", "addition", "--out", out) == 2
    (out / "scores.json").unlink()
    assert run(copy, "--operator", "addition", "--out", out) == 0
    assert (out / "adapter_model.safetensors").read_bytes() != first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "full", "out"]


def test_a_reader_that_has_gone_is_no_error(adapters, tmp_path, capsys):
    with gone_reader():
        assert run(adapters["plain"][0], "--operator", "addition", "--out", tmp_path / "out") == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("how", [(), ("--fold", "--backbone")], ids=["adapter", "fold"])
def test_a_full_disk_leaves_nothing_half_written(adapters, backbone, tmp_path, capsys, how):
    arguments = [adapters["plain"][0], "--operator", "addition", *how, *([backbone] if how else [])]
    with small_files():
        assert run(*arguments, "--out", tmp_path / "out") == 2
    assert f"Cannot write {tmp_path / 'out'}: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
