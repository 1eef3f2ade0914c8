"""What an evaluation of adapter folders asks for, and what it refuses before anything is computed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hiplora.compose import compose
from hiplora.errors import UserError
from hiplora.models import based_on, identity
from hiplora.stages.base import Stage
from hiplora.stages.sources import Backbone

Adapter = Callable[..., str]


@pytest.fixture
def adapter(tmp_path: Path, tiny: Path) -> Adapter:
    """Write an adapter folder of one matrix; its configuration has the given fields."""

    def write(name: str = "a", **fields: object) -> str:
        folder = tmp_path / name
        folder.mkdir()
        config: dict[str, object] = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "r": 2,
            "base_model_name_or_path": str(tiny),
        }
        (folder / "adapter_config.json").write_text(
            json.dumps({**config, "target_modules": ["q_proj"], "layers_to_transform": [0], **fields})
        )
        module = "base_model.model.model.layers.0.self_attn.q_proj"
        factors = {f"{module}.lora_A.weight": torch.ones(2, 64), f"{module}.lora_B.weight": torch.ones(64, 2)}
        save_file(factors, folder / "adapter_model.safetensors")
        return str(folder)

    return write


def stages(*words: str) -> list[Stage]:
    asked = compose(["pipeline=evaluate", "evaluation.code_execution=off", *words]).stages()
    return [wanted.stage for wanted in asked]  # type: ignore[union-attr]


def test_the_backbone_is_the_one_that_the_adapter_names(adapter: Adapter, tiny: Path, tmp_path: Path) -> None:
    base, scored, drift = stages(f"adapter={adapter()}", "model.dtype=float32")
    named = compose(["model=folder", f"model.path={tiny}", "model.dtype=float32", "evaluation.code_execution=off"])
    assert base.id == named.stages()[1].stage.id, "the record that other runs on that backbone have"  # type: ignore[index]
    assert [stage.kind for stage in (base, scored, drift)] == ["score", "score", "drift"]
    assert scored.name() == "folder-a"
    chosen = stages(f"adapter={tmp_path}/a", "model=folder", "model.path=elsewhere")
    assert isinstance(chosen[0].of, Backbone)  # type: ignore[attr-defined]
    assert chosen[0].of.model.path == "elsewhere"  # type: ignore[attr-defined]


def test_the_packaged_backbone_is_known_by_the_name_of_its_conversion() -> None:
    model = compose([]).model
    name = "/other/cache/backbones/SmolLM2-135M-Instruct.Q4_1-{}-bfloat16-1"
    assert based_on(model, name.format(identity(model)[:12]), None) == model
    with pytest.raises(UserError, match="neither a local folder nor a repository"):
        based_on(model, name.format("0" * 12), None)
    hub = based_on(model, "owner/base", "abc")
    assert (hub.source, hub.path, hub.revision, hub.label) == ("hub", "owner/base", "abc", "base")


def test_several_are_merged_beside_each_alone(adapter: Adapter) -> None:
    words = [f"adapter=[{adapter('a')},{adapter('b', r=2, lora_alpha=3)}]", "pipeline.drift=false"]
    named = {stage.name(): stage.id for stage in stages(*words, "merge=dare")}
    assert [*named] == [stages(*words)[0].name(), "folder-a", "folder-b", "folders-dare-a+b"]
    other = {stage.name(): stage.id for stage in stages(*words, "merge=dare", "seed=100", "pipeline.trained_on=code")}
    assert {name for name in named if named[name] != other[name]} == {"folders-dare-a+b"}, "dare draws by the seed"
    assert stages(*words, "seed=100")[-1].id == stages(*words)[-1].id, "an addition draws nothing"
    assert len(stages(*words, "pipeline.merged=false")) == 3


def test_mistakes_are_refused_in_one_sentence(adapter: Adapter, tmp_path: Path) -> None:
    first, nameless = adapter("first"), adapter("nameless", base_model_name_or_path=None)
    other = adapter("other", base_model_name_or_path="owner/base")
    (tmp_path / "empty").mkdir()
    cases = {
        (): "^adapter has no value; add adapter=… to the command",
        (f"adapter={nameless}",): "names no backbone",
        (f"adapter=[{first},{other}]",): f"was trained on .* and {other} on owner/base; give adapters of one backbone",
        (f"adapter=[{first},{first}]",): "names .*first twice",
        (f"adapter={first}", "pipeline.trained_on=[code,mmlu]"): "2 names for 1 adapters",
        (f"adapter={first}", "pipeline.trained_on=cooking"): "names cooking; choose among mmlu",
        (f"adapter={first}", "evaluation.scale=0.5"): "evaluation.scale=0.5 means nothing to pipeline=evaluate",
        ("adapter=[a/b,c/d]", "adapter.revision=main"): "is for a single repository on the Hub",
        ("adapter=a/b@x", "adapter.revision=main"): "is for a single repository on the Hub",
        (f"adapter={first}", "adapter.revision=main"): "leave it out for a folder",
        (f"adapter={tmp_path}/empty",): "has no adapter_config.json",
        (f"adapter={tmp_path}/absent",): "is neither a folder nor a repository",
        ("adapter=owner/name", "adapter.revision=main"): "which commit main of owner/name is.*adapter.revision=COMMIT",
    }
    for words, sentence in cases.items():
        with pytest.raises(UserError, match=sentence):
            stages(*words)
    with pytest.raises(UserError, match=r"adapter=… is read by pipeline=evaluate alone"):
        compose([f"adapter={first}"])


def test_a_revision_goes_behind_the_repository_of_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline: Any = compose(["pipeline=evaluate", "adapter=a/b/runs/1", "adapter.revision=v2"]).pipeline
    assert pipeline.paths() == ["a/b@v2/runs/1"]
    monkeypatch.setenv("HOME", "/home/me")  # no shell replaces the ~
    pipeline = compose(["pipeline=evaluate", "adapter=[~/a,b,~/c]"]).pipeline
    assert pipeline.paths() == ["/home/me/a", "b", "/home/me/c"]


def test_a_full_rank_update_is_refused_where_the_merge_needs_factors(adapter: Adapter) -> None:
    dora = Path(adapter("dora", use_dora=True))
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    shapes = {"A.weight": (2, 64), "B.weight": (64, 2), "magnitude_vector": (64,)}
    tensors = {f"{module}.lora_{part}": torch.ones(*shape) for part, shape in shapes.items()}
    save_file(tensors, dora / "adapter_model.safetensors")
    words = [f"adapter=[{adapter('plain')},{dora}]", "merge=tsvm"]
    (merge,) = (stage for stage in stages(*words) if "tsvm" in stage.name())
    with pytest.raises(UserError, match=r"merge=tsvm works on low-rank factors, but .*dora has a full-rank update"):
        merge.check()
