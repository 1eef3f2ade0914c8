"""What a run refuses, in words, and what it leaves behind for the next one."""

from __future__ import annotations

import math
import re
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from hiplora import models
from hiplora.adapters.files import check_complete
from hiplora.compose import compose
from hiplora.errors import UserError
from hiplora.evaluation import engine, text
from hiplora.evaluation.engine import TaskScore
from hiplora.methods import METHODS
from hiplora.methods.lora import Lora
from hiplora.pipelines import PIPELINES, pipeline_class
from hiplora.tasks import primary
from tests.limits import small_files
from tests.pipelines.conftest import Run

MERGE = ["pipeline=merge", "method=lora", "merging.sizes=[2]", "merging.training_seeds=[42]"]
USES = {"single": ["method=lora", "task=code", "seed=42"], "merge": [*MERGE, "merging.instances=1"]}


def adapters(outputs: Path) -> list[Path]:
    return sorted(path.parent for path in outputs.glob("adapters/*/adapter_model.safetensors"))


def is_plain(model: Any) -> bool:
    return not any("lora_" in name for name, _ in model.named_modules())


@pytest.mark.parametrize("name", METHODS)
def test_a_misspelt_target_is_refused_beside_right_ones(configured, name: str, tmp_path: Path) -> None:
    config = configured("method=lora", "pipeline=train", "model.target_modules=[q_proj,k_porj,mlp]")
    with pytest.raises(UserError, match=r"names k_porj, mlp, but no linear layer.*choose among .*k_proj.*q_proj"):
        Run(config.but(method=compose([f"method={name}"]).method))
    assert adapters(tmp_path / "outputs") == []


def test_a_target_that_shares_its_weight_is_refused(configured, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"names lm_head, whose weight this backbone shares with model\.embed_tokens"):
        Run(configured("method=lora", "pipeline=train", "model.target_modules=[q_proj,lm_head]"))
    assert adapters(tmp_path / "outputs") == []


def test_a_stored_adapter_is_whole_and_everybodys_to_read(configured, tmp_path: Path, monkeypatch) -> None:
    train = configured("method=lora", "pipeline=train")
    save = Lora.save

    def without_room(self: Lora, model: Any, folder: Path) -> None:
        with small_files():
            save(self, model, folder)

    with monkeypatch.context() as patch:
        patch.setattr(Lora, "save", without_room)
        with pytest.raises(UserError, match=r"Cannot write .*adapters.*ulimit -f"):
            Run(train)
    assert list((tmp_path / "outputs/adapters").iterdir()) == [], "no half-written folder"
    assert is_plain(models.load(train.model).model)

    Run(train)  # goes on from the last checkpoint
    (folder,) = adapters(tmp_path / "outputs")
    for path in (folder, *folder.iterdir()):
        wanted = 0o755 if path.is_dir() else 0o644
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path


@pytest.mark.parametrize("use", USES)
def test_a_torn_adapter_is_named_and_made_again_when_deleted(configured, scores, tmp_path: Path, use: str) -> None:
    config = configured(*USES[use])
    Run(config, but_last=True)
    folder = adapters(tmp_path / "outputs")[0]
    for path in (folder / "adapter_config.json", folder / "adapter_model.safetensors"):
        whole = path.read_bytes()
        path.unlink()
        with pytest.raises(UserError, match=rf"it has no {path.name}\); delete this folder"):
            check_complete(folder)
        path.write_bytes(whole[:-100])
        with pytest.raises(UserError, match=rf"The adapter {folder} is not complete .* delete this folder"):
            check_complete(folder)
        path.write_bytes(whole if path.suffix == ".json" else whole[:-100])

    with pytest.raises(UserError, match=rf"The adapter {folder} is not complete .* delete this folder"):
        Run(config)
    assert is_plain(models.load(config.model).model)
    shutil.rmtree(folder)
    assert "train" in Run(config).made


@pytest.mark.parametrize("use", USES)
def test_half_an_adapter_never_stays_on_the_backbone(configured, scores, monkeypatch, use: str) -> None:
    config = configured(*USES[use])
    Run(config, but_last=True)
    load = Lora.load

    def half(self: Lora, model: Any, folder: Path) -> Any:
        load(self, model, folder)
        raise RuntimeError("the file ends here")

    with monkeypatch.context() as patch:
        patch.setattr(Lora, "load", half)
        with pytest.raises(RuntimeError, match="ends here"):
            Run(config)
    assert is_plain(models.load(config.model).model)


