"""Built-in rules about `metadata.json`: what the publisher says about the kernel.

The document is the publisher's word. These rules ask whether it is well formed, safe to act on
and complete; whether it is true is for signatures and scans.
"""

from __future__ import annotations

import re
import sys
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from kgate_core.errors import InvalidInput
from kgate_core.kernel import KernelRef, Revision
from kgate_policy.rules import Answer, Rule, denied, listed, passed

if TYPE_CHECKING:
    from kgate_core.evidence import Evidence, Facts
    from kgate_policy.parameters import Parameters

_MODULE_ID: Final = re.compile(r"_[A-Za-z0-9_]{1,120}")
_APPROVED: Final = frozenset({"sha256", "sha384", "sha512"})
_SIGNED: Final = frozenset({"metadata.json", "metadata.json.sigstore"})
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def _metadata_id(evidence: Evidence, _: Parameters) -> Answer:
    module = evidence.metadata.get("id")
    if not isinstance(module, str):
        return denied(f"metadata.json has no usable id: {module!r}")
    if module in sys.stdlib_module_names or _MODULE_ID.fullmatch(module) is None:
        return denied(f"the id {module!r} can replace another module of the process")
    scan = evidence.scan
    flagged = [] if scan is None else [f for f in scan.findings if f.rule == "KG-META-003"]
    if flagged:
        return denied(listed(finding.seen for finding in flagged))
    return passed(f"the id is {module!r}")


def _parts(evidence: Evidence) -> dict[str, Facts]:
    provenance = evidence.metadata.get("provenance")
    if not isinstance(provenance, dict):
        return {}
    return {
        name: provenance[name]
        for name in ("kernel", "kernel-builder")
        if isinstance(provenance.get(name), dict)
    }


def _clean_build(evidence: Evidence, _: Parameters) -> Answer:
    parts = _parts(evidence)
    dirty = [name for name, part in parts.items() if part.get("dirty") is True]
    if dirty:
        return denied(f"built from uncommitted changes of {listed(dirty)}")
    unsaid = [name for name, part in parts.items() if part.get("dirty") is not False]
    if unsaid:
        return denied(f"metadata.json does not say whether {listed(unsaid)} was clean")
    if not parts:
        return denied("metadata.json has no provenance, so nobody knows what was built")
    return passed("built from a committed source with a committed builder")


def _provenance(evidence: Evidence, parameters: Parameters) -> Answer:
    parts = _parts(evidence)
    for name in ("kernel", "kernel-builder"):
        if name not in parts:
            return denied(f"metadata.json does not name the commit of {name}")
        # Early builders wrote `sha` where later ones write `commit`.
        commit = parts[name].get("commit", parts[name].get("sha"))
        if not isinstance(commit, str) or _COMMIT.fullmatch(commit) is None:
            return denied(f"the commit of {name} is {commit!r}")
    version = str(parts["kernel-builder"].get("version"))
    allowed = parameters.builders_allow
    if allowed and not any(fnmatchcase(version, pattern) for pattern in allowed):
        return denied(f"kernel-builder {version} is not on the allow list")
    return passed(f"built by kernel-builder {version}")


def _source_allowed(evidence: Evidence, parameters: Parameters) -> Answer:
    if not parameters.sources_allow:
        return passed("no allow list is set")
    source = evidence.metadata.get("source", evidence.metadata.get("upstream"))
    if not isinstance(source, str):
        return denied("metadata.json names no source")
    for pattern in parameters.sources_allow:
        if fnmatchcase(source, pattern):
            return passed(f"{source} is allowed by {pattern!r}")
    return denied(f"the source {source} is not on the allow list")


def _licence(evidence: Evidence, parameters: Parameters) -> Answer:
    licence = evidence.metadata.get("license")
    if not isinstance(licence, str) or not licence.strip():
        return denied("metadata.json names no licence")
    name = licence.strip().lower()
    if name in {item.lower() for item in parameters.licences_deny}:
        return denied(f"the licence {licence} is denied")
    allowed = {item.lower() for item in parameters.licences_allow}
    if allowed and name not in allowed:
        return denied(f"the licence {licence} is not on the allow list")
    return passed(licence)


def _dependencies(evidence: Evidence, _: Parameters) -> Answer:
    wanted = evidence.metadata.get("kernel-depends", [])
    unmet = evidence.imported.get("unmet", [])
    if unmet:
        return denied(f"not published in this lane: {listed(map(str, unmet))}")
    if not isinstance(wanted, list):
        return denied("kernel-depends in metadata.json is not a list")
    locked = evidence.imported.get("depends", [])
    pinned: set[str] = set()
    for item in locked if isinstance(locked, list) else []:
        repo, _at, commit = str(item).partition("@")
        try:
            pinned.add(str(KernelRef.parse(repo)))
            Revision(commit)
        except InvalidInput as exc:
            return denied(f"the dependency {item!r} is not pinned: {exc}")
    missing = []
    for item in wanted:
        needed = item.get("repo-id") if isinstance(item, dict) else item
        if needed not in pinned:
            missing.append(f"{evidence.kernel.repo} → {needed}")
    if missing:
        return denied(f"not pinned: {listed(missing)}")
    return passed(f"{len(wanted)} kernels, each locked to a commit" if wanted else "none")


