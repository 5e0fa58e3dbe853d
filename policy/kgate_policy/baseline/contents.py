"""Built-in rules about what the scanner saw in the files.

Policy does not import the scanner: rules work on finding ids and facts in the ScanReport. Where
a path alone is proof, the path is looked at too, so that a scanner's gap does not open a hole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kgate_policy.rules import Answer, Rule, denied, listed, passed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kgate_core.evidence import Evidence, Finding
    from kgate_policy.parameters import Parameters

NO_SCAN: Final = "there is no scan report"
"""What a rule saw that has nothing to look at."""
_BYTECODE: Final = (".pyc", ".pyo")
_MODULES: Final = (".ko", ".ko.gz", ".ko.xz", ".ko.zst")
_LIBRARY_SET: Final = frozenset({"KG-HOST-001", "KG-HOST-002", "KG-HOST-011", "KG-HOST-015"})
_MALFORMED: Final = frozenset({"KG-ELF-001", "KG-HOST-012", "KG-HOST-014", "KG-HOST-019"})
_DEVICE_DAMAGED: Final = frozenset(
    {
        "KG-DEV-001",
        "KG-DEV-003",
        "KG-DEV-004",
        "KG-DEV-005",
        "KG-DEV-010",
        "KG-DEV-012",
        "KG-DEV-013",
        "KG-DEV-014",
    }
)
_UNREADABLE_SOURCE: Final = frozenset({"KG-PY-001", "KG-PY-008", "KG-PY-013", "KG-PY-015"})
_CALLS_OUT: Final = frozenset(
    {"KG-HOST-007", "KG-HOST-008", "KG-HOST-021", "KG-PY-003", "KG-PY-004", "KG-PY-011"}
)
_NOT_A_KERNEL: Final = frozenset(
    {
        "KG-FILE-003",
        "KG-FILE-004",
        "KG-FILE-005",
        "KG-FILE-007",
        "KG-FILE-008",
        "KG-FILE-010",
        "KG-FILE-011",
        "KG-FILE-012",
        "KG-FILE-015",
        "KG-FILE-016",
    }
)


def named(finding: Finding) -> str:
    """Return a finding in one sentence: rule, place, what was seen."""
    where = finding.path if finding.line is None else f"{finding.path}:{finding.line}"
    return f"{finding.rule} in {where}: {finding.seen}"


def _findings(evidence: Evidence, wanted: Iterable[str]) -> list[Finding]:
    ids = frozenset(wanted)
    return [] if evidence.scan is None else [f for f in evidence.scan.findings if f.rule in ids]


def _without(wanted: Iterable[str], fine: str) -> Callable[[Evidence, Parameters], Answer]:
    """Return a check that denies if one of the findings is there."""
    ids = frozenset(wanted)

    def check(evidence: Evidence, _: Parameters) -> Answer:
        if evidence.scan is None:
            return denied(NO_SCAN)
        found = _findings(evidence, ids)
        if found:
            return denied(listed(map(named, found)))
        return passed(fine)

    return check


def _no_bytecode(evidence: Evidence, _: Parameters) -> Answer:
    shipped = [
        entry.path
        for entry in evidence.manifest.files
        if entry.path.lower().endswith(_BYTECODE) or "__pycache__" in entry.path.split("/")
    ]
    shipped += [f.path for f in _findings(evidence, {"KG-FILE-001"}) if f.path not in shipped]
    if shipped:
        return denied(f"bytecode: {listed(shipped)}")
    return denied(NO_SCAN) if evidence.scan is None else passed("source only")


def _no_kernel_module(evidence: Evidence, _: Parameters) -> Answer:
    found = [e.path for e in evidence.manifest.files if e.path.lower().endswith(_MODULES)]
    found += [f.path for f in _findings(evidence, {"KG-FILE-002"}) if f.path not in found]
    if found:
        return denied(f"operating-system kernel module, not a GPU kernel: {listed(found)}")
    return denied(NO_SCAN) if evidence.scan is None else passed("GPU compute kernels only")


def _no_redirect(evidence: Evidence, _: Parameters) -> Answer:
    if evidence.imported.get("redirects") is True:
        return denied("upstream's kernel-status.toml sends clients to another repository")
    found = _findings(evidence, {"KG-FILE-006"})
    if found:
        return denied(listed(map(named, found)))
    return denied(NO_SCAN) if evidence.scan is None else passed("no redirect")


RULES: Final = (
    Rule(
        "no-bytecode",
        "No Python bytecode",
        "Python prefers a cached .pyc over the source beside it, and upstream's digest skips "
        "bytecode: signed, untouched source can hide other code.",
        "Ask the publisher to remove .pyc files and __pycache__ from the build.",
        "What runs is what was reviewed.",
        _no_bytecode,
        asks=(
            "kernel.files",
            "kernel.scan.findings",
        ),
    ),
    Rule(
        "no-os-kernel-module",
        "No operating-system kernel module",
        "A .ko file runs with full rights inside the operating system. It shares nothing with "
        "GPU compute kernels but the word.",
        "Refuse the repository and tell its publisher.",
        "GPU kernels and OS kernel modules are kept apart.",
        _no_kernel_module,
        asks=(
            "kernel.files",
            "kernel.scan.findings",
        ),
    ),
    Rule(
        "elf-well-formed",
        "Libraries are well formed",
        "A library that tools read in one way and the loader in another hides what it does.",
        "Ask the publisher for a new build; do not use the file.",
        "Binaries can be inspected.",
        _without(_MALFORMED, "every library reads the same way for tools and loader"),
        asks=("kernel.scan.findings",),
    ),
    Rule(
        "device-code-well-formed",
        "Device code is well formed",
        "Device code that a driver loads but tools cannot read, or that says one architecture "
        "outside and another inside, hides what it does.",
        "Ask the publisher for a new build; do not use the file.",
        "Binaries can be inspected, GPU code included.",
        _without(_DEVICE_DAMAGED, "all device code was read"),
        asks=("kernel.scan.findings",),
    ),
    Rule(
        "no-ptx-only",
        "Ships machine code for its GPUs",
        "Where only PTX is shipped, the driver compiles it on the machine: what then runs was "
        "neither scanned nor signed by anybody.",
        "Ask the publisher for a build with machine code for the GPUs in use.",
        "What runs is what was reviewed.",
        _without({"KG-DEV-009"}, "no library that has intermediate code only"),
        asks=("kernel.scan.findings",),
    ),
    Rule(
        "source-readable",
        "Python source reads as it runs",
        "Source that cannot be parsed, that decodes itself or that uses look-alike characters "
        "cannot be reviewed.",
        "Ask the publisher for plain source; do not use the file.",
        "What runs is what was reviewed.",
        _without(_UNREADABLE_SOURCE, "every source file can be read"),
        asks=("kernel.scan.findings",),
    ),
    Rule(
        "only-kernel-files",
        "Nothing but what a kernel needs",
        "Programs, scripts, archives, pickles and files in disguise have no place in a kernel "
        "and get around its checks.",
        "Ask the publisher to leave the file out.",
        "Artifacts hold what they say.",
        _without(_NOT_A_KERNEL, "sources, libraries and data only"),
        asks=("kernel.scan.findings",),
    ),
    Rule(
        "no-startup-hook",
        "No Python start-up hook",
        "sitecustomize.py and .pth files run in every Python process that finds them.",
        "Refuse the repository and tell its publisher.",
        "A kernel changes nothing outside itself.",
        _without({"KG-FILE-014"}, "no start-up hooks"),
        asks=("kernel.scan.findings",),
    ),
    Rule(
        "no-redirect",
        "No redirect to another repository",
        "A kernel-status.toml makes some clients load another repository than was reviewed.",
        "Pin the destination itself if it is wanted.",
        "The kernel that runs is the kernel that was reviewed.",
        _no_redirect,
        asks=("kernel.scan.findings",),
    ),
    Rule(
        "closed-library-set",
        "Needs only itself and the platform",
        "A library that is looked up outside the variant, or that replaces the platform's "
        "functions, lets unreviewed code in.",
        "Ask the publisher to ship the library or to link against the platform's.",
        "The shared objects that are loaded are known beforehand.",
        _without(_LIBRARY_SET, "every needed library is shipped or part of the platform"),
        asks=(
            "kernel.libraries",
            "kernel.scan.findings",
        ),
    ),
    Rule(
        "no-calls-out",
        "Neither network, programs nor credentials",
        "A compute kernel multiplies matrices. One that opens connections, starts programs or "
        "looks for credentials does something else.",
        "Review the code with its publisher; grant an exception only for the digest reviewed.",
        "Kernels do not talk to the outside.",
        _without(_CALLS_OUT, "opens no connections, starts no programs"),
        asks=("kernel.scan.findings",),
    ),
)
