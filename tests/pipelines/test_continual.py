"""What a continual run asks for, and what it makes on a tiny model with scores that are drawn from a counter."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import pytest
import torch

from hiplora import conf_dir
from hiplora.compose import compose
from hiplora.errors import UserError
from hiplora.pipelines.base import Config
from hiplora.report.terminal import describe
from hiplora.stages.artefact import OPTIMIZER
from hiplora.stages.make import Engine
from hiplora.stages.score import Score
from hiplora.stages.sources import Backbone
from hiplora.stages.store import Store
from hiplora.stages.train import Train
from hiplora.tasks import TASKS
from hiplora.tasks.gsm8k import GSM8K
from hiplora.tracking import Tracking
from tests.pipelines.conftest import Run, Scores

PAPER = ["mmlu", "scienceqa", "gsm8k", "code"]


def stages(config: Config) -> list[Any]:
    return [wanted.stage for wanted in config.stages()]  # type: ignore[union-attr]


def trainings(config: Config) -> list[Train]:
    return [stage for stage in stages(config) if isinstance(stage, Train)]


@pytest.mark.parametrize("words", [[], ["task.template=plain"], ["task=code"]])
def test_row_0_is_the_bare_backbone_and_stage_1_the_single_run(words: list[str]) -> None:
    """Record and scores of the first stage are those that Table 1 has: nothing is trained or scored twice."""
    asked = stages(compose(["pipeline=continual", "method=lora", *words]))
    assert [type(stage) for stage in asked] == [Score, *[Train, Score] * 4]
    form = [word for word in words if word != "task=code"]
    single = stages(compose(["method=lora", "task=mmlu", *form]))
    base = next(stage for stage in single if isinstance(stage, Score) and isinstance(stage.of, Backbone))
    assert isinstance(asked[0].of, Backbone), "no adapter, a fresh one neither"
    assert [stage.id for stage in asked[:3]] == [base.id, single[0].id, single[-1].id]


def test_each_stage_goes_on_from_the_one_before_and_is_scored_on_every_column() -> None:
    asked = stages(compose(["pipeline=continual", "method=hip"]))
    line = trainings(compose(["pipeline=continual", "method=hip"]))
    assert [train.task.name for train in line] == PAPER
    assert [train.parent for train in line] == [None, *line[:-1]]
    assert len({train.svd for train in line}) == 1, "the directions of the original weights"
    for score in (stage for stage in asked if isinstance(stage, Score)):
        assert [task.name for task in score.benchmarks] == PAPER


def test_any_order_and_length() -> None:
    line = trainings(compose(["pipeline=continual", "method=lora", "pipeline.order=[code,mmlu]"]))
    assert [train.name() for train in line] == ["lora-code-s42", "lora-code+mmlu-s42"]
    assert len(trainings(compose(["pipeline=continual", "method=lora", "pipeline.order=[code]"]))) == 1


class Own(GSM8K):
    """A task of one's own."""

    name: ClassVar[str] = "own"


