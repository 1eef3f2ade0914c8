"""Numbers of every method: where a change of the code moves them, its owner's ``version`` must be raised.

A record is found by its id, in which the version stands. If training gives other numbers under the same id, old and
new results are averaged in one table. ``HIPLORA_WRITE_GOLDEN=1 pytest tests/methods`` writes the numbers anew.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from hiplora.training.options import Training
from tests.training.worker import OPTIONS, VARIANTS, attached, fit

METHODS = {**OPTIONS, **VARIANTS}

GOLDEN = Path(__file__).parent / "golden" / "numbers.json"
CLOSE = 1e-2  # processors sum in other orders, which Adam's first steps amplify; a change of the code moves more


def numbers(tiny: Path, name: str, checkpoints: Path) -> dict[str, float]:
    """Final loss, size of the update, and its product with a fixed random matrix, after six steps."""
    method = METHODS[name]
    model = attached(tiny, method, steps=6)
    trained = fit(model, tiny, method, checkpoints, steps=6)
    updates = method.updates(model)
    generator = torch.Generator().manual_seed(0)
    product = norm = 0.0
    for key in sorted(updates):
        dense = updates[key].dense().double()
        norm += float(dense.square().sum())
        product += float((dense * torch.randn(dense.shape, generator=generator, dtype=torch.float64)).sum())
    return {"loss": trained.final_loss, "norm": norm**0.5, "product": product}


def versions(name: str) -> dict[str, int]:
    return {"method": METHODS[name].version, "training": Training.version}


@pytest.mark.parametrize("name", METHODS)
def test_numbers_move_only_with_a_version(tiny: Path, tmp_path: Path, name: str) -> None:
    found = {"versions": versions(name), **numbers(tiny, name, tmp_path / "checkpoints")}
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.is_file() else {}
    if os.environ.get("HIPLORA_WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps({**golden, name: found}, indent=1, sort_keys=True) + "\n")
        golden[name] = found
    assert name in golden, "a new method: write its numbers with HIPLORA_WRITE_GOLDEN=1"
    expected = golden[name]
    assert found["versions"] == expected["versions"], "a version was raised: write the numbers anew"
    for key in ("loss", "norm", "product"):
        scale = max(abs(expected[key]), expected["norm"])
        assert abs(found[key] - expected[key]) <= CLOSE * scale, (
            f"{key} was {expected[key]} and is {found[key]}; if that is meant, raise `version` of {name}'s class "
            "(or of Training) and write the numbers anew"
        )
