"""The numbers and lists that rules compare with.

Values only. Where they come from: `profiles` (built in) and `document` (a person's YAML). An
empty allow list means "anything"; an empty deny list means "nothing".
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from kgate_core.evidence import Severity

if TYPE_CHECKING:
    from kgate_core.evidence import Facts


@dataclass(frozen=True, slots=True)
class Parameters:
    """What the built-in rules compare with; patterns are shell globs, matched case-sensitively."""

    severity_deny: Severity = Severity.HIGH
    """Findings at or above this severity deny."""
    severity_warn: Severity = Severity.MEDIUM
    """Findings at or above this severity, but below `severity_deny`, warn."""
    repositories_allow: tuple[str, ...] = ()
    """Patterns of `org/name` that may be used."""
    repositories_deny: tuple[str, ...] = ()
    """Patterns of `org/name` that may not be used, whatever the allow list says."""
    origins_allow: tuple[str, ...] = ()
    """Upstreams that kernels may come from, written exactly as in the lock."""
    digests_deny: tuple[str, ...] = ()
    """Digests (`sha256:…`) of manifests or single files that may not be used."""
    licences_allow: tuple[str, ...] = ()
    """SPDX ids, compared without regard to case."""
    licences_deny: tuple[str, ...] = ()
    """SPDX ids that may not be used, whatever the allow list says."""
    sources_allow: tuple[str, ...] = ()
    """Patterns of the source URL that `metadata.json` must name."""
    backends_allow: tuple[str, ...] = ()
    """Backends such as `cuda`, `rocm`, `cpu`."""
    builders_allow: tuple[str, ...] = ()
    """Patterns of the builder's version, such as `0.17.*`."""
    scanners_allow: tuple[str, ...] = ()
    """Patterns of the scanner's name and version, such as `kgate-scanner/0.2.*`."""
    builds_origins: tuple[str, ...] = ()
    """Upstreams that hold what the site's own builders built, written as in the lock."""
    scans_max_days: int = 90
    """Days after which a scan is too old."""
    advisories_max_days: int = 60
    """Days after which a feed of advisories is too old."""
    qualification_min_speedup: int = 100
    """Percent of the reference's speed that a qualified kernel reaches at least."""

    def to_json(self) -> Facts:
        """Return the parameters as a JSON object with sorted lists."""
        document: Facts = {}
        for item in fields(self):
            value = getattr(self, item.name)
            match value:
                case Severity():
                    document[item.name] = value.label
                case int():
                    document[item.name] = value
                case _:
                    document[item.name] = sorted(value)
        return document
