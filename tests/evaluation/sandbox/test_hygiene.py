"""What is left behind (nothing), and how many checks are handled at a time."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hiplora.errors import UserError
from hiplora.evaluation.sandbox import Backend, Check, Verdict, batch, execute, run_many

# As process 1 of a container that reaps nothing, and with the threads of a training process.
KEEPER = """
import ctypes, os, sys, threading, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
for _ in range(8):
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
from hiplora.evaluation.sandbox import Check, choose_backend, run_many
backend = choose_backend(sys.argv[1])
def check(code):
    return Check(prompt="", completion=code, test="def check(f): f()", entry_point="f", timeout=0.3)
before = set(os.listdir("/proc/self/fd"))
codes = ["def f(): pass", "def f():\\n    while True: pass", "import os\\nos._exit(1)", "def f(:"]
found = run_many([check(code) for code in codes], backend, workers=4)
assert [v.status for v in found] == ["passed", "timeout", "error", "error"], found
assert set(os.listdir("/proc/self/fd")) == before, os.listdir("/proc/self/fd")
def children():
    numbers = filter(str.isdigit, os.listdir("/proc"))
    stats = []
    for number in numbers:
        try:
            stats.append(open(f"/proc/{number}/stat").read().rpartition(")")[2].split())
        except OSError:
            pass
    return [stat for stat in stats if int(stat[1]) == os.getpid()]
assert not children(), children()
print("clean", flush=True)
os._exit(0)
"""

# Says which processes it has started, and never ends by itself.
DOOMED = """
import sys
from hiplora.evaluation.sandbox import Check, choose_backend, run_many
code = "def f():\\n    while True: pass"
check = Check(prompt="", completion=code, test="def check(f): f()", entry_point="f", timeout=60.0)
backend = choose_backend(sys.argv[1])
print("started", flush=True)
run_many([check], backend)
"""


def start(code: str, backend: Backend) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, backend.name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3])


def descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found += [child, *descendants(child)]
    return found


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def test_leaves_no_process_and_no_descriptor(backend: Backend) -> None:
    process = start(KEEPER, backend)
    printed, _ = process.communicate(timeout=60)
    assert printed == "clean\n"


def test_dies_with_its_parent(backend: Backend) -> None:
    process = start(DOOMED, backend)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    family: list[int] = []
    deadline = time.monotonic() + 20
    while len(family) < 2 and time.monotonic() < deadline:
        time.sleep(0.3)
        family = descendants(process.pid)
    process.kill()
    process.wait()
    process.stdout.close()
    while any(map(alive, family)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(family) >= 2
    assert not any(map(alive, family))


def numbered(number: int) -> Check:
    return Check(prompt="", completion=str(number), test="", entry_point="f", timeout=1.0)


def test_equal_checks_run_once_and_answers_keep_their_order(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def fake(check: Check, _: Backend) -> Verdict:
        ran.append(check.completion)
        return Verdict(True, "passed", check.completion)

    monkeypatch.setattr(batch, "execute", fake)
    done: list[int] = []
    found = run_many([numbered(n) for n in (2, 1, 2, 3, 2)], backend, workers=3, on_done=done.append)
    assert [verdict.detail for verdict in found] == ["2", "1", "2", "3", "2"]
    assert sorted(ran) == ["1", "2", "3"]
    assert sorted(done) == [1, 1, 3]


def test_an_interrupt_does_not_wait_for_the_queue(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    ran, interrupted = [], threading.Event()

    def fake(check: Check, _: Backend) -> Verdict:
        ran.append(check)
        if check != numbered(0):
            interrupted.wait()
            time.sleep(0.05)  # the interrupt ends the queue meanwhile
        return Verdict(True, "passed", "")

    def interrupt(_: int) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    monkeypatch.setattr(batch, "execute", fake)
    with pytest.raises(KeyboardInterrupt):
        run_many([numbered(n) for n in range(100)], backend, workers=2, on_done=interrupt)
    assert len(ran) < 50


def test_a_sandbox_that_does_not_start_is_not_a_wrong_answer(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(backend), "limits", lambda *_: {"NO_SUCH_LIMIT": 1})
    with pytest.raises(UserError, match=r"NO_SUCH_LIMIT.*code_execution=off"):
        execute.execute(numbered(1), backend)
