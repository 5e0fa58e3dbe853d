"""The part of `kgate.yaml` that says how the mirror serves, and the settings that follow from it.

Field names are what people write; `serve.settings` has the plain values that the server reads.
Nothing is opened here.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path  # pydantic reads it when the models are built
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kgate_mirror_server.serve.access import Grant
from kgate_mirror_server.serve.settings import (
    AccessSettings,
    AlarmSettings,
    DelegateSettings,
    DenyStyle,
    JwtSettings,
    Limits,
    OtlpSettings,
    PatrolSettings,
    SendFile,
    ServeSettings,
    TlsFiles,
)
from kgate_mirror_server.settings.keeping import Scrub  # noqa: TC001  # pydantic reads it

if TYPE_CHECKING:
    from collections.abc import Callable

    from kgate_mirror_server.events import Events
    from kgate_mirror_server.settings.models import Models
    from kgate_mirror_server.store.opening import ObjectPlace


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


class Account(_Strict):
    """Service accounts of a cluster, and what they see."""

    subject: str
    """Shell pattern over `system:serviceaccount:<namespace>:<name>`."""
    repos: Annotated[tuple[str, ...], Field(min_length=1)]
    """Patterns of repositories, such as `acme/*`."""
    lanes: tuple[str, ...] = ()
    """Lanes that they see; all if none is named."""


class Jwt(_Strict):
    """Kubernetes service-account tokens as credentials, checked without the network."""

    jwks: Path
    """File with the cluster's public keys (`kubectl get --raw /openid/v1/jwks`)."""
    issuer: Annotated[str, Field(min_length=1)]
    audience: Annotated[str, Field(min_length=1)] = "kgate"
    accounts: Annotated[tuple[Account, ...], Field(min_length=1)]


class Otlp(_Strict):
    """An OpenTelemetry collector that gets traces and metrics (extra `otel`)."""

    endpoint: Annotated[str, Field(pattern=r"^https?://[^/]+")]
    """Its OTLP/HTTP address, such as `http://collector:4318`."""
    service: Annotated[str, Field(min_length=1)] = "kgate"
    sampled: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Part of the requests that are traced."""
    seconds: Annotated[float, Field(gt=0, le=3600)] = 10.0
    """Time between two batches."""


class Bounds(_Strict):
    """What one client, or all together, may ask of a worker (T21)."""

    header_seconds: Annotated[float, Field(gt=0, le=300)] = 10.0
    """Time that a client may take for its request headers."""
    header_bytes: Annotated[int, Field(ge=8192, le=1048576)] = 65536
    """Bytes of request line and headers."""
    in_flight: Annotated[int, Field(ge=1, le=65536)] = 1024
    """Requests that a worker answers at once; more wait."""
    connections_per_address: Annotated[int, Field(ge=16, le=1048576)] = 1024
    """Connections that one address may hold to a worker; the longest silent are closed beyond."""
    connections: Annotated[int, Field(ge=64, le=1048576)] = 16_384
    """Connections to a worker, as far as the limit on open files allows."""
    backlog: Annotated[int, Field(ge=1, le=65536)] = 2048
    """Connections waiting to be accepted."""
    ranges: Annotated[int, Field(ge=1, le=1000)] = 16
    """Ranges in one request; with more, the whole file is sent."""
    requests_per_second: Annotated[float, Field(gt=0)] | None = 1000.0
    """Of one client address; more are answered 429. Not counted where nginx stands in front."""
    burst: Annotated[int, Field(ge=1)] = 10_000
    """Requests that one address may make at once."""


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
    jwt: Jwt | None = None
    """Service accounts that may call besides the holders of tokens."""
    limits: Bounds = Bounds()
    otlp: Otlp | None = None
    """A collector; without, nothing is sent anywhere."""
    request_log: bool = False
    """One JSON line on stderr for each request; costs the kept answers of the fast path."""
    shim_required: tuple[str, ...] = ()
    """Lanes that show kernels only to clients beside which the shim runs."""
    reports: Reports | None = None
    """Takes pods' reports, where given."""
    tls: Tls | None = None
    scrub: Scrub | None = None
    """Reads the store again in the background, where given."""
    kept: Path | None = Path("kgate-data/served")
    """Folder in which the server keeps what it served, to start from while the database is down."""

    @model_validator(mode="after")
    def _anonymous_needs_tokens(self) -> Serve:
        if self.anonymous and not self.tokens:
            raise ValueError("anonymous: without tokens everybody sees everything")
        if self.jwt is not None and not self.tokens:
            raise ValueError("jwt: without tokens: true nobody is asked for credentials")
        return self


def serve_settings(
    serve: Serve,
    models: Models | None,
    path: Callable[[Path], Path],
    *,
    database: str,
    store: Path,
    objects: ObjectPlace | None,
    trust: Path,
    lane: str,
) -> ServeSettings:
    """Return the server's settings; `path` makes the file's relative paths absolute."""
    return ServeSettings(
        database=database,
        store=store,
        objects=objects,
        trust=trust,
        lane=lane,
        host=serve.host,
        port=serve.port,
        workers=serve.workers,
        deny_style=DenyStyle(serve.deny_style),
        send_file=SendFile(serve.send_file),
        access=AccessSettings(
            serve.tokens,
            tuple(Grant(item.repos, item.lanes) for item in serve.anonymous),
            None if serve.jwt is None else _jwt(serve.jwt, path),
        ),
        limits=_limits(serve),
        otlp=OtlpSettings(**serve.otlp.model_dump()) if serve.otlp else None,
        request_log=serve.request_log,
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
        patrol=None
        if serve.scrub is None
        else PatrolSettings(serve.scrub.every_days, serve.scrub.rate),
        kept=path(serve.kept) if serve.kept else None,
    )


def _jwt(jwt: Jwt, path: Callable[[Path], Path]) -> JwtSettings:
    accounts = tuple((item.subject, Grant(item.repos, item.lanes)) for item in jwt.accounts)
    return JwtSettings(path(jwt.jwks), jwt.issuer, jwt.audience, accounts)


def _limits(serve: Serve) -> Limits:
    limits = Limits(**serve.limits.model_dump())
    # Behind nginx all clients have its address; deploy/nginx bounds them one by one.
    if SendFile(serve.send_file) is SendFile.XACCEL:
        limits = replace(
            limits, requests_per_second=None, connections_per_address=limits.connections
        )
    return limits


def alarm_settings(events: Events, site: str, path: Callable[[Path], Path]) -> AlarmSettings | None:
    """Return who hears of downloads that no pod reported; `path` as above."""
    if events.webhook_url is None:
        return None
    token = events.token_file
    return AlarmSettings(site, events.webhook_url, path(token) if token else None)
