"""The rules about Python source.

A table and nothing else: see `python` for the code that looks.
"""

from __future__ import annotations

from typing import Final

from kgate_core.evidence import Severity
from kgate_scanner.rules import Rule

SYNTAX: Final = Rule(
    "KG-PY-001",
    Severity.HIGH,
    "Python source that cannot be parsed",
    "What cannot be parsed cannot be looked at. The pod's Python may be another version that does "
    "accept it.",
    "Ask the publisher for source that parses with the supported Python versions.",
)
RUNS_TEXT: Final = Rule(
    "KG-PY-002",
    Severity.HIGH,
    "Runs text as code",
    "exec, eval and compile run code that is not in the source that was reviewed.",
    "Ask the publisher to write the code out. Code generators for GPU kernels should emit GPU "
    "source only.",
)
STARTS_PROCESSES: Final = Rule(
    "KG-PY-003",
    Severity.HIGH,
    "Starts other programs",
    "What is started is outside every check of this process.",
    "Ask the publisher what it is for; refuse the kernel if there is no good answer.",
)
USES_NETWORK: Final = Rule(
    "KG-PY-004",
    Severity.HIGH,
    "Uses the network",
    "A kernel that talks to the network can send out what the model sees, or fetch code that "
    "nobody reviewed.",
    "Ask the publisher what it is for; refuse the kernel if there is no good answer.",
)
NATIVE: Final = Rule(
    "KG-PY-005",
    Severity.MEDIUM,
    "Reaches native code around Python",
    "ctypes, cffi and load_library call any function of any library, or any address in memory.",
    "Look at what is loaded; a kernel should only load libraries of its own variant.",
)
UNPICKLES: Final = Rule(
    "KG-PY-006",
    Severity.HIGH,
    "Reads formats that run code when read",
    "Unpickling can call any function; torch.load does the same unless weights_only is set.",
    "Use safetensors, JSON or weights_only=True.",
)
BUILDS: Final = Rule(
    "KG-PY-007",
    Severity.MEDIUM,
    "Builds native code at run time",
    "What a compiler makes on the target machine was not scanned and not signed.",
    "Ship the built library instead.",
)
HIDDEN_CODE: Final = Rule(
    "KG-PY-008",
    Severity.CRITICAL,
    "Decodes and runs hidden code",
    "Text that is decoded or unpacked and then run has one purpose: that nobody reads it.",
    "Refuse the kernel and tell its publisher.",
)
WRITES: Final = Rule(
    "KG-PY-009",
    Severity.LOW,
    "Changes files",
    "A kernel has no reason to write files. Written where other programs look, files become code "
    "or settings.",
    "Ask the publisher what is written where.",
)
AT_IMPORT: Final = Rule(
    "KG-PY-010",
    Severity.HIGH,
    "Does something risky while being imported",
    "Loading the kernel is enough for this to happen; nobody has to call it.",
    "Move the work into the function that needs it, or refuse the kernel.",
)
CREDENTIALS: Final = Rule(
    "KG-PY-011",
    Severity.HIGH,
    "Names credentials",
    "Names of tokens and key files have no place in a compute kernel; code that collects secrets "
    "looks for exactly these.",
    "Ask the publisher what it is for; refuse the kernel if there is no good answer.",
)
TAMPERS: Final = Rule(
    "KG-PY-012",
    Severity.MEDIUM,
    "Changes other modules",
    "Assigning into other modules, sys.modules or the import system changes code far away from "
    "the kernel.",
    "Ask the publisher to register functions through the framework instead.",
)
DISGUISED: Final = Rule(
    "KG-PY-013",
    Severity.HIGH,
    "Source that reads differently than it runs",
    "Invisible or direction-changing characters and unusual encodings show a reviewer other code "
    "than Python runs.",
    "Refuse the kernel; ordinary source needs neither.",
)
COMPUTED_IMPORT: Final = Rule(
    "KG-PY-014",
    Severity.MEDIUM,
    "Imports what it computes",
    "The module's name or file is worked out at run time, so a reader cannot tell what is loaded.",
    "Write the imports out.",
)
UNREAD: Final = Rule(
    "KG-PY-015",
    Severity.HIGH,
    "Python source beyond the scanner's limits",
    "The source is too long or nested too deeply to be parsed within bounds, so nothing is known "
    "about it. People do not write such source.",
    "Ask the publisher to split generated tables from code.",
)
ENVIRONMENT: Final = Rule(
    "KG-PY-016",
    Severity.LOW,
    "Changes environment variables",
    "Other libraries and all processes started later read them; LD_PRELOAD and PYTHONPATH decide "
    "what code runs.",
    "Ask the publisher which variable is set and why.",
)

RULES: Final = (
    SYNTAX,
    RUNS_TEXT,
    STARTS_PROCESSES,
    USES_NETWORK,
    NATIVE,
    UNPICKLES,
    BUILDS,
    HIDDEN_CODE,
    WRITES,
    AT_IMPORT,
    CREDENTIALS,
    TAMPERS,
    DISGUISED,
    COMPUTED_IMPORT,
    UNREAD,
    ENVIRONMENT,
)
