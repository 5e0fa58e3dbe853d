"""What this pod believes, for people and programs: `kgate trust show|refresh` in a base install.

It reads the pinned root and the cached documents, and asks the mirror when told to. It changes
nothing but that cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kgate_client.process import build
from kgate_core.clock import write_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kgate_core.trust import TrustedRoot


@dataclass(frozen=True, slots=True)
class TrustView:
    """Verified trust metadata with the lane that this pod is in."""

    SCHEMA = "kgate.dev/trust/v1"

    trusted: TrustedRoot
    lane: str
    problem: str
    """Why a refresh did not work, empty if it did or was not tried."""

    def to_json(self) -> dict[str, Any]:
        """Return the metadata as a JSON object."""
        trusted = self.trusted
        return {
            "schema": self.SCHEMA,
            "ok": True,
            "site": trusted.site,
            "lane": self.lane,
            "issued": write_time(trusted.issued),
            "expires": write_time(trusted.expires),
            "versions": {
                name: getattr(trusted.versions, name)
                for name in ("root", "timestamp", "snapshot", "targets")
            },
            "lanes": {lane.name: str(lane.mode) for lane in trusted.lanes.values()},
            "log_head": trusted.log_head,
            "revoked": {
                "digests": {str(d): r.reason for d, r in trusted.revoked_digests.items()},
                "keys": {keyid: r.reason for keyid, r in trusted.revoked_keys.items()},
            },
            "problem": self.problem,
        }

    def lines(self) -> Iterator[str]:
        """Yield the metadata for people."""
        trusted, versions = self.trusted, self.trusted.versions
        yield f"site      {trusted.site}"
        yield f"issued    {write_time(trusted.issued)}   expires {write_time(trusted.expires)}"
        yield (
            f"versions  root {versions.root}, timestamp {versions.timestamp},"
            f" snapshot {versions.snapshot}, targets {versions.targets}"
        )
        for lane in trusted.lanes.values():
            here = "  (this pod)" if lane.name == self.lane else ""
            yield f"lane      {lane.name}: {lane.mode}, needs {', '.join(sorted(lane.roles))}{here}"
        for digest, found in trusted.revoked_digests.items():
            yield f"revoked   {digest} since {write_time(found.since)}: {found.reason}"
        for keyid, found in trusted.revoked_keys.items():
            yield f"revoked   key {keyid} since {write_time(found.since)}: {found.reason}"
        if self.problem:
            yield f"problem   {self.problem}"


def view(environ: Mapping[str, str], *, refresh: bool) -> TrustView:
    """Return what this pod believes; raises TrustError if there is nothing to believe."""
    pod = build(environ)
    now = datetime.now(UTC)
    trusted = pod.keeper.refresh(now) if refresh else pod.keeper.current(now)
    return TrustView(trusted, pod.config.lane, pod.keeper.problem)
