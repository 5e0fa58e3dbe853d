"""The trust documents of a site as files in one folder, replaced whole and never half.

Layout: `1.root.json`, `2.root.json`, …, `timestamp.json`, `snapshot.json`, `targets.json`, and
`root.json`, a copy of the first root for pods to pin. What the documents say is not looked at.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from kgate_core.errors import KgateError, TrustError
from kgate_core.tuf import Metadata
from kgate_signer.trustwriter import TrustSet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PINNED: Final = "root.json"


def read_trust(folder: Path) -> TrustSet:
    """Read all documents; raises TrustError saying how to make them if they are not there."""
    try:
        files = {
            path.name: path.read_bytes() for path in folder.glob("*.json") if path.name != PINNED
        }
    except OSError as exc:
        raise TrustError(f"{folder}: cannot be read ({exc.strerror})") from exc
    if not files:
        raise TrustError(
            f"there are no trust documents in {folder}", hint="make them with `kgate init`"
        )
    return TrustSet.from_files(files)


def read_pinned(folder: Path) -> bytes:
    """Read the pinned root; raises TrustError."""
    try:
        return (folder / PINNED).read_bytes()
    except OSError as exc:
        raise TrustError(
            f"{folder / PINNED}: cannot be read ({exc.strerror})",
            hint="make it with `kgate init`, or restore it from a backup",
        ) from exc


@contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Hold the folder while documents are read, changed and written back.

    A server signs the timestamp every minute: without this it could write back documents that it
    read just before somebody signed a revocation. Open private keys before, a person may have to
    be asked for them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise KgateError(f"{folder}: cannot be written ({exc.strerror})") from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def adopt_timestamp(folder: Path, trust: TrustSet) -> None:
    """Write the timestamp of `trust` if it is newer and about the documents that are here."""
    with changing(folder):
        here = read_trust(folder)
        same = (here.snapshot, here.targets) == (trust.snapshot, trust.targets)
        if same and _version(trust.timestamp) > _version(here.timestamp):
            replace_file(folder / "timestamp.json", trust.timestamp)


def _version(timestamp: bytes) -> int:
    return Metadata.parse(timestamp, "timestamp").version


def write_trust(folder: Path, trust: TrustSet) -> None:
    """Write all documents, the timestamp last: until then readers see the former state."""
    folder.mkdir(parents=True, exist_ok=True)
    files = trust.files
    last = files.pop("timestamp.json")
    for name, data in files.items():
        replace_file(folder / name, data)
    if not (folder / PINNED).exists():
        replace_file(folder / PINNED, trust.roots[0])
    replace_file(folder / "timestamp.json", last)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; raises KgateError if the disk refuses."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.exists() and path.read_bytes() == data:
            return
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        raise KgateError(
            f"{path}: cannot be written ({exc.strerror})", hint="check space and permissions"
        ) from exc
