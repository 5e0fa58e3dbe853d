"""A site from a backup, into an empty place: everything is verified before anything is written.

1. The backup's seal, against the timestamp keys of the trust documents in it, and these against
   the root that a person names (without one: against the backup's own, and that is said).
2. The digest of every file, no file more, no file less.
3. The publication log up to its signed head, the audit log up to its head.
4. The place is empty: no trust documents, no rows.
Then blobs, rows and documents are written, the timestamp last. Its version jumps over all that may
have been signed since the backup, so that no pod sees versions go back (T30). What was published,
revoked or changed after the backup is not in it: nobody else knows it either.
"""

from __future__ import annotations

import json
import tarfile
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kgate_core import strictjson
from kgate_core.clock import read_time
from kgate_core.digest import Digest
from kgate_core.errors import Conflict, IntegrityError, InvalidInput, KgateError, TrustError
from kgate_core.tuf import Metadata
from kgate_mirror_server.bundle.sealed import Sealed
from kgate_mirror_server.catalog.audit import Head, check_chain
from kgate_mirror_server.settings.site import FILE_NAME
from kgate_mirror_server.trust.audithead import read_head, timestamp_keys
from kgate_mirror_server.trust.files import read_pinned, read_trust, replace_file, write_trust
from kgate_mirror_server.trust.publicationlog import PublicationLog
from kgate_mirror_server.upkeep.backup import CATALOG, KIND
from kgate_mirror_server.upkeep.dump import is_empty, load
from kgate_signer.publog import head_of, read_log
from kgate_signer.trustwriter import refresh_timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from kgate_mirror_server.app import Mirror

_CHUNK: Final = 1024 * 1024  # bytes per read
_MARGIN: Final = 1_000  # versions that may have been signed in the second of the backup


@dataclass(frozen=True, slots=True)
class Opened:
    """A verified backup in a folder."""

    folder: Path
    created: datetime
    site: str
    root: Digest
    """Of the pinned root that it verifies against."""
    blobs: dict[Digest, int]
    with_blobs: bool


@dataclass(frozen=True, slots=True)
class Restored:
    """What came back."""

    publications: int
    blobs: int
    missing: tuple[Digest, ...]
    """Blobs that publications need and that are neither in the backup nor in the store."""


@contextmanager
def open_backup(source: Path, root: bytes | None) -> Iterator[Opened]:
    """Give a backup after the first three checks; raises KgateError."""
    if source.is_dir():
        yield _verify(source, root)
        return
    with tempfile.TemporaryDirectory(prefix="kgate-restore-") as scratch:
        try:
            with tarfile.open(source) as archive:
                archive.extractall(scratch, filter="data")
        except (OSError, tarfile.TarError) as exc:
            raise InvalidInput(f"{source}: is no backup that can be read ({exc})") from exc
        yield _verify(Path(scratch), root)


def place_site(opened: Opened, folder: Path) -> None:
    """Write configuration, lock and policies; a file that is there must be the same.

    Raises Conflict if another kgate.yaml than the backup's is there and names another site.
    """
    for path in sorted((opened.folder / "site").rglob("*")):
        if not path.is_file():
            continue
        target = folder / path.relative_to(opened.folder / "site")
        if target.exists():
            continue  # a person put it there, such as a kgate.yaml with another database
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, path.read_bytes())
    if not (folder / FILE_NAME).exists():
        raise InvalidInput("the backup has no kgate.yaml")


