"""The rules about compile caches: what Triton, Inductor, Helion and vLLM keep on disk.

A table and nothing else: see `caches` for the code that looks.
"""

from __future__ import annotations

from typing import Final

from kgate_core.evidence import Severity
from kgate_scanner.rules import Rule

OTHER_TARGET: Final = Rule(
    "KG-CACHE-001",
    Severity.HIGH,
    "The record of a compiled kernel names another GPU than its code",
    "Triton writes the target beside each kernel that it compiled and later believes it. Code for "
    "another architecture was not made by the run that wrote the record: the entry was put "
    "together by hand, or one of its files was replaced.",
    "Delete the entry; the compiler makes it again.",
)
OTHER_KERNEL: Final = Rule(
    "KG-CACHE-002",
    Severity.HIGH,
    "The code of a cache entry does not hold the kernel of its record",
    "The record names the function that is launched, and the code beside it has none of that name. "
    "One of the two was replaced, or the entry is damaged.",
    "Delete the entry; the compiler makes it again.",
)
LEADS_AWAY: Final = Rule(
    "KG-CACHE-003",
    Severity.HIGH,
    "A cache entry names files of another place",
    "The list of files of an entry holds full paths, and whatever lies there is loaded. A path "
    "that does not end in this entry's own folder makes the reader run code from elsewhere.",
    "Delete the entry, and find out who can write to the cache.",
)
HOST_CODE: Final = Rule(
    "KG-CACHE-004",
    Severity.MEDIUM,
    "A compile cache holds a host library",
    "Launchers and C++ kernels in a cache are loaded into the process by their place alone, "
    "without a signature. Whoever can write to the cache runs code in every process that uses it.",
    "Let only the process that compiles write to the cache, and ship it read-only to all others.",
)

RULES: Final = (OTHER_TARGET, OTHER_KERNEL, LEADS_AWAY, HOST_CODE)
