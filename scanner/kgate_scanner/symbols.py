"""Names of C functions and what a library that imports them can do, and the ABIs that names betray.

A name is a hint, not a proof: a library can find any function at run time through what it already
has. That is why `dlopen` and `syscall` are listed too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PROCESSES: Final = frozenset(
    {
        "system", "popen", "execl", "execle", "execlp", "execv", "execve", "execveat", "execvp",
        "execvpe", "fexecve", "posix_spawn", "posix_spawnp", "fork", "vfork", "wordexp",
    }
)  # fmt: skip
NETWORK: Final = frozenset(
    {
        "socket", "connect", "bind", "listen", "accept", "accept4", "getaddrinfo", "gethostbyname",
        "gethostbyname2", "gethostbyname_r", "res_query", "res_search", "curl_easy_perform",
        "curl_easy_init", "SSL_connect", "ibv_open_device",
    }
)  # fmt: skip
LOADING: Final = frozenset({"dlopen", "dlmopen", "__libc_dlopen_mode"})
MEMORY: Final = frozenset(
    {
        "mprotect", "pkey_mprotect", "ptrace", "process_vm_readv", "process_vm_writev",
        "memfd_create", "syscall", "init_module", "finit_module", "personality", "setuid",
        "setns", "unshare", "mount", "bpf", "userfaultfd",
    }
)  # fmt: skip
GROUPS: Final[Mapping[str, frozenset[str]]] = {
    "processes": PROCESSES,
    "network": NETWORK,
    "loading": LOADING,
    "memory": MEMORY,
}
INTERPOSED: Final = frozenset(
    {
        "malloc", "free", "calloc", "realloc", "memcpy", "strlen", "open", "open64", "openat",
        "read", "write", "close", "connect", "socket", "getenv", "dlopen", "dlsym", "execve",
        "fopen", "pthread_create", "__libc_start_main", "PyImport_ImportModule", "Py_Initialize",
        "PyEval_EvalFrameDefault", "cudaLaunchKernel", "cuLaunchKernel", "cuModuleLoadData",
        "cudaMemcpy", "hipLaunchKernel", "hipModuleLoadData",
    }
)  # fmt: skip
"""Functions of the platform: a kernel that exports one of these may replace it in the process."""

_TORCH_CXX: Final = re.compile(r"_ZN?K?(?:St\w*)?(?:2at|3c10|5torch|6caffe2)")
_TORCH_STABLE: Final = re.compile(r"(?:aoti_torch|torch_(?:library|call|get|list|string))_")
_PYTHON: Final = re.compile(r"_?Py[A-Z_]")


def dangerous(imports: Iterable[str]) -> dict[str, list[str]]:
    """Return the imported names of each group in order; groups without a name are left out."""
    names = set(imports)
    found = {group: sorted(names & known) for group, known in GROUPS.items()}
    return {group: listed for group, listed in found.items() if listed}


def torch_abi(imports: Iterable[str]) -> str | None:
    """Return `stable`, `cxx11`, `cxx` (no string in sight) or None if torch is not used."""
    stable = False
    cxx = False
    for name in imports:
        if _TORCH_CXX.match(name):
            if "__cxx11" in name:
                return "cxx11"
            cxx = True
        elif _TORCH_STABLE.match(name):
            stable = True
    if cxx:
        return "cxx"
    return "stable" if stable else None


def python_imports(imports: Iterable[str]) -> tuple[int, list[str]]:
    """Return how many functions of Python are imported, and the private ones by name."""
    names = [name for name in imports if _PYTHON.match(name)]
    return len(names), sorted(name for name in names if name.startswith("_"))
