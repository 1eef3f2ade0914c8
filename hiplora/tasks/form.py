"""How an example becomes text and token ids, in the same form for training and evaluation.

A pair is (prompt, answer). The two are encoded separately and their ids concatenated, so that no tokenizer merges
characters across the boundary: the ids trained on are exactly the ids scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from hiplora.errors import UserError
from hiplora.tokens import in_turns, turn_end

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BLANK_LINE = "\n\n"  # ends a trained answer if the tokenizer has no end token
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)


@dataclass(frozen=True, kw_only=True)
class Example:
    """One instruction with its response, before any template; ``id`` names its place in the data set."""

    id: str
    instruction: str
    output: str
    input: str = ""


class Pair(NamedTuple):
    """Text of a prompt and of the answer that follows it, ready to be encoded separately."""

    id: str
    prompt: str
    answer: str


def render(example: Example, template: str) -> Pair:
    """Prompt and answer of an example; ``template`` is ``alpaca`` or ``plain``.

    ``plain`` is raw text: the instruction (and the input below it) continued by the output, with a space between
    them unless one side already has whitespace there.
    """
    if template == "alpaca":
        form = _WITH_INPUT if example.input else _WITHOUT_INPUT
        prompt = form.format(instruction=example.instruction, input=example.input)
        return Pair(example.id, prompt, example.output)
    prompt = example.instruction + (f"\n{example.input}" if example.input else "")
    parted = prompt[-1:].isspace() or example.output[:1].isspace()
    return Pair(example.id, prompt, example.output if parted else f" {example.output}")


def chat_pair(tokenizer: PreTrainedTokenizerBase, id: str, messages: Sequence[Mapping[str, str]]) -> Pair:
    """Prompt and answer of a conversation by the tokenizer's chat template; the last message is the answer.

    The answer excludes the end that training appends: the end token, or with ``model.chat_template`` the template's end
    of a turn. The prompt excludes the special tokens that the tokenizer itself puts in front of a text.

    Raises:
        UserError: the tokenizer has no template, the template refuses the messages, does not put the answer after the
            prompt or adds text to it, or it does not end an answer with the end token.
    """
    if not tokenizer.chat_template:
        raise UserError(
            f"The tokenizer {tokenizer.name_or_path} has no chat template, which messages need; give a backbone that "
            "was made for conversations, or the columns prompt and answer."
        )
    turns = [dict(message) for message in messages]
    try:
        prompt = str(tokenizer.apply_chat_template(turns[:-1], tokenize=False, add_generation_prompt=True))
        whole = str(tokenizer.apply_chat_template(turns, tokenize=False))
    except Exception as error:  # a template is a program that raises what it likes
        raise UserError(f"{id}: the chat template refuses these messages ({error}); change or remove them.") from error
    if not whole.startswith(prompt):
        raise UserError(
            f"The chat template of {tokenizer.name_or_path} does not put an answer after its own prompt ({id}); give "
            "the columns prompt and answer instead."
        )
    answer = _without_end(tokenizer, whole[len(prompt) :])
    if answer.strip() != turns[-1]["content"].strip():
        raise UserError(
            f"The chat template of {tokenizer.name_or_path} changes an answer, to {answer[:40]!r} ({id}), so that what "
            "is trained would not be what is scored; give the columns prompt and answer without model.chat_template, "
            "or choose another backbone."
        )
    return Pair(id, _without_front(tokenizer, prompt), answer)


def _without_end(tokenizer: PreTrainedTokenizerBase, answer: str) -> str:
    """An answer as the chat template writes it, without the end that training appends."""
    end = turn_end(tokenizer) or ([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])
    before, found, _ = answer.rpartition(str(tokenizer.decode(end))) if end else (answer, "", "")
    if not found and not in_turns(tokenizer):
        raise UserError(
            f"The chat template of {tokenizer.name_or_path} does not end an answer with the tokenizer's end token "
            f"({tokenizer.eos_token}); type model.chat_template=true, which takes the template's own end of a turn."
        )
    return before if found else answer


def as_shown(tokenizer: PreTrainedTokenizerBase, pair: Pair) -> Pair:
    """A pair as the model sees it: unchanged, or with ``model.chat_template`` as a user's turn and its answer."""
    if not in_turns(tokenizer):
        return pair
    return Pair(pair.id, shown_prompt(tokenizer, pair.prompt), shown_answer(tokenizer, pair.answer))


