"""The filter against the kernel, call by call, and its program against an interpreter of BPF."""

from __future__ import annotations

import errno
import platform
import struct

import pytest

from hiplora.evaluation.sandbox import Backend, Check, run_many, seccomp, syscalls
from hiplora.evaluation.sandbox.backend import Unavailable

ALLOW, KILL = 0x7FFF0000, 0x80000000
REFUSED, ABSENT = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
THREAD = 0x3D0F00  # what pthread_create asks of clone

FORBIDDEN_X86 = {
    "socket": 41, "connect": 42, "socketpair": 53, "fork": 57, "vfork": 58, "execve": 59, "kill": 62,
    "chmod": 90, "chown": 92, "ptrace": 101, "setuid": 105, "setsid": 112, "setpriority": 141, "prctl": 157,
    "chroot": 161, "mount": 165, "reboot": 169, "init_module": 175, "setxattr": 188, "tkill": 200,
    "sched_setaffinity": 203, "mq_open": 240, "add_key": 248, "keyctl": 250, "unshare": 272,
    "perf_event_open": 298, "name_to_handle_at": 303, "setns": 308, "process_vm_readv": 310,
    "process_vm_writev": 311, "kcmp": 312, "seccomp": 317, "memfd_create": 319, "bpf": 321, "execveat": 322,
    "userfaultfd": 323, "shmget": 29, "rt_sigqueueinfo": 129, "tgkill": 234, "pidfd_send_signal": 424,
    "io_uring_setup": 425, "pidfd_open": 434, "clone3": 435, "openat2": 437, "pidfd_getfd": 438,
    "landlock_create_ruleset": 444, "process_madvise": 440, "a call of the future": 900,
}  # fmt: skip


def run(program: bytes, number: int, *arguments: int, arch: int = AUDIT["x86_64"]) -> int:
    """The verdict of a filter on one call, by the instructions it may use."""
    words = [argument & 0xFFFFFFFF if i == 0 else argument >> 32 for argument in arguments for i in (0, 1)]
    data = struct.pack("<IIQ", number, arch, 0) + b"".join(struct.pack("<I", word & 0xFFFFFFFF) for word in words)
    data, at, register = data.ljust(64, b"\0"), 0, 0
    while True:
        code, if_true, if_false, value = struct.unpack_from("<HBBI", program, 8 * at)
        at += 1
        if code == 0x06:
            return value
        elif code == 0x20:
            (register,) = struct.unpack_from("<I", data, value)
        elif code == 0x54:
            register &= value
        else:
            taken = {0x15: register == value, 0x35: register >= value}[code]
            at += if_true if taken else if_false


@pytest.mark.parametrize("writable", [True, False])
def test_program_decides_as_meant(writable: bool) -> None:
    program = seccomp.build_filter(writable=writable, machine="x86_64")
    changing = ALLOW if writable else REFUSED
    cases = {
        (0,): ALLOW, (231,): ALLOW, (41,): REFUSED, (59,): REFUSED, (435,): ABSENT, (900,): ABSENT,
        (56, THREAD): ALLOW, (56, 17): REFUSED, (56, THREAD | 0x10000000): REFUSED, (56, THREAD | 0x80): REFUSED,
        (72, 0, 1): ALLOW, (72, 0, 8): REFUSED, (72, 0, 10): REFUSED, (16, 0, 0x5401): ALLOW, (16, 0, 0x5412): REFUSED,
        (302, 0): ALLOW, (302, 1): REFUSED, (302, 1 << 32): ALLOW,
        (257, 0, 0, 0o2000000): ALLOW, (257, 0, 0, 0o1000): changing, (257, 0, 0, 1): changing, (2, 0, 0o101): changing,
        (87,): changing, (82,): changing, (0x40000000 | 0,): KILL, (0xFFFFFFFF,): KILL,
    }  # fmt: skip
    assert {case: run(program, *case) for case in cases} == cases
    assert run(program, 0, arch=AUDIT["aarch64"]) == KILL


def test_program_for_the_other_architecture() -> None:
    program = seccomp.build_filter(writable=False, machine="aarch64")
    cases = {(63,): ALLOW, (198,): REFUSED, (221,): REFUSED, (220, THREAD): ALLOW, (220, 17): REFUSED,
             (56, 0, 0, 0): ALLOW, (56, 0, 0, 0o1101): REFUSED, (435,): ABSENT}  # fmt: skip
    assert {case: run(program, *case, arch=AUDIT["aarch64"]) for case in cases} == cases
    with pytest.raises(Unavailable, match="x86_64 and aarch64"):
        seccomp.build_filter(writable=False, machine="riscv64")


@pytest.mark.parametrize("machine", sorted(syscalls.ARCHITECTURES))
def test_tables_name_every_call_once(machine: str) -> None:
    tables = [value for name, value in vars(syscalls).items() if name.isupper() and isinstance(value, str)]
    pairs = [pair for table in tables for pair in syscalls.numbers(table, machine).items()]
    assert len({number for _, number in pairs}) == len({name for name, _ in pairs}) == len(pairs)
    assert max(number for _, number in pairs) <= syscalls.LAST_KNOWN


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers are those of x86-64")
def test_kernel_refuses_each_forbidden_call(backend: Backend) -> None:
    code = f"""
import ctypes
def f():
    libc = ctypes.CDLL(None, use_errno=True)
    def refusal(number):
        result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(0)] * 6)
        return ctypes.get_errno() if result == -1 else None
    return {{name: refusal(number) for name, number in {FORBIDDEN_X86!r}.items()}}
"""
    absent = {"clone3", "openat2", "a call of the future"}
    expected = {name: errno.ENOSYS if name in absent else errno.EPERM for name in FORBIDDEN_X86}
    test = f"def check(candidate):\n    found = candidate()\n    assert found == {expected!r}, found\n"
    (verdict,) = run_many([Check(prompt="", completion=code, test=test, entry_point="f", timeout=20.0)], backend)
    assert verdict.passed, verdict


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the machine code is x86-64's")
@pytest.mark.parametrize("way", ["x32", "i386"])
def test_other_call_conventions_end_the_process(backend: Backend, way: str) -> None:
    ways = {
        "x32": "    ctypes.CDLL(None).syscall(ctypes.c_long(0x40000000 + 39))",
        # mov eax, 20 (getpid); int 0x80; ret
        "i386": "    page = mmap.mmap(-1, 4096, prot=7)\n    page.write(bytes.fromhex('b814000000cd80c3'))\n"
        "    ctypes.CFUNCTYPE(int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()",
    }
    code = f"import ctypes, mmap\ndef f():\n{ways[way].replace('(int)', '(ctypes.c_int)')}\n    return 1"
    check = Check(prompt="", completion=code, test="def check(f): f()", entry_point="f", timeout=20.0)
    (verdict,) = run_many([check], backend)
    assert verdict.status == "error"
    assert "ended without an answer" in verdict.detail
