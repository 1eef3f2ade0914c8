"""Every backend that works on this machine, each tested by the same tests."""

from __future__ import annotations

import pytest

from hiplora.errors import UserError
from hiplora.evaluation.sandbox import Backend, choose_backend
from hiplora.evaluation.sandbox.choice import CONFINING


@pytest.fixture(scope="session", params=sorted(CONFINING))
def backend(request: pytest.FixtureRequest) -> Backend:
    try:
        return choose_backend(request.param)
    except UserError as error:
        pytest.skip(str(error))
