"""Data of one's own, as a user types it: trained, validated, scored, in a line of trainings, a merge and a table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hiplora.report.experiment import Experiment, product
from hiplora.report.find import gather, identify
from tests.records import by_name, records, scores

pytestmark = pytest.mark.e2e
OFF = "evaluation.code_execution=off"


@pytest.fixture
def questions(tmp_path: Path) -> list[str]:
    """A csv that was written by hand, and the words that name it."""
    rows = [f"Which colour has thing {n}?,{('red', 'green', 'blue')[n % 3]},red,green,blue" for n in range(60)]
    (tmp_path / "own.csv").write_text("\n".join(["q,a,x,y,z", *rows, ""]))
    columns = ["task.columns.prompt=q", "task.columns.answer=a", "task.columns.choices=[x,y,z]"]
    return ["method=lora", "task=custom", f"task.file={tmp_path}/own.csv", *columns, OFF]


@pytest.mark.parametrize("metric", ["exact_match", "choice", "nll"])
def test_it_trains_and_scores_beside_the_four(metric: str, run, questions: list[str], tmp_path: Path) -> None:
    done = run(*questions, f"task.metric={metric}", "task.max_new_tokens=6")
    assert done.returncode == 0, done.stderr
    before, after = records(tmp_path / "results", "score")
    for record in (before, after):
        assert list(record["result"]["benchmarks"])[:5] == ["mmlu", "scienceqa", "gsm8k", "code", "custom"]
        own = record["result"]["benchmarks"]["custom"]
        assert (own["n"], own["acc"] is None) == (4, metric == "nll")
        assert own["nll"] > 0
        assert record["asked"]["reads"].keys() >= {"custom/test held out of train"}
        assert str(tmp_path) not in json.dumps(record)
    (train,) = records(tmp_path / "results", "train")
    assert (train["name"], train["result"]["examples"] < 60) == ("lora-custom-s42", True)
    assert "Forgotten outside custom" in done.stdout
    (path,) = (tmp_path / "results/mini/records/score").glob("lora-*.predictions.jsonl.gz")
    assert path.is_file()


def test_validation_is_another_part(run, questions: list[str], tmp_path: Path) -> None:
    done = run(*questions, "pipeline=backbone", "task.metric=contains", "evaluation.splits=validation")
    assert done.returncode == 0, done.stderr
    (record,) = records(tmp_path / "results", "score")
    assert record["asked"]["reads"].keys() >= {"custom/validation held out of train"}


def test_a_stage_of_continual_tuning(run, questions: list[str], tmp_path: Path) -> None:
    done = run(*questions, "task.metric=choice", "pipeline=continual", "pipeline.order=[custom,gsm8k]")
    assert done.returncode == 0, done.stderr
    assert set(by_name(tmp_path / "results", "train")) == {"lora-custom-s42", "lora-custom+gsm8k-s42"}
    assert "custom acc" in done.stdout.splitlines()[0]


def test_a_member_of_a_merge_and_a_row_of_a_table(run, arguments, questions: list[str], tmp_path: Path) -> None:
    small = ["merging.sizes=[2]", "merging.instances=1", "merging.training_seeds=[42]"]
    done = run(*questions, "task.metric=choice", "pipeline=merge", "pipeline.members=[custom]", *small)
    assert done.returncode == 0, done.stderr
    (merged,) = scores(tmp_path / "results", "merged")
    assert merged["name"].startswith("lora-addition-custom.42+")
    assert "custom" in merged["result"]["benchmarks"]

    words = [*arguments, *(word for word in questions if not word.startswith("task=")), "task.metric=choice"]
    raw = {"pipeline": "single", "axes": {"task": ["custom"], "seed": [42]}, "overrides": words}
    grid = Experiment(name="own", title="Own", labels={}, runs=product("own", raw), paper={})
    evidence = gather(grid, identify(grid, []), settings=[], command="make own")
    (slot,) = evidence.slots
    assert slot.config is not None
    missing = {entry.role for entry in slot.entries if entry.record is None}
    assert missing == {"backbone"}, "its run is what the merge has trained and scored"
    (own,) = evidence.measure("own", [0])
    assert 0 <= own.value <= 100
