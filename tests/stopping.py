"""A training that ends before its time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest

from hiplora.methods.base import Method


@contextmanager
def stopped(method: Method, *, at: int, by: type[BaseException] = KeyboardInterrupt) -> Iterator[None]:
    """Ctrl-C, or what else is given, in the method's hook after step ``at``: a training inside must end by it."""
    after_step = type(method).after_step

    def stop(self: Any, peft_model: Any, step: int) -> None:
        if step == at:
            raise by
        after_step(self, peft_model, step)

    with patch.object(type(method), "after_step", stop), pytest.raises(by):
        yield
