"""A model's answers, kept once computed: log-likelihoods of continuations, and completions of prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple
from typing import TYPE_CHECKING

from tqdm import tqdm

from hiplora.errors import UserError
from hiplora.evaluation.decode import Wanted, generate
from hiplora.evaluation.sampling import Decoding
from hiplora.evaluation.scoring import Scored, score_continuations
from hiplora.packing.decoder import positions
from hiplora.packing.sequences import Encoded
from hiplora.parts import Parts, key

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase


class Answers:
    """The answers of one model, plain or PEFT, in evaluation mode.

    Args:
        batch_tokens: padded tokens per forward pass.
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
        progress: bool = True,
        parts: Parts | None = None,
    ) -> None:
        self.model, self.tokenizer, self.batch_tokens = model, tokenizer, batch_tokens
        self.progress, self.parts = progress, parts

    @property
    def positions(self) -> int | None:
        """The model's longest input in tokens; None if its configuration sets no limit."""
        return positions(self.model)

    def score(self, asked: Sequence[Encoded]) -> list[Scored]:
        """Log-likelihood of every answer after its prompt; a prompt too long for the model loses its beginning.

        Raises:
            UserError: an answer is longer than the model's positions.
        """
        longest = max((len(each.answer) for each in asked), default=0)
        if self.positions is not None and longest > self.positions:
            raise UserError(
                f"An answer to score has {longest} tokens and the model reads {self.positions}; shorten it in the "
                "data, or leave its benchmark or task (evaluation.tasks) out."
            )
        fitted = [Encoded(self._end(each.prompt, len(each.answer) - 1), each.answer) for each in asked]
        keys, known = [key("score", each.prompt, each.answer) for each in fitted], self._known()
        missing = known.missing(keys)
        with self._bar("scoring", total=len(keys), initial=len(keys) - len(missing)) as bar:

            def done(finished: Mapping[int, Scored]) -> None:
                known.keep({keys[missing[place]]: astuple(scored) for place, scored in finished.items()})
                bar.update(len(finished))

            score_continuations(
                self.model, [fitted[index] for index in missing], batch_tokens=self.batch_tokens, done=done
            )
        return [Scored(*known.get(name)) for name in keys]

    def complete(self, wanted: Sequence[Wanted], settings: Decoding) -> list[list[str]]:
        """Completions of every prompt; a prompt too long for the model loses its beginning.

        Raises:
            UserError: the longest completion leaves no position for a prompt.
        """
        if self.positions is not None and settings.max_new_tokens >= self.positions:
            raise UserError(
                f"max_new_tokens={settings.max_new_tokens} leaves no position for a prompt: the model has "
                f"{self.positions}; ask for fewer (evaluation.gsm8k_max_new_tokens, evaluation.code_max_new_tokens)."
            )
        fitted = [Wanted(self._end(item.prompt, settings.max_new_tokens), item.copies) for item in wanted]
        names = [key("generate", asdict(settings), item.prompt, item.copies) for item in fitted]
        once = dict(zip(names, fitted, strict=True))
        keys, known = [*once], self._known()
        missing = known.missing(keys)
        asked = [once[keys[index]] for index in missing]
        total = sum(item.copies for item in once.values())
        with self._bar("generating", total=total, initial=total - sum(item.copies for item in asked)) as bar:
            generate(
                self.model,
                self.tokenizer,
                asked,
                decoding=settings,
                batch_tokens=self.batch_tokens,
                done=bar.update,
                finished=lambda place, completions: known.keep({keys[missing[place]]: completions}),
            )
        return [known.get(name) for name in names]

    def _end(self, prompt: list[int], more: int) -> list[int]:
        """The end of a prompt that leaves positions for ``more`` tokens after it."""
        return prompt if self.positions is None else prompt[-(self.positions - more) :]

    def _known(self) -> Parts:
        return Parts(None) if self.parts is None else self.parts

    def _bar(self, words: str, *, total: int, initial: int) -> tqdm:
        return tqdm(total=total, initial=initial, desc=words, unit="answer", disable=not self.progress)
