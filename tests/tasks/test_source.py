"""Where data comes from: folders, splits, a mirror laid out as the Hub, and what is said when something is missing."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from hiplora.errors import UserError
from hiplora.hub import commit
from hiplora.tasks import TASKS, task_class
from hiplora.tasks.files import digest
from hiplora.tasks.origins import ORIGINS, held_out
from hiplora.tasks.source import Data, Source, looked_up_once
from tests.tiny import benchmark

PROJECTS = [name for name in TASKS if hasattr(task_class(name), "training")]  # data sets that the project names
REAL = Path(__file__).resolve().parents[3] / "shared" / "data"


def write(folder: Path, name: str, rows: list[dict]) -> Path:
    path = folder / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def local(folder: Path) -> Source:
    return Source(Data(name="local", root=str(folder), revisions={}))


def problems(count: int) -> list[dict]:
    return [{"question": f"What is {n} + 1?", "answer": f"#### {n + 1}"} for n in range(count)]


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


def test_fingerprint_follows_the_files(tmp_path):
    write(tmp_path, "gsm8k/train", problems(3))
    write(tmp_path, "alpaca/train", [{"instruction": "i", "input": "", "output": "o"}])
    first = local(tmp_path).fingerprint("gsm8k", "alpaca")
    assert local(tmp_path).fingerprint("alpaca", "gsm8k") == first
    write(tmp_path, "gsm8k/train", problems(4))
    assert local(tmp_path).fingerprint("gsm8k", "alpaca") != first


def test_identity_loads_neither_torch_nor_datasets(tmp_path):
    write(tmp_path, "gsm8k/train", problems(3))
    code = (
        "import sys; from hiplora.tasks.source import Data, Source\n"
        f"Source(Data(name='local', root={str(tmp_path)!r}, revisions={{}})).fingerprint('gsm8k')\n"
        f"Source(Data(name='local', root={str(tmp_path)!r}, revisions={{}})).reads(('gsm8k', 'train'))\n"
        "hub = Source(Data(name='hub', root=None, revisions={'gsm8k': 40 * 'a'}))\n"
        "hub.fingerprint('gsm8k'), hub.reads(('gsm8k', 'train'))\n"
        "assert not {'torch', 'datasets', 'lm_eval'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"question": "q", "answer": "#### 1"}\n{"question": \n', r"train\.jsonl:2 is not valid JSON"),
        (b'["q"]\n', r"train\.jsonl:1 is not a JSON object"),
        (b'{"question": "q"}\n', r"train\.jsonl:1 has no answer"),
        (b'{"question": "\xff"}\n', r"train\.jsonl:1 is not UTF-8"),
        (
            b'{"question": "q", "answer": "#### 1"}\n{"question": "q", "answer": ["1"]}\n',
            r"train\.jsonl:2 has answer=\['1'\]",
        ),
        (b'{"question": "q", "answer": "one"}\n', r"train\.jsonl:1 has answer='one', which must be .* ####"),
        (b'{"question": " ", "answer": "#### 1"}\n', r"train\.jsonl:1 has question=' ', which must be text"),
        (b"\n", r"holds no items"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path, content, said):
    write(tmp_path, "gsm8k/train", []).write_bytes(content)
    with pytest.raises(UserError, match=said):
        local(tmp_path).load("gsm8k", "train")


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match=r"data\.root=/nowhere is not a folder"):
        Source(Data(name="local", root="/nowhere", revisions={})).fingerprint("gsm8k")
    with pytest.raises(UserError, match=r"data\.root=DIR"):
        Source(Data(name="local", root=None, revisions={}))
    with pytest.raises(UserError, match="gsm8k is missing"):
        local(tmp_path).load("gsm8k", "test")
    write(tmp_path, "gsm8k/train", problems(1))
    with pytest.raises(UserError, match=r"test\.jsonl is missing"):
        local(tmp_path).load("gsm8k", "test")
    with pytest.raises(UserError, match="choose one of"):
        local(tmp_path).load("gsm9k", "test")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_is_read_is_named_split_by_split(tmp_path):
    train = write(tmp_path, "gsm8k/train", problems(30))
    test = write(tmp_path, "gsm8k/test", problems(3))
    dev = write(tmp_path, "mmlu/dev", [{"question": "q", "subject": "s", "choices": ["a", "b"], "answer": 0}])
    splits = [("gsm8k", "train"), ("gsm8k", "validation"), ("gsm8k", "test"), ("mmlu", "validation")]
    before = local(tmp_path).reads(*splits)
    assert before == {
        "gsm8k/train without its held-out 5 %": sha256(train),
        "gsm8k/train's held-out 5 %": sha256(train),
        "gsm8k/test": sha256(test),
        "mmlu/dev": sha256(dev),
    }
    validation = write(tmp_path, "gsm8k/validation", problems(3))
    assert local(tmp_path).reads(*splits[:2]) == {
        "gsm8k/train": sha256(train),
        "gsm8k/validation": sha256(validation),
    }
    assert local(tmp_path).reads(("gsm8k", "test")) == {"gsm8k/test": sha256(test)}, "other splits do not enter"
    write(tmp_path, "gsm8k/train", problems(31))
    assert local(tmp_path).reads(("gsm8k", "train")) == {"gsm8k/train": sha256(train)}, "and the change is seen"


def test_borrowed_text_is_named_as_such(tmp_path, monkeypatch):
    monkeypatch.setenv("HIPLORA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("hiplora.mini.write", lambda folder: write(folder, "text/test", [{"text": "mini"}]))
    borrowed = local(tmp_path).reads(("text", "test"))
    mini = Source(Data(name="mini", root=None, revisions={})).reads(("text", "test"))
    assert borrowed == {"text/test of the mini data": mini["text/test"]}
    own = write(tmp_path, "text/test", [{"text": "own"}])
    assert local(tmp_path).reads(("text", "test")) == {"text/test": sha256(own)}


def test_sampled_text_is_absent_where_it_is_not_there(tmp_path):
    """Never borrowed, as general text is; nor on the Hub."""
    hub = Source(Data(name="hub", root=None, revisions={}))
    assert not hub.has("text_sampled", "test")
    assert hub.has("text", "validation")
    assert not local(tmp_path).has("text_sampled", "test")
    write(tmp_path, "text_sampled/test", [{"text": "own"}])
    assert local(tmp_path).has("text_sampled", "test")
    assert not local(tmp_path).has("text_sampled", "validation")


def test_a_file_is_hashed_and_read_once(tmp_path, monkeypatch):
    write(tmp_path, "gsm8k/train", problems(100))
    first = local(tmp_path)
    first.reads(("gsm8k", "train"))
    first.check(("gsm8k", "train"))
    monkeypatch.setattr("hiplora.tasks.files.hashlib.file_digest", None)
    monkeypatch.setattr("hiplora.tasks.loading.read_jsonl", None)
    again = local(tmp_path)
    assert len(again.reads(("gsm8k", "train"), ("gsm8k", "validation"))) == 2
    assert len(again.load("gsm8k", "train")) + len(again.load("gsm8k", "validation")) == 100


def test_a_table_looks_at_a_file_once_and_what_makes_stages_each_time(tmp_path):
    write(tmp_path, "gsm8k/train", problems(3))
    wanted = ("gsm8k", "validation")
    before = local(tmp_path).reads(wanted)
    with looked_up_once():
        assert local(tmp_path).reads(wanted) == before
        write(tmp_path, "gsm8k/validation", problems(4))
        assert local(tmp_path).reads(wanted) == before
        assert Source(Data(name="mini", root=None, revisions={})).reads(wanted) != before
    assert local(tmp_path).reads(wanted).keys() == {"gsm8k/validation"} != before.keys()


def test_check_names_a_broken_line_and_a_missing_file(tmp_path, hub):
    write(tmp_path, "gsm8k/train", problems(3))
    write(tmp_path, "gsm8k/test", [{"question": "q", "answer": "one"}])
    source = local(tmp_path)
    source.check(("gsm8k", "train"), ("gsm8k", "validation"))
    with pytest.raises(UserError, match=r"test\.jsonl:1 has answer='one'"):
        source.check(("gsm8k", "train"), ("gsm8k", "test"))
    write(tmp_path, "mmlu/test", [])
    for name in (source.check, source.reads):
        with pytest.raises(UserError, match=r"dev\.jsonl is missing"):
            name(("mmlu", "validation"))
    with pytest.raises(UserError, match=r"openai/gsm8k could not be loaded .* data=local"):
        hub.check(("gsm8k", "test"))


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


CARD = "---\nconfigs:\n- config_name: {subset}\n  data_files:\n  - split: {split}\n    path: {path}\n---\n"


def repository(root: Path, dataset: str, rows: list[dict], *, split: str, parquet: bool = True) -> None:
    """A data set as the Hub lays it out: a card that names the subset's files, and parquet or json beside it."""
    from datasets import Dataset

    origin = ORIGINS[dataset]
    folder = root / origin.repository
    folder.mkdir(parents=True)
    if not parquet:  # as CodeAlpaca: one json file, no card's help
        (folder / "code.json").write_text(json.dumps(rows))
        return
    path = f"{origin.subset or 'data'}/{split}-00000-of-00001.parquet"
    (folder / path).parent.mkdir()
    Dataset.from_list(rows).to_parquet(folder / path)
    (folder / "README.md").write_text(CARD.format(subset=origin.subset or "default", split=split, path=path))


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Source:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return Source(Data(name="hub", root=str(tmp_path / "hub"), revisions={}))


