"""An evaluation that was stopped goes on behind the answers it has, and ends as one that was not."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from hiplora.errors import UserError
from hiplora.evaluation import decode, rows, scoring
from hiplora.evaluation.answers import Answers, key
from hiplora.evaluation.engine import evaluate
from hiplora.tasks import ORDER
from hiplora.tasks.source import Source


def test_a_torn_line_loses_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "answers.jsonl"
    answers = Answers(path)
    answers.keep({"a": [1.5, True, 2], "b": ["x\n", "é"]})
    path.write_bytes(path.read_bytes()[:-4])
    again = Answers(path)
    assert (again.get("a"), again.get("b")) == ([1.5, True, 2], None)
    again.keep({"b": ["y"]})
    assert (Answers(path).get("a"), Answers(path).get("b")) == ([1.5, True, 2], ["y"])
    assert key("score", [1], [2, 3]) != key("score", [1, 2], [3])


def test_no_answer_is_computed_twice(model, tokenizer, data, evaluation, tmp_path, monkeypatch) -> None:
    evaluation = replace(evaluation, batch_tokens=1)  # a batch is a row, and rows are short: many places to stop at
    monkeypatch.setattr(scoring, "pack", partial(rows.pack, row_tokens=20))
    path = tmp_path / "answers.jsonl"

    def scores(answers: Answers | None) -> dict:
        source = Source(data)
        return evaluate(
            model, tokenizer, tasks=ORDER, source=source, evaluation=evaluation, seed=0, progress=False, answers=answers
        )

    expected = scores(None)
    computed: list[str] = []
    stop_at = 1

    def counted(name: str, call):
        def run(*args, **kwargs):
            if len(computed) == stop_at:
                raise KeyboardInterrupt
            computed.append(name)
            return call(*args, **kwargs)

        return run

    monkeypatch.setattr(scoring, "_score_rows", counted("scoring", scoring._score_rows))
    monkeypatch.setattr(decode._Batch, "prefill", counted("generating", decode._Batch.prefill))
    stops = 0
    while True:
        try:
            found = scores(Answers(path))
            break
        except KeyboardInterrupt:
            stops += 1
            stop_at += 1
    assert stops == len(computed) - 1 > 2  # each process computed one batch and kept its answers
    assert found == expected
    computed.clear()
    assert scores(Answers(path)) == expected
    assert computed == []


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "answers.jsonl"
    monkeypatch.setattr(Path, "open", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match="disk is full"):
        Answers(path).keep({"a": 1})
