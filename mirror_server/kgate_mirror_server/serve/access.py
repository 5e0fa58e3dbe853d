"""Who asks, and which repositories of which lanes that caller may see.

What a caller may not see does not exist for that caller: every part that answers asks here first.
Good credentials give their grants, none give the anonymous ones, bad ones give nothing and are
said to be bad. A client's credentials are looked at here and go nowhere else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from kgate_core.errors import KgateError
from kgate_mirror_server.catalog.tokens import PREFIX, identifier_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from kgate_mirror_server.catalog.tokens import Token
    from kgate_mirror_server.serve.jwts import JwtAccess
    from kgate_mirror_server.serve.wire import Request

MAX_CREDENTIAL: Final = 8192  # characters of an Authorization header
SHIM_MARK: Final = "kgate-client"
"""What the pod's shim writes into the user agent of the clients beside it."""

_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Grant:
    """Repositories that may be seen, in some lanes or in all."""

    repos: tuple[str, ...]
    """Shell patterns over `org/name`; `*` alone means everything."""
    lanes: tuple[str, ...] = ()
    """Empty means all lanes."""

    def allows(self, lane: str, repo: str) -> bool:
        """Return whether the grant opens this repository in this lane."""
        return (not self.lanes or lane in self.lanes) and any(
            _compiled(pattern).fullmatch(repo) is not None for pattern in self.repos
        )


EVERYTHING: Final = Grant(("*",))


@dataclass(frozen=True, slots=True)
class Caller:
    """One client with its grants."""

    name: str | None
    """What the caller is called in answers to itself; None if anonymous."""
    grants: tuple[Grant, ...]
    may: tuple[str, ...] = ()
    """What the caller may do besides reading."""

    @property
    def sees_everything(self) -> bool:
        """Whether nothing is hidden from the caller, now or later."""
        return any(not grant.lanes and {"*", "*/*"} & {*grant.repos} for grant in self.grants)

    def sees(self, lane: str, repo: str) -> bool:
        """Return whether the caller may know that `org/name` exists in this lane."""
        return any(grant.allows(lane, repo) for grant in self.grants)


NOBODY: Final = Caller(None, ())


class Access(Protocol):
    """Turns a request into a caller."""

    def caller(self, request: Request) -> Caller | None:
        """Return who asks, or None if the credentials are not good."""
        ...

    def refresh(self) -> None:
        """Look again who is known; called after every change of the catalog."""
        ...


class OpenAccess:
    """Asks nobody for credentials: an open mirror, on which whatever a client sends is ignored."""

    def caller(self, request: Request) -> Caller:  # noqa: ARG002  # the port's signature
        """Return an anonymous caller who sees everything."""
        return Caller(None, (EVERYTHING,))

    def refresh(self) -> None:
        """Do nothing."""


class TokenAccess:
    """Knows kgate's own tokens and, if configured, a cluster's service accounts."""

    def __init__(
        self,
        tokens: Callable[[], Sequence[Token]],
        anonymous: tuple[Grant, ...],
        clock: Callable[[], datetime],
        jwts: JwtAccess | None = None,
    ) -> None:
        self._read = tokens
        self._anonymous = Caller(None, anonymous)
        self._clock = clock
        self._jwts = jwts
        self._tokens: Mapping[str, Token] = {}

    def refresh(self) -> None:
        """Read the tokens; while the catalog does not answer, those known before count."""
        try:
            self._tokens = {token.identifier: token for token in self._read()}
        except KgateError as exc:
            _log.error("tokens.failed", reason=exc.message)

    def caller(self, request: Request) -> Caller | None:
        """Return who asks; None for a credential that is malformed, unknown, expired or revoked."""
        header = request.header(b"authorization")
        if header is None:
            # Two such headers are nobody's honest request.
            return None if request.has(b"authorization") else self._anonymous
        scheme, _, text = header.partition(" ")
        text = text.strip()
        if scheme.lower() != "bearer" or len(header) > MAX_CREDENTIAL:
            return None
        if text.startswith(PREFIX):
            return self._bearer(text)
        return self._jwts.caller(text, self._clock()) if self._jwts is not None else None

    def _bearer(self, text: str) -> Caller | None:
        token = self._tokens.get(identifier_of(text) or "")
        if token is None or not token.is_text(text) or not token.counts(self._clock()):
            return None
        return Caller(token.name, (Grant(token.repos, token.lanes),), token.may)


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern))
