"""Adapter folders as others save them: complete or refused by name, PEFT's defaults, other wrappers, whole modules."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from peft import AdaLoraConfig, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from hiplora import HipLoraConfig
from hiplora.adapters.exporting import export_lora
from hiplora.adapters.reading import read_adapter
from hiplora.errors import UserError
from hiplora.merging.__main__ import main
from tests.tuner.helpers import make_llama

TARGETS = ["q_proj", "v_proj"]
IDS = torch.arange(2, 14)[None]
KINDS: dict[str, Any] = {
    "lora": LoraConfig(r=2, target_modules=TARGETS, task_type="CAUSAL_LM", rank_pattern={"v_proj": 3}),
    "dora": LoraConfig(r=2, target_modules=TARGETS, task_type="CAUSAL_LM", use_dora=True),
    "adalora": AdaLoraConfig(init_r=3, target_r=2, total_step=9, target_modules=TARGETS, task_type="CAUSAL_LM"),
    "hip": HipLoraConfig(r=2, k=3, target_modules=TARGETS, task_type="CAUSAL_LM"),
    "hip-basis": HipLoraConfig(r=2, k=3, target_modules=TARGETS, task_type="CAUSAL_LM", save_basis=True),
    "hip-relative": HipLoraConfig(r=2, k=3, target_modules=TARGETS, parameterization="relative"),
    "proj": HipLoraConfig(r=2, k=3, target_modules=TARGETS, task_type="CAUSAL_LM", principal=False),
}


def run(*arguments: object) -> int:
    return main([str(a) for a in arguments])


def load(base: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()


@torch.no_grad()
def logits(model: Any) -> Tensor:
    return model.eval()(IDS).logits


def perturbed(model: Any, seed: int = 1) -> Any:
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "magnitude" not in name:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    make_llama().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(base, tmp_path_factory) -> dict[str, Path]:
    made = {}
    for kind, config in KINDS.items():
        made[kind] = tmp_path_factory.mktemp(kind)
        perturbed(get_peft_model(load(base), config)).save_pretrained(made[kind])
    return made


def copy(folder: Path, out: Path, **fields: Any) -> Path:
    shutil.copytree(folder, out)
    path = out / "adapter_config.json"
    raw = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({key: value for key, value in raw.items() if value is not ...}))
    return out


def weights(folder: Path) -> Path:
    return folder / "adapter_model.safetensors"


def assert_same(left: Any, right: Any) -> None:
    assert set(left) == set(right)
    for name, update in left.items():
        torch.testing.assert_close(update.dense(), right[name].dense())


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_that_lacks_any_one_tensor_is_refused_by_the_name_of_its_layer(kind, base, folders, tmp_path):
    tensors = load_file(weights(folders[kind]))
    read_adapter(str(folders[kind]), backbone=base)
    one = [key for key in tensors if ".layers.1.self_attn.v_proj." in key]
    assert len(one) == {"lora": 2, "dora": 3, "adalora": 3, "proj": 4, "hip-basis": 7}.get(kind, 5)
    for key in one:
        torn = copy(folders[kind], tmp_path / key)
        save_file({name: tensor for name, tensor in tensors.items() if name != key}, weights(torn))
        with pytest.raises(UserError, match=r"holds no lora_\w+(\.weight)? for model.layers.1.self_attn.v_proj"):
            read_adapter(str(torn), backbone=base)
        if kind.startswith(("hip", "proj")):
            with pytest.raises(UserError, match=r"for model.layers.1.self_attn.v_proj; the file is incomplete"):
                export_lora(torn, tmp_path / "out", backbone=base)
    gone = copy(folders[kind], tmp_path / "gone")
    save_file({name: tensor for name, tensor in tensors.items() if name not in one}, weights(gone))
    with pytest.raises(UserError, match=r"holds nothing for model.layers.1.self_attn.v_proj \(1 such\)"):
        read_adapter(str(gone), backbone=base)


@pytest.mark.parametrize("kind", KINDS)
def test_values_that_are_not_finite_are_refused_by_name(kind, base, folders, tmp_path):
    tensors = load_file(weights(folders[kind]))
    for key in [key for key in tensors if ".layers.1.self_attn.v_proj." in key]:
        for value in (float("nan"), float("inf")):
            spoilt = copy(folders[kind], tmp_path / f"{key}{value}")
            tensor = tensors[key].clone()
            tensor.view(-1)[0] = value
            save_file(tensors | {key: tensor}, weights(spoilt))
            with pytest.raises(UserError, match=r"not finite in model\.layers\.1\.self_attn\.v_proj\.lora_"):
                read_adapter(str(spoilt), backbone=base)


@pytest.mark.parametrize("kind", KINDS)
def test_factors_of_another_rank_than_the_configuration_says_are_refused(kind, base, folders, tmp_path):
    tensors = load_file(weights(folders[kind]))
    cut = copy(folders[kind], tmp_path / "cut")
    A, B = (next(key for key in tensors if f"layers.1.self_attn.v_proj.lora_{side}" in key) for side in "AB")
    shorter = {A: tensors[A][:1].contiguous(), B: tensors[B][:, :1].contiguous()}
    save_file(tensors | shorter, weights(cut))
    with pytest.raises(UserError, match=r"v_proj.*(do not fit|scaling is not known)"):
        read_adapter(str(cut), backbone=base)


def test_a_target_of_which_nothing_is_there_is_a_note_where_no_backbone_tells(base, folders, tmp_path):
    named = copy(folders["lora"], tmp_path / "named", target_modules=[*TARGETS, "c_attn"])
    assert read_adapter(str(named)).notes == (), "the backbone that it names has no c_attn"
    nowhere = copy(named, tmp_path / "nowhere", base_model_name_or_path="owner/name")
    assert "its target c_attn; add --backbone DIR" in read_adapter(str(nowhere)).notes[0]
    assert read_adapter(str(nowhere), backbone=base).notes == ()
    magnitudes = copy(folders["dora"], tmp_path / "magnitudes", use_dora=False)
    with pytest.raises(UserError, match="says use_dora=false"):
        read_adapter(str(magnitudes), backbone=base)
    far = copy(folders["dora"], tmp_path / "far", base_model_name_or_path="owner/name")
    with pytest.raises(UserError, match="add --backbone"):
        read_adapter(str(far))


DEFAULTS = {
    "no lora_alpha": ({"lora_alpha": ...}, {"lora_alpha": 8}),
    "null patterns": ({"alpha_pattern": None, "rank_pattern": {"v_proj": 3}}, {}),
    "null bias": ({"bias": None}, {}),
    "null flags": ({"use_rslora": None, "use_dora": None}, {}),
    "no flags": ({"use_rslora": ..., "use_dora": ..., "init_lora_weights": ..., "bias": ...}, {}),
    "empty lists": ({"modules_to_save": [], "trainable_token_indices": None}, {}),
    "2023": ({"enable_lora": None, "merge_weights": False}, {}),
}


@pytest.mark.parametrize(("changes", "like"), DEFAULTS.values(), ids=DEFAULTS)
def test_what_a_configuration_leaves_out_is_pefts_default(changes, like, base, folders, tmp_path):
    reference = copy(folders["lora"], tmp_path / "reference", **like)
    model = PeftModel.from_pretrained(load(base), reference)
    read = read_adapter(str(copy(folders["lora"], tmp_path / "changed", **changes)))
    assert read.notes == ()
    merged = model.merge_and_unload()
    before = load(base)
    for name, update in read.updates.items():
        added = merged.get_submodule(name).weight - before.get_submodule(name).weight
        torch.testing.assert_close(update.dense(), added, rtol=1e-4, atol=1e-6)


WRONG = [
    ("lora", {"lora_alpha": None}, "lora_alpha=null"),
    ("lora", {"lora_alpha": "16"}, 'lora_alpha="16"'),
    ("lora", {"lora_alpha": float("nan")}, "lora_alpha=NaN"),
    ("lora", {"lora_alpha": float("inf")}, "lora_alpha=Infinity"),
    ("lora", {"lora_alpha": True}, "lora_alpha=true"),
    ("lora", {"r": 0}, "r=0"),
    ("lora", {"r": 2.5}, "r=2.5"),
    ("lora", {"r": None}, "r=null"),
    ("lora", {"alpha_pattern": {"*.q_proj": 8}}, r"alpha_pattern: \*\.q_proj=8.*regular expression"),
    ("lora", {"rank_pattern": {"(": 8}}, r"rank_pattern: \(=8.*regular expression"),
    ("lora", {"rank_pattern": {"v_proj": 0}}, "rank_pattern: v_proj=0"),
    ("lora", {"alpha_pattern": {"v_proj": float("inf")}}, "alpha_pattern: v_proj=Infinity"),
    ("lora", {"alpha_pattern": [1]}, r"alpha_pattern=\[1\]"),
    ("lora", {"use_rslora": "yes"}, 'use_rslora="yes"'),
    ("lora", {"target_modules": "("}, r'target_modules="\("'),
    ("lora", {"modules_to_save": "lm_head"}, 'modules_to_save="lm_head"'),
    ("lora", {"peft_type": ...}, "no peft_type"),
    ("lora", {"peft_type": "lora"}, "is a lora adapter"),
    ("adalora", {"init_r": 0}, "init_r=0"),
    ("adalora", {"lora_alpha": float("nan")}, "lora_alpha=NaN"),
    ("hip", {"lora_alpha": float("nan")}, "lora_alpha=nan"),
    ("hip", {"r": 0}, "r=0"),
    ("hip", {"k": "3"}, "k='3'"),
    ("hip", {"alpha_pattern": {"*.q_proj": 8}}, r"alpha_pattern: \*\.q_proj"),
]


@pytest.mark.parametrize(("kind", "changes", "sentence"), WRONG, ids=[f"{k}-{s}" for k, _, s in WRONG])
def test_a_value_that_peft_could_not_use_is_one_sentence_with_the_fields_name(
    kind, changes, sentence, base, folders, tmp_path
):
    with pytest.raises(UserError, match=sentence):
        read_adapter(str(copy(folders[kind], tmp_path / "wrong", **changes)), backbone=base)


def test_numbers_that_json_reads_as_infinite_are_refused(folders, tmp_path):
    wrong = copy(folders["lora"], tmp_path / "wrong", lora_alpha=12345)
    path = wrong / "adapter_config.json"
    path.write_text(path.read_text().replace("12345", "1e400"))
    with pytest.raises(UserError, match="lora_alpha=Infinity"):
        read_adapter(str(wrong))


@pytest.mark.parametrize("kind", ["lora", "hip-basis"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_obstacle(kind, encoding, base, folders, tmp_path):
    marked = copy(folders[kind], tmp_path / "marked")
    path = marked / "adapter_config.json"
    path.write_bytes(path.read_text().encode(encoding))
    assert_same(read_adapter(str(marked)).updates, read_adapter(str(folders[kind])).updates)


def test_fields_that_peft_does_not_know_are_named_and_allowed(folders, tmp_path, capsys):
    swift = copy(folders["lora"], tmp_path / "swift", lora_dtype="bfloat16", lorap_lr_ratio=16.0)
    assert run(swift, "--operator", "addition", "--out", tmp_path / "out") == 0
    assert "do not change the update: lora_dtype, lorap_lr_ratio." in capsys.readouterr().err
    assert_same(read_adapter(str(tmp_path / "out")).updates, read_adapter(str(folders["lora"])).updates)


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
    wrapped = copy(folders[kind], tmp_path / "wrapped")
    tensors = {wrap(key): tensor for key, tensor in load_file(weights(wrapped)).items()}
    assert not set(tensors) & set(load_file(weights(folders[kind]))) or kind != "lora" or ".0." in next(iter(tensors))
    save_file(tensors, weights(wrapped))
    left, right = (read_adapter(str(folder), backbone=base).updates for folder in (wrapped, folders[kind]))
    assert_same(left, right)


def test_two_adapters_in_one_file_are_refused(folders, tmp_path):
    both = copy(folders["lora"], tmp_path / "both")
    tensors = load_file(weights(both))
    twice = {named(key, name): tensor.clone() for key, tensor in tensors.items() for name in ("a", "b")}
    save_file(twice, weights(both))
    with pytest.raises(UserError, match=r"twice|adapters a, b in one file"):
        read_adapter(str(both))


def test_an_adapter_in_several_files_is_read_and_a_missing_or_torn_one_refused(folders, tmp_path, capsys):
    sharded = copy(folders["lora"], tmp_path / "sharded")
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


def test_revisions_and_folders_of_the_hub(folders, tmp_path, monkeypatch):
    asked = []

    def download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision, *allow_patterns))
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    (tmp_path / "snapshot").mkdir()
    copy(folders["lora"], tmp_path / "snapshot" / "a" / "b")
    for path in (tmp_path / "snapshot" / "a" / "b").iterdir():
        shutil.copy(path, tmp_path / "snapshot")
    expected = {
        "owner/name": ("owner/name", None, "adapter_*"),
        "owner/name@v1": ("owner/name", "v1", "adapter_*"),
        "owner/name/a/b": ("owner/name", None, "a/b/adapter_*"),
        "owner/name@v1/a/b": ("owner/name", "v1", "a/b/adapter_*"),
        "owner/name@refs/pr/3": ("owner/name", "refs/pr/3", "adapter_*"),
        "owner/name@refs/pr/3/a/b": ("owner/name", "refs/pr/3", "a/b/adapter_*"),
    }
    for source, call in expected.items():
        assert_same(read_adapter(source).updates, read_adapter(str(folders["lora"])).updates)
        assert asked[-1] == call
    for source in ("name", "owner/name@", "/tmp/owner/nothing", "../owner/name@v1"):
        with pytest.raises(UserError, match="is neither a folder nor"):
            read_adapter(source)
