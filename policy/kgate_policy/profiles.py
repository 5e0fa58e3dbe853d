"""The built-in profiles: rule sets that a lane can be given by name.

A profile says for every rule of the pack how much it counts; `off` stands there on purpose. A
person's policy extends one of them, see `document`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kgate_core.errors import InvalidInput
from kgate_core.evidence import Severity
from kgate_policy.baseline import RULES
from kgate_policy.parameters import Parameters
from kgate_policy.policy import Policy
from kgate_policy.rules import Level

if TYPE_CHECKING:
    from collections.abc import Mapping

_SOFT_IN_DEV: Final = (
    "require-upstream-signature",
    "no-dirty-build",
    "provenance-present",
    "closed-library-set",
    "no-calls-out",
    "only-kernel-files",
    "no-ptx-only",
    "licence-allowed",
    "scanned-recently",
    "advisories-fresh",
    "targets-covered",
)
_SOFT_IN_STAGING: Final = (
    "require-upstream-signature",
    "no-dirty-build",
    "provenance-present",
    "no-ptx-only",
    "scanned-recently",
    "advisories-fresh",
    "targets-covered",
)
# Permissive licences that need no more than a notice; a site adds what it can accept.
_LICENCES: Final = (
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Zlib",
)


_SOFT_EVERYWHERE: Final = ("card-complete", "already-in-image", "vex-authorised")
"""Mirrors and registries may leave a card behind; what an image has too is double, not wrong; VEX
that is not believed changes nothing."""
_OPTIONAL: Final = ("qualified", "rebuilt-here", "advisories-consulted")
"""Rules for which a site first needs machines, builders or feeds: off until it asks."""
_SPECIAL: Final = ("approved-digests", *_OPTIONAL)
"""Rules that only some profile or site asks."""


def _levels(warn: tuple[str, ...] = (), off: tuple[str, ...] = _SPECIAL) -> Mapping[str, Level]:
    levels = dict.fromkeys(RULES, Level.DENY)
    levels |= dict.fromkeys((*_SOFT_EVERYWHERE, *warn), Level.WARN)
    return levels | dict.fromkeys(off, Level.OFF)


PROFILES: Final[Mapping[str, Policy]] = {
    policy.name: policy
    for policy in (
        Policy(
            "dev",
            _levels(_SOFT_IN_DEV),
            Parameters(severity_deny=Severity.CRITICAL, severity_warn=Severity.HIGH),
        ),
        Policy("staging", _levels(_SOFT_IN_STAGING), Parameters()),
        Policy("production", _levels(), Parameters(licences_allow=_LICENCES)),
        # An island cannot ask anybody: what warns elsewhere is decided before it is carried over.
        Policy(
            "airgap",
            _levels(),
            Parameters(severity_deny=Severity.MEDIUM, licences_allow=_LICENCES),
        ),
        # For sites under FIPS 140: production, and nothing that only SHA-1 vouches for.
        Policy("approved-algorithms", _levels(off=_OPTIONAL), Parameters(licences_allow=_LICENCES)),
    )
}


def builtin_profile(name: str) -> Policy:
    """Return a built-in profile by name; raises InvalidInput for an unknown one."""
    try:
        return PROFILES[name]
    except KeyError as exc:
        raise InvalidInput(
            f"there is no profile {name!r}", hint=f"built in are {', '.join(PROFILES)}"
        ) from exc
