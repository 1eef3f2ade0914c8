"""The system call filter: what a confined process may ask of the kernel, as a BPF program.

An allow-list. Everything else answers EPERM: sockets, fork and exec, kill, ptrace, mount, keyctl, bpf,
io_uring, process_vm_readv and whatever is added to Linux next. The program is assembled here, because
libseccomp is not on every machine and the confined interpreter sees no site-packages.
"""

from __future__ import annotations

import errno
import platform
import struct
from dataclasses import dataclass

from hiplora.evaluation.sandbox import syscalls
from hiplora.evaluation.sandbox.backend import Unavailable

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000

_LOAD_WORD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_KILL_PROCESS, _ALLOW, _ERRNO = 0x80000000, 0x7FFF0000, 0x00050000
_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16

_CLONE_THREAD = 0x00010000
_CLONE_NEW_ANYTHING = 0x7E020080
_OPEN_FOR_CHANGE = 0o3 | 0o100 | 0o1000  # access mode, O_CREAT, O_TRUNC


@dataclass(frozen=True)
class Condition:
    """Allow ``call`` only where ``argument & mask`` is one of ``values`` (the low 32 bits count)."""

    call: str
    argument: int
    mask: int
    values: tuple[int, ...]


_THREADS_ONLY = Condition("clone", 0, _CLONE_THREAD | _CLONE_NEW_ANYTHING, (_CLONE_THREAD,))
# Not F_SETOWN and F_SETSIG, by which the kernel sends a signal to any process of the same user.
_DESCRIPTORS = Condition("fcntl", 1, 0xFFFFFFFF, (0, 1, 2, 3, 4, 1030))
# Terminal queries and FIONREAD, FIOCLEX, FIONCLEX, FIONBIO; not FIOASYNC, FIOSETOWN, TIOCSTI.
_QUERIES = Condition("ioctl", 1, 0xFFFFFFFF, (0x5401, 0x5413, 0x541B, 0x5450, 0x5451, 0x5421))
# With another process's id, prlimit would take that process's CPU time away.
_OWN_LIMITS = Condition("prlimit64", 0, 0xFFFFFFFF, (0,))


def build_filter(*, writable: bool, machine: str | None = None) -> bytes:
    """The program, as the kernel's array of ``struct sock_filter``.

    ``writable`` lets files be created, changed and removed, for where mounts confine that to a scratch
    area. Without it no file opens for writing at all, because Landlock before version 3 does not check O_TRUNC.
    Raises Unavailable for a processor whose calls are not listed.
    """
    machine = machine or platform.machine()
    if machine not in syscalls.ARCHITECTURES:
        raise Unavailable(f"its system call filter is written for {' and '.join(syscalls.ARCHITECTURES)}")
    program = [
        _load(_ARCH_AT),
        *_unless_equal(_AUDIT_ARCH[machine], _KILL_PROCESS),
        _load(_NUMBER_AT),
    ]
    if machine == "x86_64":
        program += _if_at_least(_X32_BIT, _KILL_PROCESS)
    for number in _allowed(machine, writable):
        program += _if_equal(number, [_return(_ALLOW)])
    known = syscalls.numbers(syscalls.BY_ARGUMENT, machine)
    for condition in _conditions(writable):
        if condition.call in known:
            program += _if_equal(known[condition.call], _check_argument(condition))
    for number in syscalls.numbers(syscalls.PRETEND_ABSENT, machine).values():
        program += _if_equal(number, [_return(_ERRNO | errno.ENOSYS)])
    program += _if_at_least(syscalls.LAST_KNOWN + 1, _ERRNO | errno.ENOSYS)
    return b"".join([*program, _return(_ERRNO | errno.EPERM)])


def _allowed(machine: str, writable: bool) -> list[int]:
    tables = [syscalls.FILES, syscalls.MEMORY, syscalls.PROCESS, syscalls.SIGNALS_AND_TIME]
    tables += [syscalls.CHANGING_FILES] if writable else []
    return [number for table in tables for number in syscalls.numbers(table, machine).values()]


def _conditions(writable: bool) -> list[Condition]:
    # The flags are the second argument of open and the third of openat.
    opening = [
        Condition(call, argument, 0 if writable else _OPEN_FOR_CHANGE, (0,))
        for call, argument in (("open", 1), ("openat", 2))
    ]
    return [_THREADS_ONLY, _DESCRIPTORS, _QUERIES, _OWN_LIMITS, *opening]


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _load(offset: int) -> bytes:
    return _instruction(_LOAD_WORD, offset)


def _return(action: int) -> bytes:
    return _instruction(_RETURN, action)


def _if_equal(value: int, then: list[bytes]) -> list[bytes]:
    return [_instruction(_JUMP_EQUAL, value, 0, len(then)), *then]


def _unless_equal(value: int, action: int) -> list[bytes]:
    return [_instruction(_JUMP_EQUAL, value, 1, 0), _return(action)]


def _if_at_least(value: int, action: int) -> list[bytes]:
    return [_instruction(_JUMP_GREATER_EQUAL, value, 0, 1), _return(action)]


def _check_argument(condition: Condition) -> list[bytes]:
    # Both architectures are little-endian: the low word comes first.
    program = [_load(_ARGUMENTS_AT + 8 * condition.argument), _instruction(_AND, condition.mask)]
    for value in condition.values:
        program += _if_equal(value, [_return(_ALLOW)])
    return [*program, _return(_ERRNO | errno.EPERM)]
