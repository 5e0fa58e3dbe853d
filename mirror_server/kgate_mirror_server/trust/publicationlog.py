"""The publication log of a site as one file beside its trust documents: a signed entry a line.

The log follows the catalog: `record` compares the two and signs what is missing, so a crash
between a publication and its entry heals at the next run. The head goes out in the timestamp role;
a log that does not reach the head that was signed before was cut or swapped, and nothing is added
to it. What an entry says and how entries hang together is `kgate_signer.publog`'s.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from kgate_core import strictjson
from kgate_core.bundle import Bundle
from kgate_core.errors import IntegrityError, KgateError, TrustError
from kgate_core.statement import Statement
from kgate_core.trust import FIELD
from kgate_signer.publog import Entry, Published, all_heads, append, head_of, read_log

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from kgate_core.trust import TrustedRoot
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.ports import Publication

FILE_NAME: Final = "publications.jsonl"
LOCK_NAME: Final = ".publications.lock"
_TAIL: Final = 64 * 1024  # bytes that are looked at once for the end of the last whole line

_Branch = tuple[str, str, str, int]
_Served = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class PublicationLog:
    """The file; one process at a time adds to it."""

    folder: Path

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.folder / FILE_NAME

    def bundles(self) -> tuple[bytes, ...]:
        """Return all signed entries in order; an unfinished last line was never an entry."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return ()
        except OSError as exc:
            raise TrustError(f"{self.path}: cannot be read ({exc.strerror})") from exc
        return tuple(data.split(b"\n")[:-1])

    def add(self, bundle: bytes) -> None:
        """Append one signed entry and wait until it is on the disk; raises KgateError."""
        if b"\n" in bundle:
            raise AssertionError("a bundle is one line of canonical JSON")
        try:
            with self.path.open("a+b") as stream:
                # What a crash left unfinished must not become part of the next line.
                stream.truncate(_whole(stream))
                stream.write(bundle + b"\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as exc:
            raise KgateError(
                f"{self.path}: cannot be written ({exc.strerror})",
                hint="check space and permissions",
            ) from exc

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from adding meanwhile."""
        descriptor = os.open(self.folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _whole(stream: BinaryIO) -> int:
    """Return how many bytes of a file are whole lines, looking at its end only."""
    end = stream.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - _TAIL)
        stream.seek(start)
        last = stream.read(end - start).rfind(b"\n")
        if last >= 0:
            return start + last + 1
        end = start
    return 0


def log_of(mirror: Mirror) -> PublicationLog:
    """Return the log of a site."""
    return PublicationLog(mirror.config.path(mirror.config.trust))


def head_to_sign(mirror: Mirror, timestamp: bytes) -> str:
    """Return the head for the timestamp that follows this one.

    A log that lacks what was signed before is not vouched for: then the head stays as it was.
    """
    what = "timestamp.json"
    signed = strictjson.take(strictjson.loads(timestamp, what=what), "signed", dict, what=what)
    own = strictjson.take(signed, FIELD, dict, what=what)
    before = strictjson.take(own, "logHead", str, what=what)
    bundles = log_of(mirror).bundles()
    return head_of(bundles[-1]) if bundles and before in all_heads(bundles) else before


def record(mirror: Mirror, now: datetime) -> int:
    """Sign an entry for each publication that the log lacks, and return how many.

    Raises IntegrityError if entries that were signed before are gone.
    """
    log = log_of(mirror)
    publications = mirror.catalog.publications()
    if not publications:
        return 0
    with log.held():
        bundles = list(log.bundles())
        _check_reaches(bundles, mirror.trusted(now).log_head)
        missing = _missing(publications, bundles)
        for item in missing:
            bundle = append(
                bundles[-1] if bundles else None, _published(item, now), mirror.attestor.key
            )
            log.add(bundle)
            bundles.append(bundle)
    return len(missing)


def check_log(mirror: Mirror, trusted: TrustedRoot) -> tuple[Entry, ...]:
    """Return all entries up to the signed head, each verified; raises IntegrityError.

    Entries that were added after the last timestamp are left out: no pod was shown them yet.
    """
    bundles = log_of(mirror).bundles()
    _check_reaches(bundles, trusted.log_head)
    heads = [head_of(data) for data in bundles]
    shown = heads.index(trusted.log_head) + 1 if trusted.log_head in heads else 0
    keys = {hint: key.public for hint, key in trusted.keys.items()}
    return read_log(bundles[:shown], trusted.log_head, keys)


def _check_reaches(bundles: Sequence[bytes], head: str) -> None:
    if head not in all_heads(bundles):
        raise IntegrityError(
            f"{FILE_NAME} ({len(bundles)} entries) does not reach the head that was signed, {head}",
            hint="somebody cut or swapped it: restore the file from the backup of trust/",
        )


def _missing(publications: Sequence[Publication], bundles: Sequence[bytes]) -> list[Publication]:
    """Return what the log does not say yet, the oldest first."""
    branches: dict[_Branch, str] = {}
    known: set[_Served] = set()
    for data in bundles:
        said = Entry.from_statement(Statement.parse(Bundle.parse(data).envelope.payload)).published
        place = (str(said.repo_type), str(said.repo), said.lane)
        known.add((*place, str(said.served)))
        if said.version is not None:
            branches[*place, said.version] = str(said.served)
    found = []
    for item in sorted(publications, key=lambda one: one.published_at):
        place = (str(item.repo_type), str(item.repo), item.lane)
        served = str(item.served)
        if (*place, served) in known and (
            item.version is None or branches.get((*place, item.version)) == served
        ):
            continue
        found.append(item)
    return found


def _published(item: Publication, now: datetime) -> Published:
    return Published(
        item.origin,
        item.repo_type,
        item.repo,
        item.served,
        item.upstream,
        item.version,
        item.lane,
        {variant.variant: variant.manifest for variant in item.variants},
        now,
    )
