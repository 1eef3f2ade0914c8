"""Which records a table uses: stale and restored ones with a mark, no broken ones, those of one device only."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from hiplora.disk import write_json
from hiplora.report.experiment import load
from hiplora.report.find import gather, identify
from tests.reproduce.helpers import run, tracked


def test_a_score_of_a_restored_adapter_is_marked(results, lora, capsys):
    path, record = tracked(results, lora, "adapter")
    write_json(path, {**record, "needs": dict.fromkeys(record["needs"], "unknown")})
    assert run(results, "--render-only") == 0
    text = capsys.readouterr().out
    assert "| LoRA | 71.0† ± 1.0 (3) |" in text
    assert "† made from an adapter that was trained again, not from the recorded one (1 records)" in text
    assert run(results, "--plan", "method=lora") == 0
    assert "There: 12 of 12 runs. Nothing to run." in capsys.readouterr().out, "it is there"


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
    assert "* made from a checkout with uncommitted changes, or from such a record (1 records)" in text


def test_a_mark_reaches_everything_made_from_its_record(results, lora, capsys):
    """An adapter trained on from one of a dirty tree, as in continual tuning: its score is two steps away."""
    path, first = tracked(results, lora, "train", number=3)
    write_json(path, {**first, "environment": {**first["environment"], "git_dirty": True}})
    path, second = tracked(results, lora, "train")
    write_json(path, {**second, "needs": {first["id"]: first["digest"]}})
    assert run(results, "--render-only") == 0
    assert "| LoRA | 71.0* ± 1.0 (3) |" in capsys.readouterr().out


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


def _never(*arguments, **options):
    raise AssertionError("nothing was to be run")


def test_a_table_is_of_one_device_and_arithmetic(results, capsys, monkeypatch):
    here = elsewhere(results, 2)
    assert run(results, "--render-only") == 0
    printed = capsys.readouterr()
    assert "Computed as tpu-float64." in printed.out
    assert "Note: 2 record(s) of the same stages are left out, as they are not of tpu-float64." in printed.err
    assert run(results, "--plan") == 0
    text = capsys.readouterr().out
    assert "records of tpu-float64" in text
    sentence = f"This machine would record the missing runs as {here}, which a table of tpu-float64 does not use; "
    assert f"{sentence}to add to those, run them on another device, and for a table of {here} " in text
    monkeypatch.setattr(subprocess, "run", _never)
    assert run(results, "seed=42") == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {sentence}")


def test_a_typed_device_or_arithmetic_chooses_the_records(results, capsys):
    """And is named by them, as a table under the settings of conf/ is."""
    here = elsewhere(results, 2)
    device, _, arithmetic = here.partition("-")
    for word in (f"model.device={device}", f"model.arithmetic={arithmetic}"):
        assert run(results, "--render-only", word) == 0
        text, said = capsys.readouterr()
        assert f"Computed as {here}." in text
        assert "23 record(s) of the same stages are left out" in said
        assert "Not under the settings of conf/" not in text
        assert run(results, "--plan", word) == 0
        assert "does not use" not in capsys.readouterr().out
    assert {path.stem for path in (results / "mini/tables").iterdir()} == {"table1"}


def test_a_plan_names_the_option_that_adds_to_records_of_other_arithmetic(results, capsys):
    here = elsewhere(results, 2)
    other = {"cpu-bfloat16": "float32", "cpu-float32": "bfloat16"}[here]
    for path in (results / "mini/records").glob("*/*.tpu-float64.json"):
        record = json.loads(path.read_text())
        write_json(
            path.with_name(path.name.replace("tpu-float64", f"cpu-{other}")), {**record, "where": f"cpu-{other}"}
        )
        path.unlink()
    assert run(results, "--plan") == 0
    assert f"does not use; to add to those, type model.arithmetic={other}, and for " in capsys.readouterr().out


def test_a_complete_table_of_another_device_runs_nothing(results, capsys):
    elsewhere(results, 0)
    assert run(results, "--render-only") == 0
    printed = capsys.readouterr()
    assert "| LoRA | 71.0 ± 1.0 (3) |" in printed.out
    assert "are left out" not in printed.out + printed.err


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
