"""Special tokens of a backbone's tokenizer: replacements for missing ones, and prompts in the chat template.

A tokenizer without an end token gets the model's, if that is one of the tokenizer's special tokens; otherwise it has
none, and answers end as :func:`hiplora.tasks.form.end_of_answer` says. Padding is never attended to and never a target,
so any token can serve as pad token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hiplora.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_TURN_END = "hiplora_turn_end"  # mark on a tokenizer whose prompts are turns: ids of what ends an answer


def complete(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Set the tokenizer's missing end token, where the model has one, and its pad token, in place."""
    if tokenizer.eos_token is None:
        _take_end_token(model, tokenizer)
    if tokenizer.pad_token is None:
        first = tokenizer.convert_ids_to_tokens(0)
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.bos_token or first
    model.config.pad_token_id = tokenizer.pad_token_id
    if model.generation_config is not None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id


def _take_end_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Take the end token from the model's generation settings, unless it is an ordinary token: an unset default."""
    settings = model.generation_config
    if settings is None:
        return
    special = [token for token in _listed(settings.eos_token_id) if _is_special(tokenizer, token)]
    if special:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(special[0])
    settings.eos_token_id = special or None


def speak_in_turns(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Mark a tokenizer so that prompts are put into its chat template; generation also stops at the end of a turn.

    Raises:
        UserError: it has no template, or one that does not append an answer unchanged to its prompt.
    """
    if not tokenizer.chat_template:
        raise UserError(
            f"The tokenizer {tokenizer.name_or_path} has no chat template; leave model.chat_template out, or choose a "
            "backbone that was trained for chat."
        )
    question = [{"role": "user", "content": "x"}]
    prompt = str(tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True))
    answered = [*question, {"role": "assistant", "content": "y"}]
    whole = str(tokenizer.apply_chat_template(answered, tokenize=False))
    if not whole.startswith(f"{prompt}y"):
        raise UserError(
            f"The chat template of {tokenizer.name_or_path} does not put an answer after its own prompt; leave "
            "model.chat_template out."
        )
    ids = tokenizer.encode(whole[len(prompt) + 1 :], add_special_tokens=False)
    ends = next((place for place, token in enumerate(ids) if _is_special(tokenizer, token)), None)
    setattr(tokenizer, _TURN_END, () if ends is None else tuple(ids[: ends + 1]))
    if ends is not None and model.generation_config is not None:
        known = _listed(model.generation_config.eos_token_id)
        model.generation_config.eos_token_id = list(dict.fromkeys([*known, ids[ends]]))


def begins(tokenizer: PreTrainedTokenizerBase, ends: Any) -> bool:
    """Whether some token can precede a text: a beginning or end token, or a special one among ``ends``."""
    named = tokenizer.bos_token is not None or tokenizer.eos_token is not None
    return named or any(_is_special(tokenizer, token) for token in _listed(ends))


def in_turns(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether prompts are put into the tokenizer's chat template."""
    return hasattr(tokenizer, _TURN_END)


def turn_end(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that the template puts after an answer, up to and including its first special token; empty without one."""
    return list(getattr(tokenizer, _TURN_END, ()))


def _listed(value: Any) -> list[int]:
    several = value if isinstance(value, list | tuple) else [value]
    return [token for token in several if token is not None]


def _is_special(tokenizer: PreTrainedTokenizerBase, token: int) -> bool:
    added = tokenizer.added_tokens_decoder.get(token)
    return added is not None and added.special
