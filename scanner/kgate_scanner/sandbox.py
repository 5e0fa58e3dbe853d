"""What a parser process gives up before it is handed a hostile byte (Linux).

After `enter` the process can compute, read and write the descriptors it holds and receive more over
its socket; it can open no file, make no socket, start no process. Each layer is used where the
kernel permits it, and `enter` says which ones held. It is not a container and protects nothing
else on the machine; a parent that must not be lied to still checks what the child answers.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
from typing import Final

_OPEN_FILES: Final = 64  # descriptors; the worker needs about six

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SECCOMP_MODE_FILTER = 2
_CLONE_NEWUSER, _CLONE_NEWNET, _CLONE_THREAD = 0x10000000, 0x40000000, 0x00010000
_LANDLOCK_CREATE, _LANDLOCK_RESTRICT = 444, 446  # the same number on every architecture
_LANDLOCK_FS_RIGHTS: Final = (1 << 13) - 1  # every right of the first version of the interface

# Numbers of linux/bpf_common.h and linux/seccomp.h.
_LD_ABS, _JEQ, _JSET, _RET = 0x20, 0x15, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_EPERM, _ENOSYS = 1, 38
_OFFSET_NR, _OFFSET_ARCH, _OFFSET_ARG0 = 0, 4, 16
_JUMP_MAX: Final = 255

# Calls that computing, memory, threads and the held descriptors need: (x86_64, aarch64).
_NEEDED: Final[dict[str, tuple[int | None, int]]] = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "fstat": (5, 80),
    "poll": (7, 73),  # aarch64 has ppoll only
    "lseek": (8, 62),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "pread64": (17, 67),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "nanosleep": (35, 101),
    "getpid": (39, 172),
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "sendmsg": (46, 211),
    "recvmsg": (47, 212),
    "exit": (60, 93),
    "fcntl": (72, 25),
    "getrusage": (98, 165),
    "sigaltstack": (131, 132),
    "gettid": (186, 178),
    "futex": (202, 98),
    "sched_getaffinity": (204, 123),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "exit_group": (231, 94),
    "tgkill": (234, 131),
    "newfstatat": (262, 79),
    "set_robust_list": (273, 99),
    "getrandom": (318, 278),
    "rseq": (334, 293),
}
_CLONE: Final = (56, 220)
_CLONE3: Final = 435
_AUDIT_ARCH: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT: Final = 0x40000000


def limit(*, memory_bytes: int, cpu_seconds: int) -> None:
    """Bound memory, processor time, descriptors, written files and core dumps of this process."""
    limits = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_NOFILE: _OPEN_FILES,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for which, wanted in limits.items():
        _, hard = resource.getrlimit(which)
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(which, (value, value))


def enter() -> frozenset[str]:
    """Give up everything but computing, for good; returns the names of the layers that held."""
    libc = ctypes.CDLL(None, use_errno=True)
    held = set()
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    # In its own user namespace the process may make itself a network with nothing in it.
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0:
        held.add("network-namespace")
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        held.add("no-new-privileges")
    if _forbid_files(libc):
        held.add("landlock")
    if _filter_calls(libc):
        held.add("seccomp")
    return frozenset(held)


def _forbid_files(libc: ctypes.CDLL) -> bool:
    # A ruleset that handles every right and grants none: see landlock(7).
    attributes = struct.pack("<Q", _LANDLOCK_FS_RIGHTS)
    ruleset: int = libc.syscall(_LANDLOCK_CREATE, attributes, len(attributes), 0)
    if ruleset < 0:
        return False
    try:
        done: int = libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0)
        return done == 0
    finally:
        os.close(ruleset)


def _filter_calls(libc: ctypes.CDLL) -> bool:
    program = call_filter(platform.machine())
    if program is None:
        return False
    code = ctypes.create_string_buffer(program, len(program))

    class SockFprog(ctypes.Structure):
        _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    argument = SockFprog(len(program) // 8, ctypes.addressof(code))
    done: int = libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(argument), 0, 0)
    return done == 0


def call_filter(machine: str) -> bytes | None:
    """Return the seccomp program that allows the needed calls only, None for other machines."""
    if machine not in _AUDIT_ARCH:
        return None
    column = 0 if machine == "x86_64" else 1
    allowed = [number for pair in _NEEDED.values() if (number := pair[column]) is not None]
    lines = [
        (_LD_ABS, 0, 0, _OFFSET_ARCH),
        (_JEQ, 1, 0, _AUDIT_ARCH[machine]),
        (_RET, 0, 0, _KILL),
        (_LD_ABS, 0, 0, _OFFSET_NR),
        # The x32 numbering would pass by the comparisons below.
        (_JSET, 0, 1, _X32_BIT),
        (_RET, 0, 0, _KILL),
        # glibc makes threads with clone3 and falls back to clone only on "no such call".
        (_JEQ, 0, 1, _CLONE3),
        (_RET, 0, 0, _ERRNO | _ENOSYS),
        # clone may make a thread, not a process.
        (_JEQ, 0, 4, _CLONE[column]),
        (_LD_ABS, 0, 0, _OFFSET_ARG0),
        (_JSET, 0, 1, _CLONE_THREAD),
        (_RET, 0, 0, _ALLOW),
        (_RET, 0, 0, _ERRNO | _EPERM),
    ]
    for left, number in zip(range(len(allowed), 0, -1), allowed, strict=True):
        lines.append((_JEQ, left, 0, number))
    lines.append((_RET, 0, 0, _ERRNO | _EPERM))
    lines.append((_RET, 0, 0, _ALLOW))
    return b"".join(struct.pack("<HBBI", *line) for line in lines)
