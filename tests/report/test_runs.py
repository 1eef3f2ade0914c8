"""``python -m hiplora.runs`` on made-up records: filters, one record with its predictions, two beside each other."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hiplora import runs
from hiplora.compose import compose_cached
from hiplora.errors import UserError
from hiplora.report.runs.fields import flat, split
from hiplora.report.runs.predictions import flips, right
from hiplora.report.runs.prompts import data_words
from hiplora.stages.record import read, result_digest, write
from hiplora.tasks.source import Source
from tests.report.simulated import ITEMS, Simulation

Said = Callable[..., str]


@pytest.fixture(scope="module")
def made(elsewhere: Path) -> Simulation:
    """LoRA and HiP-LoRA on two tasks, a training seed each, beside the backbone."""
    simulation = Simulation(elsewhere)
    simulation.experiment("table1", method=["lora", "hip"], task=["gsm8k", "code"], seed=["42"])
    return simulation


@pytest.fixture
def said(made: Simulation, capsys: pytest.CaptureFixture[str]) -> Said:
    def command(*words: str, status: int = 0) -> str:
        assert runs.main([*words]) == status
        printed = capsys.readouterr()
        return printed.err if status else printed.out

    return command


def ids(text: str) -> set[str]:
    return {each["id"] for each in json.loads(text)}


def of(made: Simulation, kind: str, method: str, task: str) -> str:
    """The id of a record of one adapter."""
    (found,) = (r.id for r in made.made.values() if r.kind == kind and r.name == f"{method}-{task}-s42")
    return found


def test_filters_ask_any_field(made, said):
    everything = list(made.made.values())
    assert ids(said("--json")) == {record.id for record in everything}
    assert ids(said("--json", "kind=train", "method=hip", "task=code")) == {of(made, "train", "hip", "code")}
    assert len(ids(said("--json", "method=hip,lora", "kind!=train"))) == 4
    scores = {r.id: r.result.benchmarks["gsm8k"]["acc"] for r in everything if r.kind == "score"}
    assert ids(said("--json", "gsm8k.acc>0.4")) == {id for id, acc in scores.items() if acc > 0.4}
    assert ids(said("--json", "name=*gsm8k-s42", "training.steps=60", "kind=score", "seed=42")) == {
        of(made, "score", method, "gsm8k") for method in ("lora", "hip")
    }
    first = everything[0]
    assert first.id in ids(said("--json", f"digest={first.digest[:8]}"))
    assert ids(said("--json", "method=HIP", "kind=train")) == ids(said("--json", "method=hip", "kind=train"))
    day = first.started[:10]
    assert ids(said("--json", f"made={day}")) == ids(said("--json", f"made>={day}")) == {r.id for r in everything}
    assert ids(said("--json", f"started<{day}")) == ids(said("--json", f"made>{day}")) == set()
    assert ids(said("--json", f"made<={first.started[:16]}")) >= {first.id}
    listed = said("kind=train", "--columns", "training.lr,top_share")
    assert "4 of 9 records" in listed
    assert "loss " in listed
    assert "0.2 " in listed


def test_what_is_no_filter_is_refused_in_a_sentence(said):
    assert "type field=value" in said("hip", status=2)
    assert "No record has a field rank" in said("rank=3", status=2)
    assert "steps can be training.steps, result.steps" in said("steps=60", status=2)
    assert "is not a number" in said("gsm8k.acc>much", status=2)
    assert "is not a date" in said("made>yesterday", status=2)
    assert "has no record ffff" in said("show", "ffffffffffff", status=2)
    assert "two records" in said("diff", "3f2a", status=2)


def test_one_record_with_prompts_that_are_those_of_the_record(made, said):
    id = of(made, "score", "lora", "gsm8k")
    _, items = made._items["gsm8k"]
    shown = said("show", id[:9], "--predictions", "all")
    assert items[0]["question"] in shown
    assert "method " in shown
    samples = [s for s in _samples(made, id) if s["benchmark"] == "gsm8k"]
    assert f"gsm8k, {sum(s['acc'] for s in samples):.0f} of {ITEMS} right" in shown
    path = next(made.folder.glob(f"records/score/*{id}*.gz"))
    about = path.with_name(path.name.replace(".predictions.jsonl.gz", ".json"))
    kept = {file: file.read_bytes() for file in (path, about)}
    record, other = read(about), _with_other_prompts(kept[path])
    write(path.parent, record.model_copy(update={"digest": result_digest(record.result, other)}), other)
    changed = said("show", id, "--predictions", "all")
    assert items[0]["question"] not in changed
    assert "differs from the data here" in changed
    path.unlink()
    damaged = said("show", id)
    assert "holds the predictions of" in damaged.splitlines()[-1]
    accuracy = f"{made.made[id].result.benchmarks['gsm8k']['acc']:.6g}"
    assert ["gsm8k.acc", accuracy] in [line.split() for line in damaged.splitlines()]
    assert "holds the predictions of" in said("diff", id, of(made, "score", "hip", "gsm8k"))
    assert "holds the predictions of" in said("show", id, "--json", status=2)
    for file, content in kept.items():
        file.write_bytes(content)


def _with_other_prompts(content: bytes) -> list[dict]:
    lines = [json.loads(line) for line in gzip.decompress(content).splitlines()]
    return [{**line, "prompt_hash": "0" * 16} for line in lines]


def _samples(made: Simulation, id: str) -> list[dict]:
    (path,) = made.folder.glob(f"records/score/*{id}*.gz")
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def test_two_records_differ_in_settings_numbers_and_items(made, said):
    one, two = of(made, "score", "lora", "gsm8k"), of(made, "score", "hip", "gsm8k")
    shown = said("diff", one, two, "--predictions", "1")
    assert any(line.split() == ["method", "lora", "hip"] for line in shown.splitlines())
    left, right_ = (made.made[id].result.benchmarks["code"]["nll"] for id in (one, two))
    assert f"{right_ - left:+.6g}" in shown
    pairs = list(zip(_samples(made, one), _samples(made, two), strict=True))
    lost = [a["id"] for a, b in pairs if a["benchmark"] == "code" and _well(a) and not _well(b)]
    gained = [a["id"] for a, b in pairs if a["benchmark"] == "code" and _well(b) and not _well(a)]
    assert f"code: right in A alone {len(lost)}, in B alone {len(gained)}" in shown
    found = json.loads(said("diff", one, two, "--json"))
    assert (found["items"]["code"]["lost"], found["items"]["code"]["gained"]) == (lost, gained)
    assert found["fields"]["method"] == ["lora", "hip"]


def test_a_record_of_edits_is_shown_with_the_probes_of_its_split(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    simulation = Simulation(tmp_path / "results/mini")
    simulation.experiment("table8", method=["lora"], seed=["42"])
    edited = [record for record in simulation.made.values() if record.kind == "edit"]
    assert {split(record) for record in edited} == {"validation"}
    item, *_ = simulation._items["gsm8k"][0].test_items(Source(simulation.config.data), "validation")
    assert runs.main(["show", edited[0].id]) == 0
    printed = capsys.readouterr().out
    assert item["question"] in printed
    fact = next(each for each in simulation.config.edits.items() if each.id == "entity-0001")
    assert f"prompt {fact.prompt}\n    right  {fact.new}\n    given   the old" in printed
    assert runs.main(["diff", *(record.id for record in edited)]) == 0
    drawn = edited[0].model_copy(update={"asked": {**edited[0].asked, "evaluation": ["validation", "drawn"]}})
    assert split(drawn) == "validation"


def _well(sample: dict) -> bool:
    return sample["verdicts"][0] == "passed"


def test_items_of_another_content_are_not_compared():
    one = {"a": {"acc": 1.0, "doc_hash": "x"}, "b": {"acc": 1.0, "doc_hash": "x"}, "c": {"nll": 1.0}}
    two = {"a": {"acc": 0.0, "doc_hash": "x"}, "b": {"acc": 0.0, "doc_hash": "y"}, "c": {"nll": 2.0}, "d": {}}
    found = flips(one, two)
    assert (found.lost, found.gained, found.other) == (["a"], [], 3)
    assert right({"verdicts": ["passed", "failed"]}) is True
    assert right({"verdicts": ["passed", "failed", "timeout"]}) is False


def test_fields_are_called_as_they_are_typed():
    tree = {"of": {"kind": "adapter", "train": {"method": {"name": "hip", "r": 4}, "seed": 1}}, "benchmarks": [
        {"name": "mmlu", "scoring": "cloze"}], "scales": [0.5, 1.0]}  # fmt: skip
    assert flat(tree) == {
        "of": "adapter", "method": "hip", "method.r": 4, "seed": 1, "benchmarks.mmlu.scoring": "cloze",
        "scales": "0.5,1",
    }  # fmt: skip
    merged = {
        "kind": "merged",
        "adapters": [{"kind": "train", "task": {"name": n}, "seed": 42} for n in ("mmlu", "code")],
    }
    assert flat({"of": merged}) == {"of": "merged", "task": "mmlu,code", "seed": 42}, "no kind: it is the record's"


@pytest.mark.parametrize("name", ["a,b", "josé (x=1)"])
def test_any_folder_of_results_composes_and_no_page_is_made_of_two(name, tmp_path):
    folder = tmp_path / name / "results/mini"
    config = compose_cached(data_words(folder, ["training.steps=7"]))
    assert (config.places.results, config.training.steps) == (folder, 7)
    for word in ("results_dir=empty", "data=hub", "scale=paper"):
        with pytest.raises(UserError, match=f"With {word} runs write into .*, not into --results"):
            data_words(folder, [word])


def test_an_empty_folder_says_what_to_type(tmp_path, capsys):
    (tmp_path / "mini").mkdir()
    assert runs.main(["--results", f"{tmp_path}/mini"]) == 0
    assert "python -m hiplora.run method=hip" in capsys.readouterr().out
    assert runs.main(["--results", f"{tmp_path}/absent"]) == 2
    (tmp_path / "mini/records").mkdir()
    assert runs.main(["--results", str(tmp_path)]) == 2
    assert f"--results {tmp_path}/mini" in capsys.readouterr().err
