"""System call numbers: name, x86-64, AArch64 (a dash where the architecture has no such call).

Numbers are part of each architecture's stable interface (Linux ``asm/unistd_64.h``, ``asm-generic/unistd.h``).
"""

from __future__ import annotations

FILES = """
read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, close 3 57, lseek 8 62,
close_range 436 436, fstat 5 80, newfstatat 262 79, stat 4 -, lstat 6 -, statx 332 291, access 21 -,
faccessat 269 48, faccessat2 439 439, getdents64 217 61, readlink 89 -, readlinkat 267 78, getcwd 79 17,
chdir 80 49, fchdir 81 50, poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72, dup 32 23, dup2 33 -,
dup3 292 24, pipe 22 -, pipe2 293 59, fsync 74 82, fdatasync 75 83, ftruncate 77 46, statfs 137 43,
fstatfs 138 44, fadvise64 221 223, flock 73 32, umask 95 166
"""

MEMORY = """
mmap 9 222, munmap 11 215, mprotect 10 226, mremap 25 216, madvise 28 233, brk 12 214, membarrier 324 283
"""

PROCESS = """
exit 60 93, exit_group 231 94, getpid 39 172, gettid 186 178, getppid 110 173, getuid 102 174,
geteuid 107 175, getgid 104 176, getegid 108 177, getpgrp 111 -, getpgid 121 155, getsid 124 156,
getresuid 118 148, getresgid 120 150, getgroups 115 158, uname 63 160, sysinfo 99 179, times 100 153,
getrusage 98 165, getrlimit 97 163, sched_yield 24 124, sched_getaffinity 204 123, getcpu 309 168,
set_tid_address 218 96, set_robust_list 273 99, rseq 334 293, futex 202 98, wait4 61 260, waitid 247 95,
arch_prctl 158 -, restart_syscall 219 128
"""

SIGNALS_AND_TIME = """
rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigpending 127 136,
rt_sigtimedwait 128 137, rt_sigsuspend 130 133, sigaltstack 131 132, pause 34 -, alarm 37 -,
setitimer 38 103, getitimer 36 102, nanosleep 35 101, clock_nanosleep 230 115, clock_gettime 228 113,
clock_getres 229 114, gettimeofday 96 169, time 201 -, getrandom 318 278
"""

CHANGING_FILES = """
mkdir 83 -, mkdirat 258 34, rmdir 84 -, unlink 87 -, unlinkat 263 35, rename 82 -, renameat 264 38,
renameat2 316 276, symlink 88 -, symlinkat 266 36
"""

BY_ARGUMENT = "clone 56 220, fcntl 72 25, ioctl 16 29, prlimit64 302 261, open 2 -, openat 257 56"

PRETEND_ABSENT = "clone3 435 435, openat2 437 437"

LAST_KNOWN = 450
"""Above this number a call is newer than this list; programs probe for such calls and expect ENOSYS."""

ARCHITECTURES = {"x86_64": 0, "aarch64": 1}


def numbers(table: str, machine: str) -> dict[str, int]:
    """Name to number on ``machine`` ("x86_64" or "aarch64"), leaving out calls it does not have."""
    column = ARCHITECTURES[machine]
    rows = (entry.split() for entry in table.replace("\n", " ").split(","))
    return {name: int(row[column]) for name, *row in rows if row[column] != "-"}
