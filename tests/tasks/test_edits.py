"""Sets of edits: three schemas, what is wrong with one in words, batches that follow from the draw alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import Dataset

from hiplora import editset
from hiplora.errors import UserError
from hiplora.tasks.edit_items import EditItem, following, normalised
from hiplora.tasks.edits import EditBatch, Edits
from hiplora.tasks.files import sha256
from hiplora.tasks.source import Data, Source
from tests.edit_sets import FACTS, rows, written
from tests.tiny import tiny_tokenizer

PLAIN: dict[str, Any] = {
    "file": None, "dataset": None, "revision": None, "split": "train", "schema": "native", "target": "alt",
    "batch": 9, "batches": 1, "draw": 0,
}  # fmt: skip
SOURCE = Source(Data(name="mini", root=None, revisions={}))


def edits(path: Path | None = None, **changes: Any) -> Edits:
    return Edits(**{**PLAIN, "file": None if path is None else str(path), **changes})


def peru(found: Edits) -> EditItem:
    (item,) = (item for item in found.items() if item.subject == "Peru")
    return item


@pytest.mark.parametrize("name", ["set.jsonl", "set.json"])
def test_a_fact_in_each_schema(tmp_path: Path, name: str) -> None:
    native, counterfact, zsre = (
        peru(edits(written(tmp_path / f"{schema}-{name}", rows(schema)), schema=schema))
        for schema in ("native", "counterfact", "zsre")
    )
    assert (native.prompt, native.old, native.new) == ("The capital of Peru is", "Lima", "Oslo")
    assert native.neighbours == (("The capital of Japan is", "Tokyo"), ("The capital of Ghana is", "Accra"))
    assert native.sentence == "The capital of Peru is Oslo."
    assert (counterfact.prompt, counterfact.old, counterfact.new) == ("The capital of Peru is", "Lima", "Oslo")
    assert (counterfact.id, counterfact.relation, counterfact.category) == ("counterfact-0", "P36", "counterfact")
    assert (len(counterfact.paraphrases), len(counterfact.neighbours)) == (2, 10)
    assert {answer for _, answer in counterfact.neighbours} == {"Lima"}, "a neighbour has the true target too"
    assert (zsre.prompt, zsre.old, zsre.new) == ("What is the capital of Peru?", "Lima", "Oslo")
    assert zsre.paraphrases == ("Which is it?",)
    assert zsre.neighbours == (("nq question: who wrote it", "Ann Lee"),)


def test_what_a_zsre_edit_writes_is_an_option_that_identifies_it(tmp_path: Path) -> None:
    path = written(tmp_path / "set.jsonl", rows("zsre"))
    one, other = (edits(path, schema="zsre", target=target) for target in ("alt", "answers"))
    assert (peru(other).new, peru(other).old) == ("Lima", "Oslo")
    assert one.identity()["target"] == "alt" != other.identity()["target"]


def test_a_set_on_the_hub_is_read_at_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    commit, asked = "0123456789abcdef0123456789abcdef01234567", []

    def load_dataset(name: str, **how: Any) -> Dataset:
        asked.append((name, how))
        return Dataset.from_list(rows("counterfact"))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    found = edits(dataset="someone/counterfact", revision=commit, schema="counterfact")
    assert found.reads() == {"someone/counterfact/train": commit}
    assert len(found.items()) == len(FACTS)
    assert asked == [("someone/counterfact", {"split": "train", "revision": commit})]


def test_batches_follow_from_the_draw_and_not_from_the_order_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path / "one.jsonl", rows())
    turned = written(tmp_path / "two.jsonl", rows()[::-1])

    def ids(place: Path, **changes: Any) -> list[list[str]]:
        return [[item.id for item in batch.items()] for batch in edits(place, **changes).cut()]

    three = ids(path, batch=3, batches=3)
    assert sorted(id for batch in three for id in batch) == sorted(row["id"] for row in rows())
    assert three == ids(turned, batch=3, batches=3) != ids(path, batch=3, batches=3, draw=1)
    assert ids(path, batch=4)[0] == [*three[0], three[1][0]], "a larger batch begins with a smaller one"
    first, second = edits(path, batch=3, batches=2).cut()
    assert first.identity() == EditBatch(edits=edits(path, batch=3), number=0).identity() != second.identity()
    with pytest.raises(
        UserError, match=r"edits.batch=5 in edits.batches=2 asks .* the 9 items .* edits.batch=4 or less"
    ):
        ids(path, batch=5, batches=2)


def test_what_is_trained_is_the_answer_and_the_end_behind_the_prompt(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    (batch,) = edits(written(tmp_path / "set.jsonl", rows())).cut()
    for item, example in zip(batch.items(), batch.encoded_examples(SOURCE, tokenizer), strict=True):
        assert tokenizer.decode(example.prompt) == item.prompt
        assert example.answer == [*tokenizer.encode(following(item.new)), tokenizer.eos_token_id]


def broken(**changes: Any) -> list[dict[str, Any]]:
    return [rows()[0], {**rows()[1], **changes}]


@pytest.mark.parametrize(
    ("schema", "objects", "sentence"),
    [
        ("native", broken(new=""), r"set.jsonl:2 has new='', which must be text that is not blank; repair"),
        ("native", broken(category="number"), r"set.jsonl:2 has category='number', which must be one of entity, rel"),
        ("native", broken(neighbours=[{"prompt": "x"}]), r"set.jsonl:2 has neighbours=.*, of which one has no answer"),
        ("native", broken(new="the paris"), r"set.jsonl:2 edits 'France' to 'the paris', which is one of its answers"),
        ("native", [*rows()[:1], {**rows()[0], "id": "b", "new": "Bern"}],
         r"set.jsonl:\d and .*set.jsonl:\d edit 'capital' of 'Peru' in one batch, to '\w+' and to '\w+'; remove one"),
        ("counterfact", rows(), r"set.jsonl:1 has no case_id, .* it needs case_id, requested_rewrite"),
        ("counterfact", [{**rows("counterfact")[0], "requested_rewrite": {"prompt": "no place"}}],
         r"set.jsonl:1 has requested_rewrite=.*, which has no relation_id, target_new"),
        ("zsre", [{**rows("zsre")[0], "answers": []}], r"set.jsonl:1 has answers=\[\], which must be a list of one"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, schema: str, objects: Any, sentence: str) -> None:
    (batch,) = edits(written(tmp_path / "set.jsonl", objects), schema=schema, batch=len(objects)).cut()
    with pytest.raises(UserError, match=sentence):
        batch.check_training(SOURCE)


def test_half_of_a_character_in_an_array_is_named_with_its_item(tmp_path: Path) -> None:
    path = written(tmp_path / "set.json", broken(subject="\ud83d"))
    with pytest.raises(UserError, match=r"set.json, item 2 holds half of a character \(a lone surrogate\); repair"):
        edits(path).items()


def test_the_same_edit_twice_is_no_contradiction(tmp_path: Path) -> None:
    twice = [rows()[0], {**rows()[0], "id": "b", "new": "the Oslo"}]
    (batch,) = edits(written(tmp_path / "set.jsonl", twice), batch=2).cut()
    assert len(batch.items()) == 2


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"file": "x", "dataset": "a/b"}, "edits.file and edits.dataset name two sets"),
        ({"file": "x", "revision": "main"}, "edits.revision=main needs a data set on the Hub"),
        ({"schema": "zsre"}, "edits.schema=zsre is for a set that is not the project's own; type edits.file=PATH"),
        ({"file": "x", "target": "answers"}, "edits.target=answers is for edits.schema=zsre"),
        ({"schema": "other"}, "edits.schema=other is not known; choose one of native, counterfact, zsre"),
        ({"batch": 0}, "edits.batch=0 must be at least 1"),
        ({"size": 3}, "edits.size is not a field; there are .*edits.schema"),
    ],
)
def test_options_that_mean_nothing_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        edits(**changes)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (" The  Netherlands.", "netherlands", True),
        ("U.S.", "us", True),
        ("Guinea-Bissau", "guinea bissau", False),
        ("1,000", "1000", True),
        ("3.14", "314", False),
        ("-5", "5", False),
        ("1923.", "1923", True),
        ("$", "€", False),
        ("the", "a", False),
    ],
)
def test_normalised(one: str, other: str, same: bool) -> None:
    assert (normalised(one) == normalised(other)) is same


def test_the_projects_own_set_is_read_as_any_file_is() -> None:
    own = edits(batch=1000)
    assert own.shipped
    (batch,) = own.cut()
    assert len(batch.items()) == 1000, "and no two of them contradict each other"
    assert edits(editset.PATH, batch=1000).reads() == own.reads() == {"edits": sha256(editset.PATH)}
    with pytest.raises(UserError, match=r"nowhere.jsonl cannot be read"):
        edits(Path("nowhere.jsonl")).reads()
