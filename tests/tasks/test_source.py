"""Data in folders: the splits, what is read of them and under which name, and the real benchmarks where they are."""

from __future__ import annotations

import os

import pytest

from hiplora.tasks.origins import held_out
from hiplora.tasks.source import Data, Source
from tests.tasks.files import PROJECTS, local, problems, write
from tests.tiny import benchmark

REAL = os.environ.get("HIPLORA_REAL_DATA")  # a folder as data=local reads it


def test_validation_of_gsm8k_is_a_twentieth_of_train_and_leaves_it(tmp_path):
    write(tmp_path, "gsm8k/train", problems(2000))
    train, validation = (local(tmp_path).load("gsm8k", split) for split in ("train", "validation"))
    assert not set(train["id"]) & set(validation["id"])
    assert len(train) + len(validation) == 2000
    assert 70 <= len(validation) <= 130
    assert all(held_out(question) for question in validation["question"])
    row = validation[0]
    assert row["question"] == f"What is {row['id'].removeprefix('train/')} + 1?", "ids name the row in the file"


def test_a_validation_file_leaves_train_whole(tmp_path):
    write(tmp_path, "gsm8k/train", problems(200))
    write(tmp_path, "gsm8k/validation", problems(3))
    assert len(local(tmp_path).load("gsm8k", "train")) == 200
    assert local(tmp_path).load("gsm8k", "validation")["id"] == ["validation/0", "validation/1", "validation/2"]


def test_validation_of_mmlu_is_dev_where_there_is_none(tmp_path):
    item = {"question": "q", "subject": "s", "choices": ["a", "b"], "answer": 0}
    write(tmp_path, "mmlu/dev", [item])
    assert local(tmp_path).load("mmlu", "validation")["id"] == ["dev/0"]
    write(tmp_path, "mmlu/validation", [item, item])
    assert len(local(tmp_path).load("mmlu", "validation")) == 2


def test_sampled_text_is_absent_where_it_is_not_there(tmp_path):
    """Never borrowed, as general text is; nor on the Hub."""
    hub = Source(Data(name="hub", root=None, revisions={}))
    assert not hub.has("text_sampled", "test")
    assert hub.has("text", "validation")
    assert not local(tmp_path).has("text_sampled", "test")
    write(tmp_path, "text_sampled/test", [{"text": "own"}])
    assert local(tmp_path).has("text_sampled", "test")
    assert not local(tmp_path).has("text_sampled", "validation")


def test_code_is_written_where_there_are_tests_to_execute_it(tmp_path):
    """The Hub's held-out pairs have none: there nothing but likelihoods is asked."""
    row = {"instruction": "def one():", "input": "", "output": "\n    return 1"}
    plain, tested = local(tmp_path / "plain"), local(tmp_path / "tested")
    write(tmp_path / "plain", "codealpaca/validation", [row])
    write(tmp_path / "tested", "codealpaca/validation", [row | {"entry_point": "one", "test": "def check(f): ..."}])
    asked = benchmark("code", execution="auto", max_new_tokens=8)
    assert [asked.written_tokens(source, "validation") for source in (plain, tested)] == [0, 8]
    assert asked.written_tokens(plain, "test") == 8
    assert benchmark("code", execution="off").written_tokens(tested, "validation") == 0


@pytest.mark.parametrize("name", PROJECTS)
def test_a_task_names_what_it_reads(tmp_path, monkeypatch, name):
    task, loaded = benchmark(name), []
    source = local(tmp_path)
    monkeypatch.setattr(source, "load", lambda *wanted: loaded.append(wanted))
    for split in ("test", "validation"):
        with pytest.raises(AttributeError):
            task.test_items(source, split)
        assert task.reads(split) == (loaded.pop(),)
    with pytest.raises(AttributeError):
        task.training_examples(source)
    assert task.trains_on == loaded.pop()


@pytest.mark.skipif(not REAL, reason="set HIPLORA_REAL_DATA to a folder with the real benchmarks, as data.root is")
@pytest.mark.parametrize("name", PROJECTS)
def test_the_real_benchmarks_read(name):
    task, source = benchmark(name), Source(Data(name="local", root=REAL, revisions={}))
    examples, items = task.training_examples(source), task.test_items(source)
    assert len({example.id for example in examples}) == len(examples) > 400
    assert len({item["id"] for item in items}) == len(items) > 100
    assert all(task.prompt(item) and task.answer(item) for item in items[:50])
