"""The rules about the host code of shared libraries.

A table and nothing else: see `host` and `libraries` for the code that looks.
"""

from __future__ import annotations

from typing import Final

from kgate_core.evidence import Severity
from kgate_scanner.rules import Rule

OPEN_SET: Final = Rule(
    "KG-HOST-001",
    Severity.HIGH,
    "A needed library is neither shipped nor part of the platform",
    "The dynamic loader searches for the library on whatever machine the kernel runs. Whoever can "
    "put a file of that name on the search path runs code in the process, and no signature covers "
    "it.",
    "Ship the library in the variant, link it statically, or add it to the platform list on "
    "purpose.",
)
SEARCH_PATH: Final = Rule(
    "KG-HOST-002",
    Severity.HIGH,
    "The library search path leaves the variant",
    "RPATH and RUNPATH say where the loader looks first. A path outside the variant lets somebody "
    "else's file stand in for a needed library.",
    "Link with no run path, or with one of the form $ORIGIN/... that stays inside.",
)
EXECUTABLE_STACK: Final = Rule(
    "KG-HOST-003",
    Severity.HIGH,
    "Asks for an executable stack",
    "Loading this library makes the stacks of the whole process executable: any overflow in any "
    "library becomes code.",
    "Link with -z noexecstack; a missing .note.GNU-stack in assembly is the usual cause.",
)
WRITABLE_CODE: Final = Rule(
    "KG-HOST-004",
    Severity.HIGH,
    "Memory that is writable and executable",
    "Code in this segment can change itself at run time, so the scanned code need not be the code "
    "that runs.",
    "Rebuild with separate segments; ordinary compilers never ask for both.",
)
TEXT_RELOCATIONS: Final = Rule(
    "KG-HOST-005",
    Severity.MEDIUM,
    "Code is patched while loading",
    "Text relocations make the loader write into code pages, which must be writable meanwhile.",
    "Compile everything with -fPIC.",
)
NO_RELRO: Final = Rule(
    "KG-HOST-006",
    Severity.LOW,
    "The loader's tables stay writable",
    "Without RELRO, an overflow can redirect calls to other libraries by writing one pointer.",
    "Link with -z relro -z now.",
)
STARTS_PROCESSES: Final = Rule(
    "KG-HOST-007",
    Severity.HIGH,
    "Can start other programs",
    "Compute kernels have no reason to start a process. What is started is outside every check of "
    "this process.",
    "Ask the publisher what it is for; refuse the kernel if there is no good answer.",
)
USES_NETWORK: Final = Rule(
    "KG-HOST-008",
    Severity.HIGH,
    "Can open network connections",
    "A kernel that talks to the network can send out what the model sees, or fetch code.",
    "Ask the publisher what it is for. Communication kernels belong in their own lane.",
)
LOADS_CODE: Final = Rule(
    "KG-HOST-009",
    Severity.LOW,
    "Loads libraries at run time",
    "What dlopen loads is decided at run time and cannot be seen by a scan. Statically linked CUDA "
    "and ROCm runtimes use it to find the driver.",
    "Nothing to do if the runtime is linked statically; else ask what is loaded.",
)
TOUCHES_MEMORY: Final = Rule(
    "KG-HOST-010",
    Severity.MEDIUM,
    "Can change memory protections or other processes",
    "Calls such as mprotect, ptrace and memfd_create are the tools of code that makes code. Raw "
    "syscall() hides which call is meant.",
    "Ask the publisher what it is for.",
)
LOADER_HOOK: Final = Rule(
    "KG-HOST-011",
    Severity.CRITICAL,
    "Hooks into the dynamic loader",
    "Audit and filter entries let this library observe or replace the symbols of others while "
    "they are loaded.",
    "Refuse the kernel and tell its publisher.",
)
WRONG_MACHINE: Final = Rule(
    "KG-HOST-012",
    Severity.HIGH,
    "Built for another machine than the variant says",
    "The library cannot be loaded where clients will choose this variant.",
    "Ask the publisher to rebuild the variant.",
)
WRONG_ABI: Final = Rule(
    "KG-HOST-013",
    Severity.MEDIUM,
    "Built against another torch interface than the variant says",
    "The C++ symbols do not fit the framework that the variant's name promises; loading fails or, "
    "worse, works by accident.",
    "Ask the publisher to rebuild the variant.",
)
HIDDEN_SYMBOLS: Final = Rule(
    "KG-HOST-014",
    Severity.HIGH,
    "The section headers hide dynamic symbols",
    "The loader ignores section headers, reading tools believe them. Headers that show fewer "
    "symbols than the loader uses hide what the library calls.",
    "Refuse the kernel; ordinary linkers never write this.",
)
INTERPOSES: Final = Rule(
    "KG-HOST-015",
    Severity.HIGH,
    "Exports a function of the platform",
    "A library that exports malloc, connect or a CUDA call under its own name can take the place "
    "of the real one in the process.",
    "Hide the symbol (-fvisibility=hidden) or ask the publisher what it is for.",
)
NEW_GLIBC: Final = Rule(
    "KG-HOST-016",
    Severity.LOW,
    "Needs a newer system than kernels are built for",
    "Kernels are built for manylinux_2_28. This library asks for newer system libraries and fails "
    "to load on older, supported ones.",
    "Rebuild with the standard toolchain of kernel-builder.",
)
BUILD_PATH: Final = Rule(
    "KG-HOST-017",
    Severity.INFO,
    "Paths of the build machine are inside",
    "They show user and directory names of the machine that built the library, and make the build "
    "impossible to reproduce elsewhere.",
    "Build with -ffile-prefix-map.",
)
URLS: Final = Rule(
    "KG-HOST-018",
    Severity.INFO,
    "Web addresses are inside",
    "Most are in error messages. An address that is neither documentation nor an issue tracker "
    "deserves a look.",
    "Look at the list.",
)
NOT_ELF: Final = Rule(
    "KG-HOST-019",
    Severity.HIGH,
    "The host part of the library cannot be read",
    "The file claims to be a shared library, but its tables are damaged or made for a machine "
    "that is not known.",
    "Do not use the file.",
)
PROGRAM: Final = Rule(
    "KG-HOST-020",
    Severity.MEDIUM,
    "A library that is also a program",
    "The file names an interpreter, so it can be started as a program of its own.",
    "Ship libraries only.",
)
CREDENTIALS: Final = Rule(
    "KG-HOST-021",
    Severity.HIGH,
    "Names of credentials are inside",
    "Names of tokens and key files have no place in a compute library; code that collects secrets "
    "looks for exactly these.",
    "Ask the publisher what it is for; refuse the kernel if there is no good answer.",
)

OVERLAY: Final = Rule(
    "KG-HOST-022",
    Severity.MEDIUM,
    "Something stands behind the end of the library",
    "Linkers write nothing behind the last section. Bytes there are never loaded as part of the "
    "library, but a program can read them back out of the file: an archive or code put there is "
    "invisible to most tools.",
    "Ask the publisher what it is; strip removes it.",
)

RULES: Final = (
    OPEN_SET,
    SEARCH_PATH,
    EXECUTABLE_STACK,
    WRITABLE_CODE,
    TEXT_RELOCATIONS,
    NO_RELRO,
    STARTS_PROCESSES,
    USES_NETWORK,
    LOADS_CODE,
    TOUCHES_MEMORY,
    LOADER_HOOK,
    WRONG_MACHINE,
    WRONG_ABI,
    HIDDEN_SYMBOLS,
    INTERPOSES,
    NEW_GLIBC,
    BUILD_PATH,
    URLS,
    NOT_ELF,
    PROGRAM,
    CREDENTIALS,
    OVERLAY,
)