def test_a_diverged_adapter_is_told_before_the_benchmarks_are_asked(configured, monkeypatch, tmp_path: Path) -> None:
    config = configured("method=lora", "training.steps=1")
    asked = []
    load = Lora.load

    def diverged(self: Lora, model: Any, folder: Path) -> Any:
        adapted = load(self, model, folder)
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.data.fill_(1e30)
        return adapted

    monkeypatch.setattr(Lora, "load", diverged)

    def evaluate(model: Any, *rest: Any, **_: Any) -> dict[str, TaskScore]:
        asked.append(is_plain(model))
        return {name: TaskScore({primary(name): 0.5, "nll": 1.0}, 1) for name in ("mmlu", "scienceqa", "gsm8k", "code")}

    monkeypatch.setattr(engine, "evaluate", evaluate)
    with pytest.raises(UserError, match=r"The nll of text is nan: .*\(lora, gsm8k, seed 42\).*lower training\.lr"):
        Run(config)
    assert set(asked) == {True}, "only the backbone was scored"
    assert is_plain(models.load(config.model).model)
    assert list(tmp_path.glob("results/*/records/score/lora*")) == []


def test_a_merge_whose_scores_are_not_finite_is_named_and_finished_ones_stay(configured, monkeypatch, tmp_path) -> None:
    merges = []

    def evaluate(model: Any, *_: Any, tasks: Any, **__: Any) -> dict[str, TaskScore]:
        merged = any(module._forward_hooks for module in model.modules())
        merges.extend([1] if merged else [])
        value = math.inf if merged and len(merges) == 2 else 0.5
        return {task.name: TaskScore({primary(task.name): 0.5, "nll": value}, 1) for task in tasks}

    monkeypatch.setattr(engine, "evaluate", evaluate)
    monkeypatch.setattr(text, "text_cross_entropy", lambda *_, **__: {"nll": 1.0, "tokens": 1})
    told = r"The nll of \w+ is inf: .*merge=addition of \w+ \(seed 42\), \w+ \(seed 42\).*operator"
    with pytest.raises(UserError, match=told):
        Run(configured(*MERGE, "merging.instances=2"))
    assert len(list(tmp_path.glob("results/*/records/score/lora-addition-*.json"))) == 1, "the first instance is kept"


def test_a_place_for_results_that_cannot_be_written_is_told_before_the_work(configured, monkeypatch, tmp_path) -> None:
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr("hiplora.training.trainer.train", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(UserError, match=r"Cannot write .*file/x.*a file, not a folder; .*results_dir"):
        Run(configured("method=lora", f"results_dir={tmp_path}/file/x"))


@pytest.mark.parametrize("name", [name for name in PIPELINES if pipeline_class(name).unscaled])
def test_a_scale_is_refused_where_nothing_would_follow_it(name: str) -> None:
    words = ["adapter=folder"] if name == "evaluate" else []
    with pytest.raises(UserError, match=rf"evaluation\.scale=0\.5 means nothing to pipeline={name}"):
        compose([f"pipeline={name}", "evaluation.scale=0.5", *words])


@pytest.mark.parametrize(
    ("pipeline", "word"),
    [
        *(
            ("select", word)
            for word in ("method.k=16", "training.steps=7", "training.lr=3e-3", "evaluation.splits=test")
        ),
        ("select", "task=code"),
        ("efficiency", "method.r=4"),
        ("efficiency", "method=lora"),
        ("edit", "evaluation.likelihood_only=true"),
        ("edit", "evaluation.splits=test"),
    ],
)
def test_a_setting_that_the_runs_of_a_pipeline_set_themselves_is_refused(pipeline: str, word: str) -> None:
    with pytest.raises(UserError, match=rf"^{word} would be ignored, because pipeline={pipeline} sets it itself"):
        compose([f"pipeline={pipeline}", word])


TWICE = "names a value twice"


@pytest.mark.parametrize(
    ("pipeline", "word", "told"),
    [
        ("matched_merge", "pipeline.tasks=[gsm8k,gsm8k]", TWICE),
        ("efficiency", "pipeline.methods=[lora,lora]", TWICE),
        ("probe", "pipeline.benchmarks=[mmlu,mmlu]", TWICE),
        ("continual", "training=5", "is not an option; type training.FIELD=VALUE"),
        ("continual", "merging=3", "is not an option; type merging.FIELD=VALUE"),
    ],
)
def test_a_list_or_a_section_of_the_wrong_form_is_refused(pipeline: str, word: str, told: str) -> None:
    with pytest.raises(UserError, match=rf"^{re.escape(word)} {re.escape(told)}"):
        compose([f"pipeline={pipeline}", word])
