"""Which runs are started, with which words; and which requests are refused before any."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hiplora import reproduce
from hiplora.compose import compose
from tests.reproduce.helpers import ROOT, run


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
    # The plan, of that part, comes before the first run, so that nobody starts hours of training unawares.
    plan, start = printed.err.index("There: 1 of 5 runs. 4 to run"), printed.err.index("Running them now")
    assert plan < start < printed.err.index("$ python")


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


def test_what_is_refused_for_one_keeps_no_other(results, monkeypatch, capsys):
    """Table 4 stands on no run and takes no settings; the reason is said once, at the end, and decides the status."""
    monkeypatch.setattr(reproduce, "TABLES", ("table4", "table1"))
    assert reproduce.main(["tables", "--plan", "training.steps=7", f"results_dir={results}"]) == 0
    assert "table4: " in (text := capsys.readouterr().out)
    assert "There: 0 of 0 runs. Nothing to run." in text
    assert reproduce.main(["tables", "--render-only", "training.steps=7", f"results_dir={results}"]) == 2
    printed = capsys.readouterr()
    assert "# Table 1." in printed.out
    assert printed.err.rstrip().splitlines()[-1].startswith("error: table4: Table 4 shows conf/ as it is")


def test_it_is_refused_in_one_sentence_where_several_processes_would_make_it(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert reproduce.main(["table4", "--plan"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_plan_whose_reader_has_gone_ends_quietly():
    command = [sys.executable, "-m", "hiplora.reproduce", "table4", "--plan"]
    plan = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    plan.stdout.close()
    with plan.stderr:
        assert plan.stderr.read() == b""
    assert plan.wait() == 0


def one_hip() -> list[str]:
    """The settings that make one method of the two parameterisations."""
    hip, absolute = (compose([f"method={name}"]).method.fields() for name in ("hip", "hip_absolute"))
    return [f"method.{field}={value}" for field, value in absolute.items() if value != hip[field]]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["table99"], "There is no experiment 'table99'"),
        (["table1", "seed=7"], "not part of table1"),
        (["table5", "trainin.steps=3"], "trainin"),
        (["table5", "--plan", "scale=huge"], "huge"),
        (["table1", "--plan", *one_hip()], "hip and method=hip_absolute are the same run"),
    ],
)
def test_wrong_requests_end_with_one_sentence(words, sentence, capsys):
    assert reproduce.main(words) == 2
    printed = capsys.readouterr().err
    error = printed.splitlines()[-1]  # above it may stand that it waited for another process
    assert error.startswith("error: ")
    assert sentence in error
    assert "Traceback" not in printed
