"""Where kernels come from: the upstreams of kgate.yaml, and which repositories each may give.

Values and their checks only; an adapter for each kind of upstream is in `upstream/`.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from kgate_core.errors import KgateError
from kgate_core.kernel import check_origin


def _origin(text: str) -> str:
    try:
        return check_origin(text)
    except KgateError as exc:
        raise ValueError(f"{exc.message} ({exc.hint})") from exc


class Publisher(BaseModel):
    """Whose own signatures count for the kernels of one organisation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    org: str
    """Organisation on the Hub, such as `acme`."""
    repository: str
    """Source repository that the build ran in, such as `https://github.com/acme/kernels`."""
    workflows: Annotated[tuple[str, ...], Field(min_length=1)]
    """Addresses of the build definitions with their branch, as the certificate names them."""
    issuer: str = "https://token.actions.githubusercontent.com"


class Upstream(BaseModel):
    """Where kernels come from: a Hub's address or a folder, and its identity in attestations."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    origin: Annotated[str, AfterValidator(_origin)] | None = None
    """Identity of the upstream; the address without a trailing slash unless given."""
    token_file: Path | None = None
    """File with the access token for this upstream; it is sent nowhere else."""
    token_env: str | None = None
    """Name of an environment variable with that token, for CI systems that have no files."""
    ca_file: Path | None = None
    """Certificates of a private CA, in PEM; they replace the system's for this upstream."""
    proxy: str | None = None
    """HTTP(S) proxy for this upstream; the environment's (`HTTPS_PROXY` …) unless given."""
    no_proxy: tuple[str, ...] = ()
    """Hosts that are asked directly: exact names, or `.suffix`."""
    timeout: Annotated[float, Field(gt=0, le=3600)] = 30.0
    """Seconds without a byte after which a request is given up and made again."""
    allow: tuple[str, ...] = ("*",)
    """Shell patterns over `org/name`: what may be pinned from here at all."""
    deny: tuple[str, ...] = ()
    """Shell patterns over `org/name` that may not, whatever `allow` says."""
    publishers: tuple[Publisher, ...] | None = None
    """Whose signatures count for what comes from here; those of the whole file unless given."""

    trust_root: Path | None = None
    """Root of another kgate, as its operator gave it: then its attestations are checked too."""

    @field_validator("url")
    @classmethod
    def _usable(cls, url: str) -> str:
        if "://" in url and not url.startswith(("http://", "https://", "oci://")):
            raise ValueError(f"an upstream is http(s)://…, oci://… or a folder, not {url!r}")
        return url.rstrip("/")

    @field_validator("proxy")
    @classmethod
    def _plain_proxy(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("http://", "https://")):
            raise ValueError(f"a proxy is http(s)://host:port, not {url!r}")
        return url

    @model_validator(mode="after")
    def _known_origin(self) -> Upstream:
        if self.is_registry and self.origin is None:
            raise ValueError(
                "a registry holds kernels of another origin: name it, "
                "for example origin: https://huggingface.co"
            )
        if self.trust_root is not None and (self.is_folder or self.is_registry):
            raise ValueError("trust_root: is for an upstream at http(s)://… that is a kgate")
        if self.token_file is not None and self.token_env is not None:
            raise ValueError("give token_file or token_env, not both")
        return self

    @property
    def is_registry(self) -> bool:
        """True if the upstream is an OCI registry to which a kgate pushed."""
        return self.url.startswith("oci://")

    @property
    def is_folder(self) -> bool:
        """True if the upstream is a folder of built kernels."""
        return "://" not in self.url

    @property
    def identity(self) -> str:
        """The origin that attestations state."""
        if self.origin is not None:
            return self.origin
        if self.is_folder:
            return check_origin(f"dir:{Path(self.url).name}")
        return check_origin(self.url)

    def refusal(self, repo: str) -> str:
        """Return why a repository may not come from here, or nothing."""
        if banned := next((p for p in self.deny if fnmatchcase(repo, p)), None):
            return f"{repo} matches {banned!r} under deny: of the upstream {self.url}"
        if not any(fnmatchcase(repo, pattern) for pattern in self.allow):
            return f"{repo} matches nothing under allow: of the upstream {self.url}"
        return ""


def written_short(value: object) -> object:
    """Return an upstream that was written as its address alone as a mapping."""
    return {"url": value} if isinstance(value, str) else value


def check_distinct(default: Upstream, others: dict[str, Upstream]) -> None:
    """Raise ValueError if two upstreams would be told apart by nothing in an attestation.

    Two that hold the same kernels, such as a Hub and a registry, say so by `origin:` themselves.
    """
    seen: dict[str, str] = {default.identity: "upstream"}
    for name, item in others.items():
        known = seen.setdefault(item.identity, name)
        if known != name and item.origin is None:
            raise ValueError(
                f"upstreams.{name} and {known} have the same identity {item.identity}: "
                "name it with origin:"
            )


def check_routes(pins: list[tuple[str, str, str]]) -> None:
    """Raise ValueError if one repository comes into one lane from two upstreams.

    `pins` holds repository, lane and origin of each: a client asks by the name alone.
    """
    known: dict[tuple[str, str], str] = {}
    for repo, lane, origin in pins:
        first = known.setdefault((repo, lane), origin)
        if first != origin:
            raise ValueError(
                f"{repo} is pinned from {first} and from {origin} in lane {lane}: "
                "clients ask by name, so one name means one upstream in a lane"
            )
