"""The command, with the real configuration and made-up records: plan, run what is missing, render."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hiplora import reproduce
from hiplora.compose import compose, compose_cached
from hiplora.disk import default_cache_dir, write_json
from hiplora.pipelines.base import scores, training
from hiplora.pipelines.single import Single
from hiplora.report.experiment import load, product
from hiplora.report.find import gather, identify
from hiplora.report.frame import Entry, Slot
from hiplora.report.plan import duration
from hiplora.report.table import latex, markdown, to_csv
from hiplora.report.tables import TABLES
from hiplora.stages import record as files
from hiplora.stages.make import Wanted
from hiplora.stages.record import Record
from hiplora.stages.sources import Backbone
from tests.report.evidence import build, everything, labelled

ROOT = Path(reproduce.__file__).resolve().parents[1]


def recorded(entry: Entry, needs: dict[str, str], **changes) -> Record:
    """A fixture of the same label under the identity of a stage."""
    label = dict(zip(("task", "seed"), entry.members[0], strict=True), method="lora") if entry.members else {}
    (fixture,) = labelled(everything, entry.role, **label)
    told = {"id": entry.stage.id, "where": entry.stage.where(), "name": entry.stage.name()}
    return fixture.model_copy(update={**told, "asked": entry.stage.described(), "needs": needs, **changes})


@pytest.fixture(scope="module")
def lora() -> list[Slot]:
    """LoRA's runs of Table 1."""
    return [slot for slot in identify(load("table1"), []) if slot.run.point["method"] == "lora"]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder for results, called the same in every test: what is composed with it is kept for the next."""
    monkeypatch.setenv("HIPLORA_CACHE", str(default_cache_dir().resolve()))
    monkeypatch.chdir(tmp_path)
    return Path("results")


@pytest.fixture
def results(folder, lora) -> Path:
    """A folder of tracked records of all of LoRA's runs."""
    digests: dict[str, str] = {}
    for slot in lora:
        for entry in slot.entries:
            needs = {need.id: digests[need.id] for need in entry.stage.needs()}
            record = recorded(entry, needs)
            digests[record.id] = record.digest
            files.write(folder / "mini/records" / record.kind, record, [])
    return folder


def tracked(results: Path, lora: list[Slot], role: str, number: int = 0) -> tuple[Path, dict]:
    """A record's file and content: of LoRA's first run, MMLU with seed 42, or another."""
    (entry,) = (entry for entry in lora[number].entries if entry.role == role)
    (path,) = (results / "mini/records").glob(f"*/*-{entry.stage.id}.*.json")
    return path, json.loads(path.read_text())


def run(results, *words: str) -> int:
    return reproduce.main(["table1", *words, f"results_dir={results}"])


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


def test_a_figure_is_rendered_as_a_table_is(folder, capsys):
    """Without any record, its picture, points and page are written, and it says what makes it."""
    assert reproduce.main(["figure8", "--render-only", f"results_dir={folder}"]) == 0
    assert "# Figure 8. Merges that keep τ of every task's gain" in capsys.readouterr().out
    assert sorted(path.name for path in (folder / "mini" / "figures").iterdir()) == [
        f"figure8.{end}" for end in ("csv", "md", "pdf", "png")
    ]


def test_render_only_writes_three_files(results, capsys):
    assert run(results, "--render-only") == 0
    assert "| LoRA | 71.0 ± 1.0 (3) |" in capsys.readouterr().out
    assert len(list((results / "mini" / "tables").iterdir())) == 3


def test_records_of_other_settings_are_left_out_and_explained(results, capsys):
    """Same labels, other training: their numbers must not appear."""
    assert run(results, "--render-only", "training.steps=7") == 0
    text = capsys.readouterr().out
    assert "| LoRA | – |" in text
    assert "24 other record(s)" in text
    assert "training.steps=60, not 7 (24)" in text


def test_where_a_run_keeps_its_files_is_no_reason_to_leave_records_out(results, capsys):
    words = ("outputs_dir=elsewhere", "save_basis=true", "training.log_every=3", "model.device=cpu")
    assert run(results, "--render-only", *words) == 0
    text = capsys.readouterr().out
    assert "| LoRA | 71.0 ± 1.0 (3) |" in text
    assert "other record(s)" not in text


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


def test_a_score_of_a_restored_adapter_is_marked(results, lora, capsys):
    path, record = tracked(results, lora, "adapter")
    write_json(path, {**record, "needs": dict.fromkeys(record["needs"], "unknown")})
    assert run(results, "--render-only") == 0
    text = capsys.readouterr().out
    assert "| LoRA | 71.0† ± 1.0 (3) |" in text
    assert "† made from an adapter that was trained again, not from the recorded one (1 records)" in text
    assert run(results, "--plan", "method=lora") == 0
    assert "There: 12 of " in capsys.readouterr().out, "it is there"


def replaced_training(results, lora) -> None:
    """LoRA's first training is forced: its score is of the adapter before."""
    path, record = tracked(results, lora, "train")
    write_json(path, {**record, "digest": "another", "replaced": [record["digest"]]})


def test_a_stale_score_is_marked_counted_as_missing_and_offered(results, lora, capsys, monkeypatch):
    replaced_training(results, lora)
    assert run(results, "--render-only") == 0
    text = capsys.readouterr().out
    assert "| LoRA | 71.0‡ ± 1.0 (3) |" in text
    assert "‡ stale" in text
    assert f"results_dir={results} method=lora task=mmlu seed=42\n" in text
    assert run(results, "--plan") == 0
    text = capsys.readouterr().out
    row = next(line for line in text.splitlines() if line.startswith("  LoRA "))
    assert row.split()[1:4] == ["2/3", "(1", "stale)"]
    assert "There: 11 of " in text
    assert ", 1 of them stale: " in text
    assert "method=lora task=mmlu seed=42" in text
    started = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: started.append(command) or _well(command))
    assert run(results, "method=lora") == 1
    assert [command[4:] for command in started] == [
        [f"results_dir={results}", "method=lora", "task=mmlu", "seed=42"],
    ]


