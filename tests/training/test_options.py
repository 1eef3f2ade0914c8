"""What is marked as bookkeeping changes no number of a training, whichever method is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hiplora.config import Bookkeeping
from hiplora.training.options import Training
from hiplora.training.trainer import TrainResult
from tests.training.worker import OPTIONS, TRAINING, attached, fit, same

BOOKKEEPING = [
    name
    for name, field in Training.model_fields.items()
    if any(marker is Bookkeeping or isinstance(marker, Bookkeeping) for marker in field.metadata)
]
TIMES = ("seconds", "elapsed", "tokens_per_second", "snapshots")
STEPS = 5


def other(value: Any) -> Any:
    """Another value of an option that is a switch, a positive number or fractions of the steps."""
    if isinstance(value, tuple):
        return (0.5,)
    return not value if isinstance(value, bool) else value + 1


@pytest.fixture(scope="module")
def plain(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TrainResult]:
    """A training of each method with the values that the tests have."""
    results: dict[str, TrainResult] = {}

    def trained(name: str) -> TrainResult:
        if name not in results:
            model = attached(tiny, OPTIONS[name], dtype=torch.bfloat16)
            results[name] = fit(model, tiny, OPTIONS[name], tmp_path_factory.mktemp(name), steps=STEPS)
        return results[name]

    return trained


@pytest.mark.parametrize("field", BOOKKEEPING)
@pytest.mark.parametrize("name", OPTIONS)
def test_both_values_give_the_same_numbers(
    tiny: Path, tmp_path: Path, plain: Callable[[str], TrainResult], name: str, field: str
) -> None:
    changes: dict[str, Any] = {field: other(getattr(TRAINING, field))}
    assert TRAINING.but(**changes).identity() == TRAINING.identity()
    model = attached(tiny, OPTIONS[name], dtype=torch.bfloat16)
    changed = fit(model, tiny, OPTIONS[name], tmp_path, steps=STEPS, **changes)
    expected = plain(name)
    numbers = [{key: v for key, v in vars(result).items() if key not in TIMES} for result in (changed, expected)]
    assert same(*numbers)


def test_marked_fields_are_found() -> None:
    assert {"checkpoint_every", "gradient_checkpointing", "log_every", "snapshots"} <= set(BOOKKEEPING)
