"""A run is one process, whatever started it."""

from __future__ import annotations

import os

import pytest

from hiplora.environment import SIZES, single_process
from hiplora.errors import UserError

TORCHRUN = "LOCAL_RANK=0 RANK=0 GROUP_RANK=0 ROLE_RANK=0 LOCAL_WORLD_SIZE=1 WORLD_SIZE=1 GROUP_WORLD_SIZE=1"
MPI = (
    "PMI_SIZE=1 PMI_RANK=0 OMPI_COMM_WORLD_SIZE=1 OMPI_COMM_WORLD_LOCAL_RANK=0 MV2_COMM_WORLD_RANK=0 MPI_LOCALNRANKS=1"
)
ACCELERATE = "ACCELERATE_USE_FSDP=true ACCELERATE_MIXED_PRECISION=bf16 FSDP_VERSION=2"


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The process's own environment, as it is put back afterwards."""
    mine = dict(os.environ)
    monkeypatch.setattr(os, "environ", mine)
    return mine


@pytest.mark.parametrize("words", ["LOCAL_RANK=0", "RANK=1", "WORLD_SIZE=", TORCHRUN, MPI, ACCELERATE])
def test_what_says_nothing_of_other_processes_is_ignored(variables: dict[str, str], words: str) -> None:
    before = dict(variables)
    variables |= dict(word.split("=") for word in words.split())
    single_process()
    assert variables == before


@pytest.mark.parametrize("name", SIZES)
def test_one_of_several_processes_is_refused(variables: dict[str, str], name: str) -> None:
    variables[name] = "2"
    with pytest.raises(UserError, match=rf"{name}=2 .*unset {name}.*hydra/launcher=joblib, submitit_slurm or ray"):
        single_process()
    assert variables[name] == "2"
