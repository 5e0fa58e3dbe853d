"""The rules of `kgate lint` and the shape of what they find.

A rule is documentation with an id, as in the scanner; ids are stable. Nothing here reads files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kgate_core.evidence import Severity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kgate_core.evidence import Facts


@dataclass(frozen=True, slots=True)
class LintRule:
    """One habit that is looked for."""

    id: str
    severity: Severity
    title: str
    why: str
    fix: str


@dataclass(frozen=True, slots=True)
class Fix:
    """A replacement in the text: offsets in characters, end excluded."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class LintFinding:
    """One place in one file."""

    rule: str
    severity: Severity
    path: str
    line: int
    """Line number from 1."""
    seen: str
    hint: str
    fix: Fix | None = None
    """A change that repairs it, if the lock knows enough for one."""

    def to_json(self) -> Facts:
        """Return the finding as a JSON object."""
        return {
            "rule": self.rule,
            "severity": self.severity.label,
            "path": self.path,
            "line": self.line,
            "seen": self.seen,
            "hint": self.hint,
            "fixable": self.fix is not None,
        }


_TABLE: Final = (
    LintRule(
        "KG-LINT-001",
        Severity.HIGH,
        "A kernel without a version",
        "Without a version or a revision, current clients refuse and older ones load whatever "
        "the default branch holds that day.",
        "Write `version=N` or a commit; `--fix` takes it from kgate.lock.",
    ),
    LintRule(
        "KG-LINT-002",
        Severity.HIGH,
        "A kernel pinned to a branch or tag",
        "Branches and tags move. The next process may load other code than the one that was "
        "tested.",
        "Write `version=N` or a commit of 40 digits.",
    ),
    LintRule(
        "KG-LINT-003",
        Severity.HIGH,
        "trust_remote_code is switched on",
        "The flag switches off the last question that is asked before code of an unknown "
        "publisher runs.",
        "Pin the kernel or the model and let the mirror decide; remove the flag.",
    ),
    LintRule(
        "KG-LINT-004",
        Severity.HIGH,
        "LOCAL_KERNELS is set",
        "The variable loads kernels from a folder, past publisher checks and past the mirror.",
        "Remove it outside development.",
    ),
    LintRule(
        "KG-LINT-005",
        Severity.MEDIUM,
        "An attention implementation from the Hub without a commit",
        "attn_implementation='org/repo' makes transformers download and run a kernel that "
        "nothing pins.",
        "Write org/repo@<commit>, or use an implementation that is built in.",
    ),
    LintRule(
        "KG-LINT-006",
        Severity.MEDIUM,
        "An hf:// address without a commit",
        "The address follows the default branch of the repository.",
        "Write hf://org/name:<commit>.",
    ),
    LintRule(
        "KG-LINT-007",
        Severity.CRITICAL,
        "A model's config.json names a kernel",
        "Some versions of transformers load a kernel that a model's configuration names, without "
        "asking anybody (CVE-2026-4372): whoever wrote the model chooses the code that runs.",
        "Remove the field; update transformers to 5.3.0 or later.",
    ),
    LintRule(
        "KG-LINT-008",
        Severity.HIGH,
        "A model's config.json brings its own code",
        "auto_map names Python files of the repository that run when trust_remote_code is on.",
        "Use a model that needs no code of its own, or review and pin it.",
    ),
    LintRule(
        "KG-LINT-009",
        Severity.MEDIUM,
        "A clone that follows a branch",
        "The next build gets other sources. A shallow clone does not even keep the commit that "
        "was built.",
        "Check out a commit of 40 digits after cloning.",
    ),
    LintRule(
        "KG-LINT-010",
        Severity.HIGH,
        "A download is run as it comes",
        "What the server sends at that moment runs with the rights of the build or the pod.",
        "Download to a file, compare its digest, then run it.",
    ),
    LintRule(
        "KG-LINT-011",
        Severity.MEDIUM,
        "A download when the container starts",
        "Every start depends on somebody else's server and may get other content.",
        "Fetch in the build, for example with `kgate warm`.",
    ),
    LintRule(
        "KG-LINT-012",
        Severity.LOW,
        "An image without a digest",
        "A tag can be moved to another image, and `latest` is meant to be.",
        "Write image:tag@sha256:…",
    ),
    LintRule(
        "KG-LINT-013",
        Severity.HIGH,
        "A manifest that follows a branch",
        "The manifest's source names a branch, so each fetch may bring other files.",
        "Write a commit of 40 digits as the revision.",
    ),
    LintRule(
        "KG-LINT-014",
        Severity.LOW,
        "A manifest without a list of files",
        "Without a list nobody notices a file that was added or left out.",
        "List the files that are needed.",
    ),
    LintRule(
        "KG-LINT-015",
        Severity.MEDIUM,
        "An image is pulled at every start",
        "With imagePullPolicy: Always no pod starts while the registry is down, and replicas "
        "started at different times can differ.",
        "Write IfNotPresent together with a digest.",
    ),
    LintRule(
        "KG-LINT-016",
        Severity.HIGH,
        "The pod goes around the mirror",
        "HF_ENDPOINT names a public Hub, so kernels are loaded that nobody here decided about.",
        "Name the mirror, or leave the variable to the platform.",
    ),
    LintRule(
        "KG-LINT-017",
        Severity.HIGH,
        "The pod changes what Python loads first",
        "PYTHONPATH, PYTHONHOME, LD_PRELOAD and LD_LIBRARY_PATH can replace the gate and the "
        "libraries that it checked.",
        "Remove the variable; install what is needed into the image.",
    ),
    LintRule(
        "KG-LINT-018",
        Severity.LOW,
        "A file that could not be read",
        "It was not checked, so nothing is known about it.",
        "Correct the file, or leave it out of the paths.",
    ),
)

RULES: Final[Mapping[str, LintRule]] = {rule.id: rule for rule in _TABLE}


def found(
    number: int,
    path: str,
    line: int,
    seen: str,
    *,
    fix: Fix | None = None,
    severity: Severity | None = None,
) -> LintFinding:
    """Return a finding of rule `KG-LINT-<number>`."""
    rule = RULES[f"KG-LINT-{number:03d}"]
    return LintFinding(rule.id, severity or rule.severity, path, line, seen, rule.fix, fix)