def test_repositories_are_read_in_the_hubs_layout(tmp_path, hub):
    root = tmp_path / "hub"
    repository(root, "gsm8k", problems(400), split="train")
    repository(root, "mmlu", [{"question": "q", "subject": "s", "choices": ["a", "b"], "answer": 1}], split="dev")
    pair = {"output": "o", "instruction": "i", "input": ""}
    repository(root, "codealpaca", [{**pair, "instruction": f"i{n}"} for n in range(300)], split="train", parquet=False)
    assert 0 < len(hub.load("gsm8k", "validation")) < 60
    assert len(hub.load("gsm8k", "train")) + len(hub.load("gsm8k", "validation")) == 400
    assert hub.load("mmlu", "validation").to_list() == [
        {"question": "q", "subject": "s", "choices": ["a", "b"], "answer": 1, "id": "dev/0"}
    ]
    splits = [("gsm8k", "train"), ("mmlu", "validation"), ("codealpaca", "train")]
    reads = hub.reads(*splits)
    assert sorted(reads) == ["cais/mmlu/all/validation", "openai/gsm8k/main/train", "sahil2801/CodeAlpaca-20k/train"]
    (root / "openai/gsm8k/.cache").mkdir()
    (root / "openai/gsm8k/.cache/lock").touch()
    assert hub.reads(*splits) == reads
    (root / "openai/gsm8k/README.md").write_text("")
    assert {name for name, value in hub.reads(*splits).items() if value != reads[name]} == {"openai/gsm8k/main/train"}
    with pytest.raises(UserError, match=r"openai_humaneval is missing"):
        hub.reads(("humaneval", "test"))
    examples = benchmark("code").training_examples(hub)
    assert 240 < len(examples) < 300
    assert examples[0].output == "o"


