"""An evaluation that was stopped continues after the answers it has, and in float32 ends as one that was not."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from hiplora.errors import UserError
from hiplora.evaluation import decode, scoring
from hiplora.evaluation.answers import Answers
from hiplora.evaluation.decode import Wanted
from hiplora.evaluation.engine import evaluate
from hiplora.evaluation.lm import InMemoryLM
from hiplora.evaluation.sampling import Decoding
from hiplora.packing.decoder import evaluating
from hiplora.packing.rows import as_trees
from hiplora.packing.sequences import Encoded
from hiplora.parts import Parts, key
from hiplora.tasks import ORDER
from hiplora.tasks.source import Source
from tests.tiny import benchmark


def test_a_torn_line_loses_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "answers.jsonl"
    answers = Parts(path)
    answers.keep({"a": [1.5, True, 2], "b": ["x\n", "é"]})
    path.write_bytes(path.read_bytes()[:-4])
    again = Parts(path)
    assert (again.get("a"), again.get("b")) == ([1.5, True, 2], None)
    again.keep({"b": ["y"]})
    assert (Parts(path).get("a"), Parts(path).get("b")) == ([1.5, True, 2], ["y"])
    path.write_text(path.read_text().replace("1.5", "1.6"))
    assert (Parts(path).get("a"), Parts(path).get("b")) == (None, ["y"]), "a flipped digit is not believed"
    assert key("score", [1], [2, 3]) != key("score", [1, 2], [3])


def test_no_answer_is_computed_twice(model, tokenizer, data, evaluation, tmp_path, monkeypatch) -> None:
    evaluation = evaluation.but(batch_tokens=1)  # a batch is a row, and rows are short: many places to stop at
    monkeypatch.setattr(scoring, "as_trees", partial(as_trees, row_tokens=20))
    path = tmp_path / "answers.jsonl"

    def scores(answers: Parts | None) -> dict:
        tasks = [benchmark(name) for name in ORDER]
        return evaluate(
            model, tokenizer, tasks=tasks, source=Source(data), evaluation=evaluation, progress=False, parts=answers
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
            found = scores(Parts(path))
            break
        except KeyboardInterrupt:
            stops += 1
            stop_at += 1
    assert stops == len(computed) - 1 > 2  # each process computed one batch and kept its answers
    assert found == expected
    computed.clear()
    assert scores(Parts(path)) == expected
    assert computed == []


def test_nothing_is_remembered_without_a_file(model, tokenizer) -> None:
    """The model may change between two calls of one object."""
    asked = [(("", ""), [2, 3, 4], [5, 6])]
    lm = InMemoryLM(model, tokenizer, batch_tokens=64, progress=False)
    with torch.no_grad(), evaluating(model):
        before = lm._loglikelihood_tokens(asked)
        model.lm_head.weight.mul_(0.5)
        assert lm._loglikelihood_tokens(asked) != before


def test_no_completion_is_remembered_without_a_file(model, tokenizer) -> None:
    wanted, settings = [Wanted([2, 3, 4], 1)], Decoding(max_new_tokens=4, stops=())
    answers = Answers(model, tokenizer, batch_tokens=64, progress=False)
    with torch.no_grad(), evaluating(model):
        before = answers.complete(wanted, settings)
        model.lm_head.weight.copy_(model.lm_head.weight.roll(1, dims=0))
        assert answers.complete(wanted, settings) != before


def test_an_answer_longer_than_the_models_positions_is_refused(model, tokenizer) -> None:
    answers = Answers(model, tokenizer, batch_tokens=64, progress=False)
    assert answers.positions is not None
    longest = Encoded([2, 3], [4] * answers.positions)
    with torch.no_grad(), evaluating(model):
        assert answers.score([longest])[0].tokens == answers.positions
        with pytest.raises(UserError, match=f"An answer to score has {answers.positions + 1} tokens"):
            answers.score([Encoded([2, 3], [*longest.answer, 4])])


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "answers.jsonl"
    monkeypatch.setattr(Path, "open", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match="disk is full"):
        Parts(path).keep({"a": 1})
