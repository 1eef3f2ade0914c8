"""Batched generation of several completions per prompt.

Completions of one prompt that have the same tokens so far are one sequence, which is computed once and splits where
they diverge. At low temperature they share most of the work, and the result equals drawing each completion by itself. A
sequence leaves the batch at its end token or at a stop. A batch reserves two cache slots for each sequence with several
completions; if more splits occur, the sequences without a slot are postponed to a later batch. A model that cannot
share prefixes (packing/agreement.py) reads every whole sequence again for each new token.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedTokenizerBase

from hiplora.evaluation.ending import Branch, Ending
from hiplora.evaluation.sampling import Decoding, next_tokens, uniforms
from hiplora.evaluation.slots import SlotCache, bytes_per_token
from hiplora.packing.agreement import reads_trees
from hiplora.packing.batches import tree_batch
from hiplora.packing.decoder import causal_lm, hidden_states, logits
from hiplora.packing.rows import alone, as_trees, batches
from hiplora.packing.sequences import Encoded

CPU_CACHE_BYTES = 3 * 2**28
EXPECTED_SPLITS = 2  # expected number of branches of a sequence with several completions: 1 to 2 at low temperature


@dataclass(frozen=True)
class Wanted:
    """A prompt's token ids, and the number of completions to generate for it."""

    prompt: list[int]
    copies: int


@dataclass(frozen=True)
class Request:
    """A prompt, and the uniform random numbers (copies, max_new_tokens) for its completions."""

    prompt: list[int]
    numbers: Tensor


