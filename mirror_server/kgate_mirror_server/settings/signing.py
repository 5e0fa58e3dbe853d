"""The part `signing:` of kgate.yaml: which Sigstore signs without keys, and who is believed.

Keys have their own part, `keys:`. Nothing is opened here.
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # pydantic reads the annotations
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

AMBIENT = "ambient"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KeylessIdentity(_Model):
    """Whose keyless signatures `kgate verify --keyless` believes."""

    issuer: str
    """Address of the token service, such as `https://token.actions.githubusercontent.com`."""
    name: Annotated[str, Field(min_length=1)]
    """The certificate's name in full: a workflow with its branch, a service account, an e-mail."""


class KeylessSigning(_Model):
    """One Sigstore, private or public, and the identity that signs there."""

    trust_config: Path
    """Its ClientTrustConfig, pinned: services to sign with and roots to believe."""
    token: str = AMBIENT
    """`ambient` (GitHub Actions, GitLab and other CI), or `file:PATH` (a Kubernetes token)."""
    identities: tuple[KeylessIdentity, ...] = ()

    @field_validator("token")
    @classmethod
    def _known(cls, token: str) -> str:
        if token != AMBIENT and not token.startswith("file:"):
            # Not repeated: it may be the token itself.
            raise ValueError(f"expected {AMBIENT!r} or 'file:PATH', never the token itself")
        return token


class Signing(_Model):
    """How statements are signed besides by keys."""

    keyless: KeylessSigning | None = None


class TimestampAuthority(_Model):
    """An independent authority that dates decisions (RFC 3161)."""

    url: str
    authority: Path
    """Its certificate or public key in PEM; `kgate trust update` tells pods to believe it."""

    @field_validator("url")
    @classmethod
    def _usable(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"a timestamp authority is http(s)://…, not {url!r}")
        return url
