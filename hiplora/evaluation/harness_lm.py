"""The model in memory with the conventions of lm-eval's ``HFLM``, for lm-eval's own tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text

from hiplora.errors import UserError
from hiplora.evaluation.lm import InMemoryLM
from hiplora.evaluation.sampling import Decoding

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

# Settings that have no effect at these values; this decoder does not support others.
NEUTRAL = {
    "top_k": (0, None), "num_beams": (1,), "num_return_sequences": (1,), "repetition_penalty": (1.0,),
    "min_p": (None, 0.0), "use_cache": (True,), "early_stopping": (True, False),
}  # fmt: skip
SAMPLED = ("temperature", "top_p", "top_k", "min_p")  # have no effect on greedy decoding


def settings_of(given: dict[str, Any], *, name: str) -> dict[str, Any]:
    """A task's ``generation_kwargs`` as lm-eval reads them, without settings that have no effect.

    Raises:
        UserError: this decoder does not support a setting.
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
    return {key: value for key, value in read.items() if key in known}


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