def _well(command):
    return subprocess.CompletedProcess(command, returncode=0)


def test_a_stale_run_trains_its_adapter_again_where_it_is_gone(results, lora, capsys):
    replaced_training(results, lora)
    assert run(results, "--plan") == 0
    assert "1 of these train an adapter again that is no longer under outputs/" in capsys.readouterr().out


def test_records_of_a_dirty_tree_are_marked(results, lora, capsys):
    path, record = tracked(results, lora, "adapter", number=3)  # GSM8K with seed 42
    write_json(path, {**record, "environment": {**record["environment"], "git_dirty": True}})
    assert run(results, "--render-only") == 0
    text = capsys.readouterr().out
    assert "| LoRA | 71.0 ± 1.0 (3) | 26.0* ± 1.0 (3) |" in text
    assert "4.50* ± 0.71 (2/3)" in text, "Retain stands on it too"
    assert "* made from a checkout with uncommitted changes (1 records)" in text


def test_a_broken_record_is_named_and_stops_nothing(results, lora, capsys):
    path, _ = tracked(results, lora, "adapter")
    path.write_text("{")
    assert run(results, "--render-only") == 0
    text = capsys.readouterr().out
    assert "| LoRA | 71.5 ± 0.7 (2/3) |" in text
    assert f"Left out and counted as missing: {path} is not a record" in text
    assert run(results, "--plan") == 0
    text = capsys.readouterr().out
    assert "There: 11 of " in text
    assert f"Note: Left out and counted as missing: {path}" in text


def elsewhere(results: Path, count: int) -> str:
    """All but ``count`` records become those of another device."""
    paths = sorted((results / "mini/records").glob("*/*.json"))
    for path in paths[count:]:
        record = json.loads(path.read_text())
        write_json(
            path.with_name(path.name.replace(record["where"], "tpu-float64")), {**record, "where": "tpu-float64"}
        )
        path.unlink()
    return json.loads(paths[0].read_text())["where"] if count else ""


def test_a_table_is_of_one_device_and_arithmetic(results, capsys):
    here = elsewhere(results, 2)
    assert run(results, "--render-only") == 0
    text = capsys.readouterr().out
    assert "Computed as tpu-float64." in text
    assert "2 record(s) of the same stages are left out, as they are not of tpu-float64." in text
    assert run(results, "--plan") == 0
    text = capsys.readouterr().out
    assert "records of tpu-float64" in text
    assert f"This machine would record them as {here}, which a table of tpu-float64 does not use." in text


def test_a_complete_table_of_another_device_runs_nothing(results, capsys):
    elsewhere(results, 0)
    assert run(results, "--render-only") == 0
    text = capsys.readouterr().out
    assert "| LoRA | 71.0 ± 1.0 (3) |" in text
    assert "are left out" not in text


def test_a_tie_goes_to_the_first_by_name(results, lora):
    elsewhere(results, 0)
    for path in sorted((results / "mini/records").glob("*/*.json")):
        record = json.loads(path.read_text())
        write_json(path.with_name(path.name.replace("tpu-", "gpu-")), {**record, "where": "gpu-float64"})
    slots = identify(load("table1"), [f"results_dir={results}"])
    found = gather(load("table1"), slots, settings=[], command="")
    assert found.where == "gpu-float64"


def test_a_table_without_records_is_of_this_machine(folder, lora):
    slots = identify(load("table1"), [f"results_dir={folder}"])
    assert gather(load("table1"), slots, settings=[], command="").where == lora[0].entries[0].stage.where()


def test_rows_that_selection_made_one_are_no_fault_of_a_setting(folder):
    """Where the best HiP-LoRA is also the best whose channel moves, two rows of Table 16 are the same runs."""
    axes = {"method": {"hip": "method=hip", "hip_gated": "method=hip"}, "task": ["gsm8k"], "seed": ["42"]}
    runs = product("frontier", {"pipeline": "frontier", "axes": axes})
    first, second = identify(replace(load("table16"), runs=runs), [f"results_dir={folder}"])
    assert [entry.stage.id for entry in first.entries] == [entry.stage.id for entry in second.entries]


def test_every_table_is_as_its_tracked_records_say(monkeypatch):
    """Tables under results/mini/tables are those that the records render; one without a record yet is not compared."""
    monkeypatch.chdir(ROOT)
    if not any((compose_cached([]).places.results / "tables").glob("*")):
        pytest.skip("no table is rendered yet")
    compared = []
    for name in TABLES:
        experiment = load(name)
        slots = identify(experiment, [])
        found = gather(experiment, slots, settings=[], command=f"python -m hiplora.reproduce {name}")
        if found.recorded:
            compared.append(name)
        if found.recorded or (not slots and (found.folder / "tables" / f"{name}.md").is_file()):
            table = build(name, found)
            texts = {"md": markdown(table), "csv": to_csv(table.cells), "tex": latex(table)}
            for ending, text in texts.items():
                path = found.folder / "tables" / f"{name}.{ending}"
                assert path.read_text() == text, f"{path} is not what make render-{name} writes"
    print(f"Compared with the tracked records: {', '.join(compared) or 'no table, as none has a record yet'}")


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


def write_plain(path: Path, record: Record) -> None:
    path.write_text(json.dumps({"schema": files.SCHEMA, **record.model_dump()}))


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
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert sentence in error
    assert "Traceback" not in error


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
