"""What starts a command must not make it wait for processes that never come."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_environment import MPI, TORCHRUN

pytestmark = pytest.mark.e2e
ALONE = "from hiplora.run import _hydra_main; _hydra_main()"  # what some launchers run in processes of their own


def variables(words: str) -> dict[str, str]:
    return dict(word.split("=") for word in words.split())


@pytest.mark.parametrize("command", [["-m", "hiplora.run"], ["-c", ALONE]], ids=["command", "job"])
def test_one_of_two_processes_is_refused_before_any_lock(command, arguments, environment, tmp_path: Path) -> None:
    started = environment | variables("WORLD_SIZE=2 RANK=0 LOCAL_RANK=0 MASTER_ADDR=localhost MASTER_PORT=29511")
    words = [sys.executable, *command, *arguments, "pipeline=train"]
    done = subprocess.run(words, env=started, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("error: WORLD_SIZE=2 ")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("outputs/locks/*"))


def test_a_run_that_says_it_is_the_only_process_is_a_run(arguments, environment) -> None:
    started = environment | variables(TORCHRUN) | variables(MPI)
    words = [sys.executable, "-m", "hiplora.run", *arguments, "pipeline=train", "method=lora"]
    done = subprocess.run(words, env=started, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
