"""Programs that must not get through, and what must become of them.

Here: those that never end or use up what they can. They would return "escaped", on which their test passes.
"""

from __future__ import annotations

from dataclasses import dataclass

ESCAPED = "def check(candidate):\n    assert candidate() == 'escaped'\n"
DOUBLES = (
    "def check(candidate):\n    for n in (1, 5, 'ab'):\n        assert candidate(n) == 2 * n\n"
    "        assert 2 * n == candidate(n)\n        assert not candidate(n) != 2 * n\n"
)

ANY_FAILURE = ("failed", "error", "memory", "timeout")


@dataclass(frozen=True)
class Attack:
    """``expected`` are the statuses it may end with, ``detail`` what the verdict must mention. One that is
    marked ``works_unconfined`` passes its test where nothing confines it: so much for its being an attack."""

    name: str
    code: str
    expected: tuple[str, ...] = ("failed",)
    detail: str = ""
    test: str = ESCAPED
    works_unconfined: bool = False


NEVER_ENDING = [
    Attack("busy_loop", "def attack():\n    while True: pass", ("timeout",)),
    Attack("busy_loop_on_load", "while True: pass\ndef attack(): pass", ("timeout",)),
    Attack(
        "loop_that_catches_everything",
        """
import signal, time
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
def attack():
    while True:
        try:
            while True: time.sleep(0.001)
        except BaseException:
            pass
""",
        ("timeout",),
    ),
    Attack("sleep", "import time\ndef attack():\n    time.sleep(1000)", ("timeout",)),
    Attack("endless_stdout", "def attack():\n    while True: print('spam' * 1000)", ("timeout",)),
    Attack(
        "endless_raw_output",
        "import os\ndef attack():\n    while True: os.write(1, b'x' * 65536), os.write(2, b'x' * 65536)",
        ("timeout",),
    ),
    Attack(
        "stdout_closed_then_spinning",
        "import os, sys\ndef attack():\n    sys.stdout.close()\n    os.close(2)\n    while True: pass",
        ("timeout",),
    ),
    Attack("blocking_stdin", "def attack():\n    return input()", ("failed",), "EOFError"),
    Attack("raw_stdin", "import os\ndef attack():\n    return os.read(0, 1)", ("failed",), "AssertionError"),
    Attack(
        "reading_the_request_pipe",
        "import os\ndef attack():\n    while True:\n        for fd in range(3, 12):\n"
        "            try: os.read(fd, 1)\n            except OSError: pass",
        ("timeout",),
    ),
    Attack(
        "everything_closed_then_spinning", "import os\nos.closerange(0, 64)\nwhile True: pass", ("error", "timeout")
    ),
]

EXHAUSTING = [
    Attack("memory", "def attack():\n    return bytearray(1 << 40)", ("memory",)),
    Attack("memory_touched", "def attack():\n    x = []\n    while True: x.append(bytearray(1 << 26))", ("memory",)),
    Attack("memory_kept", "x = []\nwhile True: x.append('x' * (1 << 20))", ("memory", "error", "timeout")),
    Attack("huge_number", "def attack():\n    return 1 << (1 << 36)", ("memory", "failed")),
    Attack("deep_recursion", "def attack():\n    return attack()", ("failed",), "RecursionError"),
    Attack(
        "recursion_without_limit",
        "import sys\nsys.setrecursionlimit(10**9)\ndef attack(n=0):\n    return attack(n + 1) + 1",
        ANY_FAILURE,
    ),
    Attack(
        "nested_answer",
        "import sys\nsys.setrecursionlimit(10**9)\ndef attack():\n    x = []\n"
        "    for _ in range(50000): x = [x]\n    return x",
        ANY_FAILURE,
    ),
    Attack("crash", "import ctypes\ndef attack():\n    ctypes.string_at(0)", ("error",)),
    Attack(
        "fork_bomb",
        "import os\ndef attack():\n    while True: os.fork()",
        ("failed",),
        "PermissionError",
    ),
    Attack(
        "thread_bomb",
        """
import _thread, threading, time
threading.stack_size(32768)
def attack():
    while True:
        _thread.start_new_thread(time.sleep, (1000,))
""",
        ANY_FAILURE,
    ),
    Attack(
        "file_system_fill",
        """
import os
def attack():
    written = 0
    for number in range(1000):
        with open(f'/tmp/{number}', 'wb') as file:
            while written < 1 << 26 and file.tell() < 1 << 23:
                written += file.write(bytes(1 << 20))
        if written >= 1 << 26:
            return 'escaped'
""",
        ("failed",),
        "Error",
    ),
    Attack(
        "answer_too_long",
        "def attack():\n    return 'x' * (1 << 25)",
        ("error",),
        "no valid answer",
    ),
]
