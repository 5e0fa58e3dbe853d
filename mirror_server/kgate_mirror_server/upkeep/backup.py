"""A backup: everything of a site but its private keys, in one folder or one tar file.

Layout: `backup.json` (sealed by the timestamp key; names every file with its digest),
`catalog.jsonl`, `trust/…` (documents, publication log, audit head, pinned senders), `site/…`
(configuration, lock, policies, exceptions), `keys/*.pub.pem`, and with `blobs` the bytes under
`blobs/`, else only their list. Database passwords are taken out of the configuration.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import make_url

from kgate_core.clock import write_time
from kgate_core.digest import Digest
from kgate_core.errors import Conflict, KgateError
from kgate_mirror_server.bundle.sealed import Kind, seal
from kgate_mirror_server.settings.site import FILE_NAME, LOCK_NAME
from kgate_mirror_server.trust.files import replace_file
from kgate_mirror_server.trust.rolekeys import list_keys
from kgate_mirror_server.upkeep.dump import dump
from kgate_mirror_server.upkeep.references import blobs_of
from kgate_mirror_server.upkeep.shelf import shelve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from kgate_mirror_server.app import Mirror

KIND: Final = Kind("backup.json", "kgate.dev/backup/v1", "https://kgate.dev/backup/v1")
CATALOG: Final = "catalog.jsonl"
_SECRET: Final = b"PRIVATE KEY"
_CHUNK: Final = 1024 * 1024  # bytes per read


@dataclass(frozen=True, slots=True)
class BackedUp:
    """What a backup holds."""

    path: Path
    files: int
    blobs: int
    blob_bytes: int
    with_blobs: bool


def back_up(mirror: Mirror, target: Path, now: datetime, *, blobs: bool) -> BackedUp:
    """Write a backup to a new folder, or to a new file if the name ends in `.tar`.

    Raises Conflict if the target exists, KgateError if a file that would go in holds a private key
    or cannot be read. Nothing is left behind then.
    """
    if target.exists():
        raise Conflict(f"{target} exists", hint="a backup overwrites nothing: name a new place")
    folder = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        done = _write(mirror, folder, now, blobs=blobs)
        if target.suffix == ".tar":
            packed = folder.with_suffix(".packed")
            with tarfile.open(packed, "w") as archive:
                archive.add(folder, arcname="")
            packed.replace(target)
        else:
            folder.replace(target)
    except OSError as exc:
        raise KgateError(f"{target}: cannot be written ({exc.strerror})") from exc
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return BackedUp(target, *done, with_blobs=blobs)


def _write(mirror: Mirror, folder: Path, now: datetime, *, blobs: bool) -> tuple[int, int, int]:
    config = mirror.config
    key = mirror.key(config.keys.timestamp)
    mirror.audit.add("backup", {"blobs": blobs})
    folder.mkdir(parents=True, mode=0o700)
    # Heads and logs before the rows that they reach: a server signs on meanwhile.
    head = mirror.audit.head()
    for name, data in _documents(mirror, now):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data)
    publications = mirror.catalog.publications()
    for item in publications:
        shelve(mirror.store, item)
    with (folder / CATALOG).open("wb") as stream:
        stream.writelines(dump(mirror.catalog.engine))
    needed = {digest for item in publications for digest in blobs_of(item)}
    sizes = {digest: mirror.store.seen(digest).size for digest in sorted(needed)}
    for digest in sizes if blobs else ():
        _copy(mirror.store.path(digest), folder / "blobs" / digest.hex)
    files = {
        path.relative_to(folder).as_posix(): _entry(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent.name != "blobs"
    }
    document = {
        "schema": KIND.schema,
        "site": config.site,
        "created": write_time(now),
        "auditHead": {"sequence": head.sequence, "digest": head.digest},
        "files": files,
        "withBlobs": blobs,
        "blobs": {str(digest): size for digest, size in sizes.items()},
    }
    replace_file(folder / KIND.name, seal(document, KIND, key))
    return len(files), len(sizes), sum(sizes.values())


def _documents(mirror: Mirror, now: datetime) -> Iterator[tuple[str, bytes]]:
    config = mirror.config
    trust = config.path(config.trust)
    for path in sorted(trust.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            yield f"trust/{path.relative_to(trust).as_posix()}", _public(path)
    yield (
        f"site/{FILE_NAME}",
        _without_password(_public(config.folder / FILE_NAME), config.database),
    )
    wanted = [config.folder / LOCK_NAME, config.path(config.policy).parent]
    wanted += [
        config.path(config.exceptions),
        config.path("sent"),
        config.path(config.feeds.snapshot),
    ]
    seen: set[Path] = set()
    for place in wanted:
        paths = sorted(place.rglob("*")) if place.is_dir() else [place]
        for path in paths:
            if not path.is_file() or path in seen or not path.is_relative_to(config.folder):
                continue
            seen.add(path)
            yield f"site/{path.relative_to(config.folder).as_posix()}", _public(path)
    for known in list_keys(mirror, now):
        role = (known.roles or ("former",))[0].rpartition(": ")[2]
        yield f"keys/{role}-{known.public.keyid[:16]}.pub.pem", known.public.pem.encode("ascii")


def _public(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise KgateError(f"{path}: cannot be read ({exc.strerror})") from exc
    if _SECRET in data:
        raise KgateError(
            f"{path} holds a private key, and a backup never does",
            hint="keep private keys in a folder of their own, such as keys/",
        )
    return data


def _without_password(data: bytes, url: str) -> bytes:
    password = make_url(url).password
    return data.replace(str(password).encode(), b"***") if password else data


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    shutil.copyfile(source, target)


def _entry(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        digest = Digest.of_chunks(iter(lambda: stream.read(_CHUNK), b""))
    return {"digest": str(digest), "size": path.stat().st_size}
