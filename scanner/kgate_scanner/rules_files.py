"""The rules about files as such and about the scan itself.

A table and nothing else: see `files` and `scan` for the code that looks.
"""

from __future__ import annotations

from typing import Final

from kgate_core.evidence import Severity
from kgate_scanner.rules import Rule

GAVE_UP: Final = Rule(
    "KG-SCAN-001",
    Severity.HIGH,
    "The parser gave up on a file",
    "A parser crashed, ran out of its time or memory, or answered nonsense. The file was not read "
    "to its end, so the absence of other findings proves nothing. Files made to break parsers do "
    "exactly this.",
    "Do not use the file. If it comes from a publisher you trust, report the file: a parser that "
    "stops on a good file is a bug in the scanner.",
)
TOO_LARGE: Final = Rule(
    "KG-SCAN-002",
    Severity.HIGH,
    "A file is larger than the scanner reads",
    "The file exceeds the scanner's size limit and was not read, so nothing is known about it.",
    "Raise the limit on purpose if a kernel of this size is expected, and scan again.",
)
UNREADABLE: Final = Rule(
    "KG-SCAN-003",
    Severity.HIGH,
    "A file could not be opened",
    "The file is listed but could not be opened or changed while it was read, so nothing is known "
    "about it.",
    "Check the permissions and the store, then scan again.",
)
TOO_MANY: Final = Rule(
    "KG-SCAN-004",
    Severity.MEDIUM,
    "More findings than one file may have",
    "A file with an endless list of findings could drown the ones that matter. The rest of this "
    "file's findings were counted and dropped.",
    "Look at the file by hand; a normal kernel has a few dozen findings at most.",
)

BYTECODE: Final = Rule(
    "KG-FILE-001",
    Severity.HIGH,
    "Python bytecode is shipped",
    "Python runs a cached .pyc file instead of the source beside it, and the digest in "
    "metadata.json skips bytecode, so untouched, signed source can hide code that differs from "
    "it.",
    "Remove every .pyc file and __pycache__ directory from the build.",
)
KERNEL_MODULE: Final = Rule(
    "KG-FILE-002",
    Severity.CRITICAL,
    "An operating-system kernel module",
    "This is an operating-system kernel module, not a GPU compute kernel. The two share nothing "
    "but the word: a module runs with full rights in the operating system's kernel once loaded, "
    "and no compute kernel needs one.",
    "Refuse the repository and tell its publisher.",
)
WINDOWS_BINARY: Final = Rule(
    "KG-FILE-003",
    Severity.HIGH,
    "A Windows binary in a variant for another system",
    "A PE file cannot be loaded on Linux, so it has no purpose in this variant. Its contents were "
    "not analysed.",
    "Ship Windows binaries in a variant whose name ends in -windows only.",
)
APPLE_BINARY: Final = Rule(
    "KG-FILE-004",
    Severity.HIGH,
    "An Apple binary in a variant for another system",
    "A Mach-O file cannot be loaded on Linux, so it has no purpose in this variant. Its contents "
    "were not analysed.",
    "Ship Apple binaries in a variant whose name ends in -darwin only.",
)
DISGUISED: Final = Rule(
    "KG-FILE-005",
    Severity.HIGH,
    "A file that is not what its name says",
    "The name promises a shared library, but the content is something else. Loaders, reviewers "
    "and scanners that trust names will treat it wrongly.",
    "Name the file for what it is, or remove it.",
)
REDIRECT: Final = Rule(
    "KG-FILE-006",
    Severity.HIGH,
    "The repository redirects to another one",
    "A kernel-status.toml file makes older clients load a different repository than the one that "
    "was asked for and reviewed.",
    "Pin the destination itself if it is wanted, and refuse this repository.",
)
ARCHIVE: Final = Rule(
    "KG-FILE-007",
    Severity.MEDIUM,
    "A packed archive",
    "What is inside an archive was not looked at and can be unpacked and run later.",
    "Ship the files themselves.",
)
EXECUTABLE: Final = Rule(
    "KG-FILE-008",
    Severity.HIGH,
    "An executable program",
    "A kernel is a library that a process loads; a program beside it is started in a new process "
    "where no check of the loading one applies.",
    "Remove the program from the variant.",
)
BUILD_LEFTOVER: Final = Rule(
    "KG-FILE-009",
    Severity.LOW,
    "An object file or static archive",
    "Loaders do not use .o and .a files. They were left over by a build, and nobody reviews them.",
    "Leave build products out of the variant.",
)
LINK_OUTSIDE: Final = Rule(
    "KG-FILE-010",
    Severity.HIGH,
    "A symbolic link leads out of the scanned directory",
    "What the link leads to is not part of the kernel, is not covered by any digest and differs "
    "from machine to machine.",
    "Replace the link by the file, or remove it.",
)
SCRIPT: Final = Rule(
    "KG-FILE-011",
    Severity.MEDIUM,
    "A script for another interpreter",
    "A file that begins with #! is meant to be started as a program. Python kernels have no use "
    "for shell or other scripts at run time.",
    "Remove the script from the variant.",
)
PICKLE: Final = Rule(
    "KG-FILE-012",
    Severity.HIGH,
    "A pickle or another format that runs code when read",
    "Reading a pickle can call any function. torch.save files, joblib files and marshalled code "
    "are the same danger in other wrappings.",
    "Ship tables as safetensors, JSON or plain arrays.",
)
LOOSE_DEVICE: Final = Rule(
    "KG-FILE-013",
    Severity.INFO,
    "Device code outside a shared library",
    "A cubin, code object, SPIR-V, PTX or Metal file is loaded through the driver at run time. It "
    "is listed so that nobody overlooks it.",
    "Nothing to do if the kernel is known to load it.",
)
STARTUP_HOOK: Final = Rule(
    "KG-FILE-014",
    Severity.CRITICAL,
    "A file that Python runs at start-up",
    "sitecustomize.py, usercustomize.py and .pth files run in every Python process that finds "
    "them on its path. A kernel never needs one.",
    "Refuse the repository and tell its publisher.",
)
ODD_NAME: Final = Rule(
    "KG-FILE-015",
    Severity.HIGH,
    "A file name that cannot be kept safely",
    "The name holds characters that file systems or terminals treat differently. The file was not "
    "scanned.",
    "Rename the file.",
)
FOREIGN_BINARY: Final = Rule(
    "KG-FILE-016",
    Severity.MEDIUM,
    "A binary format that the scanner does not analyse",
    "The file is expected in this variant, but only its format was recognised: nothing is known "
    "about what it does.",
    "Review the file by other means before a policy allows it.",
)

SPECIAL: Final = Rule(
    "KG-FILE-017",
    Severity.HIGH,
    "A special file",
    "Pipes, sockets and devices are not files: opening one can block a process for ever or reach "
    "hardware. No kernel ships one.",
    "Remove it.",
)

RULES: Final = (
    GAVE_UP,
    TOO_LARGE,
    UNREADABLE,
    TOO_MANY,
    BYTECODE,
    KERNEL_MODULE,
    WINDOWS_BINARY,
    APPLE_BINARY,
    DISGUISED,
    REDIRECT,
    ARCHIVE,
    EXECUTABLE,
    BUILD_LEFTOVER,
    LINK_OUTSIDE,
    SCRIPT,
    PICKLE,
    LOOSE_DEVICE,
    STARTUP_HOOK,
    ODD_NAME,
    FOREIGN_BINARY,
    SPECIAL,
)
