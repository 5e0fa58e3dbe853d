"""Write a bundle: plan it, sign the plan, stream the parts from the store to where they go.

No byte is copied anywhere else first, and every byte is compared with its digest on the way. Parts
can be written again one by one from the same signed plan. What the far side makes of it is its own
decision.
"""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from kgate_core.clock import write_time
from kgate_core.digest import Digest
from kgate_core.errors import Conflict, KgateError, NotFound, TrustError
from kgate_mirror_server.bundle.contents import Contents, LeftOut, gather
from kgate_mirror_server.bundle.document import BUNDLE, BundleDocument
from kgate_mirror_server.bundle.layout import BLOCK
from kgate_mirror_server.bundle.packing import pack
from kgate_mirror_server.bundle.receipts import Receipt, held_blobs, manifests_of
from kgate_mirror_server.bundle.sealed import Sealed, seal, sealed_size
from kgate_mirror_server.bundle.writing import Cuts, write_files
from kgate_mirror_server.store.copying import NewFile
from kgate_mirror_server.trust.files import adopt_timestamp, read_trust
from kgate_mirror_server.trust.withheld import with_withheld
from kgate_signer.trustwriter import refresh_timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from kgate_core.trust import TrustedRoot
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.bundle.layout import Entry
    from kgate_mirror_server.ingest.fetch import Progress
    from kgate_mirror_server.ports import BlobStore, Publication
    from kgate_signer.keys import KeyProvider
    from kgate_signer.trustwriter import TrustSet

_MODE: Final = 0o644
PATTERN: Final = "kgate-bundle-*.tar"


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person wants in a bundle."""

    part_size: int
    """Bytes that no part exceeds."""
    wanted: Callable[[Publication], bool]
    receipt: Receipt | None = None
    """What the receiver holds; None sends everything."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A bundle before it is signed: all of its sizes are final."""

    document: BundleDocument
    document_size: int
    contents: Contents
    trust: TrustSet
    """With the timestamp that travels."""

    @property
    def part_sizes(self) -> tuple[int, ...]:
        """Exact size of each part in bytes."""
        return tuple(
            self.document.part_size(part, self.document_size)
            for part in range(len(self.document.parts))
        )

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """What does not travel although it is published."""
        return self.contents.left_out


@dataclass(frozen=True, slots=True)
class Exported:
    """A bundle as it was written."""

    plan: Plan
    digest: Digest
    files: tuple[Path, ...]
    record: Receipt
    """What its receiver will hold: the base of the next one if no receipt ever comes back."""


def plan_bundle(mirror: Mirror, wish: Wish, now: datetime, *, dry: bool = False) -> Plan:
    """Return what a bundle would be, with the exact size of every part; writes no part.

    With `dry` nothing at all is written, and the plan cannot be exported. Raises TrustError if
    this site's trust metadata or timestamp key cannot be used.
    """
    folder = mirror.config.path(mirror.config.trust)
    trust = refresh_timestamp(read_trust(folder), mirror.key(mirror.config.keys.timestamp), now=now)
    mirror.trusted(now)  # the pinned root is the first of these documents
    trusted = with_withheld(trust.load(now), folder)
    contents = gather(
        mirror, trust, trusted, wish.wanted, Digest.of if dry else mirror.room.keep, now
    )
    held = set() if wish.receipt is None else held_blobs(wish.receipt, contents, mirror.room)
    document = pack(
        BundleDocument(
            trusted.site,
            trusted.versions.timestamp,
            now,
            tuple(item.document for item in contents.items),
            contents.policy,
            contents.head,
            (),
            None if wish.receipt is None else wish.receipt.base,
            contents.feed,
        ),
        contents.blobs(held),
        wish.part_size,
    )
    return Plan(document, sealed_size(document.to_json(), BUNDLE), contents, trust)


def export(
    mirror: Mirror, plan: Plan, folder: Path, progress: Progress, tell: Callable[[str], None]
) -> Exported:
    """Sign the plan and write its parts into a folder that holds no other bundle.

    Raises IntegrityError if a stored blob is damaged, KgateError if the disk cannot take it all.
    """
    _check_folder(folder, sum(plan.part_sizes))
    document = plan.document
    key = bundle_key(mirror, plan.trust.load(document.created), document.created)
    # The description stands first in every part and names the digests of all segments: its place
    # is left free until the one reading of the blobs has told them.
    room = bytes(plan.document_size)
    written: list[Unfinished] = []
    count = len(document.parts)
    with ExitStack() as leftovers, Cuts() as cuts:
        for part in range(count):
            tell(f"writing part {part + 1} of {count}")
            unfinished = Unfinished.of(document, part, folder)
            leftovers.callback(unfinished.remove)
            unfinished.write(mirror.store, document, room, progress, cuts)
            written.append(unfinished)
        document = replace(document, parts=_with_segments(document, cuts))
        sealed = seal(document.to_json(), BUNDLE, key)
        # Only now: a timestamp that travels must also be this site's own newest.
        adopt_timestamp(mirror.config.path(mirror.config.trust), plan.trust)
        files = [folder / f"kgate-bundle-{document.sequence}.json"]
        _write(files[0], sealed)
        files += [unfinished.finish(sealed) for unfinished in written]
    digest = Sealed.parse(sealed, BUNDLE).digest
    record = Receipt(
        document.site,
        document.site,
        document.sequence,
        digest,
        document.created,
        document.publications,
        manifests_of(plan.contents.items),
    )
    return Exported(replace(plan, document=document), digest, tuple(files), record)


