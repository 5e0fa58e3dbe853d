"""Kubernetes service accounts as callers: their projected tokens, checked without the network.

A token must be signed by a key of the JWKS file (RS256 or ES256), come from the configured issuer,
be meant for the configured audience and be in its time. The file is read again when it changes;
nothing is fetched. RFC 7515, 7517 and 7519 through PyJWT.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

import jwt
import structlog

from kgate_mirror_server.serve.access import Caller, Grant

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

_ALGORITHMS: Final = ("RS256", "ES256")
_LEEWAY: Final = 60  # seconds between the cluster's clock and ours
_MAX_FILE: Final = 1024 * 1024  # bytes of the JWKS file
_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class AccountGrant:
    """What the service accounts of some namespaces may see."""

    subject: str
    """Shell pattern over `system:serviceaccount:<namespace>:<name>`."""
    grant: Grant


class JwtAccess:
    """Checks service-account tokens of one issuer."""

    def __init__(
        self, jwks: Path, issuer: str, audience: str, accounts: tuple[AccountGrant, ...]
    ) -> None:
        self._jwks = jwks
        self._issuer = issuer
        self._audience = audience
        self._accounts = accounts
        self._seen: tuple[int, int] | None = None
        self._keys: Mapping[str, jwt.PyJWK] = {}

    def caller(self, text: str, now: datetime) -> Caller | None:
        """Return the service account behind a token, or None if the token is not good."""
        try:
            header = jwt.get_unverified_header(text)
            # The algorithm is the key's own: what the token says about it only has to agree.
            key = self._read().get(str(header.get("kid")))
            if key is None or key.algorithm_name not in _ALGORITHMS:
                return None
            claims: dict[str, Any] = jwt.decode(
                text,
                key,
                algorithms=[key.algorithm_name],
                issuer=self._issuer,
                audience=self._audience,
                # Times are compared below, with the clock that was given.
                options={
                    "require": ["exp", "iss", "aud", "sub"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except (jwt.PyJWTError, ValueError, TypeError):
            return None
        return self._account(claims, now.timestamp())

    def _account(self, claims: dict[str, Any], now: float) -> Caller | None:
        ends, begins, subject = claims["exp"], claims.get("nbf", 0), claims["sub"]
        if not isinstance(ends, int | float) or not isinstance(begins, int | float):
            return None
        if not begins - _LEEWAY <= now < ends + _LEEWAY:
            return None
        grants = tuple(
            account.grant
            for account in self._accounts
            if isinstance(subject, str) and fnmatchcase(subject, account.subject)
        )
        return Caller(str(subject), grants)

    def _read(self) -> Mapping[str, jwt.PyJWK]:
        try:
            status = self._jwks.stat()
            seen = (status.st_mtime_ns, status.st_size)
            if seen == self._seen or status.st_size > _MAX_FILE:
                return self._keys
            found = jwt.PyJWKSet.from_dict(json.loads(self._jwks.read_bytes()))
        except (OSError, ValueError, AttributeError, jwt.PyJWTError) as exc:
            # A half-written file must not lock everybody out: the former keys go on counting.
            _log.error("jwks.failed", file=str(self._jwks), reason=str(exc))
            return self._keys
        self._keys = {key.key_id: key for key in found.keys if key.key_id}
        self._seen = seen
        return self._keys