def generate(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    wanted: Sequence[Wanted],
    *,
    decoding: Decoding,
    batch_tokens: int,
    done: Callable[[int], object] = lambda count: None,
    finished: Callable[[int, list[str]], object] = lambda index, texts: None,
) -> list[list[str]]:
    """Completions of every prompt, as text up to the first stop.

    Args:
        model: a causal language model, plain or PEFT, in evaluation mode.
        batch_tokens: padded prompt tokens per forward pass.
        done: called with the number of completions in each branch that ends.
        finished: called with the index of a prompt and its completions when the last of them has ended.
    """
    results = [[""] * item.copies for item in wanted]
    missing = [item.copies for item in wanted]
    asked = [Request(w.prompt, uniforms(w.prompt, copies=w.copies, decoding=decoding)) for w in wanted]
    ending = Ending(model, tokenizer, decoding)
    waiting = [Branch(owner, list(range(item.copies)), []) for owner, item in enumerate(wanted)]
    capacity = _cache_tokens(model) if reads_trees(model) else None
    while waiting:
        waiting.sort(key=lambda branch: _length(asked, branch), reverse=True)
        longest = _length(asked, waiting[0]) + decoding.max_new_tokens
        slots = sum(len(branch.copies) for branch in waiting)
        if capacity is not None:
            slots = min(slots, max(1, capacity // longest))
        count = _admitted(waiting, slots)
        batch = _Batch(
            model,
            asked,
            waiting[:count],
            decoding=decoding,
            ending=ending,
            slots=slots,
            batch_tokens=batch_tokens,
        )
        waiting = waiting[count:]
        batch.prefill()
        while batch.live:
            for branch in batch.step():
                text = ending.text(asked[branch.owner].prompt, branch.tokens)
                for copy in branch.copies:
                    results[branch.owner][copy] = text
                done(len(branch.copies))
                missing[branch.owner] -= len(branch.copies)
                if not missing[branch.owner]:
                    finished(branch.owner, results[branch.owner])
        waiting += batch.postponed
    return results


def _length(asked: Sequence[Request], branch: Branch) -> int:
    """Tokens of a branch, its prompt included."""
    return len(asked[branch.owner].prompt) + len(branch.tokens)


def _admitted(waiting: Sequence[Branch], slots: int) -> int:
    """How many of the waiting branches start in a batch with ``slots`` slots; at least one."""
    count = expected = 0
    for branch in waiting:
        expected += min(len(branch.copies), EXPECTED_SPLITS)
        if expected > slots and count:
            break
        count += 1
    return count


def _cache_tokens(model: nn.Module) -> int:
    """Number of tokens whose keys and values fit into memory."""
    lm = causal_lm(model)
    return _cache_bytes(model) // bytes_per_token(lm.get_decoder().config, element=lm.dtype.itemsize)


def _cache_bytes(model: nn.Module) -> int:
    device = next(model.parameters()).device
    if device.type != "cuda":
        return CPU_CACHE_BYTES
    # Memory that torch has reserved and not allocated is free for us, although the device reports it as used.
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return (torch.cuda.mem_get_info(device)[0] + unused) // 2


class _Batch:
    """Branches that are generated together. Live branch i is in slot i of the cache; all write the same column."""

    def __init__(
        self,
        model: nn.Module,
        asked: Sequence[Request],
        branches: list[Branch],
        *,
        decoding: Decoding,
        ending: Ending,
        slots: int,
        batch_tokens: int,
    ) -> None:
        self.model, self.asked, self.decoding, self.ending, self.slots = model, asked, decoding, ending, slots
        self.device = next(model.parameters()).device
        self.live, self.postponed = branches, list[Branch]()
        self.written = max(_length(asked, branch) for branch in branches)
        remaining = decoding.max_new_tokens - min(len(branch.tokens) for branch in branches)
        layers = causal_lm(model).get_decoder().config.num_hidden_layers
        self.cache = SlotCache(layers=layers, slots=slots, columns=self.written + remaining)
        self.cached, self.batch_tokens = reads_trees(model), batch_tokens
        self.hidden = torch.empty(0)

    def prefill(self) -> None:
        """Run the model on every branch's prompt and tokens so far."""
        if self.cached:
            self._fill()
        else:
            self._read_whole()

    def _read_whole(self) -> None:
        """Compute the last hidden state of every branch from the whole sequence, without a cache."""
        states: dict[int, Tensor] = {}
        for rows in batches(alone([Encoded(path, [0]) for path in self._paths()]), tokens=self.batch_tokens):
            hidden = hidden_states(self.model, tree_batch(rows, device=self.device).ids)
            states |= {row.owners[0]: hidden[line, row.reads[0]] for line, row in enumerate(rows)}
        self.hidden = torch.stack([states[slot] for slot in range(len(self.live))])

    def _paths(self) -> list[list[int]]:
        return [self.asked[branch.owner].prompt + branch.tokens for branch in self.live]

    def _fill(self) -> None:
        """Run every distinct prefix once, as scoring does, and copy keys and values into each branch's slot.

        All sequences end in the same column, so shorter ones have padding on the left.
        """
        states: dict[int, Tensor] = {}
        for rows in batches(as_trees([Encoded(path, [0]) for path in self._paths()]), tokens=self.batch_tokens):
            batch = tree_batch(rows, device=self.device)
            computed = DynamicCache()
            hidden = hidden_states(
                self.model, batch.ids, allowed=batch.allowed, positions=batch.positions, cache=computed
            )
            for line, row in enumerate(rows):
                for slot, read in zip(row.owners, row.reads, strict=True):
                    self.cache.take(slot, computed, line, row.ancestry(read), written=self.written)
                    states[slot] = hidden[line, read]
        self.hidden = torch.stack([states[slot] for slot in range(len(self.live))])

    def step(self) -> list[Branch]:
        """Draw a token for every completion and run the model on branches that continue; returns those that ended."""
        children = self._draw()
        ended = self.ending.of([branch for _, branch in children])
        over = [branch for (_, branch), end in zip(children, ended, strict=True) if end]
        going = [child for child, end in zip(children, ended, strict=True) if not end]
        self.postponed += [branch for _, branch in going[self.slots :]]
        self._settle(going[: self.slots])
        if self.live and self.cached:
            self._forward()
        elif self.live:
            self._read_whole()
        return over

    def _draw(self) -> list[tuple[int, Branch]]:
        """The branches after one more token, each with its parent's slot."""
        owners = [slot for slot, branch in enumerate(self.live) for _ in branch.copies]
        numbers = torch.cat([self.asked[b.owner].numbers[b.copies, len(b.tokens)] for b in self.live])
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
        """Give each branch a slot, without gaps: the first child keeps its parent's, the others are copied."""
        placed: dict[int, Branch] = {}
        moved = []
        for slot, branch in children:
            if slot < len(children) and slot not in placed:
                placed[slot] = branch
            else:
                moved.append((slot, branch))
        free = [slot for slot in range(len(children)) if slot not in placed]
        if self.cached:
            self.cache.copy(
                [(slot, target) for (slot, _), target in zip(moved, free, strict=True)], columns=self.written
            )
        placed.update({target: branch for (_, branch), target in zip(moved, free, strict=True)})
        self.live = [placed[slot] for slot in range(len(children))]

    def _forward(self) -> None:
        ids = torch.tensor([[branch.tokens[-1]] for branch in self.live], device=self.device)
        lengths = [_length(self.asked, branch) for branch in self.live]
        positions = torch.tensor(lengths, device=self.device)[:, None] - 1
        padding = self.written - positions
        begin = self.written + 1 - max(lengths)
        columns = torch.arange(begin, self.written + 1, device=self.device)
        allowed = (columns >= padding)[:, None, None, :]
        self.cache.window(slot=0, begin=begin, written=self.written)
        states = hidden_states(self.model, ids, allowed=allowed, positions=positions, cache=self.cache)
        self.hidden = states[:, -1]
        self.written += 1
