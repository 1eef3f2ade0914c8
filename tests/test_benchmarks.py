"""Every measuring script runs, small, and what it prints can be true."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from hiplora import models
from scripts import bench_evaluation, bench_merging, bench_svd, bench_training, build_facts, sample_text
from tests.tiny import tiny_llama_folder

FACTS = Path(build_facts.__file__).resolve().parent.parent / "hiplora" / "mini" / "facts"


@pytest.fixture(autouse=True)
def _forget():
    yield
    models.forget()


def printed(main: Callable[[list[str]], None], tmp_path: Path, *words: str) -> dict[str, Any]:
    """The numbers that a script writes; those that are seconds, sizes, speeds or ratios are finite and above 0."""
    main([*words, "--json", str(tmp_path / "numbers.json")])
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    for name, value in numbers.items():
        if "over" in name or name.endswith(("_s", "_seconds", "_per_second", "_gb")):
            assert math.isfinite(value), name
            assert value > 0, name
    return numbers


SMALL = ["--limit", "3", "--repetitions", "2", "--new-tokens", "6", "--generate-batches", "2", "3"]


def test_evaluation(tiny: Path, tmp_path: Path) -> None:
    numbers = printed(bench_evaluation.main, tmp_path, *SMALL, "--model-dir", str(tiny))
    assert numbers["same_choices"]
    assert numbers["same_outputs"]
    assert (numbers["items"], numbers["answers"], numbers["differing_outputs"]) == (6, 3, 0)
    assert numbers["best_batch"] in (1, 2, 3)


def test_an_evaluation_that_remembers_is_not_timed(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, remembered = bench_evaluation.InMemoryLM.loglikelihood, list[Any]()

    def once(self: Any, requests: list[Any]) -> list[Any]:
        if not remembered:
            remembered.extend(plain(self, requests))
        return remembered

    monkeypatch.setattr(bench_evaluation.InMemoryLM, "loglikelihood", once)
    with pytest.raises(SystemExit, match="it remembers"):
        printed(bench_evaluation.main, tmp_path, *SMALL, "--model-dir", str(tiny))


def test_training(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = LlamaConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=0,
        eos_token_id=1,
    )
    monkeypatch.setattr(bench_training, "LLAMA_8B_BLOCK", block)
    devices, arithmetic = set[str](), models.arithmetic

    def seen(model: Any) -> str:
        devices.add(model.device)
        return arithmetic(model)

    monkeypatch.setattr(models, "arithmetic", seen)
    small = ["model=folder", "model.name=tiny", f"model.path={tiny}", "method.r=4", "training.rows_per_step=2"]
    small += ["model.target_modules=auto"]
    words = ["--steps", "1", "--repetitions", "1", "--block-repetitions", "1", "--block-tokens", "128"]
    numbers = printed(bench_training.main, tmp_path, *small, *words, "--device", "cpu")
    assert devices == {"cpu"}, "the arithmetic reported is that of the device measured"
    measured = {name for name in numbers if name.endswith("_tokens_per_second")}
    assert measured == {f"{name}_tokens_per_second" for name in ("lora", "hip", "proj", "stock")} | {
        f"{name}_8b_block_tokens_per_second" for name in ("lora", "hip")
    }
    ratio = numbers["hip_tokens_per_second"] / numbers["lora_tokens_per_second"]
    assert numbers["hip_over_lora"] == pytest.approx(ratio)


def test_merging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One case in a process of its own, as all are; the others here."""

    def here(case: str, args: Any) -> dict[str, float]:
        return apart(case, args) if case == "ties" else bench_merging.run_case(case, args.layers, args.hidden)

    apart = bench_merging.in_subprocess
    monkeypatch.setattr(bench_merging, "in_subprocess", here)
    threads = torch.get_num_threads()
    numbers = printed(bench_merging.main, tmp_path, "--hidden", "64", "--layers", "1", "--threads", "1")
    torch.set_num_threads(threads)
    assert {f"{case}_s" for case in bench_merging.CASES} <= numbers.keys()
    assert max(numbers["tsvm_difference"], numbers["core_space_difference"]) < 1e-4, "the same merge as the dense one"
    assert numbers["ties_peak_gb"] <= numbers["peak_gb"]


