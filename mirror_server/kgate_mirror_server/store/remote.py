"""One bucket and prefix of an object store, spoken to through obstore; its errors become ours.

Keys and bytes only: what they mean, and whether bytes are those of a digest, is `objects`' affair.
Requests that fail are repeated by obstore, for so long; credentials come from a file, or from the
environment as the cloud's own tools read it.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from kgate_core.errors import Conflict, InvalidInput, NotFound, UpstreamError
from kgate_mirror_server.store.tending import Seen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

RETRY: Final = timedelta(seconds=20)  # that a request may be repeated
RETRIES: Final = 4
TIMEOUT: Final = timedelta(seconds=60)  # of one request
PART: Final = 8 * 1024**2  # bytes of a part of a large object
_AT_ONCE: Final = 4  # parts on their way; with PART this bounds the memory of an upload


@dataclass(frozen=True, slots=True)
class Place:
    """Where an object store is and how it is reached."""

    url: str
    """`s3://bucket/prefix`, `gs://bucket/prefix` or `az://account/container/prefix`."""
    endpoint: str | None = None
    region: str | None = None
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    """As the environment would name them; empty: the environment's own."""
    path_style: bool = True


class Remote:
    """A bucket's prefix. Every method raises UpstreamError if the store does not answer."""

    def __init__(self, place: Place) -> None:
        """Prepare the connection; nothing is asked yet. Raises InvalidInput."""
        try:
            import obstore  # noqa: PLC0415  # an extra
            from obstore import store as kinds  # noqa: PLC0415  # an extra
        except ImportError as exc:
            raise InvalidInput(
                f"store: {place.url} needs the extra objectstore",
                hint="pip install 'kgate[objectstore]'",
            ) from exc
        self._obstore: Any = obstore
        open_url: Any = kinds.from_url
        self._what = place.url
        try:
            self._store: Any = open_url(
                place.url,
                config=_config(place),
                client_options={
                    "allow_http": (place.endpoint or "").startswith("http://"),
                    "timeout": TIMEOUT,
                },
                retry_config={"max_retries": RETRIES, "retry_timeout": RETRY},
            )
        except (obstore.exceptions.BaseError, ValueError) as exc:
            raise InvalidInput(f"store: {place.url} is not usable ({_first(exc)})") from exc

    @property
    def name(self) -> str:
        """The store's URL."""
        return self._what

    def head(self, key: str) -> Seen:
        """Return what is said about an object; raises NotFound."""
        with self._translated(key):
            return _seen(self._obstore.head(self._store, key))

    def put_file(self, key: str, path: Path) -> None:
        """Store a file under a key: all of it or nothing, in parts where it is large."""
        with self._translated(key):
            self._obstore.put(self._store, key, path, chunk_size=PART, max_concurrency=_AT_ONCE)

    def read(self, key: str, start: int, size: int, version: str | None = None) -> bytes:
        """Return bytes of an object, of that version only; raises NotFound, Conflict."""
        options: dict[str, Any] = {"range": (start, start + size)}
        if version:
            options["if_match"] = version
        with self._translated(key):
            return bytes(self._obstore.get(self._store, key, options=options).bytes())

    def stream(self, key: str) -> Iterator[bytes]:
        """Yield all bytes of an object; raises NotFound."""
        with self._translated(key):
            found = self._obstore.get(self._store, key)
            for chunk in found.stream(min_chunk_size=1024**2):
                yield bytes(chunk)

    def keys(self, prefix: str) -> Iterator[tuple[str, Seen]]:
        """Yield every key below a prefix."""
        with self._translated(prefix):
            for batch in self._obstore.list(self._store, prefix=prefix, chunk_size=1000):
                for item in batch:
                    yield item["path"], _seen(item)

    def delete(self, key: str) -> None:
        """Delete an object if it is there."""
        try:
            with self._translated(key):
                self._obstore.delete(self._store, key)
        except NotFound:
            pass  # some stores say so

    def move(self, key: str, target: str) -> None:
        """Copy an object under another key and delete it; raises NotFound."""
        with self._translated(key):
            self._obstore.copy(self._store, key, target)
            self._obstore.delete(self._store, key)

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        errors = self._obstore.exceptions
        try:
            yield
        except (errors.NotFoundError, FileNotFoundError) as exc:
            raise NotFound(f"{self._what} has no {key}") from exc
        except errors.PreconditionError as exc:
            raise Conflict(f"{self._what}: {key} was written again meanwhile") from exc
        except (errors.PermissionDeniedError, errors.UnauthenticatedError) as exc:
            raise UpstreamError(
                f"{self._what}: may not use {key}",
                hint="check the credentials, and what they allow on this bucket",
            ) from exc
        except (errors.BaseError, OSError) as exc:
            raise UpstreamError(
                f"{self._what}: {key}: {_first(exc)}",
                hint="check that the object store is up and reachable; nothing was lost",
            ) from exc


def _config(place: Place) -> dict[str, Any]:
    config: dict[str, Any] = {key.lower(): value for key, value in place.credentials.items()}
    scheme = place.url.partition("://")[0]
    if place.endpoint:
        name = {"s3": "aws_endpoint", "gs": "google_base_url", "az": "azure_endpoint"}[scheme]
        config[name] = place.endpoint
    if scheme == "s3":
        if place.region:
            config["aws_region"] = place.region
        config["aws_virtual_hosted_style_request"] = str(not place.path_style).lower()
        # The store checks what arrives: bytes were checked here, not on their way.
        config["aws_checksum_algorithm"] = "SHA256"
    return config


def _seen(meta: Mapping[str, Any]) -> Seen:
    return Seen(int(meta["size"]), meta["last_modified"], str(meta.get("e_tag") or ""))


def _first(exc: BaseException) -> str:
    return next(iter(str(exc).strip().splitlines()), type(exc).__name__)[:300]
