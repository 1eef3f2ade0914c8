"""Confining the process that calls: limits, no privileges, Landlock, the system call filter.

Each step is irrevocable and each failure raises OSError: a process that could not be confined must not go
on to run a candidate. Only file descriptors already open stay usable.
"""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SECCOMP_MODE_FILTER = 2
_M_ARENA_MAX = -8
_SIGKILL = 9
_CAPABILITY_VERSION_3 = 0x20080522

# The same three numbers on every architecture.
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_LANDLOCK_VERSION_FLAG, _LANDLOCK_RULE_PATH_BENEATH = 1, 1
_READ_FILE, _READ_DIRECTORY = 1 << 2, 1 << 3
_ALL_NETWORK, _ALL_SCOPES = 0b11, 0b11


def confine(settings: dict[str, Any]) -> None:
    """Apply ``settings``: limits {name: value}, parent (a process id or None), landlock (paths or None),
    seccomp (a BPF program or None). Raises OSError."""
    _set_limits(settings["limits"])
    libc = ctypes.CDLL(None, use_errno=True)
    _share_one_heap(libc)
    if settings["seccomp"] is None:
        return
    _die_with(libc, settings["parent"])
    _prctl(libc, _PR_SET_NO_NEW_PRIVS, 1)
    _drop_capabilities(libc)
    _prctl(libc, _PR_SET_DUMPABLE, 0)
    if settings["landlock"] is not None:
        _restrict_files(libc, settings["landlock"])
    _install_filter(libc, settings["seccomp"])


def landlock_version() -> int:
    """Landlock's version in this kernel. Raises OSError where the kernel has none."""
    libc = ctypes.CDLL(None, use_errno=True)
    return _landlock(libc, _LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_VERSION_FLAG)


def _set_limits(limits: dict[str, int]) -> None:
    import resource

    for name, value in limits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))


def _share_one_heap(libc: ctypes.CDLL) -> None:
    # glibc reserves 64 MB for each thread's own heap: a dozen threads would use up the address space.
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_ARENA_MAX, 1)


def _die_with(libc: ctypes.CDLL, parent: int | None) -> None:
    _prctl(libc, _PR_SET_PDEATHSIG, _SIGKILL)
    # The parent may have died before the line above.
    if parent is not None and os.getppid() != parent:
        os._exit(1)


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _checked(libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def _restrict_files(libc: ctypes.CDLL, readable: list[str]) -> None:
    """Nothing may be opened but ``readable`` files and what lies beneath ``readable`` folders, to be read."""
    attributes = _ruleset(landlock_version())
    size = ctypes.c_size_t(len(attributes) * 8)
    ruleset = _landlock(libc, _LANDLOCK_CREATE_RULESET, attributes, size, 0)
    for path in readable:
        _allow_reading(libc, ruleset, path)
    _landlock(libc, _LANDLOCK_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _ruleset(version: int) -> ctypes.Array[ctypes.c_uint64]:
    """Everything this version of Landlock can forbid: files, then TCP (4), then signals and sockets (6)."""
    rights = 13 + (version >= 2) + (version >= 3) + (version >= 5)
    words = [(1 << rights) - 1]
    words += [_ALL_NETWORK] if version >= 4 else []
    words += [_ALL_SCOPES] if version >= 6 else []
    return (ctypes.c_uint64 * len(words))(*words)


def _allow_reading(libc: ctypes.CDLL, ruleset: int, path: str) -> None:
    rights = _READ_FILE | (_READ_DIRECTORY if os.path.isdir(path) else 0)
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    rule = ctypes.create_string_buffer(rights.to_bytes(8, "little") + fd.to_bytes(4, "little"), 12)
    _landlock(libc, _LANDLOCK_ADD_RULE, ruleset, _LANDLOCK_RULE_PATH_BENEATH, rule, 0)
    os.close(fd)


def _install_filter(libc: ctypes.CDLL, program: bytes) -> None:
    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]

    pointer = ctypes.byref(Program(len(program) // 8, program))
    _checked(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, pointer), "seccomp")


def _prctl(libc: ctypes.CDLL, option: int, value: int) -> None:
    # prctl reads longs, and refuses options whose unused arguments are not zero.
    _checked(libc.prctl(option, *map(ctypes.c_ulong, (value, 0, 0, 0))), "prctl")


def _landlock(libc: ctypes.CDLL, *arguments: Any) -> int:
    # syscall reads longs.
    longs = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return _checked(libc.syscall(*longs), "Landlock")


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
