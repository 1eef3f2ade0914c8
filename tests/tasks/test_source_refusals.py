"""Data that cannot be used is refused by file and line, and what is missing by name."""

from __future__ import annotations

import pytest

from hiplora.errors import UserError
from hiplora.tasks.source import Data, Source
from tests.tasks.files import local, problems, write


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"question": "q", "answer": "#### 1"}\n{"question": \n', r"train\.jsonl:2 is not valid JSON"),
        (b'["q"]\n', r"train\.jsonl:1 is not a JSON object"),
        (b'{"question": "q"}\n', r"train\.jsonl:1 has no answer"),
        (b'{"question": "\xff"}\n', r"train\.jsonl:1 is not UTF-8"),
        (b'{"question": "\\uD83D\\ude00 \\ude00", "answer": "#### 1"}\n', r"train\.jsonl:1 holds half of a character"),
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


def test_whole_characters_in_escapes_are_read(tmp_path):
    content = b'{"question": "\\ud83d\\ude00 \\\\ud83d", "answer": "#### 1"}\n'
    write(tmp_path, "gsm8k/train", []).write_bytes(content)
    assert local(tmp_path).load("gsm8k", "train")["question"] == ["\U0001f600 \\ud83d"]


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match=r"data\.root=/nowhere is not a folder"):
        Source(Data(name="local", root="/nowhere", revisions={})).reads(("gsm8k", "train"))
    with pytest.raises(UserError, match=r"data\.root=DIR"):
        Source(Data(name="local", root=None, revisions={}))
    with pytest.raises(UserError, match="gsm8k is missing"):
        local(tmp_path).load("gsm8k", "test")
    write(tmp_path, "gsm8k/train", problems(1))
    with pytest.raises(UserError, match=r"test\.jsonl is missing"):
        local(tmp_path).load("gsm8k", "test")
    with pytest.raises(UserError, match="choose one of"):
        local(tmp_path).load("gsm9k", "test")


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
