"""How the mirror serves: plain values, read once and passed down."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_mirror_server.serve.access import Grant
    from kgate_mirror_server.store.opening import ObjectPlace


class DenyStyle(StrEnum):
    """What a client sees of a kernel that it may not have."""

    FALLBACK = "fallback"
    """A repository without builds: unmodified clients run the PyTorch path."""
    ERROR = "error"
    """404: unmodified clients fail."""


class SendFile(StrEnum):
    """Who moves the bytes of whole files."""

    PATHSEND = "pathsend"
    """The ASGI server, if it offers to; else as `stream`."""
    STREAM = "stream"
    """This process, in chunks."""
    XACCEL = "xaccel"
    """nginx in front, told by X-Accel-Redirect (see deploy/nginx)."""


@dataclass(frozen=True, slots=True)
class JwtSettings:
    """Service accounts of a cluster that may call."""

    jwks: Path
    """File with the cluster's public keys."""
    issuer: str
    audience: str
    accounts: tuple[tuple[str, Grant], ...]
    """Pattern over `system:serviceaccount:<namespace>:<name>`, and what it may see."""


@dataclass(frozen=True, slots=True)
class AccessSettings:
    """Who may see what."""

    tokens: bool = False
    """Whether credentials are asked for at all; without, everybody sees everything."""
    anonymous: tuple[Grant, ...] = ()
    """What callers without credentials see, where credentials are asked for."""
    jwt: JwtSettings | None = None


@dataclass(frozen=True, slots=True)
class DelegateSettings:
    """Where model repositories come from that are not published here."""

    url: str
    """Address of a Hub or an Artifactory repository, without a trailing slash."""
    token_file: Path | None = None
    """File with the mirror's own token for that host."""
    forward_credentials: bool = False
    """Whether a client's Authorization header goes to that host; not where clients hold tokens of
    this mirror."""
    strict_lanes: frozenset[str] = frozenset({"production"})
    """Lanes in which model repositories may carry no code and no pickles."""
    code_allowed: tuple[str, ...] = ()
    """Patterns of repositories that may carry code all the same."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Certificate chain and private key in PEM; read again when they change."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class OtlpSettings:
    """An OpenTelemetry collector that gets traces and metrics."""

    endpoint: str
    """Its OTLP/HTTP address, such as `http://127.0.0.1:4318`."""
    service: str = "kgate"
    sampled: float = 1.0
    """Part of the requests that are traced, 0 to 1."""
    seconds: float = 10.0
    """Time between two batches."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client, or all together, may ask of a worker (T21)."""

    header_seconds: float = 10.0
    """Time that a client may take for its request headers."""
    header_bytes: int = 64 * 1024
    """Bytes of request line and headers."""
    in_flight: int = 1024
    """Requests being answered at once; more wait."""
    connections_per_address: int = 1024
    """Connections that one client address may hold; the longest silent are closed beyond it."""
    connections: int = 16_384
    """Connections of all clients, as far as the limit on open files allows; the longest silent of
    the address that holds the most are closed beyond nine tenths of it."""
    backlog: int = 2048
    """Connections waiting to be accepted."""
    ranges: int = 16
    """Ranges in one request; with more, the whole file is sent."""
    requests_per_second: float | None = None
    """Of one client address, over a longer time; None bounds nothing."""
    burst: int = 10_000
    """Requests that one address may make at once."""


@dataclass(frozen=True, slots=True)
class PatrolSettings:
    """How often and how fast the store is read again in the background."""

    every_days: float
    rate: int
    """Bytes read in a second."""


@dataclass(frozen=True, slots=True)
class AlarmSettings:
    """Who is told of downloads that no pod reported: `events:` of kgate.yaml."""

    site: str
    webhook_url: str
    token_file: Path | None = None


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """Everything that serving depends on."""

    database: str
    """URL of the catalog."""
    store: Path
    """Root folder of the blob store, or of what is kept here of an object store."""
    trust: Path
    """Folder of trust metadata."""
    lane: str
    """Lane of addresses without `/l/<lane>`."""
    objects: ObjectPlace | None = None
    """The object store that blobs come from; None: the folder."""
    host: str = "127.0.0.1"
    port: int = 8800
    workers: int = 1
    deny_style: DenyStyle = DenyStyle.FALLBACK
    send_file: SendFile = SendFile.PATHSEND
    access: AccessSettings = AccessSettings()
    marked_lanes: frozenset[str] = frozenset()
    """Lanes that show kernels only to clients beside which the pod's shim runs; it stops
    accidents, not liars."""
    public_url: str = ""
    """Address that clients use, without a trailing slash; empty: the one each request names."""
    delegate: DelegateSettings | None = None
    """Where models come from; None refuses those that are not published here."""
    reports: Path | None = None
    """Folder for what pods report; None takes no reports."""
    alert_after: float = 0.0
    """Seconds in which a download must be reported; 0 awaits none."""
    alarm: AlarmSettings | None = None
    """The webhook that hears of them; None: the log and the metrics only."""
    metrics: Path | None = None
    """Folder in which workers share their counters; the server makes one if it has several."""
    tls: TlsFiles | None = None
    limits: Limits = Limits()
    patrol: PatrolSettings | None = None
    """Reads the store again in the background; None leaves that to `kgate scrub`."""
    otlp: OtlpSettings | None = None
    """Where traces and metrics go; None sends nothing."""
    request_log: bool = False
    """Whether each request is a line on stderr."""
    kept: Path | None = None
    """Folder in which the server keeps what it served, to start from while the database is down."""
    poll_seconds: float = 1.0
    """Time between two looks at the catalog's generation."""
    refresh_seconds: float = 60.0
    """Time between two signatures of the timestamp role, where that is this process's task."""
    drain_seconds: int = 30
    """How long requests in flight may take after the server was told to stop."""
