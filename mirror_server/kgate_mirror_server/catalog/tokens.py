"""Client tokens: made once, shown once, kept as a digest.

A token reads `kg_<id>_<secret>`; the id finds the row, the sha256 of the whole text must match. A
token only narrows what its bearer sees: to repositories by pattern, and to lanes. What a token may
see at this moment is for `serve.access` to say.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import insert, select, update

from kgate_core.clock import read_time, write_time
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput, NotFound
from kgate_mirror_server.catalog import rows, schema
from kgate_mirror_server.catalog.engine import reading, writing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Engine, Row

PREFIX: Final = "kg_"
QUALIFY: Final = "qualify"
RIGHTS: Final = (QUALIFY,)
"""What a token can allow besides reading: to submit results of `kgate qualify`."""
_TOKEN: Final = re.compile(r"kg_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_PATTERN: Final = re.compile(r"[A-Za-z0-9._*?-]{1,96}/[A-Za-z0-9._*?-]{1,96}")
_LANE: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
_MAX_NAME: Final = 200  # characters


@dataclass(frozen=True, slots=True)
class Token:
    """What is known about a token; its secret is not."""

    identifier: str
    digest: str
    """sha256 of the token's text, in hex."""
    name: str
    """What a person called it; shown to its bearer."""
    repos: tuple[str, ...]
    """Shell patterns over `org/name`."""
    lanes: tuple[str, ...]
    """Lanes that it opens; empty means all."""
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    may: tuple[str, ...] = ()
    """What its bearer may do besides reading; see `RIGHTS`."""

    def is_text(self, text: str) -> bool:
        """Return whether this is the token with that text, in constant time."""
        return hmac.compare_digest(Digest.of(text.encode()).hex, self.digest)

    def counts(self, now: datetime) -> bool:
        """Return whether it is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def identifier_of(text: str) -> str | None:
    """Return the id in a well-formed token's text, or None."""
    found = _TOKEN.fullmatch(text)
    return found[1] if found else None


class SqlTokens:
    """The tokens in the catalog's database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(
        self,
        name: str,
        repos: Sequence[str],
        lanes: Sequence[str],
        *,
        now: datetime,
        expires_at: datetime | None,
        may: Sequence[str] = (),
    ) -> tuple[str, Token]:
        """Make a token; returns its text, which is nowhere else, and what is kept of it.

        Raises InvalidInput for an empty or malformed scope or an end in the past.
        """
        _check(name, repos, lanes, now, expires_at)
        if not set(may) <= set(RIGHTS):
            raise InvalidInput(f"a token can allow {', '.join(RIGHTS)}, and nothing else")
        identifier = secrets.token_hex(6)
        secret = base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode("ascii")
        text = f"{PREFIX}{identifier}_{secret}"
        digest = Digest.of(text.encode()).hex
        with writing(self._engine) as connection:
            connection.execute(
                insert(schema.token).values(
                    id=identifier,
                    digest=digest,
                    name=name,
                    repos=list(repos),
                    lanes=list(lanes),
                    created_at=write_time(now),
                    expires_at=None if expires_at is None else write_time(expires_at),
                    may=list(may),
                )
            )
            rows.advance(connection)
        scope = (tuple(repos), tuple(lanes))
        kept = Token(identifier, digest, name, *scope, now, expires_at, None, tuple(may))
        return text, kept

    def revoke(self, identifier: str, *, now: datetime) -> None:
        """Let a token count no more; again is no change. Raises NotFound."""
        table = schema.token
        with writing(self._engine) as connection:
            row = connection.execute(select(table).where(table.c.id == identifier)).first()
            if row is None:
                raise NotFound(f"there is no token {identifier}", hint="see `kgate token list`")
            if row.revoked_at is None:
                connection.execute(
                    update(table).where(table.c.id == identifier).values(revoked_at=write_time(now))
                )
                rows.advance(connection)

    def tokens(self) -> tuple[Token, ...]:
        """Return all tokens, the oldest first, revoked ones too."""
        table = schema.token
        with reading(self._engine) as connection:
            found = connection.execute(select(table).order_by(table.c.created_at, table.c.id))
            return tuple(_to_token(row) for row in found)


def _check(
    name: str,
    repos: Sequence[str],
    lanes: Sequence[str],
    now: datetime,
    expires_at: datetime | None,
) -> None:
    if not name.strip() or len(name) > _MAX_NAME or not name.isprintable():
        raise InvalidInput("a token needs a name, so that people know whose it is")
    if not repos:
        raise InvalidInput("a token needs at least one repository pattern", hint="such as 'acme/*'")
    for pattern in repos:
        if _PATTERN.fullmatch(pattern) is None:
            raise InvalidInput(f"not a pattern of repositories: {pattern!r}", hint="say 'acme/*'")
    for lane in lanes:
        if _LANE.fullmatch(lane) is None:
            raise InvalidInput(f"not a lane name: {lane!r}")
    if expires_at is not None and expires_at <= now:
        raise InvalidInput("a token cannot end before it begins")


def _to_token(row: Row[tuple[object, ...]]) -> Token:
    return Token(
        row.id,
        row.digest,
        row.name,
        tuple(row.repos),
        tuple(row.lanes),
        read_time(row.created_at, what="token"),
        None if row.expires_at is None else read_time(row.expires_at, what="token"),
        None if row.revoked_at is None else read_time(row.revoked_at, what="token"),
        tuple(row.may or ()),
    )
