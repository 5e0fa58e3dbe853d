"""What a scan of device code can find; each rule has a page under docs/rules/."""

from __future__ import annotations

from typing import Final

from kgate_core.evidence import Severity
from kgate_scanner.rules import Rule

MALFORMED: Final = Rule(
    "KG-DEV-001",
    Severity.HIGH,
    "Malformed device code container",
    "A header of a fatbin, bundle or archive contradicts itself or points outside its container. "
    "What the driver loads may then differ from what a scanner read.",
    "Rebuild with an unmodified toolchain, or refuse the file.",
)
ORPHAN: Final = Rule(
    "KG-DEV-002",
    Severity.MEDIUM,
    "Device code that no wrapper points to",
    "The host runtime finds device code through wrapper records. A container without one is not "
    "registered at start-up: it is dead weight, or host code loads it by a path of its own.",
    "Ask the publisher what loads it; rebuild without it if nothing does.",
)
HIDDEN: Final = Rule(
    "KG-DEV-003",
    Severity.HIGH,
    "Device code outside the known sections",
    "Toolchains put device code into sections of their own. Code elsewhere was placed by hand, and "
    "other tools will not list it.",
    "Ask the publisher why; load device code through the ordinary sections.",
)
MISMATCH: Final = Rule(
    "KG-DEV-004",
    Severity.HIGH,
    "Container and code disagree about the architecture",
    "The driver chooses by the container, the code object says otherwise: a label was changed or "
    "an image was exchanged.",
    "Rebuild with an unmodified toolchain, or refuse the file.",
)
EXPANSION: Final = Rule(
    "KG-DEV-005",
    Severity.HIGH,
    "Compressed device code does not expand as declared",
    "The data is damaged, or its size is a lie meant to exhaust whoever reads it.",
    "Fetch the file again; if it stays so, refuse it.",
)
UNEXPLAINED: Final = Rule(
    "KG-DEV-006",
    Severity.MEDIUM,
    "Unexplained bytes in a device section",
    "Bytes that belong to no image and are not zero padding can carry anything.",
    "Rebuild with an unmodified toolchain.",
)
DEBUG: Final = Rule(
    "KG-DEV-007",
    Severity.LOW,
    "Debug build of device code",
    "Compiled with -G: without optimisation, many times slower, with source details inside.",
    "Build releases without -G; use -lineinfo for profiling.",
)
BUILD_PATH: Final = Rule(
    "KG-DEV-008",
    Severity.INFO,
    "Build path inside device code",
    "Tool arguments or line tables name directories of the build machine, often with user names.",
    "Build in a neutral directory or strip the notes.",
)
NO_MACHINE_CODE: Final = Rule(
    "KG-DEV-009",
    Severity.LOW,
    "Only intermediate code, no machine code",
    "The driver compiles PTX, LTO-IR or SPIR-V when the kernel is loaded. What the GPU runs was "
    "never scanned or signed, and the first load is slow.",
    "Ship machine code for the architectures in use.",
)
LIMIT: Final = Rule(
    "KG-DEV-010",
    Severity.HIGH,
    "Device code beyond the scanner's limits",
    "A limit on size or number was met, so some of the file was not read.",
    "Refuse the file, or raise the limit after looking at it by hand.",
)
UNKNOWN: Final = Rule(
    "KG-DEV-011",
    Severity.MEDIUM,
    "Device code of an unknown kind",
    "A container holds an entry kind, version or flag that this scanner does not know.",
    "Update kgate; until then treat the entry as unread.",
)
WRAPPER: Final = Rule(
    "KG-DEV-012",
    Severity.HIGH,
    "Wrapper that points to no container",
    "The runtime would register whatever lies there as device code.",
    "Rebuild with an unmodified toolchain, or refuse the file.",
)
CODE_DAMAGED: Final = Rule(
    "KG-DEV-013",
    Severity.HIGH,
    "Damaged code object",
    "Headers, tables or notes inside the code object do not fit together, so kernels may be "
    "missing from the inventory.",
    "Rebuild with an unmodified toolchain, or refuse the file.",
)
BUNDLE_HASH: Final = Rule(
    "KG-DEV-014",
    Severity.HIGH,
    "Bundle differs from its own checksum",
    "A compressed offload bundle carries a checksum of its contents. It does not match: the "
    "contents were changed after the compiler wrote them, or were damaged.",
    "Fetch the file again; if it stays so, refuse it.",
)
OPAQUE: Final = Rule(
    "KG-DEV-015",
    Severity.MEDIUM,
    "Device code in an encoding that only its vendor can read",
    "The toolkit stores intermediate code for link-time optimisation encoded. It was hashed as it "
    "lies there, but nobody outside the vendor can say what is in it.",
    "Ship linked machine code, without the intermediate code.",
)

RULES: Final = (
    MALFORMED,
    ORPHAN,
    HIDDEN,
    MISMATCH,
    EXPANSION,
    UNEXPLAINED,
    DEBUG,
    BUILD_PATH,
    NO_MACHINE_CODE,
    LIMIT,
    UNKNOWN,
    WRAPPER,
    CODE_DAMAGED,
    BUNDLE_HASH,
    OPAQUE,
)
