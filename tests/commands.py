"""Commands in processes of their own that need not import everything again.

``python -m hiplora.run`` on a tiny model spends three quarters of its time on imports. Here it is forked from a process
that has loaded what others wrote (preload.py) and nothing of the project; arguments, variables, output and exit status
are the command's own.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

NOWHERE = (Path(os.devnull), Path(os.devnull))
MODULE = "hiplora.run"


def started(
    words: Sequence[str],
    environment: Mapping[str, str],
    *,
    folder: Path | None = None,
    outputs: tuple[Path, Path] = NOWHERE,
    module: str = MODULE,
) -> BaseProcess:
    """``python -m module words``, started in a folder; ``outputs`` take what it prints and its errors.

    A module may also be the path of a script.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.preload"])
    process = context.Process(
        target=_command, args=(module, [*words], dict(environment), folder or Path.cwd(), outputs)
    )
    process.start()
    return process


def forked(
    words: Sequence[str],
    environment: Mapping[str, str],
    *,
    folder: Path | None = None,
    timeout: float = 300,
    module: str = MODULE,
) -> subprocess.CompletedProcess[str]:
    """The command when it has ended. Raises subprocess.TimeoutExpired."""
    with tempfile.TemporaryDirectory() as kept:
        outputs = (Path(kept, "stdout"), Path(kept, "stderr"))
        process = started(words, environment, folder=folder, outputs=outputs, module=module)
        process.join(timeout)
        if process.exitcode is None:
            kill(process)
            raise subprocess.TimeoutExpired([module, *words], timeout)
        stdout, stderr = (path.read_text() for path in outputs)
    return subprocess.CompletedProcess([module, *words], process.exitcode, stdout, stderr)


def scripted(code: str) -> subprocess.CompletedProcess[str]:
    """A script in such a process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "script.py")
        path.write_text(code)
        return forked([], os.environ, module=str(path))


def killed(words: Sequence[str], environment: Mapping[str, str], when: Callable[[], Any], *, delay: float = 0) -> None:
    """SIGKILL for the command, so many seconds after there is something to see."""
    process = started(words, environment)
    deadline = time.monotonic() + 240
    try:
        while not when():
            assert process.exitcode is None, "it ended before it could be killed"
            assert time.monotonic() < deadline, "there was nothing to see"
            time.sleep(0.01)
        time.sleep(delay)
        assert process.exitcode is None, "it ended before it could be killed"
    finally:
        kill(process)


def kill(process: BaseProcess) -> None:
    process.kill()
    process.join()


def _command(
    module: str, words: list[str], environment: dict[str, str], folder: Path, outputs: tuple[Path, Path]
) -> None:
    for descriptor, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    sys.argv = [module, *words]
    if module.endswith(".py"):
        runpy.run_path(module, run_name="__main__")
    else:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