def test_science_items_with_an_image_are_left_out(tmp_path, hub):
    import pyarrow
    from datasets import Features, Image, List, Value
    from pyarrow.parquet import write_table

    features = Features(
        {"image": Image(), "question": Value("string"), "choices": List(Value("string")), "answer": Value("int8")}
        | {"hint": Value("string")}
    )
    rows = [
        {"image": image, "question": "q", "choices": ["a", "b"], "answer": 1, "hint": "h"} for image in (b"\x89", None)
    ]
    rows = [{**row, "image": row["image"] and {"bytes": row["image"], "path": None}} for row in rows]
    folder = tmp_path / "hub" / ORIGINS["scienceqa"].repository
    (folder / "data").mkdir(parents=True)
    table = pyarrow.Table.from_pylist(rows, schema=features.arrow_schema)  # datasets itself would ask for Pillow
    write_table(table, folder / "data" / "test-00000-of-00001.parquet")
    items = benchmark("scienceqa").test_items(hub)
    assert [(item["id"], item["answer"], "image" in item) for item in items] == [("test/1", 1, False)]


def test_a_commit_is_loaded_and_identifies_the_data(monkeypatch):
    loaded, main, pin = [], 40 * "a", 40 * "b"

    def splits(path, subset, **options):
        loaded.append((path, options))
        return ["train", "test"]

    def rows(path, subset, *, split, **options):
        loaded.append((path, options))
        return Dataset.from_list(problems(3))

    from datasets import Dataset

    monkeypatch.setattr("hiplora.hub._cached", lambda repository, name, kind: main if kind == "dataset" else None)
    commit.cache_clear()
    monkeypatch.setattr("datasets.get_dataset_split_names", splits)
    monkeypatch.setattr("datasets.load_dataset", rows)
    plain, pinned = (
        Source(Data(name="hub", root=None, revisions=revisions))
        for revisions in ({"gsm8k": None}, {"gsm8k": pin, "mmlu": ""})
    )
    for source, revision in ((plain, main), (pinned, pin)):
        loaded.clear()
        source.load("gsm8k", "test")
        assert set(map(str, loaded)) == {str(("openai/gsm8k", {"revision": revision}))}
        assert source.origin_of("gsm8k") == f"openai/gsm8k@{revision}"
    assert plain.fingerprint("gsm8k", "mmlu") == digest([f"openai/gsm8k/main@{main}", f"cais/mmlu/all@{main}"])
    assert pinned.fingerprint("mmlu") == plain.fingerprint("mmlu")
    assert pinned.fingerprint("gsm8k") != plain.fingerprint("gsm8k")
    reads = pinned.reads(("gsm8k", "validation"), ("mmlu", "test"))
    assert reads == {"openai/gsm8k/main/validation": pin, "cais/mmlu/all/test": main}
    commit.cache_clear()
    with pytest.raises(UserError, match=r"data\.revisions names gsm9k; choose among gsm8k, mmlu"):
        Source(Data(name="hub", root=None, revisions={"gsm9k": "abc"}))


