"""Records: one JSON file per result, with its predictions beside it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from hiplora.errors import UserError
from hiplora.stages import record as files
from hiplora.stages.record import Record
from hiplora.stages.results import Scores

SCORES = Scores(benchmarks={"gsm8k": {"acc": 0.5, "pass@1": None}, "text": {"nll": 3.0}}, sandbox="off", seconds=1.5)
SAMPLES = [{"id": "test/0", "acc": 1.0}]


def record(result: Scores = SCORES) -> Record:
    return Record(
        kind="score",
        id="0123456789ab",
        where="cpu-float32",
        name="hip-gsm8k-s42",
        asked={},
        needs={},
        digest=files.result_digest(result, SAMPLES),
        environment={},
        started="2026-01-01T00:00:00+00:00",
        result=result,
    )


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = files.write(tmp_path, record(), SAMPLES)
    names = sorted(path.name for path in tmp_path.iterdir())
    stem = "hip-gsm8k-s42-0123456789ab.cpu-float32"
    assert names == [f"{stem}.json", f"{stem}.predictions.jsonl.gz"]
    assert files.read(tmp_path / names[0]) == written
    lines = gzip.decompress((tmp_path / str(written.samples)).read_bytes()).splitlines()
    assert [json.loads(line) for line in lines] == SAMPLES


def test_a_record_under_another_name_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    records = files.Records(tmp_path)
    records.write(record(), SAMPLES)
    records.write(record().model_copy(update={"name": "copied"}), SAMPLES)
    stem = "copied-0123456789ab.cpu-float32"
    assert {path.name for path in (tmp_path / "score").iterdir()} == {f"{stem}.json", f"{stem}.predictions.jsonl.gz"}


def test_predictions_of_another_result_are_refused(tmp_path: Path) -> None:
    written = files.write(tmp_path, record(), SAMPLES)
    assert files.samples(tmp_path, written) == SAMPLES
    files.write(tmp_path / "new", record(), [{"id": "test/0", "acc": 0.0}])
    (tmp_path / "new" / str(written.samples)).replace(tmp_path / str(written.samples))  # killed before the record
    with pytest.raises(UserError, match=r"digest does not cover.*score 0123456789ab.*force=true"):
        files.samples(tmp_path, written)


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (files.write(tmp_path / name, record(), SAMPLES) for name in ("a", "b"))
    assert (tmp_path / "a" / str(first.samples)).read_bytes() == (tmp_path / "b" / str(second.samples)).read_bytes()


def test_a_digest_covers_scores_and_samples_and_no_times() -> None:
    def digest(result: Scores = SCORES, samples: list = SAMPLES) -> str:
        return files.result_digest(result, samples)

    assert digest(SCORES.model_copy(update={"seconds": 99.0, "sandbox": "landlock"})) == digest()
    assert digest(SCORES.model_copy(update={"benchmarks": {"text": {"nll": 3.1}}})) != digest()
    assert digest(samples=[{"id": "test/0", "acc": 0.0}]) != digest() != digest(samples=[])


def test_a_number_that_is_not_finite_is_not_written(tmp_path: Path) -> None:
    broken = SCORES.model_copy(update={"benchmarks": {"text": {"nll": float("nan")}}})
    with pytest.raises(ValueError, match="JSON"):
        files.write(tmp_path, record(SCORES).model_copy(update={"result": broken}), [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"schema": 1, "id": "x"}', '{"schema": 2, "kind": "score"}'])
def test_what_is_not_a_record_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"x\.json is not a record \(.*\); delete it") as caught:
        files.read(path)
    assert "\n" not in str(caught.value)
