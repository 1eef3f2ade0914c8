"""The configuration of an adapter folder: PEFT's defaults, values that it could not use, what is not understood."""

from __future__ import annotations

import pytest
import torch
from peft import PeftModel

from hiplora.adapters.reading import read_adapter
from hiplora.errors import UserError
from tests.merging.folders import assert_same, edited, load, run

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
    reference = edited(folders["lora"], tmp_path / "reference", **like)
    model = PeftModel.from_pretrained(load(base), reference)
    read = read_adapter(str(edited(folders["lora"], tmp_path / "changed", **changes)))
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
    ("lora", {"target_modules": 5}, "target_modules=5"),
    ("lora", {"task_type": "FOO"}, 'task_type="FOO".*must be null or one of SEQ_CLS'),
    ("lora", {"peft_type": ...}, "no peft_type"),
    ("lora", {"peft_type": "lora"}, "is a lora adapter"),
    ("adalora", {"init_r": 0}, "init_r=0"),
    ("adalora", {"lora_alpha": float("nan")}, "lora_alpha=NaN"),
    ("hip", {"lora_alpha": float("nan")}, "lora_alpha=nan"),
    ("hip", {"r": 0}, "r=0"),
    ("hip", {"k": "3"}, "k='3'"),
    ("hip", {"alpha_pattern": {"*.q_proj": 8}}, r"alpha_pattern: \*\.q_proj"),
    ("hip", {"task_type": "FOO"}, 'task_type="FOO"'),
    (
        "hip",
        {"layers_pattern": "layers"},
        r"that PEFT refuses \(When `layers_pattern` is specified, .*\); correct it\.",
    ),
    ("hip", {"corda_config": False}, r"PEFT refuses \(`CordaConfig` must be"),
    ("hip", {"eva_config": []}, r"PEFT refuses \(`EvaConfig` must be"),
]


@pytest.mark.parametrize(("kind", "changes", "sentence"), WRONG, ids=[f"{k}-{s}" for k, _, s in WRONG])
def test_a_value_that_peft_could_not_use_is_one_sentence_with_the_fields_name(
    kind, changes, sentence, base, folders, tmp_path
):
    with pytest.raises(UserError, match=sentence):
        read_adapter(str(edited(folders[kind], tmp_path / "wrong", **changes)), backbone=base)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"peft_type": "IA3"}, "is a IA3 adapter"),
        ({"bias": "all"}, 'bias="all"'),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"use_some_future_variant": True}, "use_some_future_variant=True"),
        ({"some_variant_config": {"a": 1}}, "some_variant_config="),
        ({"enable_lora": [True, False]}, "enable_lora="),
        ({"layer_replication": [[0, 1], [0, 2]]}, "layer_replication="),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights=pissa_niter_4"),
    ],
)
def test_what_is_not_understood_is_refused(config, sentence, adapters, tmp_path):
    folder = edited(adapters["plain"][0], tmp_path / "odd", **config)
    with pytest.raises(UserError, match=sentence):
        read_adapter(str(folder))


def test_numbers_that_json_reads_as_infinite_are_refused(folders, tmp_path):
    wrong = edited(folders["lora"], tmp_path / "wrong", lora_alpha=12345)
    path = wrong / "adapter_config.json"
    path.write_text(path.read_text().replace("12345", "1e400"))
    with pytest.raises(UserError, match="lora_alpha=Infinity"):
        read_adapter(str(wrong))


@pytest.mark.parametrize("kind", ["lora", "hip-basis"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_obstacle(kind, encoding, base, folders, tmp_path):
    marked = edited(folders[kind], tmp_path / "marked")
    path = marked / "adapter_config.json"
    path.write_bytes(path.read_text().encode(encoding))
    assert_same(read_adapter(str(marked)).updates, read_adapter(str(folders[kind])).updates)


def test_fields_that_peft_does_not_know_are_named_and_allowed(folders, tmp_path, capsys):
    swift = edited(folders["lora"], tmp_path / "swift", lora_dtype="bfloat16", lorap_lr_ratio=16.0)
    assert run(swift, "--operator", "addition", "--out", tmp_path / "out") == 0
    assert "do not change the update: lora_dtype, lorap_lr_ratio." in capsys.readouterr().err
    assert_same(read_adapter(str(tmp_path / "out")).updates, read_adapter(str(folders["lora"])).updates)
