"""Programs that try to be called right while being wrong. ``solve(n)`` should double its argument."""

from __future__ import annotations

from tests.evaluation.sandbox.attacks import ANY_FAILURE, DOUBLES, Attack

_SPRAY = """
import os, struct
def _text(value):
    data = value.encode()
    return struct.pack('<cQ', b'u', len(data)) + data
def _frame(payload):
    return struct.pack('<Q', len(payload)) + payload
def spray(nonce):
    verdict = struct.pack('<cQ', b't', 3) + _text(nonce) + _text('passed') + _text('')
    for fd in range(256):
        try:
            os.write(fd, _frame(_text('ready')) + _frame(verdict) + nonce.encode() + b' passed\\n')
        except OSError:
            pass
"""


def _forgery(name: str, code: str, expected: tuple[str, ...] = ("failed",), detail: str = "") -> Attack:
    return Attack(name, code, expected, detail, DOUBLES)


FORGERIES = [
    _forgery("wrong", "def solve(n):\n    return 3"),
    _forgery("exit", "import sys\ndef solve(n):\n    sys.exit(0)", ("failed",), "SystemExit"),
    _forgery("exit_on_load", "import sys\nsys.exit(0)", ("error",), "SystemExit"),
    _forgery("hard_exit", "import os\ndef solve(n):\n    os._exit(0)", ("error",)),
    _forgery("hard_exit_on_load", "import os\nos._exit(0)", ("error",)),
    _forgery("raise_system_exit", "def solve(n):\n    raise SystemExit(0)", ("failed",), "SystemExit"),
    _forgery(
        "at_exit",
        _SPRAY + "import atexit\natexit.register(spray, 'passed')\natexit.register(os._exit, 0)\n"
        "def solve(n):\n    raise SystemExit",
        ANY_FAILURE,
    ),
    _forgery(
        "always_equal",
        """
class Equal:
    __eq__ = lambda self, other: True
    __ne__ = lambda self, other: False
    __hash__ = lambda self: 0
def solve(n):
    return Equal()
""",
        ("failed",),
        "not a plain value",
    ),
    _forgery(
        "always_equal_number",
        """
class Equal(int):
    __eq__ = lambda self, other: True
    __ne__ = lambda self, other: False
    __hash__ = lambda self: 0
def solve(n):
    return Equal(3)
""",
    ),
    _forgery(
        "always_equal_list",
        """
class Equal(list):
    __eq__ = lambda self, other: True
    __ne__ = lambda self, other: False
def solve(n):
    return Equal([3])
""",
    ),
    _forgery(
        "patched_builtins",
        """
import builtins, os, sys
builtins.AssertionError = Exception
builtins.check = lambda candidate: None
builtins.len = builtins.abs = builtins.isinstance = lambda *a: True
os.write = lambda fd, data: len(data)
def solve(n):
    return 3
""",
        ANY_FAILURE,
    ),
    _forgery(
        "patched_check",
        """
import sys, gc
def harmless(*a): return None
def solve(n):
    for module in list(sys.modules.values()):
        try:
            for name in ('check', '_check', '_judge', 'candidate', 'verdict'):
                setattr(module, name, harmless)
        except Exception:
            pass
    for thing in gc.get_objects():
        if isinstance(thing, dict) and 'check' in thing:
            thing['check'] = harmless
    return 3
""",
        ANY_FAILURE,
    ),
    _forgery(
        "patched_assert",
        """
import builtins
class Quiet(Exception):
    def __new__(cls, *a): raise SystemExit(0)
builtins.AssertionError = Quiet
def solve(n):
    return 3
""",
    ),
    _forgery(
        "frame_walk",
        _SPRAY
        + """
import sys
def solve(n):
    frame = sys._getframe()
    while frame is not None:
        for scope in (frame.f_locals, frame.f_globals):
            for value in list(scope.values()):
                for text in (value.values() if isinstance(value, dict) else [value]):
                    if isinstance(text, str) and len(text) == 32:
                        spray(text)
            for name in ('result', 'results', 'verdict', 'status'):
                if isinstance(scope.get(name), list):
                    scope[name].append('passed')
        frame = frame.f_back
    return 3
""",
        ANY_FAILURE,
    ),
    _forgery(
        "memory_search",
        _SPRAY
        + """
import gc
def solve(n):
    seen = [thing for thing in gc.get_objects() if isinstance(thing, (dict, list, tuple))]
    for holder in seen:
        for text in list(holder.values() if isinstance(holder, dict) else holder):
            if isinstance(text, str) and len(text) == 32 and set(text) <= set('0123456789abcdef'):
                spray(text)
    return 3
""",
        ANY_FAILURE,
    ),
    _forgery("forged_nonce", _SPRAY + "def solve(n):\n    spray('0' * 32)\n    return 3", ANY_FAILURE),
    _forgery("forged_nonce_on_load", _SPRAY + "spray('0' * 32)\ndef solve(n):\n    return 3", ANY_FAILURE),
    _forgery(
        "tracing",
        """
import sys, threading
def trace(frame, event, argument):
    frame.f_trace_lines = True
    if event == 'return':
        return None
    for name in list(frame.f_locals):
        frame.f_locals[name] = True
    return trace
sys.settrace(trace), sys.setprofile(trace), threading.settrace(trace)
def solve(n):
    return 3
""",
        ANY_FAILURE,
    ),
    _forgery(
        "thread_that_stays",
        _SPRAY
        + """
import threading, time
def later():
    while True:
        spray('1' * 32)
        time.sleep(0.001)
threading.Thread(target=later).start()
def solve(n):
    return 3
""",
        ANY_FAILURE,
    ),
    _forgery(
        "answers_ahead",
        """
import os, struct
def solve(n):
    true = struct.pack('<cQ', b'T', 0)
    value = struct.pack('<cQ', b'u', 5) + b'value'
    none = struct.pack('<cQ', b'N', 0)
    reply = struct.pack('<cQ', b't', 3) + value + true + none
    for fd in range(3, 64):
        try:
            os.write(fd, (struct.pack('<Q', len(reply)) + reply) * 100)
        except OSError:
            pass
    return 3
""",
        ANY_FAILURE,
    ),
    _forgery(
        "hostile_message",
        """
class Rude(Exception):
    def __str__(self): raise SystemExit(0)
def solve(n):
    raise Rude
""",
        ("error",),
    ),
    _forgery("raise_what_ends_the_checker", "def solve(n):\n    raise KeyboardInterrupt", ("failed",)),
    _forgery("raise_stopped", "class Stopped(BaseException): pass\ndef solve(n):\n    raise Stopped", ("failed",)),
    _forgery("function_as_answer", "def solve(n):\n    return lambda: 3", ("failed",), "not a plain value"),
    _forgery("no_such_function", "def other(n):\n    return 2 * n", ("error",), "defines no solve"),
    _forgery("does_not_parse", "def solve(n:\n    return 2 * n", ("error",), "SyntaxError"),
    _forgery("debug_off", "__debug__ and None\nimport sys\ndef solve(n):\n    return not n", ("failed",)),
    _forgery(
        "meddling_with_descriptors",
        """
import os
def solve(n):
    for fd in range(3, 16):
        for other in range(3, 16):
            try: os.dup2(fd, other)
            except OSError: pass
    return 3
""",
        ANY_FAILURE,
    ),
]
