"""Fill a site's store and catalog with synthetic publications, without scanning each.

The first kernel goes through the real sync. Every other one gets that one's evidence, made out to
itself, with signatures, records and outcomes of its own: what is read later is as large, and as
true, as after a real sync. No upstream is asked but for commits, and nothing is decided.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sqlalchemy import insert

from kgate_core import strictjson
from kgate_core.clock import write_time
from kgate_core.digest import Digest
from kgate_core.kernel import KernelId, folder_of
from kgate_core.lock import Lock, LockedKernel, LockedVariant
from kgate_core.manifest import FileEntry, Manifest
from kgate_mirror_server.admit import Dependencies, KernelResult, VariantResult
from kgate_mirror_server.catalog import rows, schema
from kgate_mirror_server.catalog.engine import writing
from kgate_mirror_server.ingest.evidence import parse_metadata
from kgate_mirror_server.ingest.standing import Standings
from kgate_mirror_server.ports import EvidenceKind, Publication, PublishedVariant, ServedFile
from kgate_mirror_server.upkeep.shelf import publish
from kgate_mirror_server.upstream.gitoid import blob_oid
from kgate_signer.attest import StoredEvidence

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from kgate_core.evidence import Decision, ScanReport
    from kgate_core.kernel import Revision
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.ingest.evidence import Imported
    from kgate_mirror_server.ingest.resolve import Source
    from kgate_mirror_server.settings.site import Pin


@dataclass(frozen=True)
class Pattern:
    """What the real sync found about one variant of the first kernel."""

    scan: ScanReport
    imported: Imported
    decision: Decision
    decided: Digest
    sbom: Digest
    sbom_bytes: bytes


class Filling:
    """Publishes kernels after the pattern of one that came in for real."""

    def __init__(self, mirror: Mirror, first: LockedKernel, now: datetime) -> None:
        self._mirror = mirror
        self._now = now
        self._first = first
        self._patterns = {name: self._pattern(name) for name in first.variants}
        self._signing: StoredEvidence | None = None
        self._attestor = replace(mirror.attestor, store=self)
        self._standings = Standings(mirror, now)

    def evidence(self, kernel: KernelId, lane: str, /) -> StoredEvidence | None:
        """Hand the signer what is being published right now."""
        del kernel, lane
        return self._signing

    def publish(
        self, pins: Iterable[Pin], files: Mapping[str, Mapping[str, bytes]], source: Source
    ) -> list[LockedKernel]:
        """Publish what pins name; `files` holds, by `repo variant`, each variant's files."""
        locked = []
        for pin in pins:
            own = {name: files[f"{pin.repo} {name}"] for name in self._first.variants}
            locked.append(self._publish(pin, source, own))
        self._standings.write()
        return locked

    def _pattern(self, name: str) -> Pattern:
        first, room = self._first, self._mirror.room
        kernel = KernelId(first.origin, first.repo_type, first.repo, first.commit, name)
        found = room.found(kernel, first.lane)
        if found is None:
            raise SystemExit("the first kernel did not come in")
        return Pattern(
            room.scan(found),
            room.imported(found),
            room.decision(found),
            found[EvidenceKind.DECISION],
            found[EvidenceKind.SBOM],
            room.read(found[EvidenceKind.SBOM]),
        )

    def _publish(
        self, pin: Pin, source: Source, files: Mapping[str, Mapping[str, bytes]]
    ) -> LockedKernel:
        first = self._first
        commit = source.commit(pin)
        variants = {name: self._sign(pin, commit, name, own) for name, own in files.items()}
        locked = replace(
            first,
            repo=pin.ref,
            commit=commit,
            pin=pin.wanted,
            variants={
                name: LockedVariant(
                    item.manifest, sum(file.size for file in item.files), len(item.files)
                )
                for name, item in variants.items()
            },
        )
        publication = Publication(
            first.origin,
            first.repo_type,
            pin.ref,
            commit,
            commit,
            pin.version,
            first.lane,
            tuple(variants.values()),
            self._now,
        )
        self._note(publication)
        publish(self._mirror, publication)
        results = tuple(
            VariantResult(name, item.manifest, self._patterns[name].decision, (), item.evidence, {})
            for name, item in variants.items()
        )
        result = KernelResult(pin, first.lane, commit, commit, results, fresh=True)
        self._standings.keep(result, locked, Dependencies())
        return locked

    def _sign(
        self, pin: Pin, commit: Revision, name: str, files: Mapping[str, bytes]
    ) -> PublishedVariant:
        room, pattern, first = self._mirror.room, self._patterns[name], self._first
        served = tuple(
            ServedFile(
                f"{folder_of(name)}{path}", len(data), room.keep(data), blob_oid(data), lfs=False
            )
            for path, data in sorted(files.items())
        )
        manifest = Manifest.of(
            FileEntry(file.path.removeprefix(folder_of(name)), file.size, file.digest)
            for file in served
        )
        imported = replace(pattern.imported, repo=pin.ref, revision=commit, files=served)
        scan = replace(pattern.scan, subject=manifest.digest)
        kernel = KernelId(first.origin, first.repo_type, pin.ref, commit, name)
        self._signing = StoredEvidence(
            kernel=kernel,
            lane=first.lane,
            manifest=manifest,
            metadata_id=str(parse_metadata(files["metadata.json"])["id"]),
            depends=(),
            imported=imported.to_record(),
            decision=pattern.decision,
            sbom=pattern.sbom_bytes,
        )
        signed = self._attestor.attest(kernel, first.lane, manifest.digest, self._now)
        return PublishedVariant(
            name,
            manifest.digest,
            served,
            tuple(room.keep(bundle) for bundle in signed.bundles),
            {
                EvidenceKind.MANIFEST: room.keep(manifest.canonical),
                EvidenceKind.METADATA: Digest.of(files["metadata.json"]),
                EvidenceKind.IMPORT: room.keep(strictjson.dumps(imported.to_json())),
                EvidenceKind.SCAN: room.keep(scan.to_bytes()),
                EvidenceKind.SBOM: pattern.sbom,
                EvidenceKind.DECISION: pattern.decided,
            },
        )

    def _note(self, item: Publication) -> None:
        """Keep the evidence of all variants in one transaction."""
        with writing(self._mirror.catalog.engine) as connection:
            connection.execute(
                insert(schema.intake),
                [
                    {
                        "kernel": KernelId(
                            item.origin, item.repo_type, item.repo, item.upstream, each.variant
                        ).purl,
                        "lane": item.lane,
                        "manifest": str(each.manifest),
                        "evidence": rows.of_evidence(each.evidence),
                        "state": "decided",
                        "changed_at": write_time(self._now),
                    }
                    for each in item.variants
                ],
            )


def merged(before: Lock | None, new: Iterable[LockedKernel]) -> Lock:
    """Return a lock with more kernels."""
    return Lock((*(before.kernels if before else ()), *new))
