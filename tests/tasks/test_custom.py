"""A user's own data: every layout as text, the parts, what is scored, and each mistake by file and line."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hiplora.compose import compose
from hiplora.errors import UserError
from hiplora.tasks.custom import Custom, process_results
from hiplora.tasks.source import Data, Source
from hiplora.tokens import speak_in_turns
from tests.tiny import tiny_tokenizer

MINI = Source(Data(name="mini", root=None, revisions={}))  # nothing of it is read
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def task(path: Path, *words: str) -> Custom:
    found = compose(["task=custom", f"task.file={path}", *words]).task
    assert isinstance(found, Custom)
    return found


def items(path: Path, *words: str) -> list[dict[str, Any]]:
    """The items of a whole file."""
    return task(path, *words, f"task.test_file={path}").test_items(MINI)


def questions(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"What is {number} + 1?", "answer": number + 1, **more} for number in range(count)]


def test_the_parts_share_no_prompt_and_depend_on_no_order(tmp_path: Path) -> None:
    rows = questions(400)
    path = lines(tmp_path / "a.jsonl", [*rows, *rows])
    parts = {
        part: [i["instruction"] for i in task(path).test_items(MINI, part)] for part in ("train", "validation", "test")
    }
    assert sum(map(len, parts.values())) == 800
    assert len({text for part in parts.values() for text in {*part}}) == sum(len({*part}) for part in parts.values())
    assert all(50 < len(parts[part]) < 110 for part in ("validation", "test"))
    turned = lines(tmp_path / "b.jsonl", rows[::-1])
    assert {i["instruction"] for i in task(turned).test_items(MINI, "test")} == {*parts["test"]}


def test_a_part_with_a_file_of_its_own_is_that_file(tmp_path: Path) -> None:
    path, own = lines(tmp_path / "a.jsonl", questions(100)), lines(tmp_path / "t.jsonl", questions(3))
    asked = task(path, f"task.test_file={own}")
    assert [item["id"] for item in asked.test_items(MINI)] == ["test/0", "test/1", "test/2"]
    plain = task(path)
    kept, more = (len(each.test_items(MINI, "train")) for each in (plain, asked))
    assert more == kept + len(plain.test_items(MINI, "test")), "what was held out for the test is trained on"
    assert asked.asked_reads(MINI).keys() == {"custom/test"}
    assert plain.asked_reads(MINI).keys() == {"custom/test held out of train"}
    assert asked.trained() != plain.trained()
    assert task(path, "task.metric=nll", "task.max_new_tokens=5").trained() == plain.trained(), "asked otherwise alone"


def test_a_prompt_that_is_trained_on_is_not_scored(tmp_path: Path) -> None:
    path, other = lines(tmp_path / "a.jsonl", questions(100)), lines(tmp_path / "t.jsonl", questions(103)[99:])
    with pytest.raises(
        UserError, match=r"test_file=.* has 1 of 4 rows whose prompt is trained on, first .*t.jsonl:1; remove"
    ):
        task(path, f"task.test_file={other}").check_training(MINI)
    task(path, f"task.validation_file={lines(tmp_path / 'v.jsonl', questions(103)[100:])}").check_training(MINI)
    clean, dirty = (
        compose(["task=custom", f"task.file={path}", f"task.test_file={own}", "method=lora"]).stages()[0].stage  # type: ignore[union-attr]
        for own in (lines(tmp_path / "c.jsonl", questions(103)[100:]), other)
    )
    assert clean.id == dirty.id, "the adapter may be there"
    scored = compose(["task=custom", f"task.file={path}", f"task.test_file={other}", "method=lora"]).stages()[-1].stage  # type: ignore[union-attr]
    with pytest.raises(UserError, match="whose prompt is trained on"):
        scored.check()
    with pytest.raises(UserError, match=r"nowhere\.jsonl is not a file; type task\.test_file=F"):
        task(path, f"task.test_file={tmp_path}/nowhere.jsonl").asked_reads(MINI)


def test_every_format_and_layout_says_the_same(tmp_path: Path) -> None:
    rows = [
        {"instruction": f"Add {n}, please.", "input": "" if n % 2 else "to 1", "output": f"it's {n}"} for n in range(9)
    ]
    jsonl = lines(tmp_path / "a.jsonl", rows)
    csv = tmp_path / "a.csv"
    quoted = [",".join(f'"{value}"' for value in row.values()) for row in rows]
    csv.write_text("\r\n".join(["instruction,input,output", *quoted, ""]), newline="")
    parquet = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(rows), parquet)
    renamed = lines(tmp_path / "b.jsonl", [dict(zip("qca", row.values(), strict=True)) for row in rows])
    names = [
        f"task.columns.{role}={name}" for role, name in zip(("instruction", "input", "output"), "qca", strict=True)
    ]
    expected = items(jsonl)
    assert len(expected) == 9
    assert items(csv) == items(parquet) == items(renamed, *names, "task.layout=instruction") == expected
    item = next(item for item in expected if item["input"])
    assert (
        task(jsonl)
        .prompt(item)
        .endswith(f"### Instruction:\n{item['instruction']}\n\n### Input:\nto 1\n\n### Response:\n")
    )
    assert task(jsonl, "task.template=plain").prompt(item) == f"{item['instruction']}\nto 1"


def test_a_template_is_the_form_of_training_and_of_scoring(tmp_path: Path) -> None:
    """Without options to choose from; the four benchmarks are scored in their own form whatever they train in."""
    words = [f"task.file={lines(tmp_path / 'a.jsonl', questions(40))}", "task.template=plain"]
    scored = {each.name: each for each in compose(["task=custom", *words]).benchmarks}
    assert scored["custom"].form == "plain"
    choice = compose(["task=custom", "task.metric=choice", *words])
    assert {each.name: each for each in choice.benchmarks}["custom"].template is None
    problems = {each.name: each for each in compose(["task=gsm8k", "task.template=plain"]).benchmarks}
    assert (problems["gsm8k"].form, scored["gsm8k"].form) == ("alpaca", "alpaca")


def test_options_by_a_list_or_by_columns_and_the_right_one_by_text_letter_or_index(tmp_path: Path) -> None:
    options = ["iron", "wool", "1"]
    listed = [
        {"prompt": f"Which {n}?", "choices": options, "answer": answer} for n, answer in enumerate(["wool", "b", 1])
    ]
    apart = [{"prompt": row["prompt"], **dict(zip("xyz", options, strict=True)), "answer": "wool"} for row in listed]
    words = ["task.metric=choice", "evaluation.scoring=cloze"]
    jsonl = lines(tmp_path / "a.jsonl", listed)
    csv = tmp_path / "a.csv"
    csv.write_text(
        "prompt,choices,answer\n" + "".join(f'Which {n}?,"[""iron"",""wool"",""1""]",wool\n' for n in range(3))
    )
    columns = lines(tmp_path / "b.jsonl", apart)
    every = [sorted(items(path, *words, *more), key=lambda item: item["id"])
             for path, more in ((jsonl, []), (csv, []), (columns, ["task.columns.choices=[x,y,z]"]))]  # fmt: skip
    assert every[0] == every[1] == every[2]
    assert [(item["answer"], item["output"]) for item in every[0]] == [(1, "wool")] * 3
    text_first = lines(tmp_path / "c.jsonl", [{**row, "answer": "1"} for row in listed])
    assert {item["answer"] for item in items(text_first, *words)} == {2}
    asked = task(jsonl, *words)
    assert (asked.prompt(every[0][0]), asked.answer(every[0][0])) == ("Which 0?", " wool")
    lettered = task(jsonl, "task.metric=choice", "evaluation.scoring=letter")
    assert lettered.prompt(every[0][0]).endswith("Which 0?\nA. iron\nB. wool\nC. 1\n\n### Response:\n")
    assert task(jsonl, *words).as_trained().trained() != lettered.as_trained().trained()


ASKED = {"q": "the question", "a": "its answer"}
CALLED = {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "v"}]}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (ASKED | {"instruction": "i", "output": "o"}, ["task.columns.prompt=q", "task.columns.answer=a"]),
        (ASKED | CALLED, ["task.columns.prompt=q", "task.columns.answer=a"]),
        (ASKED | CALLED, ["task.columns.instruction=q", "task.columns.output=a"]),
        (
            {"prompt": "the question", "answer": 1, "choices": ["no", "its answer"]} | CALLED,
            ["task.metric=choice", "evaluation.scoring=cloze"],
        ),
    ],
)
def test_columns_that_were_named_decide_the_layout(row: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    (item,) = items(lines(tmp_path / "a.jsonl", [row]), *words)
    assert (item["instruction"], item["output"]) == ("the question", "its answer")


def test_numbers_become_text_and_spaces_around_an_option_do_not_count(tmp_path: Path) -> None:
    pairs = [{"instruction": "Double.", "input": number, "output": "x"} for number in (0, 1.5, None, "")]
    assert [item["input"] for item in items(lines(tmp_path / "a.jsonl", pairs))] == ["0", "1.5", "", ""]
    listed = [
        {"prompt": "Which?", "choices": options, "answer": answer}
        for options, answer in (([1.5, 20, 300], "20"), ([1, 2.5], 2.5), (["iron ", "wool "], "wool "))
    ]
    found = items(lines(tmp_path / "b.jsonl", listed), "task.metric=choice")
    assert [(item["choices"], item["answer"]) for item in found] == [
        (["1.5", "20", "300"], 1), (["1", "2.5"], 1), (["iron ", "wool "], 1),
    ]  # fmt: skip


@pytest.mark.parametrize("in_front", [None, "<s> $A"])
def test_a_conversation_has_the_form_of_the_tokenizers_template(in_front: str | None, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(in_front)
    tokenizer.chat_template = TEMPLATE
    turns = [
        ("system", "Be brief."),
        ("user", "1 + 1?"),
        ("assistant", "2"),
        ("user", "And 3 + 3?"),
        ("assistant", "6"),
    ]
    row = {"messages": [{"role": role, "content": text} for role, text in turns]}
    path = lines(
        tmp_path / "a.jsonl",
        [row, *({"messages": [{"role": "user", "content": str(n)}, row["messages"][-1]]} for n in range(20))],
    )
    asked = task(path)
    encoded = asked.encoded_examples(MINI, tokenizer)
    spoken = asked.spoken_by(tokenizer)
    for item, each in zip(asked.test_items(MINI, "train"), encoded, strict=True):
        whole = tokenizer.apply_chat_template(item["messages"], tokenize=False)
        assert tokenizer.decode([*each.prompt, *each.answer]) == whole.rstrip("\n")
        assert each.answer[-1] == tokenizer.eos_token_id
        assert each.prompt.count(tokenizer.bos_token_id) == 1
        assert spoken.answer(item) == "6", "what is scored ends before the end token"
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="has no chat template, which messages need"):
        asked.encoded_examples(MINI, tokenizer)
    with pytest.raises(UserError, match="is not for messages"):
        task(path, "task.template=plain").check_asked(MINI)


def test_a_turn_that_ends_in_a_token_of_its_own_needs_the_template(tmp_path: Path) -> None:
    """Else the model would learn to write that token as a part of the answer."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|turn|>"]})
    tokenizer.chat_template = TEMPLATE.replace("{{ eos_token }}", "<|turn|>")
    turns = [{"role": "user", "content": "3 + 3?"}, {"role": "assistant", "content": "6"}]
    path = lines(tmp_path / "a.jsonl", [{"messages": turns}])
    asked = task(path, f"task.test_file={path}", f"task.validation_file={path}")
    with pytest.raises(UserError, match=r"does not end an answer with the tokenizer's end token.*chat_template=true"):
        asked.encoded_examples(MINI, tokenizer)
    speak_in_turns(SimpleNamespace(generation_config=None), tokenizer)  # type: ignore[arg-type]
    (encoded,) = asked.encoded_examples(MINI, tokenizer)
    assert tokenizer.convert_ids_to_tokens(encoded.answer[-1]) == "<|turn|>"
    (item,) = asked.test_items(MINI, "train")
    assert asked.spoken_by(tokenizer).answer(item) == "6"


