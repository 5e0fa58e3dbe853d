"""The part of `kgate.yaml` that says how the mirror serves, and the settings that follow from it.

Field names are what people write; `serve.settings` has the plain values that the server reads.
Nothing is opened here.
"""

from __future__ import annotations

from pathlib import Path  # pydantic reads it when the models are built
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kgate_mirror_server.serve.access import Grant
from kgate_mirror_server.serve.settings import (
    AccessSettings,
    DelegateSettings,
    DenyStyle,
    SendFile,
    ServeSettings,
    TlsFiles,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from kgate_mirror_server.settings.models import Models


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Anonymous(_Strict):
    """What callers without a token see, where tokens are asked for."""

    repos: Annotated[tuple[str, ...], Field(min_length=1)]
    """Patterns of repositories, such as `acme/*`."""
    lanes: tuple[str, ...] = ()
    """Lanes that they see; all if none is named."""


class Tls(_Strict):
    """Certificate chain and private key in PEM; read again when they change."""

    certificate: Path
    key: Path


class Reports(_Strict):
    """What pods report (`KGATE_REPORT_URL=mirror`)."""

    folder: Path
    """Where they are kept, as JSON lines by day."""
    alert_after_seconds: Annotated[float, Field(ge=0, le=86_400)] = 0
    """A download that no pod reported within this time raises an alert; 0 awaits none."""


class Serve(_Strict):
    """How the mirror listens, and whom it answers."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8800
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    deny_style: Literal["fallback", "error"] = "fallback"
    """What a client sees of a kernel that it may not have: an empty build list, or a 404."""
    public_url: str = ""
    """Address that clients use, where a proxy stands before the mirror."""
    send_file: Literal["pathsend", "stream", "xaccel"] = "pathsend"
    """Who moves whole files: the server, this process, or nginx in front (deploy/nginx)."""
    tokens: bool = False
    """Whether clients need a token (`kgate token create`)."""
    anonymous: tuple[Anonymous, ...] = ()
    """What callers without a token see all the same."""
    shim_required: tuple[str, ...] = ()
    """Lanes that show kernels only to clients beside which the shim runs."""
    reports: Reports | None = None
    """Takes pods' reports, where given."""
    tls: Tls | None = None
    kept: Path | None = Path("kgate-data/served")
    """Folder in which the server keeps what it served, to start from while the database is down."""

    @model_validator(mode="after")
    def _anonymous_needs_tokens(self) -> Serve:
        if self.anonymous and not self.tokens:
            raise ValueError("anonymous: without tokens everybody sees everything")
        return self


def serve_settings(
    serve: Serve,
    models: Models | None,
    path: Callable[[Path], Path],
    *,
    database: str,
    store: Path,
    trust: Path,
    lane: str,
) -> ServeSettings:
    """Return the server's settings; `path` makes the file's relative paths absolute."""
    return ServeSettings(
        database=database,
        store=store,
        trust=trust,
        lane=lane,
        host=serve.host,
        port=serve.port,
        workers=serve.workers,
        deny_style=DenyStyle(serve.deny_style),
        send_file=SendFile(serve.send_file),
        access=AccessSettings(
            serve.tokens, tuple(Grant(item.repos, item.lanes) for item in serve.anonymous)
        ),
        marked_lanes=frozenset(serve.shim_required),
        public_url=serve.public_url.rstrip("/"),
        delegate=None
        if models is None or models.delegate is None
        else DelegateSettings(
            models.delegate.rstrip("/"),
            path(models.token_file) if models.token_file else None,
            models.forward_credentials,
            frozenset(models.strict_lanes),
            models.code_allowed,
        ),
        reports=path(serve.reports.folder) if serve.reports else None,
        alert_after=serve.reports.alert_after_seconds if serve.reports else 0.0,
        tls=TlsFiles(path(serve.tls.certificate), path(serve.tls.key)) if serve.tls else None,
        kept=path(serve.kept) if serve.kept else None,
    )
