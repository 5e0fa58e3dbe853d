"""Who asks, and which repositories of which lanes that caller may see.

What a caller may not see does not exist for that caller: every part that answers asks here first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from kgate_mirror_server.serve.wire import Request


class Caller(Protocol):
    """One authenticated or anonymous client."""

    @property
    def name(self) -> str | None:
        """What the caller is called in answers to itself; None if anonymous."""
        ...

    def sees(self, lane: str, repo: str) -> bool:
        """Return whether the caller may know that `org/name` exists in this lane."""
        ...


class Access(Protocol):
    """Turns a request into a caller."""

    def caller(self, request: Request) -> Caller | None:
        """Return who asks, or None if the credentials are not good."""
        ...


class Everybody:
    """The anonymous caller of an open mirror: sees all that is published."""

    name: str | None = None

    def sees(self, lane: str, repo: str) -> bool:  # noqa: ARG002  # the port's signature
        """Return True."""
        return True


class OpenAccess:
    """Asks nobody for credentials."""

    def caller(self, request: Request) -> Caller:  # noqa: ARG002  # the port's signature
        """Return Everybody."""
        return Everybody()