def test_a_task_of_ones_own_is_trained_and_is_a_column(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(TASKS, "own", f"{__name__}:Own")
    with pytest.raises(UserError, match=r"There is no .*own\.yaml, which says how the task own is asked"):
        compose(["pipeline=continual", "pipeline.order=[own,mmlu]"])
    shutil.copytree(conf_dir.CONF_DIR, tmp_path / "conf")
    (tmp_path / "conf/task/own.yaml").write_text("name: own\nmax_new_tokens: 6\n")
    monkeypatch.setattr(conf_dir, "CONF_DIR", tmp_path / "conf")
    asked = stages(compose(["pipeline=continual", "method=lora", "pipeline.order=[own,mmlu]"]))
    assert [stage.task.name for stage in asked if isinstance(stage, Train)] == ["own", "mmlu"]
    columns = {tuple(task.name for task in stage.benchmarks) for stage in asked if isinstance(stage, Score)}
    assert columns == {(*PAPER, "own")}
    assert [task.max_new_tokens for task in asked[0].benchmarks if task.name == "own"] == [6]
    assert len(stages(compose(["method=lora"]))[-1].benchmarks) == 4, "no other run is scored on it"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["pipeline.order=[mmlu,alpaca]"], "pipeline.order names alpaca; choose among mmlu, scienceqa, gsm8k, code"),
        (["pipeline.order=[mmlu,code,mmlu]"], r"pipeline.order=\[mmlu,code,mmlu\] names a value twice"),
        (["pipeline.order=[]"], r"pipeline.order=\[\] must have at least 1"),
        (["pipeline.optimizer=keep"], "pipeline.optimizer=keep is not known; choose one of reset, carry"),
    ],
)
def test_what_is_no_line_is_refused(words: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        compose(["pipeline=continual", *words])


def test_the_optimizer_is_part_of_the_identity_and_leaves_the_first_stage_alone() -> None:
    reset = trainings(compose(["pipeline=continual", "method=lora"]))
    carry = trainings(compose(["pipeline=continual", "method=lora", "pipeline.optimizer=carry"]))
    assert [one.id == other.id for one, other in zip(reset, carry, strict=True)] == [True, False, False, False]
    assert all(train.keep_optimizer for train in carry)
    olora = compose(["pipeline=continual", "method=olora", "pipeline.optimizer=carry"])
    with pytest.raises(UserError, match=r"method=olora trains new factors on every task.*pipeline.optimizer=reset"):
        olora.stages()


SHORT = ["pipeline=continual", "method=lora", "pipeline.order=[gsm8k,mmlu]"]


def test_what_a_run_made_is_reused(configured: Callable[..., Config], scores: Scores) -> None:
    single = Run(configured("method=lora", "task=gsm8k"))
    first = Run(configured(*SHORT))
    assert first.made == ["train", "score"], "the backbone and stage 1 were there"
    again = Run(configured(*SHORT))
    assert again.made == []
    assert again.record == first.record
    assert first.outcomes[1].record == single.outcomes[0].record
    assert first.outcomes[0].record == single.outcomes[1].record


@pytest.mark.usefixtures("scores")
def test_the_matrix_is_printed(configured: Callable[..., Config]) -> None:
    config = configured(*SHORT)
    engine = Engine(Store(config.places), Tracking(enabled=False, folder=config.places.outputs))
    printed = describe(engine.run(config.stages()), engine)
    rows = [line.split() for line in printed.splitlines()]
    # The scores of the three models are 0.01, 0.02 and 0.03, everywhere.
    assert rows[1][0] == "n"
    assert rows[2] == ["0", "backbone", *["0.010"] * 5]
    assert rows[4] == ["2", "mmlu", *["0.030"] * 5]
    assert "AvgAcc 3.00 %, Forgetting -1.00 pp, BWT +1.00 pp, FWT +1.00 pp" in printed
    assert "Forgotten outside" not in printed


def started_with(config: Config) -> list[int]:
    """Entries of AdamW's state before the first step of each training that a run makes."""
    from hiplora.training import loop

    found: list[int] = []
    begin = loop.Session.on_train_begin

    def look(self: Any, *args: Any, **kwargs: Any) -> None:
        found.append(len(self.trainer.adamw.state_dict()["state"]))
        begin(self, *args, **kwargs)

    with patch.object(loop.Session, "on_train_begin", look):
        Run(config)
    return found


@pytest.mark.usefixtures("scores")
def test_carried_moments_are_those_of_the_stage_before(configured: Callable[..., Config]) -> None:
    carry = configured(*SHORT, "pipeline.optimizer=carry")
    first, second = started_with(carry)
    assert (first, second > 0) == (0, True)
    one, two = trainings(carry)
    folders = [carry.places.artefact(train.id, train.where()) for train in (one, two)]
    kept = [torch.load(folder / OPTIMIZER, weights_only=True) for folder in folders]
    assert [{float(state["step"]) for state in each.values()} for each in kept] == [{2.0}, {4.0}]
    assert started_with(configured(*SHORT)) == [0], "reset: stage 1 is shared, stage 2 starts afresh"


@pytest.mark.usefixtures("scores")
def test_an_adapter_without_its_optimizers_state_is_trained_again(configured: Callable[..., Config]) -> None:
    first = Run(configured(*SHORT))
    assert Run(configured(*SHORT, "pipeline.optimizer=carry")).made == ["train", "train", "score"]
    assert Run(configured(*SHORT)).record == first.record


@pytest.mark.usefixtures("scores")
@pytest.mark.parametrize("name", ["olora", "osf"])
def test_baselines_run(configured: Callable[..., Config], name: str) -> None:
    config = configured(*SHORT).but(method=compose([f"method={name}"]).method)  # whose options are not all LoRA's
    run = Run(config)
    assert run.made == ["score", *["train", "score"] * 2]
    one, two = (outcome.record.result for outcome in run.outcomes if outcome.record.kind == "train")
    assert two.deployed_parameters == (2 if config.method.fresh_factors else 1) * one.deployed_parameters
