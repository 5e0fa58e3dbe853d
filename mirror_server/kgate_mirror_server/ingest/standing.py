"""What a pin came out as, kept with a digest of all that it rests on: nothing new, nothing read.

Rests on: the day, the release of kgate, the site's settings, the policies of its lane and tenants,
exceptions, the advisory feed, the pin, its lock entry, the evidence of each variant, the kernels
that it needs, and what is published of it. If one is another, everything is looked at again; so it
is on the next day, as rules know dates. Bytes in the store are not looked at: `kgate scrub` does.
"""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from typing import TYPE_CHECKING

from kgate_core.clock import write_time
from kgate_core.digest import Digest
from kgate_core.evidence import Decision, Outcome
from kgate_core.kernel import KernelId, Revision
from kgate_mirror_server.admit import KernelResult, VariantResult
from kgate_mirror_server.catalog.rows import of_evidence
from kgate_mirror_server.catalog.standings import keep_standings, read_intake, read_standings
from kgate_mirror_server.ports import EvidenceKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from kgate_core.evidence import Facts, RuleResult
    from kgate_core.lock import LockedKernel
    from kgate_mirror_server.admit import Dependencies
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.ports import Publication
    from kgate_mirror_server.settings.site import Pin


class Standings:
    """The kept outcomes of one run: read once, written once."""

    def __init__(self, mirror: Mirror, now: datetime) -> None:
        self._mirror = mirror
        self._kept = read_standings(mirror.catalog.engine)
        self._intake = read_intake(mirror.catalog.engine)
        self._new: dict[str, tuple[str, Facts]] = {}
        self._site = _site_digest(mirror, now)
        self._published: dict[tuple[str, str], list[str]] = {}
        for item in mirror.catalog.publications():
            found = self._published.setdefault((str(item.repo), item.lane), [])
            found.append(_said_of(item))

    def find(self, pin: Pin, locked: LockedKernel, needs: Dependencies) -> KernelResult | None:
        """Return how a pin came out if nothing has changed since, else None."""
        kept = self._kept.get(_key(locked))
        if kept is None:
            return None
        evidence = {
            name: self._intake.get((_purl(locked, name), locked.lane)) for name in locked.variants
        }
        if kept[0] != self._digest(pin, locked, needs, evidence):
            return None
        return _result(pin, locked, kept[1])

    def keep(self, result: KernelResult, locked: LockedKernel, needs: Dependencies) -> None:
        """Note how a pin came out; `write` keeps it."""
        place = (str(locked.repo), locked.lane)
        mirror = self._mirror
        if result.fresh:
            self._published[place] = [
                _said_of(item) for item in mirror.catalog.publications_of(locked.repo, locked.lane)
            ]
        evidence = {item.variant: of_evidence(item.evidence) for item in result.variants}
        digest = self._digest(result.pin, locked, needs, evidence)
        if all(item.decision is not None for item in result.variants):
            self._new[_key(locked)] = (digest, _outcome(mirror, result))

    def write(self) -> None:
        """Keep what was noted."""
        keep_standings(self._mirror.catalog.engine, self._new)

    def _digest(
        self,
        pin: Pin,
        locked: LockedKernel,
        needs: Dependencies,
        evidence: Mapping[str, Mapping[str, str] | None],
    ) -> str:
        rules = self._mirror.rules
        return _digest_of(
            self._site,
            rules.of(locked.lane).digest,
            [item.policy.digest for item in rules.tenants(locked.repo)],
            evidence,
            pin.model_dump(mode="json"),
            str(locked.commit),
            {name: str(item.manifest) for name, item in locked.variants.items()},
            [locked.depends, needs.met, needs.manifests, needs.unmet],
            sorted(self._published.get((str(locked.repo), locked.lane), ())),
        )


def _site_digest(mirror: Mirror, now: datetime) -> str:
    exceptions = mirror.exceptions(now)
    config = mirror.config.model_dump(mode="json", exclude={"kernels", "folder"})
    feed = mirror.config.path(mirror.config.feeds.snapshot)
    files = [feed, *feed.rglob("*")] if feed.exists() else []
    return _digest_of(
        write_time(now)[:10],
        version("kgate"),
        config,
        {name: sorted(map(str, digests)) for name, digests in mirror.rules.image_lists.items()},
        [item.to_json() for item in exceptions.granted if item.until > now],
        [[item.exception.to_json(), item.reason] for item in exceptions.refused],
        [[str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in sorted(files) if f.is_file()],
    )


def _digest_of(*parts: object) -> str:
    text = json.dumps(parts, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _purl(locked: LockedKernel, variant: str) -> str:
    return KernelId(locked.origin, locked.repo_type, locked.repo, locked.commit, variant).purl


def _key(locked: LockedKernel) -> str:
    return json.dumps(locked.key)


def _said_of(item: Publication) -> str:
    variants = " ".join(f"{each.variant}={each.manifest}" for each in item.variants)
    return f"v{item.version} {item.origin} {item.served} {item.upstream} {variants}"


def _outcome(mirror: Mirror, result: KernelResult) -> Facts:
    return {
        "served": None if result.served is None else str(result.served),
        "variants": {item.variant: _variant(mirror, item) for item in result.variants},
    }


def _variant(mirror: Mirror, item: VariantResult) -> Facts:
    if item.decision is None:
        raise AssertionError("only decided variants are kept")
    document = item.decision.to_json()
    # What passed is in the stored decision: here one of it stands for all.
    told = [r for r in document["results"] if r["outcome"] != str(Outcome.PASS)]
    document["results"] = told or document["results"][:1]
    return {
        "manifest": str(item.manifest),
        "decision": document,
        "evidence": {str(kind): str(digest) for kind, digest in item.evidence.items()},
        "seen": _summary(mirror, item),
    }


def _summary(mirror: Mirror, item: VariantResult) -> Facts:
    if item.seen is not None:
        return item.seen
    if EvidenceKind.SCAN not in item.evidence:
        return {}
    summary = mirror.room.scan(item.evidence).summary
    return {name: summary[name] for name in ("device", "findings") if name in summary}


def _result(pin: Pin, locked: LockedKernel, outcome: Facts) -> KernelResult:
    variants = []
    for name, item in sorted(outcome["variants"].items()):
        decision = Decision.from_json(item["decision"])
        evidence = {
            EvidenceKind(kind): Digest.parse(digest) for kind, digest in item["evidence"].items()
        }
        manifest = Digest.parse(item["manifest"])
        variants.append(
            VariantResult(name, manifest, decision, decision.denials, evidence, item["seen"])
        )
    served = outcome["served"]
    return KernelResult(
        pin,
        locked.lane,
        locked.commit,
        None if served is None else Revision(served),
        tuple(variants),
        fresh=False,
    )


def whole_decision(mirror: Mirror, item: VariantResult) -> Sequence[RuleResult]:
    """Return every rule's answer about a variant, also those that only the store still has."""
    if item.seen is None or EvidenceKind.DECISION not in item.evidence:
        return item.decision.results if item.decision else item.reasons
    return mirror.room.decision(item.evidence).results