def shown_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """A prompt unchanged, or with ``model.chat_template`` as a user's turn, up to the start of the assistant's."""
    if not in_turns(tokenizer):
        return prompt
    turn = [{"role": "user", "content": prompt}]
    whole = str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))
    return _without_front(tokenizer, whole)


def shown_answer(tokenizer: PreTrainedTokenizerBase, answer: str) -> str:
    """An answer unchanged, or with ``model.chat_template`` without the space that separates it from a raw prompt."""
    return answer.removeprefix(" ") if in_turns(tokenizer) else answer


def end_of_shown(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids that end an answer of :func:`as_shown`: the template's end of a turn, else :func:`end_of_answer`."""
    return turn_end(tokenizer) or end_of_answer(tokenizer)


def end_of_answer(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids that end a trained answer: the end token, or a blank line if the tokenizer has none.

    Generation stops at a blank line anyway, except in the code benchmark.

    Raises:
        UserError: the tokenizer has no end token and cannot write a blank line either.
    """
    if tokenizer.eos_token_id is not None:
        return [tokenizer.eos_token_id]
    ids = tokenizer.encode(BLANK_LINE, add_special_tokens=False)
    if BLANK_LINE not in str(tokenizer.decode(ids)):
        raise UserError(
            f"The tokenizer {tokenizer.name_or_path} has neither an end token nor line breaks, so no answer could end; "
            "name its eos_token in tokenizer_config.json."
        )
    return ids


def _without_front(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """A text of the chat template without the special tokens that the tokenizer itself puts in front."""
    front = _in_front(tokenizer)
    return text.removeprefix(str(tokenizer.decode(front))) if front else text


def listed(question: str, choices: list[str]) -> str:
    """A question with its options below it, one letter each."""
    return "\n".join([question, *(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))])


def encode_pair(tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str) -> tuple[list[int], list[int]]:
    """Token ids of prompt and answer, encoded separately; the prompt as by :func:`encode_prompt`.

    Training in Alpaca format appends :func:`end_of_answer` to the answer's ids; scoring does not.
    """
    return encode_prompt(tokenizer, prompt), tokenizer.encode(answer, add_special_tokens=False)


def encode_pairs(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Pair]) -> list[tuple[list[int], list[int]]]:
    """What :func:`encode_pair` gives for each pair, several times faster: the tokenizer is called once for all."""
    if not pairs:
        return []
    front = _in_front(tokenizer)
    texts = [pair.prompt for pair in pairs] + [pair.answer for pair in pairs]
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return [([*front, *prompt], answer) for prompt, answer in zip(ids[: len(pairs)], ids[len(pairs) :], strict=True)]


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """Token ids of a prompt with the special tokens that the tokenizer puts in front, and none after it.

    Some tokenizers end every text with the end token, which would come between prompt and answer.
    """
    return [*_in_front(tokenizer), *tokenizer.encode(prompt, add_special_tokens=False)]


def _in_front(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of the special tokens that the tokenizer puts in front of a text, found on a short text.

    Raises:
        UserError: the tokenizer changes the text itself when it adds special tokens.
    """
    whole, bare = tokenizer.encode("x"), tokenizer.encode("x", add_special_tokens=False)
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start]
    raise UserError(
        f"The tokenizer {tokenizer.name_or_path} changes the text that it adds special tokens to; use one whose "
        "post-processor only adds tokens before or after it."
    )
