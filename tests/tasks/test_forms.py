"""The text that is trained on and the text that is scored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hiplora.compose import compose
from hiplora.errors import UserError
from hiplora.evaluation.options import Evaluation
from hiplora.tasks import ORDER, TASKS, primary, task_class
from hiplora.tasks.columns import solution
from hiplora.tasks.form import Example, Pair, encode_pair, encode_pairs, encode_prompt, render
from hiplora.tasks.gsm8k import process_results
from hiplora.tasks.mmlu import mean_over_subjects
from hiplora.tasks.numbers import last_number
from hiplora.tasks.scienceqa import ScienceQA
from hiplora.tasks.source import Data, Source
from tests.tiny import benchmark, tiny_tokenizer

SCIENCE = {"id": "x", "question": "Which conducts heat?", "choices": ["iron", "wool"], "answer": 1, "hint": "Think."}


class Characters:
    """A tokenizer whose tokens are characters, with a token in front of prompts."""

    eos_token_id = -1

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [*([-2] if add_special_tokens else []), *map(ord, text)]

    def __call__(self, texts: list[str], add_special_tokens: bool, **options: bool) -> dict[str, list[list[int]]]:
        return {"input_ids": [self.encode(text, add_special_tokens) for text in texts]}


def test_registry_is_whole():
    assert set(ORDER) <= set(TASKS)
    for name in TASKS:
        assert task_class(name).name == name
        assert primary(name) in task_class(name).scores
        assert set(task_class(name).scores) < set(task_class(name).metrics)
        assert "nll" in task_class(name).metrics
        assert Path(__import__(TASKS[name].split(":")[0], fromlist=["x"]).__file__).with_suffix(".yaml").is_file()
    with pytest.raises(UserError, match="choose one of mmlu"):
        task_class("mlu")


def test_alpaca_form():
    pair = render(Example(id="0", instruction="Add.", input="1 2", output="3"), "alpaca")
    assert pair.prompt.endswith("### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n")
    assert pair.answer == "3"
    assert "### Input" not in render(Example(id="0", instruction="Add.", output="3"), "alpaca").prompt


def test_plain_form_parts_by_one_space_where_none_is_there():
    assert render(Example(id="0", instruction="Lima is in", output="Peru"), "plain")[1:] == ("Lima is in", " Peru")
    code = Example(id="0", instruction="def f():\n", output="    return 1\n")
    assert render(code, "plain")[1:] == ("def f():\n", "    return 1\n")


@pytest.mark.parametrize(
    ("scoring", "prompt", "options"),
    [
        ("cloze", "Think.\nWhich conducts heat?", [" iron", " wool"]),
        ("letter", "### Instruction:\nThink.\nWhich conducts heat?\nA. iron\nB. wool\n\n### Response:\n", ["A", "B"]),
    ],
)
def test_options_follow_the_scoring(scoring, prompt, options):
    task = ScienceQA(scoring=scoring)
    assert task.prompt(SCIENCE).endswith(prompt)
    assert task.options(SCIENCE) == options
    assert task.answer(SCIENCE) == options[1]


@pytest.mark.parametrize(
    ("template", "scoring", "form"),
    [
        ("null", "cloze", "cloze"),
        ("null", "letter", "letter"),
        ("plain", "letter", "cloze"),
        ("alpaca", "cloze", "letter"),
    ],
)
def test_science_is_trained_in_the_form_in_which_it_is_asked_unless_told(tmp_path, template, scoring, form):
    (tmp_path / "scienceqa").mkdir()
    (tmp_path / "scienceqa" / "train.jsonl").write_text(json.dumps({**SCIENCE, "image": None}))
    settings = ["data=local", f"data.root={tmp_path}", f"evaluation.scoring={scoring}", f"task.template={template}"]
    config = compose(["task=scienceqa", *settings])
    (encoded,) = config.task.as_trained().encoded_examples(Source(config.data), Characters())
    asked = ScienceQA(scoring=form)
    assert encoded.prompt == Characters().encode(asked.prompt(SCIENCE))
    assert encoded.answer == [*map(ord, asked.answer(SCIENCE)), *([-1] if form == "letter" else [])]


def test_raw_text_has_no_end_token_and_the_identity_says_so(tmp_path):
    """Neither in training nor in the text; an answer that is written must stop all the same."""
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k" / "train.jsonl").write_text('{"question": "2 + 1?", "answer": "3\\n#### 3"}')
    source = Source(Data(name="local", root=str(tmp_path), revisions={}))
    for template, answer in (("alpaca", [ord("3"), -1]), ("plain", [*map(ord, " 3\n")])):
        task = benchmark("gsm8k", template=template)
        (encoded,) = task.encoded_examples(source, Characters())
        assert encoded.answer == answer
        assert ("ends" in task.trained()) == (template == "plain")
    assert ScienceQA(scoring="cloze").trained()["ends"] is False
    assert "ends" not in ScienceQA(scoring="letter").trained()


FUNCTION = {
    "instruction": 'def f(x):\n    """Return x."""',
    "input": "",
    "output": "\n    return x",
    "entry_point": "f",
}


@pytest.mark.parametrize("template", ["null", "plain", "alpaca"])
def test_functions_are_trained_in_the_form_in_which_they_are_asked_unless_told(tmp_path, template):
    """Prompt and body as they stand, and behind the body what follows a function in a file; no end token."""
    (tmp_path / "codealpaca").mkdir()
    for split in ("train", "validation"):
        (tmp_path / "codealpaca" / f"{split}.jsonl").write_text(json.dumps(FUNCTION))
    config = compose(["task=code", "data=local", f"data.root={tmp_path}", f"task.template={template}"])
    (encoded,) = config.task.as_trained().encoded_examples(Source(config.data), Characters())
    prompt, answer = FUNCTION["instruction"], FUNCTION["output"]
    if template == "alpaca":
        prompt = render(Example(id="", instruction=prompt, output=answer), "alpaca").prompt
        assert encoded.answer == [*map(ord, answer), -1]
    else:
        assert encoded.answer == [*map(ord, answer + "\n\n\ndef")]
    assert encoded.prompt == Characters().encode(prompt)


def test_instructions_about_code_keep_the_alpaca_form_and_the_end_token(tmp_path):
    pair = {name: FUNCTION[name] for name in ("instruction", "input", "output")}
    (tmp_path / "codealpaca").mkdir()
    for split in ("train", "validation"):
        (tmp_path / "codealpaca" / f"{split}.jsonl").write_text(json.dumps(pair))
    config = compose(["task=code", "data=local", f"data.root={tmp_path}"])
    (encoded,) = config.task.as_trained().encoded_examples(Source(config.data), Characters())
    assert "### Instruction:" in "".join(map(chr, encoded.prompt[1:]))
    assert encoded.answer[-1] == -1


def test_stops_and_ending_identify_code(monkeypatch):
    """Stops are part of a score's identity, the ending of a trained body is part of a training's."""
    task = benchmark("code")
    asked, trained = task.identity(), task.trained()
    monkeypatch.setattr("hiplora.tasks.code.STOPS", ("\ndef",))
    assert task.identity() != asked
    assert task.trained() == trained
    monkeypatch.setattr("hiplora.tasks.code.ENDING", "")
    assert task.trained() != trained


def test_word_problems_have_two_targets():
    item = {"id": "0", "question": "2 + 1?", "answer": "It is 2+1=<<2+1=1003>>1,003.\n#### 1,003"}
    assert benchmark("gsm8k").answer(item) == "1003"
    assert benchmark("gsm8k", target="solution").answer(item) == "It is 2+1=1,003.\n#### 1,003"
    with pytest.raises(UserError, match=r"task\.target=answer"):
        ScienceQA(target="solution")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("18", "18"),
        (" The answer is $1,234.50.", "1234.5"),
        ("3 apples and 5.0 pears.", "5"),
        ("-7", "-7"),
        ("\u22127", "-7"),
        ("about \u2013 3 or \uff0d$1,200", "-1200"),
        ("10\u201312", "12"),
        ("10-12", "12"),
        ("$-3", "-3"),
        ("-$3", "-3"),
        (".5", "0.5"),
        ("-0", "0"),
        ("1,2,3.", "123"),
        ("none", None),
        ("", None),
    ],
)
def test_last_number(text, number):
    assert last_number(text) == number


def test_a_gold_answer_may_use_another_minus_sign():
    item = {"id": "0", "question": "3 - 10?", "answer": "3 - 10 = \u22127\n#### \u22127"}
    assert benchmark("gsm8k").answer(item) == "-7"
    assert solution(item["answer"], item) is None
    assert (
        process_results({"answer": "\u22127"}, ["-7"]) == process_results({"answer": "-7"}, ["\u22127"]) == {"acc": 1.0}
    )
    assert process_results({"answer": "\u22127"}, ["7"]) == {"acc": 0.0}


@pytest.mark.parametrize("name", ["none", "bos", "bos and eos"])
def test_pairs_are_encoded_as_they_are_meant_whatever_the_post_processor_adds(name):
    """No end token between prompt and answer, in training, likelihood and generation alike."""
    ends = {"none": "$A", "bos": "<s> $A", "bos and eos": "<s> $A </s>"}
    tokenizer = tiny_tokenizer(ends[name])
    bare = tokenizer.encode("Name the colour.", add_special_tokens=False)
    begin = [] if name == "none" else [tokenizer.bos_token_id]
    assert encode_prompt(tokenizer, "Name the colour.") == [*begin, *bare]
    prompt, answer = encode_pair(tokenizer, "Name the colour.", " blue")
    assert (prompt, answer) == ([*begin, *bare], tokenizer.encode(" blue", add_special_tokens=False))
    assert encode_prompt(tokenizer, "") == begin
    pairs = [Pair("1", "Name the colour.", " blue"), Pair("2", "", "B"), Pair("3", "def add(a, b):\n", "    return a")]
    assert encode_pairs(tokenizer, pairs) == [encode_pair(tokenizer, pair.prompt, pair.answer) for pair in pairs]
    assert encode_pairs(tokenizer, []) == []


def test_a_post_processor_that_changes_the_prompt_is_refused():
    class Odd:
        name_or_path = "odd"

        def encode(self, text, add_special_tokens=True):
            return [1, 9, 9] if add_special_tokens else [2, 3]

    with pytest.raises(UserError, match=r"odd .*changes the text"):
        encode_prompt(Odd(), "x")


def test_macro_mean():
    assert mean_over_subjects([("a", 1.0), ("a", 0.0), ("b", 1.0)]) == 0.75


def test_drawn_items_are_of_every_part_of_a_sorted_file(monkeypatch: pytest.MonkeyPatch) -> None:
    mmlu, source = benchmark("mmlu"), Source(Data(name="mini", root=None, revisions={}))
    items = [{"id": f"test/{number}", "subject": number // 100} for number in range(5700)]
    monkeypatch.setattr(type(mmlu), "test_items", lambda *_: items)
    first = Evaluation(splits="test", batch_tokens=1, text_tokens=2, limit=40, seed=0)
    assert {item["subject"] for item in mmlu.limited(source, first)} == {0}
    drawn = first.but(take="drawn")
    taken = mmlu.limited(source, drawn)
    assert len({item["subject"] for item in taken}) > 20
    assert mmlu.limited(source, drawn.but(limit=10)) == taken[:10]
    assert mmlu.limited(source, drawn.but(limit=None)) == items
    assert first.identity().keys() == drawn.identity().keys() - {"take"}
