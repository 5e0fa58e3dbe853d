"""What a process gives up before it runs a kernel that nobody decided about yet (Linux).

Afterwards it sees no network and no other process, cannot trace or signal them, reads only what
Python and the GPU need, and writes only into a scratch folder and to devices. Each layer is used
where the kernel permits it; which ones held is returned and stands in the result. It is no
virtual machine: keys do not belong on a machine that tries kernels.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_NEWUSER, _NEWPID, _NEWNET, _NEWIPC = 0x10000000, 0x20000000, 0x40000000, 0x08000000
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446  # on every architecture
_LANDLOCK_VERSION: Final = 1  # flag of the first call: only ask which version is there
_PATH_BENEATH: Final = 1

# Access rights of linux/landlock.h.
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_FIRST: Final = (1 << 13) - 1  # all of version 1
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_TRUNCATE_SINCE: Final = 3  # version of the interface
_READING: Final = _EXECUTE | _READ_FILE | _READ_DIR
_OF_FILES: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE

SYSTEM: Final = (
    "/usr", "/lib", "/lib64", "/bin", "/sbin", "/proc", "/sys", "/etc/ld.so.cache",
    "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime", "/opt/rocm",
)  # fmt: skip
"""What Python, compilers and GPU drivers read."""
SIGNALLED: Final = 128
"""Exit codes above it name the signal that ended a process."""
MAX_FILE_BYTES: Final = 8 * 1024**3  # of one file that a kernel's compiler writes


def harden() -> None:
    """Keep other processes of this user out of this one's memory; it dies with its parent."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def confine(scratch: Path, readable: Iterable[Path]) -> tuple[str, ...]:
    """Give up everything but computing, for good; returns the names of the layers that held.

    Returns in a child process where processes could be hidden; its parent ends with it. Call it
    before any thread is started.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, MAX_FILE_BYTES))
    held = []
    if _hide(libc):
        held += ["users", "processes", "network"]
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        held.append("no-new-privileges")
    if _fence(libc, scratch, readable):
        held.append("files")
    return tuple(held)


def python_paths() -> tuple[Path, ...]:
    """Return the folders that imports of this interpreter read."""
    named = [sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path]
    return tuple({Path(name) for name in named if name})


def _hide(libc: ctypes.CDLL) -> bool:
    """Move into namespaces without network or other processes; True if that was permitted."""
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_NEWUSER | _NEWPID | _NEWNET | _NEWIPC) != 0:
        return False
    with contextlib.suppress(OSError):
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        os._exit(code if code >= 0 else SIGNALLED - code)  # as shells say it
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    return True


def _fence(libc: ctypes.CDLL, scratch: Path, readable: Iterable[Path]) -> bool:
    """Allow reading here and writing there, and nothing else: see landlock(7)."""
    version: int = libc.syscall(_LANDLOCK_CREATE, None, 0, _LANDLOCK_VERSION)
    if version < 1:
        return False
    rights = _FIRST | (_REFER if version > 1 else 0)
    rights |= _TRUNCATE if version >= _TRUNCATE_SINCE else 0
    attributes = struct.pack("<Q", rights)
    ruleset: int = libc.syscall(_LANDLOCK_CREATE, attributes, len(attributes), 0)
    if ruleset < 0:
        return False
    try:
        for path in (*map(Path, SYSTEM), *readable):
            _allow(libc, ruleset, path, _READING)
        _allow(libc, ruleset, Path("/dev"), _READING | _WRITE_FILE)
        _allow(libc, ruleset, scratch, rights)
        done: int = libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0)
        return done == 0
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there needs no permission
    try:
        if not path.is_dir():
            rights &= _OF_FILES
        # Packed, as the header says: 64 bits of rights, 32 bits of descriptor.
        rule = struct.pack("<Qi", rights, place)
        libc.syscall(_LANDLOCK_ADD, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(place)