def bundle_key(mirror: Mirror, trusted: TrustedRoot, now: datetime) -> KeyProvider:
    """Return the key that signs bundles; raises TrustError if no receiver would accept it."""
    key = mirror.key(mirror.config.keys.bundle or mirror.config.keys.admit)
    public = key.public_key()
    known = trusted.keys.get(public.hint)
    if known is None or public.keyid in trusted.revoked_keys:
        raise TrustError(
            f"the key {public.hint} signs bundles, but the trust metadata does not know it",
            hint="name a key of this site in keys.bundle, or leave it out to use keys.admit",
        )
    if not known.valid_from <= now < known.valid_until:
        raise TrustError(f"the key {public.hint} is valid until {write_time(known.valid_until)}")
    return key


def write_part(
    store: BlobStore,
    document: BundleDocument,
    sealed: bytes,
    part: int,
    folder: Path,
    progress: Progress,
) -> Path:
    """Write one part, counted from 0, whole or not at all; returns its file."""
    unfinished = Unfinished.of(document, part, folder)
    try:
        unfinished.write(store, document, sealed, progress)
        return unfinished.finish()
    finally:
        unfinished.remove()


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A part under another name until all of it is there."""

    part: int
    path: Path
    partial: Path

    @classmethod
    def of(cls, document: BundleDocument, part: int, folder: Path) -> Unfinished:
        """Return a part, counted from 0; nothing is written yet."""
        name = f"kgate-bundle-{document.sequence}-{part + 1:03}-of-{len(document.parts):03}.tar"
        return cls(part, folder / name, folder / f".{name}.partial")

    def write(
        self,
        store: BlobStore,
        document: BundleDocument,
        sealed: bytes,
        progress: Progress,
        cuts: Cuts | None = None,
    ) -> None:
        """Write everything; raises IntegrityError for a damaged blob, KgateError for the disk."""
        size = document.part_size(self.part, len(sealed))
        try:
            self.partial.unlink(missing_ok=True)
            with NewFile(self.partial, _MODE) as disc:
                files = document.place(self.part, len(sealed))
                write_files(disc, files, sealed, store, progress, cuts)
                written = disc.close()
        except OSError as exc:
            if exc.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                raise KgateError(
                    f"{self.path}: the disk is full; this part has {size} bytes",
                    hint="use a larger disc or a smaller --part-size",
                ) from exc
            raise self._refused(exc) from exc
        if written != size:
            raise AssertionError(f"part {self.part + 1} has {written} bytes, not {size}")

    def finish(self, sealed: bytes = b"") -> Path:
        """Put the description into its place, if it came late, and give the part its name."""
        try:
            if sealed:
                with self.partial.open("r+b") as disc:
                    disc.seek(BLOCK)
                    disc.write(sealed)
                    disc.flush()
                    os.fsync(disc.fileno())
            self.partial.replace(self.path)
        except OSError as exc:
            raise self._refused(exc) from exc
        return self.path

    def remove(self) -> None:
        """Take away what was not finished."""
        with suppress(OSError):
            self.partial.unlink(missing_ok=True)

    def _refused(self, exc: OSError) -> KgateError:
        return KgateError(f"{self.path}: cannot be written ({exc.strerror})")


def _with_segments(document: BundleDocument, cuts: Cuts) -> tuple[tuple[Entry, ...], ...]:
    """Return the parts with the digests of all segments."""
    return tuple(
        tuple(
            replace(entry, digest=cuts.found[entry.blob, entry.offset]) if entry.cut else entry
            for entry in part
        )
        for part in document.parts
    )


def _check_folder(folder: Path, size: int) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = sorted(path.name for path in folder.glob(PATTERN))
        free = shutil.disk_usage(folder).free
    except OSError as exc:
        raise KgateError(f"{folder}: cannot be used ({exc.strerror})") from exc
    if found:
        raise Conflict(
            f"{folder} holds {found[0]}",
            hint="parts of two bundles in one folder get mixed up: empty it or name another",
        )
    if free < size:
        raise KgateError(
            f"{folder} has {free} bytes free, the bundle needs {size}",
            hint="name a larger disk, or send less with --only or --since",
        )


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as exc:
        raise KgateError(f"{path}: cannot be written ({exc.strerror})") from exc


def write_again(
    mirror: Mirror, sealed: bytes, parts: Sequence[int], folder: Path, progress: Progress
) -> Iterator[Path]:
    """Write parts (counted from 1) of an earlier bundle anew from its signed `bundle.json`.

    Raises NotFound if the store no longer holds what was in it.
    """
    document = BundleDocument.from_json(Sealed.parse(sealed, BUNDLE).document)
    if document.site != mirror.config.site:
        raise Conflict(f"this bundle was made by {document.site}, not here")
    for part in parts:
        if not 1 <= part <= len(document.parts):
            raise NotFound(f"the bundle has parts 1 to {len(document.parts)}, not {part}")
        yield write_part(mirror.store, document, sealed, part - 1, folder, progress)