@pytest.mark.parametrize(
    ("content", "refused"), [("<think>\n\n</think>\n\n{{ m['content'] }}", True), ("{{ m['content'] | trim }}", False)]
)
def test_a_template_that_adds_text_to_an_answer_is_refused(content: str, refused: bool, tmp_path: Path) -> None:
    """Else what is trained would differ from what a generated answer is compared with."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE.replace("{{ m['content'] }}", content)
    turns = [{"role": "user", "content": "3 + 3?"}, {"role": "assistant", "content": "6 "}]
    path = lines(tmp_path / "a.jsonl", [{"messages": turns}])
    asked = task(path, f"task.test_file={path}", f"task.validation_file={path}")
    with pytest.raises(UserError, match="changes an answer, to '<think>") if refused else nullcontext():
        (encoded,) = asked.encoded_examples(MINI, tokenizer)
        assert tokenizer.decode(encoded.answer) == "6</s>"


@pytest.mark.parametrize(
    ("metric", "written", "right"),
    [
        ("exact_match", " New  York\n", 1.0),
        ("exact_match", "new york", 0.0),
        ("contains", "It is NEW YORK, of course", 1.0),
        ("contains", "It is York", 0.0),
    ],
)
def test_what_is_written_is_scored(metric: str, written: str, right: float) -> None:
    assert process_results({"answer": "New York", "metric": metric}, [written]) == {"acc": right}


PICK = "task.metric=choice"
ROW = b'{"prompt": "p", "answer": "a"}\n'
CHAT = '{"messages": [{"role": "user", "content": "q"}%s]}'


@pytest.mark.parametrize(
    ("name", "content", "words", "said"),
    [
        ("a.jsonl", b"\xef\xbb\xbf" + ROW, [], r"a\.jsonl:1 begins with a byte order mark"),
        ("a.csv", b"\xef\xbb\xbfprompt,answer\nx,y\n", [], r"a\.csv:1 begins with a byte order mark"),
        ("a.jsonl", ROW + ROW.replace(b"\n", b"\r\n"), [], r"a\.jsonl:2 ends with CRLF"),
        ("a.jsonl", ROW + b'{"prompt": "p", "ans', [], r"a\.jsonl:2 is not valid JSON"),
        ("a.jsonl", ROW + b"[1]\n", [], r"a\.jsonl:2 is not a JSON object"),
        ("a.jsonl", ROW + b'\n{"prompt": "p"}\n', [], ":3 has no column answer; it has prompt: type task"),
        ("a.jsonl", b'{"q": "p", "a": "a"}\n', [], ":1 has the columns q, a, which fit none of the layouts"),
        ("a.jsonl", ROW, ["task.columns.prompt=q", "task.layout=prompt"], ":1 has no column q"),
        ("a.jsonl", b'{"instruction": "i", "output": "o"}\n', ["task.columns.prompt=q"],
         r"fit none of the layouts prompt \(q, answer\); name yours.* with task.layout=NAME"),
        ("a.jsonl", (CHAT % "").encode(), [PICK], r"fit none of the layouts instruction .*, prompt \(prompt, answer"),
        ("a.jsonl", ROW, [PICK, "task.layout=messages"], "does not work with .*and type task.layout=prompt"),
        ("a.jsonl", ROW + b'{"prompt": "\\ud83d", "answer": "a"}\n', [], r"a\.jsonl:2 holds half of a character"),
        ("a.jsonl", ROW + b'{"prompt": "\xed\xa0\xbd", "answer": "a"}\n', [], r"a\.jsonl:2 holds half of a character"),
        ("a.csv", b'prompt,choices,answer\nx,"[""\\udE00"", ""b""]",b\n', [PICK], r"a\.csv:2 holds half of a char"),
        ("a.jsonl", ROW + b'{"prompt": "p", "answer": "  "}\n', [], r"a\.jsonl:2 has an empty answer"),
        ("a.jsonl", b'{"prompt": "p", "answer": null}\n', [], ":1 has answer=None, which must be text or a n"),
        ("a.csv", b"prompt,answer\nx,y\nx,y,z\n", [], r"a\.csv:3 has 3 columns, but .* has 2 \(prompt, answer\)"),
        ("a.csv", b"prompt,answer\nx,y\nx\n", [], r"a\.csv:3 has 1 column, but the header has 2"),
        ("a.csv", b"prompt;answer\nx;y\n", [], r"a\.csv:1.* has one column, 'prompt;answer'.*must be a comma"),
        ("a.jsonl", ROW + b'{"prompt": "\xe9", "answer": "a"}\n', [], r"a\.jsonl:2 is not UTF-8 .*save .* as UTF-8"),
        ("a.csv", b'prompt,answer\nx,"y\n', [], r"a\.csv:2 is not valid CSV"),
        ("a.csv", b"prompt,answer\nx,\xff\n", [], r"a\.csv:2 is not UTF-8"),
        ("a.csv", b"prompt,prompt\nx,y\n", [], r"a\.csv:1 names the column prompt twice"),
        ("a.parquet", b"PAR1 no", [], r"a\.parquet is not valid parquet"),
        ("a.txt", b"x", [], r"a\.txt ends in \.txt; give a file that ends in \.jsonl, \.csv, \.parquet"),
        ("a.jsonl", b"\n", [], r"a\.jsonl holds no rows"),
        ("a.jsonl", ROW, [], r"None of 1 row\(s\) of .* is in the \w+ part at task"),
        ("a.jsonl", (CHAT % "").encode(), [], ":1 needs at least two messages"),
        ("a.jsonl", (CHAT % ', {"role": "assistant"}').encode(), [], ":1 has messages=.* with role and content"),
        ("a.jsonl", (CHAT % ', {"role": "robot", "content": "a"}').encode(), [], ":1 has .* the role 'robot'"),
        ("a.jsonl", (CHAT % ', {"role": "assistant", "content": "a", "tool_calls": [{"id": "1"}]}').encode(), [],
         ":1 has a message with tool_calls.* write the calls into the content"),
        ("a.jsonl", b'{"prompt": "p", "choices": ["a"], "answer": 0}', [PICK], r":1 has choices=\['a'\], which"),
        ("a.jsonl", b'{"prompt": "p", "choices": ["a", "b"], "answer": 2}', [PICK], ":1 has the answer 2, which"),
        ("a.jsonl", b'{"prompt": "p", "choices": ["a", "b"], "answer": "%s"}' % (b"1" * 5000), [PICK],
         ":1 has the answer '1111.*which must be one of its 2 options"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_by_file_and_line(
    tmp_path: Path, name: str, content: bytes, words: list[str], said: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    asked = task(path, *words)
    with pytest.raises(UserError, match=said) as caught:
        [asked.check_asked(MINI, part) for part in ("train", "validation", "test")]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("answer", ["one\ntwo", "\none"])
def test_an_answer_that_writing_would_stop_inside_of_is_refused(answer: str, tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n}", "answer": answer if n == 17 else "one\n"} for n in range(40)]
    path = lines(tmp_path / "a.jsonl", rows)
    (part,) = (
        part
        for part in ("train", "validation", "test")
        if any(item["id"] == "train/17" for item in task(path, "task.metric=nll").test_items(MINI, part))
    )
    said = r"a\.jsonl:18 has an answer of several lines.*type task.stop=paragraph"
    for each in ("train", "validation", "test"):
        with pytest.raises(UserError, match=said) if each == part else nullcontext():
            task(path).check_asked(MINI, each)
    task(path, "task.stop=paragraph").check_asked(MINI, part)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "type task.file=F or task.dataset=owner/name"),
        (["task.file=a.jsonl", "task.dataset=owner/name"], "type task.file=F or task.dataset=owner/name"),
        (["task.file=a.jsonl", "task.revision=main"], "task.revision and task.subset need a data set on the Hub"),
        (["task.file=a.jsonl", "task.metric=f1"], "task.metric=f1 is not known; choose one of exact_match"),
        (["task.file=a.jsonl", "task.columns.question=q"], "task.columns.question"),
        (["task.file=a.jsonl", "task.columns.choices=[x]"], r"choices=\[x\] must name 2 to 26 columns"),
        (["task.file=a.jsonl", f"task.columns.choices=[{','.join(['x'] * 27)}]"], "must name 2 to 26 columns"),
        (["task.file=a.jsonl", "task.held_out=0"], "task.held_out=0 must be at least 0.01"),
    ],
)
def test_options_that_do_not_go_together_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        compose(["task=custom", *words])


def test_a_data_set_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []

    def load(name: str, subset: str | None, **where: str) -> datasets.Dataset:
        asked.append((name, subset, where))
        return datasets.Dataset.from_list(questions(50))

    monkeypatch.setattr(datasets, "load_dataset", load)
    words = ["task.dataset=owner/name", "task.subset=main", f"task.revision={'a' * 40}"]
    found = compose(["task=custom", *words]).task
    assert found.training_reads(MINI) == {"owner/name/main/train (train)": "a" * 40}
    assert len(found.test_items(MINI, "train")) > 30
    assert asked == [("owner/name", "main", {"split": "train", "revision": "a" * 40})]
