"""Whole runs on backbones that are no Llama: trained, scored on everything, recorded."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from hiplora.models import ALL_LINEAR
from tests.backbones import FAMILIES, PLAIN, backbone
from tests.pipelines.conftest import Run

WORDS = ["method.k=8", "training.steps=2", "evaluation.limit=2", "model.target_modules=auto"]


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[] if name == "gpt2" else pytest.mark.slow) for name in (*FAMILIES, *PLAIN)]
)
def test_trained_and_scored(configured, family: str, tmp_path: Path) -> None:
    folder = backbone(tmp_path / "backbone", family)
    targets = (FAMILIES | PLAIN)[family][2] or ("x_proj", "out_proj")
    words = [*WORDS, f"model.path={folder}", "pipeline=single", "method=hip"]
    if family in PLAIN:
        words += [f"model.target_modules=[{','.join(targets)}]", "method.k=4", "method.r=2"]
    run = Run(configured(*words))
    records = [outcome.record for outcome in run.outcomes]
    (trained,) = [record.result for record in records if record.kind == "train"]
    assert trained.targets == ([] if family in PLAIN else [*targets])
    scored = [record.result.benchmarks for record in records if record.kind == "score"]
    assert len(scored) == 2
    for benchmarks in scored:
        assert all(math.isfinite(benchmarks[name]["nll"]) for name in ("mmlu", "scienceqa", "gsm8k", "code", "text"))


def test_words_are_part_of_what_identifies_a_training(configured) -> None:
    ids = set()
    for words in ("auto", ALL_LINEAR, "[q_proj]", "[auto]"):
        config = configured("method=lora", "pipeline=train", f"model.target_modules={words}")
        ids.add(config.stages()[-1].stage.id)
    assert len(ids) == 3
    chat, plain = (
        configured("method=lora", "pipeline=train", f"model.chat_template={each}").stages()[-1].stage.id
        for each in ("true", "false")
    )
    assert chat != plain
