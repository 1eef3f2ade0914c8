"""The command, with the real configuration and made-up records: plan, run what is missing, render."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hiplora import compose as composition
from hiplora import reproduce, scheduler
from hiplora.config import digest
from hiplora.disk import write_json
from hiplora.records import records_dir
from hiplora.report.experiment import Wanted
from hiplora.report.grid import compose_all
from tests.report.evidence import fixture_records


def identity(config) -> str:
    """Stands for the scheduler's, which reads the backbone and the benchmarks."""
    return digest({key: value for key, value in config.resolved().items() if key != "results_dir"})


@pytest.fixture(scope="module")
def lora_records():
    """LoRA's fixtures under the identities that the composed configurations have."""
    records = [record for record in fixture_records("single") if record["labels"]["method"] == "lora"]
    for record in records:
        parts = tuple((f"{axis}={record['labels'][axis]}",) for axis in ("method", "task", "seed"))
        record["wanted"] = Wanted(group="single", pipeline="single", point={}, fixed=(), parts=parts)
    for record, config in zip(
        records, compose_all([r.pop("wanted") for r in records], composition.compose), strict=True
    ):
        record.update(id=identity(config), config=config.resolved())
    return records


@pytest.fixture
def results(tmp_path, monkeypatch, lora_records):
    monkeypatch.setattr(scheduler, "record_id", identity)
    for record in lora_records:
        write_json(records_dir(tmp_path / "mini", "single") / f"{record['id']}.json", record)
    return tmp_path


def run(results, *words: str) -> int:
    return reproduce.main(["table1", *words, f"results_dir={results}"])


def test_plan_says_what_is_there_and_what_fills_the_rest(results, capsys):
    assert run(results, "--plan") == 0
    text = capsys.readouterr().out
    assert [line.split() for line in text.splitlines() if line.startswith("  LoRA ")] == [["LoRA", *["3/3"] * 4]]
    assert "There: 12 of " in text
    # Every past run took 150 s; the missing ones of other methods are estimated from the same task.
    missing = int(text.split(" to run")[0].split()[-1])
    assert f"about {missing * 150 // 3600} h" in text
    assert "method=proj" in text
    assert not (results / "mini" / "tables").exists()


def test_plan_goes_by_runs_that_do_as_much(results, capsys, lora_records):
    """One run of 7 steps that took 20 s says more of others of 7 steps than twelve longer ones do."""
    config = composition.compose(["method=lora", "task=gsm8k", "seed=42", "training.steps=7"])
    short = lora_records[0] | {"id": identity(config), "config": config.resolved(), "timings": {"train_s": 20.0}}
    del short["config"]["data"]["revisions"]  # a record may be older than a field that is null
    write_json(records_dir(results / "mini", "single") / f"{short['id']}.json", short)
    assert run(results, "--plan", "training.steps=7") == 0
    text = capsys.readouterr().out
    missing = int(text.split(" to run")[0].split()[-1])
    assert f"about {round(missing * 20 / 60)} min" in text


def test_render_only_writes_three_files(results, capsys):
    assert run(results, "--render-only") == 0
    assert "| LoRA | 71.0 ± 1.0 (3) |" in capsys.readouterr().out
    assert len(list((results / "mini" / "tables").iterdir())) == 3


def test_records_of_other_settings_are_left_out_and_explained(results, capsys):
    """Same labels, other training: their numbers must not appear."""
    assert run(results, "--render-only", "training.steps=7") == 0
    text = capsys.readouterr().out
    assert "| LoRA | – |" in text
    assert "12 other record(s)" in text
    assert "training.steps=60, not 7" in text


def test_a_table_under_other_settings_says_so_and_leaves_the_table_alone(results, capsys):
    assert run(results, "--render-only") == 0
    plain = capsys.readouterr().out
    tables = results / "mini" / "tables"
    before = {path.name: path.read_bytes() for path in tables.iterdir()}
    assert run(results, "--render-only", "training.steps=7", "hydra/launcher=basic", "seed=42") == 0
    text = capsys.readouterr().out
    assert "Not under the settings of conf/, but with training.steps=7." in text
    assert f"python -m hiplora.reproduce table1 training.steps=7 results_dir={results}\n" in text
    assert "Not under" not in plain
    names = {path.name for path in tables.iterdir()}
    assert len(names) == 6
    assert {name: (tables / name).read_bytes() for name in before} == before


def test_missing_runs_go_to_hydra_and_a_failed_sweep_stops_nothing(results, capsys, monkeypatch):
    started = []

    def launch(command, check):
        started.append(command)
        return subprocess.CompletedProcess(command, returncode=1)

    monkeypatch.setattr(subprocess, "run", launch)
    assert run(results, "hydra/launcher=basic", "seed=42", "task=mmlu", "method.stability=1") == 1
    assert [command[:4] for command in started] == [[sys.executable, "-m", "hiplora.run", "-m"]] * len(started)
    assert len(started) > 1
    assert all("hydra/launcher=basic" in command and "task=mmlu" in command for command in started)
    made = {word for command in started for word in command}
    assert f"results_dir={results}" in made
    # The option goes to the methods that have it, and to no other.
    assert all(("method.stability=1" in c) == any("method=hip" in word for word in c) for c in started)
    printed = capsys.readouterr()
    assert "| LoRA | 71.0 ± 1.0 (3) |" in printed.out
    # The plan comes before the first run, so that nobody starts hours of training unawares.
    assert (
        0 <= printed.err.index("There: 12 of ") < printed.err.index("Running them now") < printed.err.index("$ python")
    )


@pytest.fixture
def nothing_starts(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("nothing was to be run")

    monkeypatch.setattr(subprocess, "run", refuse)


@pytest.mark.usefixtures("nothing_starts")
def test_nothing_is_run_when_that_part_is_complete(results):
    assert run(results, "method=lora") == 0


@pytest.mark.usefixtures("nothing_starts")
def test_a_launcher_that_is_not_there_is_told_before_any_run(results, capsys):
    assert run(results, "hydra/launcher=clould") == 2
    assert "hydra/launcher/clould" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["table99"], "There is no experiment 'table99'"),
        (["table1", "seed=7"], "not part of table1"),
        (["table1", "trainin.steps=3"], "trainin"),
        (["table1", "--plan", "scale=huge"], "huge"),
        (["table1", "--plan", "method.parameterization=absolute"], "hip and method=hip_relative are the same run"),
    ],
)
def test_wrong_requests_end_with_one_sentence(words, sentence, capsys):
    assert reproduce.main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert sentence in error
    assert "Traceback" not in error


def test_planning_never_loads_torch():
    code = "import sys, hiplora.reproduce, hiplora.report.tables.table1, hiplora.compose, hiplora.scheduler; " + (
        "assert not {'torch', 'transformers', 'peft', 'datasets', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
