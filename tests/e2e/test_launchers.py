"""A sweep whose launcher gives up says what became of its jobs all the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

# Hydra finds it as a plugin: it runs the first job, leaves the second one's folder, and raises.
BROKEN = """
from dataclasses import dataclass
from pathlib import Path
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore

class BrokenLauncher(BasicLauncher):
    def launch(self, job_overrides, initial_job_idx):
        super().launch(job_overrides[:1], initial_job_idx)
        (Path(self.config.hydra.sweep.dir) / "1").mkdir()
        raise RuntimeError("a worker died\\nand much more")

@dataclass
class Conf:
    _target_: str = "hydra_plugins.broken.BrokenLauncher"

ConfigStore.instance().store(group="hydra/launcher", name="broken", node=Conf, provider="broken")
"""
SEEDS = ["pipeline=train", "method=lora", "seed=42,100"]
LONG = [*SEEDS, "training.steps=3000", "training.checkpoint_every=10"]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(arguments, environment, tmp_path: Path) -> Iterator[Start]:
    """Start a sweep; what is left of it at the end is killed."""
    started = []
    paths = [str(tmp_path / "plugins"), *filter(None, [environment.get("PYTHONPATH")])]

    def call(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "hiplora.run", "-m", *arguments, *words],
            env={**environment, "PYTHONPATH": os.pathsep.join(paths)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        return process

    yield call
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def training(outputs: Path, process: subprocess.Popen[str], *, jobs: int) -> list[int]:
    """Wait until so many jobs are training; the processes that hold the locks of their records."""
    deadline = time.monotonic() + 200
    while len({path.parent for path in outputs.glob("checkpoints/*/*/step-*")}) < jobs:
        assert process.poll() is None, "the sweep ended before its jobs were training"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return holding(outputs)


def holding(outputs: Path) -> list[int]:
    """Processes that have a lock's file open."""
    found = []
    for folder in Path("/proc").glob("[0-9]*/fd"):
        try:
            files = [os.readlink(path) for path in folder.iterdir()]
        except OSError:
            continue
        if any(file.startswith(str(outputs / "locks")) for file in files):
            found.append(int(folder.parent.name))
    return found


def test_a_launcher_that_raises_ends_in_the_summary(start: Start, tmp_path: Path) -> None:
    plugins = tmp_path / "plugins/hydra_plugins"
    plugins.mkdir(parents=True)
    (plugins / "broken.py").write_text(BROKEN)
    process = start("hydra/launcher=broken", "data=local", "data.root=/nowhere", *SEEDS)
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in errors
    told = printed[printed.index("The launcher stopped") :].splitlines()
    assert told[0].startswith("The launcher stopped the sweep (RuntimeError: a worker died; HYDRA")
    assert "0 of the 2 jobs that had started succeeded. Type the same command again" in told[0]
    assert told[1].split()[:2] == ["FAILED", "0:"]
    assert "/nowhere" in told[2]
    assert told[3].split()[:2] == ["UNKNOWN", "1:"]
    assert "may still be running" in told[4]


@pytest.mark.slow
def test_a_killed_worker_of_joblib_is_told(start: Start, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs pip install -e '.[joblib]'")
    process = start("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", *LONG)
    workers = training(tmp_path / "outputs", process, jobs=1)
    os.kill(workers[0], signal.SIGKILL)
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in errors
    assert "The launcher stopped the sweep (TerminatedWorkerError" in printed
    assert "FAILED  0:" in printed
    assert "ended without a status (killed?)" in printed
    assert "/0/run.log" in printed
    assert "STOPPED" not in printed


@pytest.mark.slow
def test_a_job_of_submitit_that_dies_does_not_stop_the_others(start: Start, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs pip install -e '.[slurm]'")
    process = start("hydra/launcher=submitit_local", *SEEDS, "training.steps=40", "training.checkpoint_every=1")
    workers = training(tmp_path / "outputs", process, jobs=1)
    os.kill(workers[0], signal.SIGKILL)
    printed, errors = process.communicate(timeout=200)
    assert process.returncode == 1
    assert "Traceback" not in errors
    assert "1 of the 2 jobs that had started succeeded" in printed
    assert "ended without a status (killed?)" in printed
    assert ".submitit/<job>/*.out" in printed


@pytest.mark.slow
def test_ctrl_c_cancels_what_submitit_has_started(start: Start, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs pip install -e '.[slurm]'")
    process = start("hydra/launcher=submitit_local", *LONG)
    assert training(tmp_path / "outputs", process, jobs=1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Sweep interrupted: 0 of the" in errors
    assert "STOPPED" in errors
    deadline = time.monotonic() + 60
    while holding(tmp_path / "outputs") and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not holding(tmp_path / "outputs"), "what is called stopped has stopped"