def test_a_hub_that_cannot_be_reached_is_one_sentence(tmp_path, hub):
    with pytest.raises(UserError, match=r"openai/gsm8k could not be loaded .* data=local"):
        hub.load("gsm8k", "test")


@pytest.mark.skipif(not REAL.is_dir(), reason="the real benchmarks are not beside the checkout")
@pytest.mark.parametrize("name", PROJECTS)
def test_the_real_benchmarks_read(name):
    task, source = benchmark(name), Source(Data(name="local", root=str(REAL), revisions={}))
    examples, items = task.training_examples(source), task.test_items(source)
    assert len({example.id for example in examples}) == len(examples) > 400
    assert len({item["id"] for item in items}) == len(items) > 100
    assert all(task.prompt(item) and task.answer(item) for item in items[:50])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"answer": 2}, r"train\.jsonl:1 has answer=2, which must be the index .* from 0 to 1"),
        ({"answer": "A"}, r"has answer='A'"),
        ({"choices": ["one"]}, r"has choices=\['one'\], which must be a list of 2 to"),
        ({"choices": ["one", ""]}, r"has choices="),
        ({"hint": 3}, r"has hint=3"),
    ],
)
def test_a_choice_that_cannot_be_asked_is_named_with_its_line(tmp_path, change, said):
    item = {"image": None, "question": "q", "choices": ["a", "b"], "answer": 1, "hint": ""}
    write(tmp_path, "scienceqa/train", [item])
    assert len(local(tmp_path).load("scienceqa", "train")) == 1
    write(tmp_path, "scienceqa/train", [item | change])
    with pytest.raises(UserError, match=said):
        local(tmp_path).load("scienceqa", "train")


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
