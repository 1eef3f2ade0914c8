"""Data laid out as on the Hub: repositories, commits, and a Hub that cannot be reached."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hiplora.errors import UserError
from hiplora.hub import commit
from hiplora.tasks.origins import ORIGINS
from hiplora.tasks.source import Data, Source
from tests.tasks.files import problems
from tests.tiny import benchmark

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
    asked = ("gsm8k", "validation"), ("mmlu", "test")
    assert plain.reads(*asked) == {"openai/gsm8k/main/validation": main, "cais/mmlu/all/test": main}
    assert pinned.reads(*asked) == {"openai/gsm8k/main/validation": pin, "cais/mmlu/all/test": main}
    commit.cache_clear()
    with pytest.raises(UserError, match=r"data\.revisions names gsm9k; choose among gsm8k, mmlu"):
        Source(Data(name="hub", root=None, revisions={"gsm9k": "abc"}))


def test_a_hub_that_cannot_be_reached_is_one_sentence(tmp_path, hub):
    with pytest.raises(UserError, match=r"openai/gsm8k could not be loaded .* data=local"):
        hub.load("gsm8k", "test")
