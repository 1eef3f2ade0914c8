"""The tensors of an adapter folder: complete and finite or refused by name, in other wrappers, in several files."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file, save_file

from hiplora.adapters.exporting import export_lora
from hiplora.adapters.reading import read_adapter
from hiplora.errors import UserError
from tests.merging.folders import (
    KINDS,
    TARGETS,
    assert_same,
    edited,
    run,
    weights,
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_that_lacks_any_one_tensor_is_refused_by_the_name_of_its_layer(kind, base, folders, tmp_path):
    tensors = load_file(weights(folders[kind]))
    read_adapter(str(folders[kind]), backbone=base)
    one = [key for key in tensors if ".layers.1.self_attn.v_proj." in key]
    assert len(one) == {"lora": 2, "dora": 3, "adalora": 3, "proj": 4, "hip-basis": 7}.get(kind, 5)
    for key in one:
        torn = edited(folders[kind], tmp_path / key)
        save_file({name: tensor for name, tensor in tensors.items() if name != key}, weights(torn))
        with pytest.raises(UserError, match=r"holds no lora_\w+(\.weight)? for model.layers.1.self_attn.v_proj"):
            read_adapter(str(torn), backbone=base)
        if kind.startswith(("hip", "proj")):
            with pytest.raises(UserError, match=r"for model.layers.1.self_attn.v_proj; the file is incomplete"):
                export_lora(torn, tmp_path / "out", backbone=base)
    gone = edited(folders[kind], tmp_path / "gone")
    save_file({name: tensor for name, tensor in tensors.items() if name not in one}, weights(gone))
    with pytest.raises(UserError, match=r"holds nothing for model.layers.1.self_attn.v_proj \(1 such\)"):
        read_adapter(str(gone), backbone=base)


@pytest.mark.parametrize("kind", KINDS)
def test_values_that_are_not_finite_are_refused_by_name(kind, base, folders, tmp_path):
    tensors = load_file(weights(folders[kind]))
    for key in [key for key in tensors if ".layers.1.self_attn.v_proj." in key]:
        for value in (float("nan"), float("inf")):
            spoilt = edited(folders[kind], tmp_path / f"{key}{value}")
            tensor = tensors[key].clone()
            tensor.view(-1)[0] = value
            save_file(tensors | {key: tensor}, weights(spoilt))
            with pytest.raises(UserError, match=r"not finite in model\.layers\.1\.self_attn\.v_proj\.lora_"):
                read_adapter(str(spoilt), backbone=base)


@pytest.mark.parametrize("kind", KINDS)
def test_factors_of_another_rank_than_the_configuration_says_are_refused(kind, base, folders, tmp_path):
    tensors = load_file(weights(folders[kind]))
    cut = edited(folders[kind], tmp_path / "cut")
    A, B = (next(key for key in tensors if f"layers.1.self_attn.v_proj.lora_{side}" in key) for side in "AB")
    shorter = {A: tensors[A][:1].contiguous(), B: tensors[B][:, :1].contiguous()}
    save_file(tensors | shorter, weights(cut))
    with pytest.raises(UserError, match=r"v_proj.*(do not fit|scaling is not known)"):
        read_adapter(str(cut), backbone=base)


def test_a_target_of_which_nothing_is_there_is_a_note_where_no_backbone_tells(base, folders, tmp_path):
    named = edited(folders["lora"], tmp_path / "named", target_modules=[*TARGETS, "c_attn"])
    assert read_adapter(str(named)).notes == (), "the backbone that it names has no c_attn"
    nowhere = edited(named, tmp_path / "nowhere", base_model_name_or_path="owner/name")
    assert "its target c_attn; add --backbone DIR" in read_adapter(str(nowhere)).notes[0]
    assert read_adapter(str(nowhere), backbone=base).notes == ()
    magnitudes = edited(folders["dora"], tmp_path / "magnitudes", use_dora=False)
    with pytest.raises(UserError, match="says use_dora=false"):
        read_adapter(str(magnitudes), backbone=base)
    far = edited(folders["dora"], tmp_path / "far", base_model_name_or_path="owner/name")
    with pytest.raises(UserError, match="add --backbone"):
        read_adapter(str(far))


def named(key: str, name: str) -> str:
    """The key as in a state dict that PEFT has not taken the adapter's name out of."""
    head, end = (key.removesuffix(".weight"), ".weight") if key.endswith(".weight") else (key, "")
    return f"{head}.{name}{end}"


WRAPPED = {
    "adapter's name": lambda key: named(key, "default"),
    "another name": lambda key: named(key, "my-task"),
    "torch.compile": lambda key: f"_orig_mod.{key}",
    "compiled layers": lambda key: key.replace(".layers.0.", ".layers.0._orig_mod."),
    "ddp": lambda key: f"module.{key}",
    "fsdp": lambda key: f"_fsdp_wrapped_module.{key}".replace(".self_attn.", ".self_attn._fsdp_wrapped_module."),
    "no prefix": lambda key: key.removeprefix("base_model.model."),
    "twice": lambda key: f"base_model.model.{key}",
    "all": lambda key: f"module._orig_mod.{named(key, 'default')}",
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize("kind", ["lora", "dora", "adalora", "hip", "hip-basis"])
def test_names_of_other_wrappers_are_understood(kind, wrap, base, folders, tmp_path):
    wrapped = edited(folders[kind], tmp_path / "wrapped")
    tensors = {wrap(key): tensor for key, tensor in load_file(weights(wrapped)).items()}
    assert set(tensors) != set(load_file(weights(folders[kind]))), "these are not the names that PEFT writes"
    save_file(tensors, weights(wrapped))
    left, right = (read_adapter(str(folder), backbone=base).updates for folder in (wrapped, folders[kind]))
    assert_same(left, right)


def test_two_adapters_in_one_file_are_refused(folders, tmp_path):
    both = edited(folders["lora"], tmp_path / "both")
    tensors = load_file(weights(both))
    twice = {named(key, name): tensor.clone() for key, tensor in tensors.items() for name in ("a", "b")}
    save_file(twice, weights(both))
    with pytest.raises(UserError, match=r"twice|adapters a, b in one file"):
        read_adapter(str(both))


def test_an_adapter_in_several_files_is_read_and_a_missing_or_torn_one_refused(folders, tmp_path, capsys):
    sharded = edited(folders["lora"], tmp_path / "sharded")
    tensors = load_file(weights(sharded))
    weights(sharded).unlink()
    table = {key: f"adapter_model-0000{i % 2 + 1}-of-00002.safetensors" for i, key in enumerate(tensors)}
    for file in set(table.values()):
        save_file({key: tensors[key] for key in tensors if table[key] == file}, sharded / file)
    index = sharded / "adapter_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": table}))
    assert_same(read_adapter(str(sharded)).updates, read_adapter(str(folders["lora"])).updates)
    first = sharded / sorted(set(table.values()))[0]
    whole = first.read_bytes()
    for size in (len(whole) - 1, 100, 4, 0):
        first.write_bytes(whole[:size])
        assert run(sharded, "--operator", "addition", "--out", tmp_path / "out") == 2
        printed = capsys.readouterr().err
        assert f"{first.name} cannot be read" in printed
        assert printed.count("\n") == 1
    first.unlink()
    with pytest.raises(UserError, match=f"has no {first.name}, which its adapter_model.safetensors.index.json names"):
        read_adapter(str(sharded))