def _digests(evidence: Evidence, _: Parameters) -> Answer:
    if evidence.scan is None:
        return denied("there is no scan report")
    wrong = [f for f in evidence.scan.findings if f.rule in {"KG-META-009", "KG-META-010"}]
    if wrong:
        return denied(listed(f"{finding.path}: {finding.seen}" for finding in wrong))
    return passed("no file differs from what the publisher recorded")


def _approved_digests(evidence: Evidence, _: Parameters) -> Answer:
    """Ask for a SHA-2 digest from upstream for every file: git's own ids are SHA-1."""
    section = evidence.metadata.get("digest")
    section = section if isinstance(section, dict) else {}
    algorithm, listed_files = section.get("algorithm"), section.get("files")
    covered = set(listed_files) if isinstance(listed_files, dict) else set()
    if algorithm not in _APPROVED:
        covered = set()
    prefix = f"build/{evidence.kernel.variant}/"
    for item in evidence.imported.get("files", []):
        if isinstance(item, dict) and item.get("lfs"):
            covered.add(str(item.get("path")).removeprefix(prefix))
    # The publisher's signature is over metadata.json itself; it cannot list its own digest.
    signature = evidence.imported.get("upstreamSignature")
    if isinstance(signature, dict) and signature.get("status") == "verified":
        covered |= _SIGNED
    bare = [entry.path for entry in evidence.manifest.files if entry.path not in covered]
    if bare:
        return denied(f"upstream gives no SHA-2 digest for {listed(bare)}")
    return passed("upstream gives a SHA-2 digest for every file")


def _well_formed(evidence: Evidence, _: Parameters) -> Answer:
    if not evidence.metadata:
        return denied("metadata.json is missing")
    if evidence.scan is None:
        return denied("there is no scan report")
    wrong = [
        finding
        for finding in evidence.scan.findings
        if finding.rule in {"KG-META-001", "KG-META-002", "KG-META-011"}
    ]
    if wrong:
        return denied(listed(finding.seen for finding in wrong))
    return passed("metadata.json reads well and names the variant's backend")


RULES: Final = (
    Rule(
        "metadata-well-formed",
        "metadata.json is well formed",
        "Readers disagree about broken documents, and clients choose a variant by what it says.",
        "Ask the publisher to rebuild the kernel with a current kernel-builder.",
        "Artifacts describe themselves.",
        _well_formed,
        asks=("kernel.metadata",),
    ),
    Rule(
        "metadata-id-safe",
        "The module id is safe",
        "Clients put the kernel into sys.modules under this id as it stands: the id `json` "
        "replaces Python's json for the whole process.",
        "Refuse the kernel; builders write ids of the form _name_digits.",
        "A kernel changes nothing outside itself.",
        _metadata_id,
        asks=("kernel.metadata.id",),
    ),
    Rule(
        "publisher-digests",
        "The publisher's digests agree",
        "metadata.json lists a digest per file. A file that differs is not the one that was built.",
        "Fetch the kernel again; if it stays so, tell its publisher.",
        "Content is verified on the way in.",
        _digests,
        asks=("kernel.scan.findings",),
    ),
    Rule(
        "approved-digests",
        "Only approved digest algorithms were relied on",
        "git names small files by SHA-1, which FIPS 140-3 does not approve. A digest of the SHA-2 "
        "family from upstream is needed for every file: as an LFS file, or listed in a signed "
        "metadata.json.",
        "Ask the publisher for a signed build whose metadata.json lists digests.",
        "Approved cryptography only.",
        _approved_digests,
        asks=("kernel.files", "kernel.signature.status"),
    ),
    Rule(
        "no-dirty-build",
        "Built from a clean commit",
        "A build from uncommitted changes cannot be reviewed or repeated: the commit it names is "
        "not what was built.",
        "Ask the publisher for a build from a clean commit.",
        "Built from source that is pinned.",
        _clean_build,
        asks=(
            "kernel.metadata.kernel.dirty",
            "kernel.metadata.builder.dirty",
        ),
    ),
    Rule(
        "provenance-present",
        "Says what it was built from",
        "Without the commits of kernel and builder a binary cannot be traced to its source.",
        "Ask the publisher to rebuild the kernel with a current kernel-builder.",
        "Built from source that is pinned.",
        _provenance,
        asks=(
            "kernel.metadata.kernel.commit",
            "kernel.metadata.builder.commit",
        ),
    ),
    Rule(
        "source-allowed",
        "From a source that is allowed",
        "Who may publish and what may be built are two lists.",
        "Add the source to `sources.allow` if it is wanted.",
        "Sources are allow-listed.",
        _source_allowed,
        asks=("kernel.metadata.source",),
    ),
    Rule(
        "licence-allowed",
        "Under a licence that is allowed",
        "A kernel without a licence, or under one that the site cannot accept, may not be used "
        "whatever it does.",
        "Ask the publisher for a licence, or add it to `licences.allow`.",
        "Licences are known.",
        _licence,
        asks=("kernel.metadata.license",),
    ),
    Rule(
        "dependencies-pinned",
        "Dependencies are pinned too",
        "A kernel can make the client download and run other repositories. Each needs its own "
        "pin and its own decision.",
        "Pin every repository named here in kgate.yaml and run `kgate lock`.",
        "Every kernel is pinned; nothing is loaded without a version.",
        _dependencies,
        asks=(
            "kernel.metadata.kernelDepends",
            "kernel.depends",
        ),
    ),
)
