"""Sample general text from the backbone itself: hiplora/mini/facts/sampled_texts.json.

    python scripts/sample_text.py --out hiplora/mini/facts/sampled_texts.json

The result is frozen: on another machine the arithmetic rounds differently, and soon another token is drawn. A text is
sampled in float32 at temperature 1 from the whole vocabulary: a first token after the end-of-text token, then 127 more
conditioned on the text alone, exactly as an evaluation reads it. Therefore the mean rise of cross-entropy over the
texts estimates the KL divergence of the adapted model from the backbone. Texts that the tokenizer does not encode back
to the same tokens are dropped.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from hiplora import models
from hiplora.compose import compose

START = "<|endoftext|>"
TOKENS = 128  # of a text
TEXTS = 128  # 8,192 tokens each for test and for validation
BATCH = 128
SEED = 0


@torch.no_grad()
def drawn(model: Any, *, start: int, generator: torch.Generator) -> torch.Tensor:
    """Sampled token ids (BATCH, TOKENS); only the first token is conditioned on the start token."""
    tokens, cache = torch.full((BATCH, 1), start), None
    found: list[torch.Tensor] = []
    while len(found) < TOKENS:
        output = model(tokens, past_key_values=cache, use_cache=True)
        cache = output.past_key_values if found else None
        tokens = torch.multinomial(output.logits[:, -1].double().softmax(-1), 1, generator=generator)
        found.append(tokens)
    return torch.cat(found, dim=1)


def kept(tokenizer: Any, rows: torch.Tensor) -> list[str]:
    """The texts of the rows whose text encodes back to the same ids."""
    texts = tokenizer.batch_decode(rows, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    again = (tokenizer.encode(text, add_special_tokens=False) for text in texts)
    return [text for text, ids, row in zip(texts, again, rows.tolist(), strict=True) if ids == row]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    backbone = models.load(compose(["model.dtype=float32"]).model)
    generator = torch.Generator().manual_seed(SEED)
    start: Any = backbone.tokenizer.convert_tokens_to_ids(START)
    texts: list[str] = []
    while len(texts) < TEXTS:
        texts += kept(backbone.tokenizer, drawn(backbone.model.eval(), start=start, generator=generator))
        print(f"{len(texts)} of {TEXTS} texts", file=sys.stderr, flush=True)
    rows = [{"text": text} for text in texts[:TEXTS]]
    options.out.write_text(json.dumps(rows, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
