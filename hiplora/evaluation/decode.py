"""Batched generation of several completions per prompt.

Completions of one prompt that have chosen the same tokens so far are one sequence: it is computed once and splits
where they part. At low temperature most of the work is shared, and the result is that of drawing each completion
by itself. A sequence leaves the batch at its end token or at a stop.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from hiplora.evaluation.ending import Ending
from hiplora.evaluation.forward import causal_lm, hidden_states, logits
from hiplora.evaluation.sampling import Decoding, next_tokens, uniforms
from hiplora.evaluation.slots import SlotCache, bytes_per_token

CPU_CACHE_BYTES = 3 * 2**28


@dataclass(frozen=True)
class Wanted:
    """A prompt's token ids and how many completions it gets."""

    prompt: list[int]
    copies: int


@dataclass
class Branch:
    """A live sequence: the index of its prompt, the completions that share it and the tokens generated so far."""

    owner: int
    copies: list[int]
    tokens: list[int]


def generate(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    wanted: Sequence[Wanted],
    *,
    decoding: Decoding,
    batch_tokens: int,
    done: Callable[[int], object] = lambda count: None,
) -> list[list[str]]:
    """Completions of every prompt, as text up to the first stop.

    Args:
        model: a causal language model, plain or PEFT, in evaluation mode.
        batch_tokens: padded prompt tokens per forward pass.
        done: told how many completions each ended branch holds.
    """
    results = [[""] * item.copies for item in wanted]
    for group in _groups(model, wanted, decoding):
        state = _Generation(model, tokenizer, [wanted[index] for index in group], decoding)
        state.prefill(batch_tokens)
        while state.live:
            for branch, text in state.step():
                for copy in branch.copies:
                    results[group[branch.owner]][copy] = text
                done(len(branch.copies))
    return results


def _groups(model: nn.Module, wanted: Sequence[Wanted], decoding: Decoding) -> Iterator[list[int]]:
    """Indices of prompts, the longest first, whose completions fit the cache even if none is shared."""
    room = _cache_bytes(model) // bytes_per_token(causal_lm(model).config, element=causal_lm(model).dtype.itemsize)
    group: list[int] = []
    copies = 0
    for index in sorted(range(len(wanted)), key=lambda index: -len(wanted[index].prompt)):
        longest = len(wanted[(group or [index])[0]].prompt) + decoding.max_new_tokens
        if group and (copies + wanted[index].copies) * longest > room:
            yield group
            group, copies = [], 0
        group.append(index)
        copies += wanted[index].copies
    if group:
        yield group


def _cache_bytes(model: nn.Module) -> int:
    device = next(model.parameters()).device
    return torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else CPU_CACHE_BYTES


class _Generation:
    """The live branches of one group of prompts; branch i lives in slot i of the cache."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        wanted: list[Wanted],
        decoding: Decoding,
    ) -> None:
        self.model, self.wanted, self.decoding = model, wanted, decoding
        self.device = next(model.parameters()).device
        self.width = max(len(item.prompt) for item in wanted)
        self.padding = torch.tensor([self.width - len(item.prompt) for item in wanted], device=self.device)
        self.ending = Ending(model, tokenizer, decoding)
        self.numbers = [uniforms(item.prompt, copies=item.copies, decoding=decoding) for item in wanted]
        self.live = [Branch(owner, list(range(item.copies)), []) for owner, item in enumerate(wanted)]
        self.written = self.width
        self.cache = SlotCache(
            layers=causal_lm(model).config.num_hidden_layers,
            slots=sum(item.copies for item in wanted),
            columns=self.width + decoding.max_new_tokens,
        )
        self.hidden = torch.empty(0)

    def prefill(self, batch_tokens: int) -> None:
        """Run every prompt once, padded on the left so that all end in the same column."""
        rows = max(1, batch_tokens // self.width)
        starts = range(0, len(self.wanted), rows)
        self.hidden = torch.cat([self._prefill_rows(start, start + rows) for start in starts])

    def _prefill_rows(self, start: int, stop: int) -> Tensor:
        prompts = [item.prompt for item in self.wanted[start:stop]]
        ids = torch.tensor([[0] * (self.width - len(prompt)) + prompt for prompt in prompts], device=self.device)
        columns = torch.arange(self.width, device=self.device)
        offsets = columns - self.padding[start:stop, None]
        causal = columns[:, None] >= columns
        itself = columns[:, None] == columns  # a padded query must see something, or its state is not a number
        allowed = (((offsets >= 0)[:, None, :] & causal) | itself)[:, None]
        self.cache.window(first=start, written=0)
        positions = offsets.clamp(min=0)
        states = hidden_states(self.model, ids, allowed=allowed, positions=positions, cache=self.cache)
        return states[:, -1].clone()

    def step(self) -> list[tuple[Branch, str]]:
        """Draw a token for every completion and run the branches that go on; returns those that ended."""
        children = self._draw()
        ended = self.ending.of([branch for _, branch in children])
        self._settle([child for child, over in zip(children, ended, strict=True) if not over])
        if self.live:
            self._forward()
        over = [branch for (_, branch), end in zip(children, ended, strict=True) if end]
        return [(branch, self.ending.text(self.wanted[branch.owner].prompt, branch.tokens)) for branch in over]

    def _draw(self) -> list[tuple[int, Branch]]:
        """The branches after one more token, each with the slot of its parent."""
        done = self.written - self.width
        owners = [slot for slot, branch in enumerate(self.live) for _ in branch.copies]
        numbers = torch.cat([self.numbers[branch.owner][branch.copies, done] for branch in self.live])
        index = torch.tensor(owners, device=self.device)
        values = logits(self.model, self.hidden)
        drawn = next_tokens(values, index, numbers.to(self.device), self.decoding).tolist()
        copies: dict[tuple[int, int], list[int]] = defaultdict(list)
        flat = [copy for branch in self.live for copy in branch.copies]
        for slot, copy, token in zip(owners, flat, drawn, strict=True):
            copies[slot, token].append(copy)
        return [
            (slot, Branch(self.live[slot].owner, mine, [*self.live[slot].tokens, token]))
            for (slot, token), mine in copies.items()
        ]

    def _settle(self, children: list[tuple[int, Branch]]) -> None:
        """Give each branch a slot, without gaps: the first child stays in its parent's, the others move or copy."""
        placed: dict[int, Branch] = {}
        homeless = []
        for slot, branch in children:
            if slot < len(children) and slot not in placed:
                placed[slot] = branch
            else:
                homeless.append((slot, branch))
        free = [slot for slot in range(len(children)) if slot not in placed]
        self.cache.copy(
            [(slot, target) for (slot, _), target in zip(homeless, free, strict=True)], columns=self.written
        )
        placed.update({target: branch for (_, branch), target in zip(homeless, free, strict=True)})
        self.live = [placed[slot] for slot in range(len(children))]

    def _forward(self) -> None:
        ids = torch.tensor([[branch.tokens[-1]] for branch in self.live], device=self.device)
        padding = self.padding[[branch.owner for branch in self.live]][:, None]
        columns = torch.arange(self.written + 1, device=self.device)
        allowed = (columns >= padding)[:, None, None, :]
        self.cache.window(first=0, written=self.written)
        positions = self.written - padding
        states = hidden_states(self.model, ids, allowed=allowed, positions=positions, cache=self.cache)
        self.hidden = states[:, -1]
        self.written += 1
