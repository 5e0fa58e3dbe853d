"""The rules about `metadata.json`.

A table and nothing else: see `metadata` for the code that looks.
"""

from __future__ import annotations

from typing import Final

from kgate_core.evidence import Severity
from kgate_scanner.rules import Rule

NO_METADATA: Final = Rule(
    "KG-META-001",
    Severity.HIGH,
    "metadata.json is missing",
    "Without it neither the name, the licence, the dependencies nor the digests of a kernel are "
    "known, and current clients do not load the variant.",
    "Rebuild the kernel with a current kernel-builder.",
)
BAD_METADATA: Final = Rule(
    "KG-META-002",
    Severity.HIGH,
    "metadata.json is malformed",
    "Readers disagree about broken documents: one may see other dependencies or digests than the "
    "next.",
    "Rebuild the kernel with a current kernel-builder.",
)
SHADOWING_ID: Final = Rule(
    "KG-META-003",
    Severity.CRITICAL,
    "The id replaces a Python module",
    "Clients register a kernel in sys.modules under this id as it stands. An id equal to a known "
    "module's name replaces that module for the whole process.",
    "Refuse the kernel. Ids written by kernel-builder have the form _name_<digits of a digest>.",
)
ODD_ID: Final = Rule(
    "KG-META-004",
    Severity.HIGH,
    "The id is not one that a builder writes",
    "Clients register a kernel in sys.modules under this id. Builders write _name_<suffix>; "
    "anything else can collide with other modules or with another kernel.",
    "Rebuild the kernel with a current kernel-builder.",
)
DIRTY: Final = Rule(
    "KG-META-005",
    Severity.MEDIUM,
    "Built from an uncommitted working tree",
    "The named commit is not what was built: there were changes that nobody can look up.",
    "Ask the publisher for a build from a clean commit.",
)
NO_PROVENANCE: Final = Rule(
    "KG-META-006",
    Severity.LOW,
    "No provenance",
    "metadata.json does not say which source commit and builder made the kernel, so the binary "
    "cannot be traced to a source.",
    "Rebuild the kernel with a current kernel-builder.",
)
DEPENDS: Final = Rule(
    "KG-META-007",
    Severity.INFO,
    "Depends on other kernels",
    "Loading this kernel downloads and runs other repositories. Each needs its own pin and its "
    "own review.",
    "Pin every repository named here.",
)
NO_DIGEST: Final = Rule(
    "KG-META-008",
    Severity.LOW,
    "metadata.json lists no digests",
    "The publisher's signature covers metadata.json only. Without digests inside, it says nothing "
    "about the other files.",
    "Rebuild the kernel with a current kernel-builder.",
)
DIGEST_GAP: Final = Rule(
    "KG-META-009",
    Severity.HIGH,
    "The publisher's digests do not cover the same files",
    "A file is missing although the publisher listed it, or is there although they did not: the "
    "variant is not the one that was built.",
    "Fetch the variant again; if it stays so, ask the publisher.",
)
DIGEST_WRONG: Final = Rule(
    "KG-META-010",
    Severity.CRITICAL,
    "A file differs from the publisher's digest",
    "The bytes are not those that the publisher recorded when building.",
    "Refuse the variant and tell its publisher.",
)
WRONG_BACKEND: Final = Rule(
    "KG-META-011",
    Severity.HIGH,
    "Backend and variant disagree",
    "metadata.json names another backend than the directory name, or the device code in the "
    "variant is for another one. Clients choose by the name.",
    "Refuse the variant; ask the publisher to rebuild it.",
)
WRONG_ARCHS: Final = Rule(
    "KG-META-012",
    Severity.LOW,
    "Declared and found GPU architectures differ",
    "metadata.json declares architectures that the device code does not have, or the other way "
    "round. Clients use the declaration to refuse a GPU.",
    "Ask the publisher to correct the declaration.",
)
NO_LICENCE: Final = Rule(
    "KG-META-013",
    Severity.LOW,
    "No licence",
    "Nothing says under which terms the kernel may be used.",
    "Ask the publisher to state a licence by its SPDX id.",
)
UNKNOWN_FIELD: Final = Rule(
    "KG-META-014",
    Severity.INFO,
    "metadata.json has fields that are not known",
    "Either the file comes from a newer builder or somebody added something. Nobody checks what "
    "nobody reads.",
    "Update the scanner, or ask the publisher what the field is for.",
)

RULES: Final = (
    NO_METADATA,
    BAD_METADATA,
    SHADOWING_ID,
    ODD_ID,
    DIRTY,
    NO_PROVENANCE,
    DEPENDS,
    NO_DIGEST,
    DIGEST_GAP,
    DIGEST_WRONG,
    WRONG_BACKEND,
    WRONG_ARCHS,
    NO_LICENCE,
    UNKNOWN_FIELD,
)
