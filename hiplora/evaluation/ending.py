"""When a completion ends, and its text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedTokenizerBase

from hiplora.evaluation.sampling import Decoding
from hiplora.packing.decoder import causal_lm


@dataclass
class Branch:
    """A sequence: the index of its prompt, the completions (by index) that share it, and the tokens so far."""

    owner: int
    copies: list[int]
    tokens: list[int]


class Ending:
    """Decides which branches end: at an end token of the model, at a stop, or at the longest completion.

    A stop may span tokens and begin inside one, so it is searched in the text of the last few tokens.
    """

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, decoding: Decoding) -> None:
        self.tokenizer = tokenizer
        self.stops = decoding.stops
        self.longest = decoding.max_new_tokens
        self.raw = decoding.raw
        self.ends = end_tokens(model, tokenizer)
        self.window = max((len(stop.encode()) for stop in self.stops), default=0) + 1  # a token has a byte or more

    def of(self, branches: Sequence[Branch]) -> list[bool]:
        """For each branch, whether it ends with its last token."""
        tails = self._decode([branch.tokens[-self.window :] for branch in branches])
        return [
            branch.tokens[-1] in self.ends
            or len(branch.tokens) >= self.longest
            or any(stop in tail for stop in self.stops)
            for branch, tail in zip(branches, tails, strict=True)
        ]

    def text(self, prompt: Sequence[int], tokens: Sequence[int]) -> str:
        """Text of a completion without its end token, up to the first stop.

        It is decoded after the prompt's last token, because some tokenizers drop a leading space. With ``raw``, the
        tokens are decoded alone and nothing is cut.
        """
        if self.raw:
            return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))
        kept = list(tokens[:-1] if tokens[-1] in self.ends else tokens)
        alone, together = self._decode([list(prompt[-1:]), [*prompt[-1:], *kept]])
        text = together[len(alone) :]
        return text[: min((text.find(stop) for stop in self.stops if stop in text), default=len(text))]

    def _decode(self, tokens: list[list[int]]) -> list[str]:
        return self.tokenizer.batch_decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def end_tokens(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids of the tokens that end a text: those of the model's generation settings, and the tokenizer's end token."""
    configured = causal_lm(model).generation_config.eos_token_id
    several = configured if isinstance(configured, list) else [configured]
    return {token for token in (*several, tokenizer.eos_token_id) if token is not None}
