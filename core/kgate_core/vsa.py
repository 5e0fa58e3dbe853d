"""The one predicate a pod reads: a decision, as SLSA's verification summary (VSA) v1.

Format: https://slsa.dev/spec/v1.1/verification_summary. What kgate binds beyond it stands in one
extension field named by a URI, as the in-toto parsing rules ask. kgate built nothing, so
`verifiedLevels` names the lane and never a SLSA level. Reading checks the shape; `verify` compares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kgate_core import strictjson
from kgate_core.clock import read_time, write_time
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_core.kernel import KernelId, Revision

if TYPE_CHECKING:
    from datetime import datetime

PREDICATE_TYPE: Final = "https://slsa.dev/verification_summary/v1"
EXTENSION: Final = "https://kgate.dev/vsa/v1"


def level_of(lane: str) -> str:
    """Return the level that a VSA for this lane states."""
    return f"KGATE_{lane.upper().replace('-', '_')}"


@dataclass(frozen=True, slots=True)
class Vsa:
    """A decision about one variant, with everything that ties it to that variant only."""

    kernel: KernelId
    """As served: its revision is the one that clients see."""
    upstream_revision: Revision
    lane: str
    site: str
    manifest: Digest
    metadata_id: str
    """The `id` of metadata.json, which becomes a key of `sys.modules`."""
    depends: tuple[Digest, ...]
    """Manifest digests of the kernels this one loads."""
    policy_uri: str
    policy_digest: Digest
    passed: bool
    verified_at: datetime
    valid_until: datetime
    inputs: tuple[Digest, ...] = ()
    """Digests of the attestations that the decision rests on."""
    feed: Digest | None = None
    """Digest of the advisory feed that was consulted."""

    def to_predicate(self) -> dict[str, Any]:
        """Return the predicate object."""
        extension: dict[str, Any] = {
            "upstreamRevision": str(self.upstream_revision),
            "lane": self.lane,
            "manifest": str(self.manifest),
            "metadataId": self.metadata_id,
            "depends": [str(digest) for digest in self.depends],
            "validUntil": write_time(self.valid_until),
        }
        if self.feed is not None:
            extension["feed"] = str(self.feed)
        return {
            "verifier": {"id": self.site},
            "timeVerified": write_time(self.verified_at),
            "resourceUri": self.kernel.purl,
            "policy": {"uri": self.policy_uri, "digest": {"sha256": self.policy_digest.hex}},
            "inputAttestations": [{"digest": {"sha256": digest.hex}} for digest in self.inputs],
            "verificationResult": "PASSED" if self.passed else "FAILED",
            "verifiedLevels": [level_of(self.lane)] if self.passed else [],
            EXTENSION: extension,
        }

    @classmethod
    def from_predicate(cls, data: dict[str, Any]) -> Vsa:
        """Read a predicate object; raises InvalidInput if a binding is missing or contradictory."""
        what = "VSA"
        extension = strictjson.take(data, EXTENSION, dict, what=what)
        policy = strictjson.take(data, "policy", dict, what=what)
        result = strictjson.take(data, "verificationResult", str, what=what)
        lane = strictjson.take(extension, "lane", str, what=what)
        passed = result == "PASSED"
        levels = strictjson.take_strings(data, "verifiedLevels", what=what)
        if levels != ((level_of(lane),) if passed else ()):
            raise InvalidInput(f"{what}: levels {list(levels)} do not belong to lane {lane!r}")
        feed = extension.get("feed")
        return cls(
            kernel=KernelId.parse_purl(strictjson.take(data, "resourceUri", str, what=what)),
            upstream_revision=Revision(
                strictjson.take(extension, "upstreamRevision", str, what=what)
            ),
            lane=lane,
            site=strictjson.take(
                strictjson.take(data, "verifier", dict, what=what), "id", str, what=what
            ),
            manifest=Digest.parse(strictjson.take(extension, "manifest", str, what=what)),
            metadata_id=strictjson.take(extension, "metadataId", str, what=what),
            depends=tuple(
                Digest.parse(text)
                for text in strictjson.take_strings(extension, "depends", what=what)
            ),
            policy_uri=strictjson.take(policy, "uri", str, what=what),
            policy_digest=_sha256(policy, what=f"{what} policy"),
            passed=passed,
            verified_at=read_time(strictjson.take(data, "timeVerified", str, what=what), what=what),
            valid_until=read_time(
                strictjson.take(extension, "validUntil", str, what=what), what=what
            ),
            inputs=tuple(
                _sha256(item, what=f"{what} input")
                for item in strictjson.take(data, "inputAttestations", list, what=what)
            ),
            feed=None if feed is None else Digest.parse(feed),
        )


def _sha256(item: strictjson.JsonValue, *, what: str) -> Digest:
    return Digest(
        strictjson.take(strictjson.take(item, "digest", dict, what=what), "sha256", str, what=what)
    )
