"""What expressions may ask about: every fact with its name, type and meaning.

The tables below are the one source of three things: the types that expressions are compiled
against, the facts that `collect` gathers, and the page docs/facts.md. A fact that is marked
`sometimes` can be absent; asking for it then is an error, and an error never passes. Test with
`has(...)` or `.?` first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

VERSION: Final = "kgate.dev/facts/v1"


@dataclass(frozen=True, slots=True)
class Field:
    """One fact: its name, its type as expressions see it, and what it says."""

    name: str
    type: str
    """string, int, bool, timestamp, dyn, a record's name, list<…> or map<string, …>."""
    text: str
    sometimes: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """A group of facts that belong together."""

    name: str
    text: str
    fields: tuple[Field, ...]


_FILE: Final = Record(
    "File",
    "One file of a variant.",
    (
        Field("path", "string", "Path relative to the variant directory."),
        Field("size", "int", "Bytes."),
        Field("digest", "string", "`sha256:` and 64 hex digits."),
        Field("kind", "string", "What the scanner took it for, such as `library`.", sometimes=True),
    ),
)
_FINDING: Final = Record(
    "Finding",
    "One thing that the scanner saw.",
    (
        Field("rule", "string", "Id of the scanner's rule, such as `KG-ELF-001`."),
        Field("severity", "string", "info, low, medium, high or critical."),
        Field("path", "string", "File it was seen in."),
        Field("seen", "string", "What was there, in one sentence."),
        Field("line", "int", "Line number from 1, for text files.", sometimes=True),
    ),
)
_SCAN: Final = Record(
    "Scan",
    "What the scanner saw in the variant.",
    (
        Field("scanner", "string", "Name and version of the scanner."),
        Field("complete", "bool", "False if a parser gave up."),
        Field("worst", "string", "The highest severity among the findings; info if none."),
        Field("findings", "list<Finding>", "Every finding."),
        Field("counts", "map<string, int>", "Number of findings by severity, zeros included."),
    ),
)
_BUILD: Final = Record(
    "Build",
    "Source or builder, as metadata.json names it under `provenance`.",
    (
        Field("version", "string", "Version of the builder.", sometimes=True),
        Field("commit", "string", "Commit in hex.", sometimes=True),
        Field("dirty", "bool", "True if there were uncommitted changes.", sometimes=True),
    ),
)
_METADATA: Final = Record(
    "Metadata",
    "The publisher's `metadata.json`. A field of another type than below counts as absent.",
    (
        Field("id", "string", "Name in `sys.modules`.", sometimes=True),
        Field("name", "string", "Name of the kernel.", sometimes=True),
        Field("version", "int", "Version number N of the branch vN.", sometimes=True),
        Field("license", "string", "SPDX id.", sometimes=True),
        Field("source", "string", "URL of the source.", sometimes=True),
        Field("archs", "list<string>", "Declared GPU architectures.", sometimes=True),
        Field("pythonDepends", "list<string>", "Python packages it needs.", sometimes=True),
        Field("kernelDepends", "list<string>", "Kernel repositories it loads.", sometimes=True),
        Field("builder", "Build", "The kernel-builder that built it.", sometimes=True),
        Field("kernel", "Build", "The source that was built.", sometimes=True),
    ),
)
_SIGNATURE: Final = Record(
    "Signature",
    "The publisher's own signature.",
    (
        Field("status", "string", "verified, missing, failed or not-checked."),
        Field("detail", "string", "Who signed, or why not.", sometimes=True),
    ),
)
_CARD: Final = Record(
    "Card",
    "The repository's README.md.",
    (
        Field("size", "int", "Bytes."),
        Field("fields", "list<string>", "Names of the fields in its YAML head."),
        Field("headings", "list<string>", "Its headings, the first 50."),
    ),
)
_QUALIFICATION: Final = Record(
    "Qualification",
    "What a test run on a machine of the fleet measured; its submitter's word. Numbers that the "
    "submitter did not give are absent.",
    (
        Field("passed", "bool", "True if the results equal the reference's, within its limits."),
        Field("maxAbsErrorPpm", "int", "Largest absolute error, in millionths.", sometimes=True),
        Field("maxRelErrorPpm", "int", "Largest relative error, in millionths.", sometimes=True),
        Field(
            "speedupPpm",
            "int",
            "Speed against the reference in millionths: 1500000 is one and a half times as fast.",
            sometimes=True,
        ),
        Field("submitter", "string", "Who submitted it."),
        Field("gpu", "string", "The GPU that it ran on, such as `NVIDIA H200`.", sometimes=True),
        Field("finishedAt", "string", "When it ended, RFC 3339, UTC."),
        Field("digest", "string", "Digest of the submitted document."),
    ),
)
_IMAGE: Final = Record(
    "ServingImage",
    "A serving image of `targets:` in kgate.yaml, compared with the variant's device code.",
    (
        Field("name", "string", "The file that lists the image's device code."),
        Field("found", "int", "Device images of the variant that are in it, byte by byte."),
        Field("of", "int", "Device images that the variant has."),
    ),
)
_VULNERABILITY: Final = Record(
    "Vulnerability",
    "An advisory that is about something in the variant.",
    (
        Field("id", "string", "Its id, such as `CVE-2026-0001`."),
        Field("aliases", "list<string>", "Other ids of it."),
        Field("severity", "string", "info, low, medium, high or critical; high if it says none."),
        Field("status", "string", "affected, unknown, fixed or not_affected."),
        Field("source", "string", "Name of the feed that it came from."),
        Field("seen", "string", "What of the variant it is about, in one sentence."),
        Field("justification", "string", "Why it is not affected, in VEX's words.", sometimes=True),
        Field("author", "string", "Who set it aside.", sometimes=True),
    ),
)
_FEED: Final = Record(
    "Feed",
    "The advisories that the variant was compared with.",
    (
        Field("digest", "string", "Digest of the snapshot of all feeds."),
        Field("date", "string", "Date of its oldest source, RFC 3339, UTC."),
    ),
)
_KERNEL: Final = Record(
    "Kernel",
    "One build variant of one kernel repository at one commit.",
    (
        Field("origin", "string", "Upstream it came from, such as `https://huggingface.co`."),
        Field("type", "string", "`kernel` or `model`: the repository's type."),
        Field("repo", "string", "`org/name`."),
        Field("org", "string", "The part before the slash."),
        Field("name", "string", "The part after the slash."),
        Field("revision", "string", "Commit in 40 hex digits."),
        Field("pin", "string", "What a person asked for: `v1` or a commit.", sometimes=True),
        Field("lane", "string", "Lane that it would be published in."),
        Field("variant", "string", "Name of the build directory."),
        Field("framework", "string", "torch, torch-stable-abi or tvm-ffi."),
        Field("backend", "string", "cuda, rocm, xpu, cpu, …"),
        Field("cpu", "string", "x86_64, aarch64, …", sometimes=True),
        Field("os", "string", "linux, darwin, windows.", sometimes=True),
        Field("noarch", "bool", "True if it holds Python only."),
        Field("digest", "string", "Digest of the variant's manifest."),
        Field("size", "int", "Bytes of all files together."),
        Field("files", "list<File>", "Every file."),
        Field("metadata", "Metadata", "What the publisher says."),
        Field("scan", "Scan", "What the scanner saw.", sometimes=True),
        Field("sbom", "string", "Digest of the SBOM.", sometimes=True),
        Field("signature", "Signature", "The publisher's signature.", sometimes=True),
        Field("importedAt", "string", "When it was fetched, RFC 3339, UTC.", sometimes=True),
        Field("scannedAt", "string", "When it was scanned, RFC 3339, UTC.", sometimes=True),
        Field("card", "Card", "The repository's README.md.", sometimes=True),
        Field(
            "qualification", "Qualification", "The last result that was submitted.", sometimes=True
        ),
        Field(
            "vulnerabilities",
            "list<Vulnerability>",
            "What advisories say; absent without a feed.",
            sometimes=True,
        ),
        Field("feed", "Feed", "The advisories that it was compared with.", sometimes=True),
        Field("images", "list<ServingImage>", "Serving images that it was compared with."),
        Field("depends", "list<string>", "Locked dependencies, `org/name@commit`."),
        Field(
            "architectures", "list<string>", "GPU targets found: `sm_90`, `gfx942`, `compute_90`."
        ),
        Field("libraries", "list<string>", "Shared libraries that its libraries need."),
        Field("imports", "list<string>", "Python modules that its sources import."),
        Field("rules", "map<string, string>", "Answer of each built-in rule that was asked."),
    ),
)
_REQUEST: Final = Record(
    "Request",
    "What the cluster is asked to do. Only at admission.",
    (
        Field("operation", "string", "CREATE, UPDATE, DELETE or CONNECT."),
        Field("group", "string", "API group of the object; empty for the core group."),
        Field("version", "string", "API version, such as `v1`."),
        Field("resource", "string", "Plural resource name, such as `pods`."),
        Field("namespace", "string", "Namespace, empty for cluster-wide objects."),
        Field("name", "string", "Name of the object, if it has one yet.", sometimes=True),
        Field("user", "string", "Who asks.", sometimes=True),
        Field("groups", "list<string>", "Groups of who asks.", sometimes=True),
        Field("dryRun", "bool", "True if nothing would be stored.", sometimes=True),
    ),
)
_NODE: Final = Record(
    "Node",
    "The node (or pool of nodes) that a pod would run on. Only at admission.",
    (
        Field("name", "string", "Name of the node or pool.", sometimes=True),
        Field("labels", "map<string, string>", "Labels of the node."),
        Field("architectures", "list<string>", "GPU architectures there.", sometimes=True),
    ),
)
_MIRROR: Final = Record(
    "Mirror",
    "The mirror that answers.",
    (
        Field("site", "string", "Name of the site."),
        Field("lane", "string", "Lane that is decided about.", sometimes=True),
        Field("kernels", "int", "Kernels (repositories) published in that lane.", sometimes=True),
        Field("variants", "int", "Variants published in that lane.", sometimes=True),
        Field("denied", "int", "Variants that are denied in that lane.", sometimes=True),
        Field(
            "changedAt",
            "string",
            "When something was published or denied there last, RFC 3339, UTC.",
            sometimes=True,
        ),
        Field("snapshotAgeSeconds", "int", "Age of what it serves from.", sometimes=True),
        Field("feedAgeSeconds", "int", "Age of its advisories.", sometimes=True),
    ),
)

RECORDS: Final = (
    _KERNEL,
    _FILE,
    _METADATA,
    _BUILD,
    _SIGNATURE,
    _CARD,
    _QUALIFICATION,
    _IMAGE,
    _SCAN,
    _FINDING,
    _VULNERABILITY,
    _FEED,
    _REQUEST,
    _NODE,
    _MIRROR,
)

VARIABLES: Final = (
    Field("kernel", "Kernel", "The variant that is decided about; not with `evaluate: Once`."),
    Field("kernels", "list<Kernel>", "All variants of this question; never empty."),
    Field("now", "timestamp", "When the question is asked."),
    Field("params", "dyn", "The policy's own `spec.params`.", sometimes=True),
    Field("mirror", "Mirror", "The mirror that answers.", sometimes=True),
    Field("request", "Request", "What the cluster is asked to do.", sometimes=True),
    Field("object", "dyn", "The Kubernetes object.", sometimes=True),
    Field("oldObject", "dyn", "The object before, for updates.", sometimes=True),
    Field("namespaceObject", "dyn", "The object's Namespace.", sometimes=True),
    Field("node", "Node", "Where the pod would run.", sometimes=True),
)
