"""The dtype of a merged adapter and of a folded backbone: kept, asked for, or too narrow for a number."""

from __future__ import annotations

import json
import weakref
from collections import UserDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from hiplora.adapters.reading import read_adapter
from hiplora.merging.output import write_folded
from hiplora.updates import Dense
from tests.merging.folders import edited, load, run


def stored(folder: Path, name: str = "adapter_model.safetensors") -> set[torch.dtype]:
    return {tensor.dtype for tensor in load_file(folder / name).values()}


def cast(folder: Path, out: Path, dtype: torch.dtype) -> Path:
    """A copy of an adapter folder in another dtype."""
    edited(folder, out)
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({key: tensor.to(dtype) for key, tensor in tensors.items()}, out / "adapter_model.safetensors")
    return out


def test_a_merged_adapter_has_the_dtype_of_its_inputs_or_the_one_asked_for(adapters, tmp_path, capsys):
    plain, rslora = (adapters[kind][0] for kind in ("plain", "rslora"))
    half = [cast(folder, tmp_path / f"half-{i}", torch.bfloat16) for i, folder in enumerate((plain, rslora))]
    other = cast(rslora, tmp_path / "other", torch.float16)
    old = cast(plain, tmp_path / "old", torch.bfloat16)
    torch.save(load_file(old / "adapter_model.safetensors"), old / "adapter_model.bin")
    (old / "adapter_model.safetensors").unlink()
    cases = [
        (half, (), torch.bfloat16),
        ((half[0], old), (), torch.bfloat16),
        ((half[0], other), (), torch.float32),
        ((half[0], rslora), (), torch.float32),
        (half, ("--dtype", "float32"), torch.float32),
        ((plain, rslora), ("--dtype", "float16"), torch.float16),
    ]
    for folders, words, dtype in cases:
        assert run(*folders, "--operator", "addition", *words, "--out", tmp_path / "out") == 0
        assert stored(tmp_path / "out") == {dtype}
        line, report = capsys.readouterr().out, json.loads((tmp_path / "out" / "merge_report.json").read_text())
        assert f"torch.{report['dtype']}" == str(dtype)
        assert ("rounds by" in line) == ("rounding_error" in report) == (dtype != torch.float32)
        # The sum is formed in fp32 and rounded once, at the end, by as much as is reported.
        parts = [read_adapter(str(folder)).updates for folder in folders]
        merged = read_adapter(str(tmp_path / "out")).updates
        exact = {n: sum(part[n].dense().double() for part in parts) for n in merged}
        lost = sum(torch.dist(merged[n].dense().double(), exact[n]) ** 2 for n in merged) ** 0.5
        size = sum(delta.norm() ** 2 for delta in exact.values()) ** 0.5
        assert float(lost / size) == pytest.approx(report.get("rounding_error", 0.0), abs=1e-6)


def test_a_fold_keeps_the_stored_dtype_or_has_the_one_asked_for(adapters, backbone, tmp_path):
    folder, delta = adapters["plain"]
    half = tmp_path / "half"
    load(backbone).to(torch.bfloat16).save_pretrained(half, max_shard_size="30KB")
    words = (folder, "--operator", "addition", "--fold", "--backbone", half)
    assert run(*words, "--out", tmp_path / "kept") == 0
    assert run(*words, "--dtype", "float32", "--out", tmp_path / "wide") == 0
    kept, wide, before = (
        AutoModelForCausalLM.from_pretrained(f, dtype="auto") for f in (tmp_path / "kept", tmp_path / "wide", half)
    )
    assert (kept.dtype, wide.dtype) == (torch.bfloat16, torch.float32)
    for name, weight in before.state_dict().items():
        change = delta.get(name.removesuffix(".weight"), 0)
        torch.testing.assert_close(wide.state_dict()[name], weight.float() + change, rtol=0, atol=1e-6)
        torch.testing.assert_close(kept.state_dict()[name], (weight.float() + change).bfloat16())
    index = json.loads((tmp_path / "wide" / "model.safetensors.index.json").read_text())
    files = set(index["weight_map"].values())
    assert len(files) > 1
    assert index["metadata"]["total_size"] == sum(
        t.nbytes for file in files for t in load_file(tmp_path / "wide" / file).values()
    )


def test_a_fold_holds_one_update_at_a_time(adapters, backbone, tmp_path):
    _, delta = adapters["plain"]
    living: weakref.WeakSet[Dense] = weakref.WeakSet()

    class Streamed(UserDict[str, Dense]):
        def __getitem__(self, name: str) -> Dense:
            assert not living
            living.add(update := super().__getitem__(name).scaled(1.0))
            return update

    updates = Streamed({name: Dense(change) for name, change in delta.items()})
    assert write_folded(updates, backbone, tmp_path / "out") == {"folded": len(delta)}
    before, after = (load(folder).state_dict() for folder in (backbone, tmp_path / "out"))
    for name, weight in before.items():
        change = delta.get(name.removesuffix(".weight"), 0)
        torch.testing.assert_close(after[name], weight + change, rtol=0, atol=1e-6)


@pytest.mark.parametrize("fold", [False, True])
def test_numbers_too_large_for_the_dtype_are_refused_by_name(fold, adapters, backbone, tmp_path, capsys):
    how = ("--fold", "--backbone", backbone) if fold else ()
    words = ("--operator", "task_arithmetic", "--weights", "1e9", "--dtype", "float16", *how)
    assert run(adapters["plain"][0], *words, "--out", tmp_path / "out") == 2
    printed = capsys.readouterr().err
    assert "model.layers.0.self_attn.q_proj" in printed
    assert "too large for float16; try bfloat16 or float32" in printed
    assert not (tmp_path / "out").exists()
