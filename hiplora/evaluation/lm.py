"""lm-eval's interface to the model in memory.

A subclass of lm-eval's ``HFLM`` that does not reload the model, encode texts twice or compute logits of whole
sequences. Prompts and continuations are encoded separately (:func:`hiplora.tasks.form.encode_pair`), shared prefixes
are computed once (:mod:`hiplora.packing`), and generation is ours (:mod:`hiplora.evaluation.decode`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lm_eval.models.huggingface import HFLM

from hiplora.evaluation.answers import Answers
from hiplora.evaluation.decode import Wanted
from hiplora.evaluation.sampling import Decoding
from hiplora.evaluation.scoring import Scored
from hiplora.packing.sequences import Encoded
from hiplora.tasks.form import encode_pair, encode_prompt

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from hiplora.parts import Parts

GENERATION_KEYS = {"do_sample", "temperature", "top_p", "top_k", "max_gen_toks", "until"}


class Answer(tuple):
    """lm-eval's pair (log-likelihood, is greedy), with two attributes that our own scores need.

    ``log_prob`` is in nats, summed over ``tokens`` tokens.
    """

    log_prob: float
    tokens: int

    def __new__(cls, scored: Scored) -> Answer:
        answer = super().__new__(cls, (scored.log_prob, scored.greedy))
        answer.log_prob, answer.tokens = scored.log_prob, scored.tokens
        return answer


class InMemoryLM(HFLM):
    """lm-eval's view of a loaded causal language model, plain or PEFT.

    Args:
        batch_tokens: padded tokens per forward pass.
        seed: seeds the sampled completions.
        progress: show progress bars.
        parts: earlier answers of this model under these settings, which are reused; new ones are added. With None,
            nothing is kept between calls.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_tokens: int,
        seed: int = 0,
        progress: bool = True,
        parts: Parts | None = None,
    ) -> None:
        with _heads_kept(model):
            super().__init__(pretrained=model, tokenizer=tokenizer, backend="causal")
        self.seed = seed
        self.answers = Answers(model, tokenizer, batch_tokens=batch_tokens, progress=progress, parts=parts)

    @property
    def max_length(self) -> int:
        return self.answers.positions or super().max_length

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        return encode_pair(self.tokenizer, context, continuation)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[Answer]:
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[Any, list[int], list[int]]],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[Answer]:
        """Score (strings, prompt ids, continuation ids); a prompt too long for the model loses its beginning."""
        asked = [Encoded(list(prompt), list(continuation)) for _, prompt, continuation in requests]
        return [Answer(scored) for scored in self.answers.score(asked)]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Completions; requests with the same prompt and settings are samples of one distribution."""
        by_settings: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            by_settings.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(index)
        texts: dict[int, str] = {}
        for settings, indices in by_settings.items():
            prompts = [requests[index].args[0] for index in indices]
            found = self._complete(prompts, self._decoding(json.loads(settings)))
            texts.update(zip(indices, found, strict=True))
        return [texts[index] for index in range(len(requests))]

    def _decoding(self, settings: dict[str, Any]) -> Decoding:
        return decoding(settings, seed=self.seed)

    def _encode_prompts(self, prompts: Sequence[str]) -> list[list[int]]:
        return [encode_prompt(self.tokenizer, prompt) for prompt in prompts]

    def _complete(self, prompts: Sequence[str], settings: Decoding) -> list[str]:
        places: dict[str, list[int]] = {}
        for index, prompt in enumerate(prompts):
            places.setdefault(prompt, []).append(index)
        encoded = zip(self._encode_prompts([*places]), places.values(), strict=True)
        wanted = [Wanted(prompt, len(where)) for prompt, where in encoded]
        texts = [""] * len(prompts)
        for where, completions in zip(places.values(), self.answers.complete(wanted, settings), strict=True):
            for index, text in zip(where, completions, strict=True):
                texts[index] = text
        return texts


@contextmanager
def _heads_kept(model: Any) -> Iterator[None]:
    """A context in which the model cannot be re-tied.

    ``HFLM`` ties the weights of any model that it is given. The embedding would then replace a head that an adapter
    trained (``modules_to_save``) on a tied backbone.
    """
    model.tie_weights = lambda: None
    try:
        yield
    finally:
        del model.tie_weights


def decoding(settings: dict[str, Any], *, seed: int) -> Decoding:
    """Generation settings from lm-eval's ``generation_kwargs``.

    Raises:
        ValueError: this decoder does not support a setting.
    """
    unknown = sorted(set(settings) - GENERATION_KEYS)
    if unknown or settings.get("top_k", 0) != 0:
        raise ValueError(f"generation_kwargs has {unknown or 'top_k'}, which this decoder does not support.")
    sampled = settings.get("do_sample", False)
    return Decoding(
        max_new_tokens=settings["max_gen_toks"],
        stops=tuple(settings["until"]),
        temperature=settings["temperature"] if sampled else 0.0,
        top_p=settings["top_p"] if sampled else 1.0,
        seed=seed,
    )
