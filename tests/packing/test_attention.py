from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from hiplora.packing.attention import NAME, find_blocks, packed_attention
from hiplora.packing.batches import micro_batch, tree_batch
from hiplora.packing.decoder import hidden_states
from hiplora.packing.rows import as_trees, first_fit
from hiplora.packing.sequences import Encoded
from hiplora.training.fused_lora import fused_lora
from hiplora.training.loss import label_loss
from hiplora.tuner.product import drawn_for_all
from tests.training.worker import OPTIONS, attached, examples

ENCODED = [*examples(), Encoded([], [5, 6]), Encoded([7], [8]), Encoded(list(range(2, 60)), [3, 4])]


def batch_of(encoded: list[Encoded], *, share_prefixes: bool = False) -> dict:
    rows = first_fit(encoded, row_tokens=64, order=range(len(encoded)))
    return micro_batch(rows, pad_id=0, share_prefixes=share_prefixes)


def test_blocks_are_the_examples_and_the_padding() -> None:
    rows = first_fit(ENCODED, row_tokens=64, order=range(len(ENCODED)))[:5]
    position_ids = micro_batch(rows, pad_id=0)["position_ids"]
    blocks = find_blocks(position_ids)
    slots = torch.cat([bucket.index.flatten() for bucket in blocks.buckets])
    assert slots[blocks.place].tolist() == list(range(position_ids.numel()))  # every position, in its own slot
    length = position_ids.shape[1]
    sizes = [example.inputs for row in rows for example in row.examples] + [length - row.inputs for row in rows]
    found = [len(set(block)) for bucket in blocks.buckets for block in bucket.index.tolist()]
    assert sorted(found) == sorted(size for size in sizes if size)
    assert sum(len(bucket.padding) for bucket in blocks.buckets) == len(slots) - position_ids.numel()


def test_same_loss_and_gradients_as_sdpa_and_as_separate_examples(tiny: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    quick = copy.deepcopy(model)
    batch = batch_of(ENCODED)
    label_loss(model, batch).backward()
    with packed_attention(quick):
        assert quick.config._attn_implementation == NAME
        packed = label_loss(quick, batch)
        packed.backward()
        alone = sum(label_loss(quick, batch_of([example])).item() for example in ENCODED)
    assert quick.config._attn_implementation == model.config._attn_implementation == "sdpa"
    assert packed.item() == pytest.approx(alone, rel=1e-6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(quick.get_parameter(name).grad, parameter.grad, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_logits_of_packed_examples_are_those_of_separate_ones(tiny: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
    rows = first_fit(ENCODED, row_tokens=64, order=range(len(ENCODED)))
    batch = micro_batch(rows, pad_id=0)
    with packed_attention(model):
        packed = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
    for row, logits in zip(rows, packed, strict=True):
        start = 0
        for example in row.examples:
            alone = model(torch.tensor([(example.prompt + example.answer)[:-1]]), use_cache=False).logits[0]
            assert (logits[start : start + example.inputs] - alone).abs().max() < 1e-5
            start += example.inputs


def test_models_it_was_not_made_for_keep_their_attention(tiny: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny)
    model.config.attention_dropout = 0.1
    with packed_attention(model):
        assert model.config._attn_implementation == "sdpa"


TEMPLATE, OTHER = list(range(2, 22)), list(range(22, 40))
ALIKE = [
    *(Encoded([*TEMPLATE, *range(40, 40 + n)], [50, *range(1, 1 + n % 3)]) for n in (1, 4, 9, 9)),
    *(Encoded([*OTHER, *range(40, 40 + n)], [51, 1]) for n in (2, 3)),
    Encoded([*TEMPLATE, 60], [61]),
    Encoded(TEMPLATE[:16], [1]),  # too short to share
    Encoded([], [5, 6]),
    Encoded(list(range(9, 30)), [7]),  # begins like no other
]


def test_prefixes_are_computed_once_and_by_everybody_who_has_them() -> None:
    batch = batch_of(ALIKE, share_prefixes=True)
    whole, places = batch_of(ALIKE)["places"].tolist(), batch["places"].tolist()
    # The five of the first kind have 20 tokens in common, the two of the second 19.
    assert len(places) == len(set(places)) == len(whole) - 4 * 20 - 19
    assert set(batch["label_index"].tolist()) <= set(places) < set(whole)
    ids, positions = (batch[name].flatten()[batch["places"]] for name in ("input_ids", "position_ids"))
    seen = []
    for bucket in find_blocks(positions[None]).buckets:
        padding = torch.zeros(bucket.index.numel(), dtype=torch.bool).index_fill_(0, bucket.padding, True)
        for keys, missing in zip(bucket.keys, padding.view_as(bucket.index).sum(1).tolist(), strict=True):
            mine = keys[: len(keys) - missing]
            seen.append(ids[mine].tolist())
            assert positions[mine].tolist() == list(range(len(mine)))
    assert sorted(seen) == sorted((e.prompt + e.answer)[:-1] for e in ALIKE)


@torch.no_grad()
def test_trees_are_computed_by_blocks_as_under_their_mask(tiny: Path) -> None:
    """Branches of branches, on several rows, one of which is padded."""
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
    rows = as_trees([*ALIKE[:7], *ENCODED[:9], Encoded([*TEMPLATE, 40, 41], [42, 43, 44])], row_tokens=120)
    batch = tree_batch(rows, device=model.device)
    assert len({len(row.ids) for row in rows}) > 1
    masked = hidden_states(model, batch.ids, allowed=batch.allowed, positions=batch.positions)
    with packed_attention(model):
        by_blocks = hidden_states(model, batch.ids, positions=batch.positions)
    torch.testing.assert_close(by_blocks, masked, rtol=1e-4, atol=1e-5)
    blocks = find_blocks(batch.positions)
    assert max(len(bucket.prefix) for bucket in blocks.buckets) > len(TEMPLATE), "a branch of a branch"


def losses_and_gradients(
    model: torch.nn.Module, batch: dict, *, compact: bool
) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    with drawn_for_all(batch["places"], batch["input_ids"].numel()):
        loss = label_loss(model.train(), batch, compact=compact)
        loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("method", ["hip", "lora", "proj"])
def test_shared_prefixes_change_neither_loss_nor_gradients(tiny: Path, method: str) -> None:
    model = attached(tiny, OPTIONS[method].but(dropout=0.0))
    with fused_lora(model), packed_attention(model.get_base_model()):
        loss, expected = losses_and_gradients(model, batch_of(ALIKE), compact=False)
        shared, gradients = losses_and_gradients(model, batch_of(ALIKE, share_prefixes=True), compact=True)
    assert shared == pytest.approx(loss, rel=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", ["hip", "lora", "proj"])
def test_left_out_padding_changes_neither_loss_nor_gradients_nor_dropout(tiny: Path, method: str) -> None:
    model = attached(tiny, OPTIONS[method])
    batch = batch_of(ENCODED)
    assert len(batch["places"]) < batch["input_ids"].numel()
    found = []
    with fused_lora(model), packed_attention(model.get_base_model()):
        for compact in (False, True):
            torch.manual_seed(1)
            found.append((*losses_and_gradients(model, batch, compact=compact), torch.get_rng_state()))
    (padded, expected, before), (loss, gradients, after) = found
    assert loss == pytest.approx(padded, rel=1e-6)
    assert torch.equal(before, after)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-5)
