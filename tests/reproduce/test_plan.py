"""What a plan says: what is there, what fills the rest, how long that takes; and what it costs to say so."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hiplora import reproduce
from hiplora.pipelines.base import scores, training
from hiplora.pipelines.single import Single
from hiplora.report import plan
from hiplora.report.experiment import load
from hiplora.report.find import gather, identify
from hiplora.report.plan import duration
from hiplora.report.tables import TABLES
from hiplora.stages import record as files
from hiplora.stages.make import Wanted
from hiplora.stages.record import Record
from hiplora.stages.sources import Backbone
from tests.report.evidence import everything, labelled
from tests.reproduce.helpers import ROOT, recorded, run


def test_plan_says_what_is_there_and_what_fills_the_rest(results, capsys):
    assert run(results, "--plan") == 0
    text = capsys.readouterr().out
    assert [line.split() for line in text.splitlines() if line.startswith("  LoRA ")] == [["LoRA", *["3/3"] * 4]]
    assert "There: 12 of " in text
    # Every past training took 100 s, every scoring 50 s; those of other methods are estimated from the same task.
    missing = int(text.split(" to run")[0].split()[-1])
    assert f"{2 * missing} stages ({missing} train, {missing} score)" in text
    assert f"about {missing * 150 // 3600} h" in text
    assert "method=proj" in text
    assert not (results / "mini" / "tables").exists()


def test_a_plan_of_a_part_of_the_grid_says_what_that_part_needs(results, capsys):
    assert run(results, "--plan", "method=hip", "seed=42,100") == 0
    text = capsys.readouterr().out
    assert "There: 0 of 8 runs. 8 to run" in text
    assert "method=hip task=mmlu,gsm8k,code,scienceqa seed=42,100\n" in text
    assert "LoRA " not in text.replace("HiP-LoRA ", "")
    assert text.rstrip().endswith(f"python -m hiplora.reproduce table1 method=hip seed=42,100 results_dir={results}")


def test_plan_goes_by_runs_that_do_as_much(results, capsys):
    """One training of 7 steps that took 20 s says more of others of 7 steps than twelve longer ones do."""
    slot = next(slot for slot in identify(load("table1"), ["training.steps=7"]) if slot.run.point["method"] == "lora")
    train = next(entry for entry in slot.entries if entry.role == "train")
    record = recorded(train, {})
    result = record.result.model_copy(update={"seconds": 20.0})
    files.write(results / "mini/records/train", record.model_copy(update={"result": result}), [])
    assert run(results, "--plan", "training.steps=7") == 0
    text = capsys.readouterr().out
    stages = text.split("stages (")[1].split(")")[0]
    trainings, scorings = (int(part.split()[0]) for part in stages.split(", "))
    assert f"about {duration(trainings * 20 + scorings * 50)} one after another" in text


def test_a_stage_whose_records_hold_no_time_is_not_estimated(results, capsys):
    """A record of Table 5 holds speeds; how long it took to measure them is in none."""
    ((entry,),) = (slot.entries for slot in identify(load("table5"), []))
    files.write(results / "mini/records/efficiency", recorded(entry, {}), [])
    assert reproduce.main(["table5", "--plan", "efficiency.repetitions=12", f"results_dir={results}"]) == 0
    assert "1 to run: 1 stages (1 efficiency), their time unknown" in capsys.readouterr().out


def test_what_is_recorded_here_in_another_arithmetic_is_not_made_again(results, lora):
    """The table is of another arithmetic; all that it lacks is one run, which this machine has in its own."""
    own = {entry.stage.id for entry in lora[0].entries}
    for path in (results / "mini/records").glob("*/*.json"):
        record = files.read(path)
        assert record is not None
        if record.id not in own or record.name.startswith("backbone"):
            files.write(path.parent, record.model_copy(update={"where": "cpu-other"}), [])
        if record.id not in own:
            path.unlink()
    evidence = gather(load("table1"), lora, settings=[f"results_dir={results}"], command="make table1")
    assert evidence.where == "cpu-other"
    assert "1 to run: this machine has its own records of all their stages. This machine would" in plan.text(evidence)


def write_plain(path: Path, record: Record) -> None:
    path.write_text(json.dumps({"schema": files.SCHEMA, **record.model_dump()}))


def test_a_plan_over_two_thousand_records_reads_each_once(results, lora, monkeypatch, capsys):
    """Records that nobody asks for are read for their times alone; a table reads none of them."""
    (record,) = labelled(everything, "adapter", method="lora", task="mmlu", seed=42)
    folder = results / "mini/records/score"
    for number in range(2000):
        other = record.model_copy(update={"id": f"{number:012x}", "name": f"other-{number}"})
        write_plain(folder / f"{other.stem}.json", other)
    read = []
    original = files.read
    monkeypatch.setattr(files, "read", lambda path: read.append(path) or original(path))
    assert run(results, "--render-only") == 0
    assert len(read) == len(set(read)) == 12 + 12 + 1
    read.clear()
    assert run(results, "--plan") == 0
    assert len(read) == len(set(read)) == 2000 + 25
    assert "There: 12 of " in capsys.readouterr().out


def test_a_pipeline_that_needs_results_is_planned_as_far_as_they_go(results, monkeypatch, capsys):
    """One that asks for its scores only when it has seen the training."""

    def stages(self, config):
        train = training(config)
        (record,) = yield Wanted(train)
        assert record.kind == "train"
        yield [Wanted(scores(config, Backbone(model=config.model))), Wanted(scores(config, train))]

    monkeypatch.setattr(Single, "stages", stages)
    assert run(results, "--plan") == 0
    text = capsys.readouterr().out
    assert "There: 12 of " in text
    missing = int(text.split(" to run")[0].split()[-1])
    assert f"at least {missing} stages ({missing} train), at least about" in text
    assert run(results, "--render-only") == 0
    assert "| LoRA | 71.0 ± 1.0 (3) |" in capsys.readouterr().out


def test_all_stands_for_every_table(results, monkeypatch, capsys):
    monkeypatch.setattr(reproduce, "TABLES", names := ("table1", "table12"))
    monkeypatch.setattr(reproduce, "FIGURES", ())
    assert reproduce.main(["all", "--plan", f"results_dir={results}"]) == 0
    text = capsys.readouterr().out
    assert [line.split(":")[0] for line in text.splitlines() if line.split(":")[0] in TABLES] == list(names)


@pytest.mark.parametrize("name", ["table3", "table5", "table8", "figure6"])
def test_a_grid_of_few_axes_or_none_but_seeds_is_planned(name, tmp_path, capsys):
    assert reproduce.main([name, "--plan", f"results_dir={tmp_path}"]) == 0
    text = capsys.readouterr().out
    wanted = int(re.search(r"There: 0 of (\d+) runs", text)[1])
    assert sum(map(int, re.findall(r" 0/(\d+)", text))) == wanted > 0


def test_planning_and_rendering_never_load_torch(results):
    """Nor what a plan does not need: only intervals over seeds need scipy."""
    code = (
        "import sys; from hiplora import reproduce; "
        f"assert reproduce.main(['table1', '--plan', 'results_dir={results}']) == 0; "
        "assert 'scipy' not in sys.modules; "
        f"assert reproduce.main(['table1', '--render-only', 'results_dir={results}']) == 0; "
        "loaded = {'torch', 'transformers', 'peft', 'datasets', 'lm_eval'} & set(sys.modules); "
        "assert not loaded, loaded"
    )
    path = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, env=path)
