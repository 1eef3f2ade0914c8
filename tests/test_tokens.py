"""Tokenizers that lack special tokens, and prompts as turns of a chat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from hiplora import models
from hiplora.errors import UserError
from hiplora.evaluation.ending import end_tokens
from hiplora.models import Model
from hiplora.tasks.form import Pair, as_shown, encode_pair, end_of_answer, end_of_shown, shown_answer, shown_prompt
from tests.backbones import CHAT, backbone
from tests.tiny import tiny_tokenizer


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HIPLORA_CACHE", str(tmp_path / "cache"))
    yield
    models.forget()


def without(*names: str) -> Any:
    """The tiny tokenizer without these special tokens; the text of its vocabulary stays."""
    tokenizer = tiny_tokenizer()
    for name in names:
        setattr(tokenizer, name, None)
    return tokenizer


def loaded(folder: Path, **changes: Any) -> models.Backbone:
    fields = {"name": "tiny", "source": "folder", "revision": None, "dtype": "float32", "device": "cpu"}
    return models.load(Model(**{**fields, "path": str(folder), "target_modules": "auto", **changes}))


def test_the_end_token_is_the_models_where_that_is_special(tmp_path: Path) -> None:
    """And never a default that is an ordinary token, at which every text would end."""
    found = loaded(backbone(tmp_path / "own", "llama", tokenizer=without("eos_token", "bos_token"), eos_token_id=1))
    assert found.tokenizer.eos_token == found.tokenizer.pad_token == "</s>"
    assert end_of_answer(found.tokenizer) == [1]
    assert end_tokens(found.model, found.tokenizer) == {1}


def test_without_an_end_token_an_answer_ends_with_a_blank_line(tmp_path: Path) -> None:
    found = loaded(backbone(tmp_path / "none", "llama", tokenizer=without("eos_token", "bos_token"), eos_token_id=77))
    tokenizer = found.tokenizer
    assert tokenizer.eos_token is None
    assert tokenizer.decode(end_of_answer(tokenizer)) == "\n\n"
    assert end_tokens(found.model, tokenizer) == set()
    assert tokenizer.pad_token_id is not None
    text = "What is 12 + 30? <s>"
    assert tokenizer.encode(text) == AutoTokenizer.from_pretrained(tmp_path / "none").encode(text)
    tokenizer.decode = lambda ids: "?"
    with pytest.raises(UserError, match="has neither an end token nor line breaks"):
        end_of_answer(tokenizer)


def test_prompts_as_turns_of_a_chat(tmp_path: Path) -> None:
    """What the template itself makes of a conversation, up to the end of the answer's turn."""
    tokenizer = tiny_tokenizer(template="<s> $A")
    tokenizer.chat_template = CHAT
    found = loaded(backbone(tmp_path, "llama", tokenizer=tokenizer), chat_template=True)
    pair = as_shown(found.tokenizer, Pair("1", "The capital of Peru is", " Lima"))
    assert pair == ("1", "user\nThe capital of Peru is</s>\n<s>assistant\n", "Lima")
    prompt, answer = encode_pair(found.tokenizer, pair.prompt, pair.answer)
    turns = [{"role": "user", "content": "The capital of Peru is"}, {"role": "assistant", "content": "Lima"}]
    whole = found.tokenizer.apply_chat_template(turns, tokenize=False)
    ids = [*prompt, *answer, *end_of_shown(found.tokenizer)]
    assert found.tokenizer.decode(ids) == whole.removesuffix("\n")
    assert found.tokenizer.decode(ids).count("<s>user") == 1

    plain = loaded(tmp_path).tokenizer
    assert as_shown(plain, Pair("1", "a", " b")) == ("1", "a", " b")
    assert (shown_prompt(plain, "a"), shown_answer(plain, " b")) == ("a", " b")


def test_the_token_that_ends_a_turn_ends_what_is_written(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|turn|>"]})
    tokenizer.chat_template = CHAT.replace("</s>", "<|turn|>")
    found = loaded(backbone(tmp_path, "llama", tokenizer=tokenizer), chat_template=True)
    end = found.tokenizer.convert_tokens_to_ids("<|turn|>")
    assert end_of_shown(found.tokenizer) == [end]
    assert end_of_answer(found.tokenizer) == [1]
    assert end_tokens(found.model, found.tokenizer) == {1, end}


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (None, "has no chat template; leave model.chat_template out"),
        (CHAT.replace("assistant\n{% endif", "helper\n{% endif"), "does not put an answer behind its own prompt"),
    ],
)
def test_a_template_that_cannot_be_used(tmp_path: Path, template: str | None, words: str) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    folder = backbone(tmp_path, "llama", tokenizer=tokenizer)
    with pytest.raises(UserError, match=words):
        loaded(folder, chat_template=True)
