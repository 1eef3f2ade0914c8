"""Edits through the engine: what one run trains and measures, what is reused, and what an edit does to a model."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hiplora.errors import UserError
from hiplora.evaluation import scoring
from hiplora.pipelines.base import Config
from hiplora.report.edits import alone, figures, pairs
from hiplora.report.terminal import describe
from hiplora.stages.edit import Edit
from hiplora.stages.make import Engine
from hiplora.stages.store import Store
from hiplora.tracking import Tracking
from tests.edit_sets import rows, written
from tests.pipelines.conftest import Run

STRONG = [
    "training.steps=150", "training.lr=1e-2", "training.rows_per_step=1", "method.dropout=0",
    "model.target_modules=[q_proj,v_proj,o_proj,gate_proj,up_proj,down_proj]",
]  # fmt: skip


@pytest.fixture
def editing(configured: Callable[..., Config], tmp_path: Path) -> Callable[..., Config]:
    path = written(tmp_path / "set.jsonl", rows())
    return lambda *words: configured("pipeline=edit", "method=lora", f"edits.file={path}", "edits.batch=3", *words)


def results(run: Run) -> list[Any]:
    return [outcome.record.result for outcome in run.outcomes if isinstance(outcome.stage, Edit)]


def test_a_strong_edit_takes_hold_and_an_empty_one_changes_nothing(editing) -> None:
    strong = Run(editing(*STRONG))
    assert strong.made == ["edit", "train", "edit"]
    base, edited = results(strong)
    before, after = figures(alone(base)), figures(pairs(base, [edited]))
    assert (before["all"]["generated"], after["all"]["generated"], after["all"]["success"]) == (0, 100, 100)
    assert after["all"]["log_p_new"] > before["all"]["log_p_new"] + 1
    assert (before["all"]["locality"], before["all"]["flips"]) == (0, 0)

    empty = Run(editing("training.lr=1e-8"))
    assert empty.made == ["train", "edit"], "the backbone is measured once for all methods and seeds"
    base, same = results(empty)
    assert same.right == base.right
    assert same.batches[0].outcomes == base.batches[0].outcomes
    assert same.batches[0].front == base.batches[0].front
    for name, value in base.batches[0].means["all"].items():
        assert same.batches[0].means["all"][name] == pytest.approx(value, abs=1e-3)


def test_batches_share_the_backbone_and_a_run_typed_again_makes_nothing(editing) -> None:
    config = editing("edits.batches=2")
    run = Run(config)
    assert run.made == ["edit", "train", "edit", "train", "edit"]
    assert [len(result.batches) for result in results(run)] == [2, 1, 1]
    again = Engine(Store(config.places), Tracking(enabled=False, folder=Path(config.outputs_dir)))
    text = describe(again.run(config.stages()), again)
    assert again.made == []
    assert "6 edits in 2 batches" in text
    named = [line.split()[2] for line in text.splitlines() if line.startswith("Record: ")]
    assert named == [outcome.record.id for outcome in run.outcomes if isinstance(outcome.stage, Edit)][1:]
    assert "success (generated, or new likelier than old), %" in text
    assert Run(editing()).made == ["edit"], "the first batch alone: its adapter and its scores are there"


def test_what_the_backbone_said_of_every_item_is_kept(editing, tmp_path: Path) -> None:
    run = Run(editing())
    record = run.outcomes[0].record
    path = tmp_path / "results/mini/records/edit" / record.samples
    samples = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    items = [sample for sample in samples if "prompts" in sample]
    assert len(items) == 3
    for sample in items:
        (new, old), flags = sample["prompts"][0]["new_old"], record.result.batches[0].outcomes
        assert (flags["believed"][items.index(sample)] == "1") == (old[2] or old[0] > new[0])
        assert (len(sample["prompts"]), len(sample["neighbours"])) == (3, 2)
    assert {sample["benchmark"] for sample in samples if "benchmark" in sample} == {"mmlu", "scienceqa", "gsm8k"}


def test_a_stopped_measurement_goes_on_behind_its_answers(editing, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Run(editing()).record
    score, asked = scoring._score_rows, []

    def counted(*args: Any, stop_at: int = 1000) -> Any:
        if len(asked) == stop_at:
            raise KeyboardInterrupt
        asked.append(1)
        return score(*args)

    again = editing("force=true")
    monkeypatch.setattr(scoring, "_score_rows", partial(counted, stop_at=3))
    with pytest.raises(KeyboardInterrupt):
        Run(again)
    asked.clear()
    monkeypatch.setattr(scoring, "_score_rows", counted)
    assert Run(again).record.digest == expected.digest
    rest = len(asked)
    asked.clear()
    assert Run(again).record.digest == expected.digest
    assert len(asked) == rest + 3


def test_probes_that_are_not_there_are_refused(editing) -> None:
    with pytest.raises(UserError, match=r"pipeline.probes names code, which has no accuracy over single answers"):
        editing("+pipeline.probes.code=3").stages()
    with pytest.raises(UserError, match=r"pipeline.probes.gsm8k=301 asks for more than the 300 items of gsm8k"):
        Run(editing("pipeline.probes.gsm8k=301", "evaluation.limit=null"))


@pytest.mark.parametrize(
    ("row", "metric", "said"),
    [
        ({"prompt": "p", "answer": "a"}, "nll", "pipeline.probes names custom, which has no accuracy"),
        ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}, "exact_match",
         r"pipeline.probes.custom asks for probes from conversations.* give the columns prompt and answer"),
    ],
)  # fmt: skip
def test_own_data_that_cannot_be_probed_is_refused_before_anything_is_computed(
    editing, tmp_path: Path, row: dict[str, Any], metric: str, said: str
) -> None:
    path = written(tmp_path / "own.jsonl", [row] * 3)
    own = ["task=custom", f"task.file={path}", f"task.validation_file={path}", f"task.metric={metric}"]
    config = editing(*own, "+pipeline.probes.custom=2")
    with pytest.raises(UserError, match=said):
        config.stages()[0].stage.check()


def test_a_scaled_edit_is_the_same_training(editing) -> None:
    Run(editing())
    assert Run(editing("evaluation.scale=0.5")).made == ["edit"]