def test_svd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"HIDDEN": 192, "KEY_VALUE": 96, "LAYERS": 2}.items():
        monkeypatch.setattr(bench_svd, name, value)
    numbers = printed(bench_svd.main, tmp_path, "--distinct", "1", "--repetitions", "1")
    assert 0 < numbers["max_residual"] <= numbers["tolerance"]
    assert 0 <= numbers["converged_excess_error"] < 1e-3
    assert numbers["converged_sigma_error"] < 1e-3
    assert numbers["converged_angle"] <= numbers["randomized_angle"] + 1


@pytest.mark.skipif(sys.version_info[:3] != (3, 11, 7), reason="3.11.2 already has another language reference")
def test_the_general_text_is_rebuilt_as_it_is_frozen() -> None:
    assert build_facts.text_chunks() == json.loads((FACTS / "python_topics.json").read_text())


def test_animals_are_what_wordnet_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nouns = {"00000001": ("animal", None), "00000002": ("bird", "00000001"), "00000003": ("crow", "00000002")}
    nouns["00000004"] = ("stone", None)
    lines = ["  1 licence", *(f"{word} n 1 1 @ 1 0 {number}" for number, (word, _) in nouns.items())]
    (tmp_path / "index.noun").write_text("\n".join(lines) + "\n")
    data = [
        f"{number} 05 n 01 {word} 0 001" + (f" @ {parent} n 0000" if parent else "") + " | a gloss"
        for number, (word, parent) in nouns.items()
    ]
    (tmp_path / "data.noun").write_text("\n".join(["  1 licence", *data]) + "\n")
    (tmp_path / "animals.csv").write_text("animal,kind\nstone,bird\ncrow,bird\n")
    found = build_facts.animal_rows(build_facts.WordNet(tmp_path), tmp_path / "animals.csv")
    assert found == [["crow", "bird"]]
    assert "stone is not a bird" in capsys.readouterr().err


def test_years_of_people_are_kept_where_wordnet_and_a_calendar_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(build_facts.__file__).parent))
    script, sources = (importlib.import_module(name) for name in ("build_edit_facts", "edit_fact_sources"))
    people = {"Ada_Byron": "(1815-1852)", "Carl_Meyer": "(1801-1870)", "Nobody_Known": "(1700-1750)"}
    (tmp_path / "index.noun").write_text("  1 licence\n")
    data = [f"0000000{i} 18 n 01 {name} 0 000 | someone {years}" for i, (name, years) in enumerate(people.items(), 1)]
    (tmp_path / "data.noun").write_text(
        "\n".join(["  1 licence", *(line.replace(" 000 |", " 001 @i 00000009 n 0000 |") for line in data)]) + "\n"
    )
    calendars = tmp_path / "usr/share/calendar"
    calendars.mkdir(parents=True)
    for table in ("history", "music", "computer"):
        (calendars / f"calendar.{table}").write_text("")
    lines = ["12/10\tAda Byron born, 1815", "11/27\tAda Byron died, 1852", "01/01\tCarl Meyer born, 1802"]
    (calendars / "calendar.birthday").write_text("\n".join(lines) + "\n")
    rows = script.people_rows(sources.Nouns(tmp_path), tmp_path)
    assert rows == [["Ada Byron", "1815", "1852", "1815", "1852"]]
    assert script.LEFT_OUT["people: born in another year, or in several"] == 1


def test_text_that_is_sampled_is_written_where_the_tokenizer_reads_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_llama_folder(tmp_path / "tiny")
    model, tokenizer = LlamaForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    for name, value in {"BATCH": 3, "TOKENS": 5, "TEXTS": 4, "START": tokenizer.eos_token}.items():
        monkeypatch.setattr(sample_text, name, value)
    backbone = SimpleNamespace(model=model, tokenizer=tokenizer)
    monkeypatch.setattr(sample_text.models, "load", lambda asked: backbone)
    monkeypatch.setattr(sys, "argv", ["sample_text.py", "--out", str(tmp_path / "texts.json")])
    sample_text.main()
    texts = [row["text"] for row in json.loads((tmp_path / "texts.json").read_text())]
    assert len(texts) == 4
    assert {len(tokenizer.encode(text, add_special_tokens=False)) for text in texts} == {5}
    start = tokenizer.convert_tokens_to_ids(sample_text.START)
    again = sample_text.drawn(model, start=start, generator=torch.Generator().manual_seed(sample_text.SEED))
    first = sample_text.kept(tokenizer, again)
    assert first
    assert texts[: len(first)] == first[: len(texts)], "a seed, one result"
