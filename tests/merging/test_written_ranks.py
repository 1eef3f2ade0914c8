"""Ranks of a written adapter: exact, cut to the best approximation, one for all modules or each its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn

from hiplora.adapters.reading import read_adapter
from hiplora.adapters.writing import write_lora
from hiplora.updates import LowRank, zero
from tests.merging.folders import load, only, run, targets


def test_a_rank_cuts_and_the_error_is_the_true_one(adapters, tmp_path):
    folders = [adapters[k][0] for k in ("plain", "rslora")]
    ties = (*folders, "--operator", "ties", "--calibration", "pico", "--density", 0.5)
    assert run(*ties, "--rank", 3, "--out", tmp_path / "cut") == 0
    assert run(*ties, "--rank", 999, "--out", tmp_path / "all") == 0
    cut, whole = (read_adapter(str(tmp_path / d)).updates for d in ("cut", "all"))
    lost = sum(torch.dist(cut[n].dense(), whole[n].dense()) ** 2 for n in whole) ** 0.5
    size = sum(whole[n].norm() ** 2 for n in whole) ** 0.5
    report = json.loads((tmp_path / "cut" / "merge_report.json").read_text())
    assert report["relative_error"] == pytest.approx(float(lost) / size, rel=1e-3)
    assert 0 < report["relative_error"] <= report["worst_relative_error"] < 1
    assert {u.rank for u in cut.values()} == {3}


def test_factored_updates_are_cut_to_their_best_approximation(tmp_path):
    g = torch.Generator().manual_seed(0)
    update = LowRank(torch.randn(12, 6, generator=g), torch.randn(6, 10, generator=g))
    written = write_lora({"a.q_proj": update, "b.q_proj": LowRank(update.B[:, :1], update.A[:1])}, tmp_path, rank=2)
    read = read_adapter(str(tmp_path)).updates
    u, s, vh = torch.linalg.svd(update.dense())
    torch.testing.assert_close(read["a.q_proj"].dense(), u[:, :2] * s[:2] @ vh[:2])
    torch.testing.assert_close(read["b.q_proj"].dense(), update.B[:, :1] @ update.A[:1])
    assert written["worst_relative_error"] == pytest.approx(float(s[2:].norm() / s.norm()), rel=1e-4)
    assert (written["rank"], written["min_rank"], written["worst_matrix"]) == (2, 1, "a.q_proj")


def ranks(folder: Path) -> dict[str, set[int]]:
    """Ranks in the file by kind of module."""
    found: dict[str, set[int]] = {}
    for key, tensor in load_file(folder / "adapter_model.safetensors").items():
        found.setdefault(key.split(".")[-3], set()).add(tensor.shape[0] if "lora_A" in key else tensor.shape[1])
    return found


def test_one_rank_for_all_modules_is_exact_and_scaled_alike_by_any_tool(adapters, backbone, tmp_path, capsys):
    plain, rslora = adapters["plain"], adapters["rslora"]
    q = only(plain[0], tmp_path / "q", "q_proj")
    addition = (rslora[0], q, "--operator", "addition", "--out")
    assert run(*addition, tmp_path / "one") == 0
    assert (
        "LoRA of rank 8, relative error 0.00e+00; 2 of 4 modules have a smaller rank, from 4" in capsys.readouterr().out
    )
    assert run(*addition, tmp_path / "own", "--ranks", "own") == 0
    assert "LoRA of ranks 4 to 8, relative error 0.00e+00\n" in capsys.readouterr().out
    # q gives nothing to v_proj, no rank either; alpha / rank of every tensor is 1 where all have one rank.
    assert ranks(tmp_path / "own") == {"q_proj": {8}, "v_proj": {4}}
    assert ranks(tmp_path / "one") == {"q_proj": {8}, "v_proj": {8}}
    config = json.loads((tmp_path / "one" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["rank_pattern"], config["alpha_pattern"]) == (8, 8, {}, {})
    for folder in ("one", "own"):
        merged = targets(PeftModel.from_pretrained(load(backbone), tmp_path / folder).merge_and_unload())
        for name, before in targets(load(backbone)).items():
            expected = rslora[1][name] + ("q_proj" in name) * plain[1][name]
            torch.testing.assert_close(merged[name] - before, expected, rtol=1e-4, atol=1e-6)
    assert run(*addition, tmp_path / "cut", "--rank", 2) == 0
    assert ranks(tmp_path / "cut") == {"q_proj": {2}, "v_proj": {2}}
    assert run(*addition, tmp_path / "fold", "--fold", "--backbone", backbone, "--ranks", "own") == 2
    assert "--ranks applies to a written adapter" in capsys.readouterr().err


def test_an_update_without_factors_is_written_as_zeros(tmp_path):
    updates = {"a.q_proj": zero((6, 5)), "a.v_proj": LowRank(torch.ones(6, 1), torch.ones(1, 5))}
    for how in ("one", "own"):
        written = write_lora(updates, tmp_path / how, ranks=how)
        read = read_adapter(str(tmp_path / how)).updates
        assert (written["rank"], written["min_rank"], written["padded"]) == (1, 1, 0)
        assert not read["a.q_proj"].dense().any()
        assert (read["a.v_proj"].dense() == 1).all()


def test_factors_that_cancel_each_other_are_nothing_too(tmp_path):
    g = torch.Generator().manual_seed(0)
    B, A = torch.randn(12, 3, generator=g), torch.randn(3, 10, generator=g)
    cancelled = LowRank(torch.cat([B, -B], dim=1), torch.cat([A, A]))
    assert write_lora({"a.q_proj": cancelled}, tmp_path / "none")["zero"] is True
    assert write_lora({"a.q_proj": cancelled}, tmp_path / "cut", rank=2)["zero"] is True
    assert "zero" not in write_lora({"a.q_proj": cancelled, "b.q_proj": LowRank(B, A)}, tmp_path / "some")


def test_ranks_of_modules_whose_names_end_alike_stay_apart(tmp_path):
    g = torch.Generator().manual_seed(0)
    updates = {
        name: LowRank(torch.randn(6, r, generator=g), torch.randn(r, 6, generator=g))
        for name, r in {"layers.0.q": 3, "enc.layers.0.q": 2, "x.q": 1, "y.q": 1}.items()
    }
    write_lora(updates, tmp_path, ranks="own")
    model = nn.Module()
    for name in updates:
        parent = model
        for part in name.split(".")[:-1]:
            parent.add_module(part, getattr(parent, part, nn.Module()))
            parent = getattr(parent, part)
        parent.add_module("q", nn.Linear(6, 6, bias=False))
    before = {name: model.get_submodule(name).weight.detach().clone() for name in updates}
    merged = PeftModel.from_pretrained(model, tmp_path).merge_and_unload()
    for name, update in updates.items():
        torch.testing.assert_close(merged.get_submodule(name).weight - before[name], update.dense())
