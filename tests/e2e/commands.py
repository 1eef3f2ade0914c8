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
from collections.abc import Mapping, Sequence
from pathlib import Path


def forked(
    module: str, words: Sequence[str], *, environment: Mapping[str, str], timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """What ``python -m module words`` does. Raises subprocess.TimeoutExpired."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.e2e.preload"])
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder, name) for name in ("stdout", "stderr")]
        process = context.Process(target=_command, args=(module, [*words], dict(environment), outputs))
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired([module, *words], timeout)
        stdout, stderr = (path.read_text() for path in outputs)
    return subprocess.CompletedProcess([module, *words], process.exitcode or 0, stdout, stderr)


def _command(module: str, words: list[str], environment: dict[str, str], outputs: list[Path]) -> None:
    for descriptor, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