def restore(
    mirror: Mirror, opened: Opened, now: datetime, *, tell: Callable[[str], None]
) -> Restored:
    """Do the rest; raises Conflict if the place is not empty, TrustError without the keys."""
    config = mirror.config
    if config.site != opened.site:
        raise Conflict(f"kgate.yaml says site {config.site}, the backup is of {opened.site}")
    trust = config.path(config.trust)
    if trust.exists() and any(trust.iterdir()):
        raise Conflict(
            f"{trust} is not empty",
            hint="a backup goes into an empty place; to fill an empty database only, `kgate"
            " rebuild --from` the store",
        )
    if not is_empty(mirror.catalog.engine):
        raise Conflict("the database is not empty", hint="a backup goes into an empty one only")
    key = mirror.key(config.keys.timestamp)
    documents = read_trust(opened.folder / "trust")
    version = Metadata.parse(documents.timestamp, "timestamp").version
    # A server signs once a minute, a command a few times: never as much as this.
    later = max(int((now - opened.created).total_seconds()), 0) + _MARGIN
    log = PublicationLog(opened.folder / "trust").bundles()
    fresh = refresh_timestamp(
        documents,
        key,
        now=now,
        log_head=head_of(log[-1]) if log else "",
        at_least=version + later,
    )
    count = 0
    for digest, size in opened.blobs.items() if opened.with_blobs else ():
        path = opened.folder / "blobs" / digest.hex
        with path.open("rb") as stream:
            mirror.store.put(digest, size, iter(lambda: stream.read(_CHUNK), b""))  # read at once
        count += 1
    tell(f"{count} blobs")
    with (opened.folder / CATALOG).open("rb") as stream:
        load(mirror.catalog.engine, iter(stream), later=later)
    trust.mkdir(parents=True, exist_ok=True)
    for path in sorted((opened.folder / "trust").rglob("*")):
        if path.is_file() and path.name != "timestamp.json":
            target = trust / path.relative_to(opened.folder / "trust")
            target.parent.mkdir(parents=True, exist_ok=True)
            replace_file(target, path.read_bytes())
    write_trust(trust, fresh)
    missing = tuple(digest for digest in opened.blobs if not mirror.store.has(digest))
    return Restored(len(mirror.catalog.publications()), count, missing)


def _verify(folder: Path, root: bytes | None) -> Opened:
    try:
        sealed = Sealed.parse((folder / KIND.name).read_bytes(), KIND)
        pinned = read_pinned(folder / "trust")
    except OSError as exc:
        raise InvalidInput(f"{folder}: is no backup ({exc.strerror})") from exc
    # 1. Whose it is.
    if root is not None and root != pinned:
        raise TrustError(
            "the backup is of a site with another root",
            hint="compare the root that pods pin with trust/root.json of the backup",
        )
    documents = read_trust(folder / "trust")
    if documents.roots[0] != pinned:
        raise TrustError("the backup's 1.root.json is not its pinned root.json")
    sealed.check(timestamp_keys(folder / "trust").get)
    document = sealed.document
    created = read_time(strictjson.take(document, "created", str, what=KIND.name), what=KIND.name)
    trusted = documents.load(created)
    # 2. That it is whole.
    files = strictjson.take(document, "files", dict, what=KIND.name)
    blobs = {
        Digest.parse(name): size
        for name, size in strictjson.take(document, "blobs", dict, what=KIND.name).items()
    }
    with_blobs = strictjson.take(document, "withBlobs", bool, what=KIND.name)
    _check_files(folder, files, {digest.hex for digest in blobs} if with_blobs else set())
    # 3. That the logs hang together.
    bundles = PublicationLog(folder / "trust").bundles()
    heads = [head_of(data) for data in bundles]
    shown = heads.index(trusted.log_head) + 1 if trusted.log_head in heads else 0
    keys = {hint: key.public for hint, key in trusted.keys.items()}
    read_log(bundles[:shown], trusted.log_head, keys)
    head = strictjson.take(document, "auditHead", dict, what=KIND.name)
    anchors = [Head(head["sequence"], head["digest"])]
    if (signed := read_head(folder / "trust")) is not None:
        anchors.append(signed)
    check_chain(_audit(folder), anchors)
    return Opened(folder, created, trusted.site, Digest.of(pinned), blobs, with_blobs)


def _check_files(folder: Path, files: dict[str, Any], blobs: set[str]) -> None:
    for name, entry in files.items():
        path = folder / name
        if ".." in Path(name).parts or not path.is_file():
            raise IntegrityError(f"the backup lacks {name}", hint="take another copy of it")
        with path.open("rb") as stream:
            digest = Digest.of_chunks(iter(lambda: stream.read(_CHUNK), b""))  # at once
        if str(digest) != entry["digest"]:
            raise IntegrityError(
                f"{name} in the backup is not what was written",
                hint="it was changed or damaged: take another copy of it",
            )
    expected = {*files, KIND.name, *(f"blobs/{name}" for name in blobs)}
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    if found != expected:
        odd = min(found ^ expected)
        what = "holds a file that is not listed" if odd in found else "lacks"
        raise IntegrityError(f"the backup {what}: {odd}")


def _audit(folder: Path) -> Iterator[tuple[bytes, str]]:
    with (folder / CATALOG).open("rb") as stream:
        rows = [
            item["row"] for line in stream if (item := json.loads(line)).get("table") == "audit"
        ]
    for row in sorted(rows, key=lambda one: one["sequence"]):
        try:
            yield row["entry"].encode(), row["digest"]
        except KeyError as exc:
            raise KgateError(f"{CATALOG}: a row of the audit log lacks {exc}") from exc
