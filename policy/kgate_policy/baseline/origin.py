"""Built-in rules about where a kernel came from and how it was named.

They read the import record and the identity; nothing here looks into files.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from kgate_core.kernel import Variant
from kgate_policy.rules import Answer, Rule, denied, listed, passed

if TYPE_CHECKING:
    from kgate_core.evidence import Evidence, Facts
    from kgate_policy.parameters import Parameters

_VERSION: Final = re.compile(r"v[1-9][0-9]*")
_GIT_ID: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def _pinned_commit(evidence: Evidence, _: Parameters) -> Answer:
    kernel, record = evidence.kernel, evidence.imported
    expected = {
        "origin": kernel.origin,
        "repoType": str(kernel.repo_type),
        "repo": str(kernel.repo),
        "revision": str(kernel.revision),
    }
    for field, value in expected.items():
        if record.get(field) != value:
            return denied(f"the import record says {field} {record.get(field)!r}, not {value!r}")
    pin = record.get("pin")
    if pin == expected["revision"]:
        return passed(f"pinned to commit {pin}")
    if isinstance(pin, str) and _VERSION.fullmatch(pin):
        return passed(f"{pin} was locked to commit {kernel.revision}")
    if pin == str(evidence.manifest.digest):
        return passed(f"pinned to the manifest {pin}")
    return denied(f"the pin is {pin!r}: a branch or tag moves")


def _bytes_verified(evidence: Evidence, _: Parameters) -> Answer:
    listing = evidence.imported.get("files")
    if not isinstance(listing, list) or not listing:
        return denied("the import record lists no files")
    prefix = f"build/{evidence.kernel.variant}/"
    checked = {
        str(item.get("path")).removeprefix(prefix): item
        for item in listing
        if isinstance(item, dict)
    }
    doubts = [
        f"{entry.path} ({doubt})"
        for entry in evidence.manifest.files
        if (doubt := _doubt(checked.get(entry.path), entry.size, str(entry.digest)))
    ]
    if doubts:
        return denied(f"not checked against upstream: {listed(doubts)}")
    return passed(f"{len(evidence.manifest.files)} files have the ids that upstream lists")


def _doubt(item: Facts | None, size: int, digest: str) -> str:
    if item is None:
        return "not in the import record"
    if item.get("size") != size or item.get("digest") != digest:
        return "other bytes than were imported"
    lfs, oid = item.get("lfs"), item.get("oid")
    if isinstance(lfs, str) and lfs and lfs.removeprefix("sha256:") != digest[7:]:
        return "upstream's sha256 differs"
    if not isinstance(oid, str) or _GIT_ID.fullmatch(oid) is None:
        return "upstream gave no id for it"
    return ""


def _signature(evidence: Evidence) -> tuple[str, str]:
    record = evidence.imported.get("upstreamSignature")
    if not isinstance(record, dict):
        return "not-checked", "the import record does not mention it"
    return str(record.get("status")), str(record.get("detail") or "no detail was recorded")


def _signature_valid(evidence: Evidence, _: Parameters) -> Answer:
    status, detail = _signature(evidence)
    if status == "failed":
        return denied(f"the publisher's signature does not verify: {detail}")
    if status not in {"missing", "verified", "not-checked"}:
        return denied(f"the signature's status {status!r} is not known")
    return passed("no signature that fails to verify")


def _signature_required(evidence: Evidence, _: Parameters) -> Answer:
    status, detail = _signature(evidence)
    where = f"build/{evidence.kernel.variant}"
    match status:
        case "verified":
            return passed(f"verified: {detail}")
        case "missing":
            return denied(f"metadata.json.sigstore is absent in {where}")
        case _:
            return denied(f"the signature in {where} is {status}: {detail}")


def _repository_allowed(evidence: Evidence, parameters: Parameters) -> Answer:
    repo = str(evidence.kernel.repo)
    for pattern in parameters.repositories_deny:
        if fnmatchcase(repo, pattern):
            return denied(f"{repo} is denied by {pattern!r}")
    if not parameters.repositories_allow:
        return passed(f"{repo}; no allow list is set")
    for pattern in parameters.repositories_allow:
        if fnmatchcase(repo, pattern):
            return passed(f"{repo} is allowed by {pattern!r}")
    return denied(f"{repo} is not on the allow list")


def _origin_allowed(evidence: Evidence, parameters: Parameters) -> Answer:
    origin = evidence.kernel.origin
    if not parameters.origins_allow:
        return passed(f"{origin}; no allow list is set")
    if origin in parameters.origins_allow:
        return passed(f"{origin} is allowed")
    return denied(f"{origin} is not on the allow list")


def _not_denied(evidence: Evidence, parameters: Parameters) -> Answer:
    unwanted = set(parameters.digests_deny)
    if str(evidence.manifest.digest) in unwanted:
        return denied(f"the variant's manifest {evidence.manifest.digest} is denied")
    hit = [entry.path for entry in evidence.manifest.files if str(entry.digest) in unwanted]
    if hit:
        return denied(f"denied by digest: {listed(hit)}")
    return passed("neither the variant nor a file of it is denied by digest")


def _backend_allowed(evidence: Evidence, parameters: Parameters) -> Answer:
    backend = Variant.parse(evidence.kernel.variant).backend
    if not parameters.backends_allow:
        return passed(f"{backend}; no allow list is set")
    if backend in parameters.backends_allow:
        return passed(f"{backend} is allowed")
    return denied(f"the backend {backend} is not on the allow list")


def _asked(evidence: Evidence, _: Parameters) -> Answer:
    asked = evidence.asked.get("repo")
    if asked is None:
        return passed("stored evidence is asked about; no pin goes with it")
    if asked != str(evidence.kernel.repo):
        return denied(f"{asked} was asked for, {evidence.kernel.repo} came")
    return passed(f"{asked} was asked for")


RULES: Final = (
    Rule(
        "pinned-commit",
        "Pinned to one commit",
        "A branch, a tag or a bare name means whatever the publisher makes of it tomorrow. Only "
        "a commit names the same bytes for ever.",
        "Pin `version: N` or a 40-digit `revision:` in kgate.yaml and run `kgate lock`.",
        "Every kernel is pinned; nothing is loaded without a version.",
        _pinned_commit,
        asks=(
            "kernel.pin",
            "kernel.revision",
        ),
    ),
    Rule(
        "asked-for",
        "What came is what was asked for",
        "A redirect, a renamed repository or a mix-up can bring one kernel in the place of "
        "another, with valid signatures on it.",
        "Pin the repository that is really wanted.",
        "The kernel that runs is the kernel that was reviewed.",
        _asked,
        asks=("kernel.repo",),
    ),
    Rule(
        "bytes-verified",
        "Every byte checked against upstream's ids",
        "While a file is stored, its git blob id or LFS sha256 is compared with what upstream "
        "lists. A file without this check may have been changed on the way.",
        "Fetch the kernel again with `kgate sync`; if it stays so, ask the upstream's operator.",
        "Content is verified on the way in.",
        _bytes_verified,
        asks=("kernel.files",),
    ),
    Rule(
        "upstream-signature-valid",
        "No broken publisher's signature",
        "A signature that is there but does not verify is worse than none: somebody changed the "
        "kernel or signed as somebody else.",
        "Do not use the kernel. Report it to its publisher.",
        "Signatures are checked, and a failed check stops the kernel.",
        _signature_valid,
        asks=(
            "kernel.signature.status",
            "kernel.signature.detail",
        ),
    ),
    Rule(
        "require-upstream-signature",
        "Signed by its publisher",
        "The publisher's signature ties the build to the publisher's own build system. Without "
        "it the only proof of origin is where the bytes were fetched from.",
        "Ask the publisher to sign, or grant an exception for this digest with an end date.",
        "Kernels come signed by who published them.",
        _signature_required,
        asks=(
            "kernel.signature.status",
            "kernel.signature.detail",
        ),
    ),
    Rule(
        "repository-allowed",
        "From a repository that is allowed",
        "Anybody can publish a kernel, and a model's config.json can name one. What may be used "
        "is a list that somebody keeps.",
        "Add the repository to `repositories.allow` if it is wanted.",
        "Only known publishers are used.",
        _repository_allowed,
        asks=("kernel.repo",),
    ),
    Rule(
        "origin-allowed",
        "From an upstream that is allowed",
        "The same org/name on another Hub or folder is another kernel.",
        "Add the upstream to `origins.allow` if it is wanted.",
        "Kernels come from named registries.",
        _origin_allowed,
        asks=("kernel.origin",),
    ),
    Rule(
        "not-denied",
        "Not denied by digest",
        "Some bytes are known to be bad, whatever their name, signature or age.",
        "Use another version. Remove the digest from `digests.deny` if it stands there wrongly.",
        "Known bad artifacts are blocked everywhere.",
        _not_denied,
        asks=("kernel.digest",),
    ),
    Rule(
        "backend-allowed",
        "For a backend that this site runs",
        "Code for accelerators that nobody has here is never tested and only adds to what must "
        "be reviewed.",
        "Pin only the variants that the fleet needs, or add the backend to `backends.allow`.",
        "Only variants for the fleet's accelerators are mirrored.",
        _backend_allowed,
        asks=("kernel.backend",),
    ),
)
