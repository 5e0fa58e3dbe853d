"""What advisories say about one variant: which of them concern it, and which were set aside.

A report follows from a scan report and one advisory feed, and holds no other time than the feed's.
Nothing is matched here, and nothing is decided: how much is too much is for a policy to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from kgate_core import strictjson
from kgate_core.clock import read_time, write_time
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_core.evidence import Severity

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

_WHAT: Final = "vulnerability report"
MAX_BYTES: Final = 64 * 1024**2  # bytes of one report: some 100,000 matches


class Status(StrEnum):
    """Whether a vulnerability concerns a variant; the words of VEX, and `unknown`."""

    AFFECTED = "affected"
    UNKNOWN = "unknown"
    """The advisory is about something in the variant, but not whether about this version of it."""
    FIXED = "fixed"
    NOT_AFFECTED = "not_affected"

    @property
    def counts(self) -> bool:
        """True unless somebody said that there is nothing to do."""
        return self in {Status.AFFECTED, Status.UNKNOWN}


@dataclass(frozen=True, slots=True)
class Vulnerability:
    """One advisory that is about something in the variant."""

    id: str
    severity: Severity
    status: Status
    source: str
    """Name of the feed that it came from."""
    seen: str
    """What of the variant it is about, in one sentence."""
    aliases: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    """Files of the variant, the first few."""
    justification: str = ""
    """Why it is not affected, in VEX's words; always there for `not_affected`."""
    author: str = ""
    """Who says that it is not affected, or fixed."""
    statement: str = ""
    """What the author adds."""

    def to_json(self) -> dict[str, Any]:
        """Return the entry as a JSON object without empty fields."""
        document = {
            "id": self.id,
            "severity": self.severity.label,
            "status": str(self.status),
            "source": self.source,
            "seen": self.seen,
            "aliases": list(self.aliases),
            "places": list(self.places),
            "justification": self.justification,
            "author": self.author,
            "statement": self.statement,
        }
        return {name: value for name, value in document.items() if value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Vulnerability:
        """Read what `to_json` wrote; raises InvalidInput."""
        what = "vulnerability"
        status = strictjson.take(data, "status", str, what=what)
        if status not in set(Status):
            raise InvalidInput(f"{what}: unknown status {status!r}")
        found = cls(
            strictjson.take(data, "id", str, what=what),
            Severity.parse(strictjson.take(data, "severity", str, what=what)),
            Status(status),
            strictjson.take(data, "source", str, what=what),
            strictjson.take(data, "seen", str, what=what),
            strictjson.take_strings(data, "aliases", what=what) if "aliases" in data else (),
            strictjson.take_strings(data, "places", what=what) if "places" in data else (),
            *(
                strictjson.take(data, name, str, what=what) if name in data else ""
                for name in ("justification", "author", "statement")
            ),
        )
        if not found.status.counts and not found.author:
            raise InvalidInput(f"{what}: {found.id} is set aside by nobody")
        return found


@dataclass(frozen=True, slots=True)
class IgnoredVex:
    """A VEX statement about something in the variant that was not believed."""

    id: str
    author: str

    def to_json(self) -> dict[str, Any]:
        """Return the entry as a JSON object."""
        return {"id": self.id, "author": self.author}


@dataclass(frozen=True, slots=True)
class VulnerabilityReport:
    """Every advisory of one feed that is about one variant; equal input gives equal bytes."""

    SCHEMA = "kgate.dev/vulnerabilities/v1"

    subject: Digest
    """Digest of the manifest (or file) that was looked at."""
    matcher: str
    """Name and version of what compared, such as `kgate-advisories/1`."""
    feed: Digest
    """Digest of the feed snapshot."""
    feed_date: datetime
    """How old the feed is: the date of its oldest source."""
    found: tuple[Vulnerability, ...] = ()
    ignored: tuple[IgnoredVex, ...] = ()

    @property
    def counting(self) -> tuple[Vulnerability, ...]:
        """What nobody set aside, the worst first."""
        return tuple(sorted((v for v in self.found if v.status.counts), key=lambda v: -v.severity))

    @property
    def suppressed(self) -> tuple[Vulnerability, ...]:
        """What somebody set aside, with a reason."""
        return tuple(item for item in self.found if not item.status.counts)

    @property
    def says(self) -> tuple[object, ...]:
        """What a newer feed may change; the feed's own digest and date are no part of it."""
        return (self.subject, self.matcher, self.found, self.ignored)

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON object, as policies are asked about it."""
        return {
            "schema": self.SCHEMA,
            "subject": str(self.subject),
            "matcher": self.matcher,
            "feed": {"digest": str(self.feed), "date": write_time(self.feed_date)},
            "found": [item.to_json() for item in self.found],
            "ignored": [item.to_json() for item in self.ignored],
        }

    def to_bytes(self) -> bytes:
        """Return canonical bytes: stored, digested and attested."""
        return strictjson.dumps(self.to_json())

    @classmethod
    def from_bytes(cls, data: bytes) -> VulnerabilityReport:
        """Read what `to_bytes` wrote; raises InvalidInput."""
        return cls.from_json(strictjson.loads(data, what=_WHAT, max_bytes=MAX_BYTES))

    @classmethod
    def from_json(cls, document: strictjson.JsonValue) -> VulnerabilityReport:
        """Read what `to_json` wrote; raises InvalidInput."""
        what = _WHAT
        if strictjson.take(document, "schema", str, what=what) != cls.SCHEMA:
            raise InvalidInput(f"{what}: unknown schema {document['schema']!r}")
        feed = strictjson.take(document, "feed", dict, what=what)
        return cls(
            Digest.parse(strictjson.take(document, "subject", str, what=what)),
            strictjson.take(document, "matcher", str, what=what),
            Digest.parse(strictjson.take(feed, "digest", str, what=what)),
            read_time(strictjson.take(feed, "date", str, what=what), what=what),
            tuple(
                Vulnerability.from_json(item)
                for item in strictjson.take(document, "found", list, what=what)
            ),
            tuple(
                IgnoredVex(
                    strictjson.take(item, "id", str, what=what),
                    strictjson.take(item, "author", str, what=what),
                )
                for item in strictjson.take(document, "ignored", list, what=what)
            ),
        )
