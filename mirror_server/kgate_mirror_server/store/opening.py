"""Opens the store that kgate.yaml names: a folder, or an object store with its local copies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kgate_core.errors import InvalidInput, TrustError
from kgate_mirror_server.settings.storing import is_remote
from kgate_mirror_server.store.blobcache import BlobCache
from kgate_mirror_server.store.disk import DiskStore
from kgate_mirror_server.store.objects import ObjectStore
from kgate_mirror_server.store.occupancy import OccupiedStore
from kgate_mirror_server.store.remote import Place, Remote

if TYPE_CHECKING:
    from kgate_mirror_server.catalog.claims import Claims
    from kgate_mirror_server.settings.site import Config
    from kgate_mirror_server.store.tending import Readable


@dataclass(frozen=True, slots=True)
class ObjectPlace:
    """An object store, and the local copies that are kept of it."""

    place: Place
    cache: Path
    cache_size: int
    """Bytes."""
    stream: bool = False
    """Large files are served without a local copy."""

    def open(self, claims: Claims | None = None) -> ObjectStore:
        """Open it; raises InvalidInput, KgateError if the local folder cannot be used."""
        return ObjectStore(
            Remote(self.place), BlobCache(self.cache, self.cache_size), claims, stream=self.stream
        )


def object_place(config: Config, url: str = "") -> ObjectPlace | None:
    """Return where the configured objects are, or those of another URL; None for a folder.

    Raises TrustError if the file with the credentials cannot be read.
    """
    url = url or config.store
    if not is_remote(url):
        return None
    named = config.object_store
    credentials = {} if named.credentials is None else _read(config.path(named.credentials))
    place = Place(url, named.endpoint, named.region, credentials, named.path_style)
    return ObjectPlace(place, config.path(named.cache), named.cache_size, named.stream)


def open_store(config: Config, claims: Claims) -> OccupiedStore | ObjectStore:
    """Open the site's store; nobody removes from it before it is closed."""
    place = object_place(config)
    if place is None:
        return OccupiedStore(config.path(config.store), claims)
    return place.open(claims)


def open_other(config: Config, source: str) -> Readable:
    """Open another store to read from: a folder, or a bucket reached as the site's own."""
    place = object_place(config, source) if is_remote(source) else None
    return DiskStore(Path(source).absolute()) if place is None else place.open()


def local_folder(config: Config) -> Path:
    """Return the folder of this machine for what is on its way into the store."""
    place = config.object_store.cache if is_remote(config.store) else config.store
    return config.path(place)


def _read(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise TrustError(f"object_store.credentials: {path} cannot be read") from exc
    found = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidInput(
                f"{path}, line {number}: not NAME=value", hint="such as AWS_ACCESS_KEY_ID=…"
            )
        found[name.strip()] = value.strip().strip('"')
    return found
