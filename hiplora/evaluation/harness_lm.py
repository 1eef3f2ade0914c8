"""The model in memory with the conventions of lm-eval's ``HFLM``, for lm-eval's own tasks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text

from hiplora.errors import UserError
from hiplora.evaluation.lm import InMemoryLM
from hiplora.evaluation.sampling import Decoding
from hiplora.packing.decoder import causal_lm
from hiplora.tasks.columns import shown

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from torch import nn

# Settings that have no effect at these values; this decoder does not support others.
NEUTRAL = {
    "top_k": (0, None), "num_beams": (1,), "num_return_sequences": (1,), "repetition_penalty": (1.0,),
    "min_p": (None, 0.0), "use_cache": (True,), "early_stopping": (True, False),
}  # fmt: skip
# The same for a model's generation_config, which lm-eval's own command obeys and this decoder does not read.
UNREAD: dict[str, tuple[Any, ...]] = {
    "repetition_penalty": (1.0, None), "encoder_repetition_penalty": (1.0, None), "guidance_scale": (1.0, None),
    "num_beams": (1, None), "no_repeat_ngram_size": (0, None), "encoder_no_repeat_ngram_size": (0, None),
    "min_length": (0, None), "min_new_tokens": (0, None),
    **dict.fromkeys(
        ("max_new_tokens", "suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "sequence_bias",
         "forced_bos_token_id", "forced_eos_token_id", "exponential_decay_length_penalty", "watermarking_config"),
        (None, []),
    ),
}  # fmt: skip
SAMPLED = ("temperature", "top_p", "top_k", "min_p")  # have no effect on greedy decoding


def settings_of(given: dict[str, Any], *, name: str) -> dict[str, Any]:
    """A task's ``generation_kwargs`` as lm-eval reads them, without settings that have no effect.

    Raises:
        UserError: this decoder does not support a setting, or sampling has no temperature.
    """
    read: dict[str, Any] = dict(normalize_gen_kwargs(given))
    known = {"do_sample", "until", "max_gen_toks", "temperature", "top_p"}
    idle = SAMPLED if not read["do_sample"] else ()
    other = {key: value for key, value in read.items() if key not in known and key not in idle}
    for key, value in other.items():
        if value not in NEUTRAL.get(key, ()):
            raise UserError(
                f"evaluation.tasks: {name} asks for {key}={value} in generation_kwargs, which this project's decoder "
                "does not support; leave the task out, or remove that in a copy of its YAML."
            )
    if read["do_sample"] and read.get("temperature", 0.0) <= 0:
        raise UserError(
            f"evaluation.tasks: {name} asks for do_sample in generation_kwargs without a temperature above 0; leave "
            "the task out, or set one in a copy of its YAML."
        )
    return {key: value for key, value in read.items() if key in known}


def check_generation(model: nn.Module, *, name: str) -> None:
    """Refuse a model whose generation settings change what lm-eval's own command generates for a task.

    Raises:
        UserError: a field of its generation_config has an effect that this decoder does not have.
    """
    settings = causal_lm(model).generation_config
    for field, neutral in UNREAD.items():
        value = getattr(settings, field, None)
        if value not in neutral:
            raise UserError(
                f"evaluation.tasks: {name} generates text, and generation_config.json of the backbone has "
                f"{field}={shown(value)}, which this project's decoder does not support; leave the task out, or set "
                f"{field} to {json.dumps(neutral[0])} in that file, in a copy of the model's folder."
            )


class HarnessLM(InMemoryLM):
    """Answers as ``HFLM``: prompt and continuation encoded as one text, rolling windows, completions cut at its stops.

    Sampled completions are drawn by :mod:`hiplora.evaluation.sampling`, from all tokens if the task sets no top_p.
    """

    @property
    def batch_size(self) -> int:
        """No limit for rolling likelihoods, because windows are batched by tokens."""
        return 2**31

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        if self.prefix_token_id is None and add_special_tokens is None:
            return super().tok_encode(string, add_special_tokens=True, **kwargs)  # HFLM's default without a prefix
        return super().tok_encode(string, add_special_tokens, **kwargs)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        return TemplateLM._encode_pair(self, context, continuation)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        return super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        texts = super().generate_until(requests, disable_tqdm=disable_tqdm)
        return [
            postprocess_generated_text(text, self._stops(settings_of(request.args[1], name="a task")), None)
            for text, request in zip(texts, requests, strict=True)
        ]

    def _decoding(self, settings: dict[str, Any]) -> Decoding:
        read = settings_of(settings, name="a task")
        sampled = bool(read["do_sample"])
        return Decoding(
            max_new_tokens=read["max_gen_toks"],
            stops=tuple(stop for stop in self._stops(read) if stop),
            temperature=read["temperature"] if sampled else 0.0,
            top_p=read.get("top_p", 1.0) if sampled else 1.0,
            seed=self.seed,
            raw=True,
        )

    def _stops(self, settings: dict[str, Any]) -> list[str]:
        token = self.eot_token_id
        end = None if token is None else self.tok_decode(token, skip_special_tokens=False)
        return handle_stop_sequences([*settings["until"]], eos=end)

    def _encode_prompts(self, prompts: Sequence[str]) -> list[list[int]]:
        return [self.tok_encode(prompt) for prompt in prompts]
