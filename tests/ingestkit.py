"""A whole site in a temporary folder, for tests of what comes in: config, keys, trust, store."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from kgate_mirror_server.app import Mirror
from kgate_mirror_server.ingest.resolve import read_lock
from kgate_mirror_server.ingest.sync import new_source, sync, update_lock
from kgate_mirror_server.settings.site import LOCK_NAME, load_config
from kgate_mirror_server.trust.files import replace_file
from kgate_mirror_server.trust.founding import Founding, found_site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kgate_core.lock import Lock
    from kgate_mirror_server.ingest.sync import SyncResult


@dataclass
class Site:
    """A founded site whose pins a test writes."""

    folder: Path

    @property
    def config_path(self) -> Path:
        return self.folder / "kgate.yaml"

    def pin(self, *pins: str) -> None:
        """Replace the pins; each is written like `repo: acme/relu, version: 1`."""
        text = self.config_path.read_text(encoding="utf-8")
        head = text.partition("\nkernels:")[0]
        tail = text[text.index("\nsite:") :]
        lines = "".join(f"  - {{{pin}}}\n" for pin in pins)
        self.config_path.write_text(f"{head}\nkernels:\n{lines}{tail}", encoding="utf-8")

    @contextmanager
    def mirror(self) -> Iterator[Mirror]:
        mirror = Mirror(load_config(self.config_path))
        try:
            yield mirror
        finally:
            mirror.close()

    def lock(self, *, upgrade: bool = False) -> Lock:
        """Do what `kgate lock` does."""
        with self.mirror() as mirror:
            lock = update_lock(
                mirror,
                read_lock(self.folder),
                new_source(mirror, lambda _count: None),
                upgrade=lambda _pin: upgrade,
                tell=lambda _text: None,
            )
        replace_file(self.folder / LOCK_NAME, lock.to_bytes())
        return lock

    def sync(self) -> SyncResult:
        """Do what `kgate sync` does with the lock that is there, locking first if there is none."""
        lock = read_lock(self.folder) or self.lock()
        with self.mirror() as mirror:
            source = new_source(mirror, lambda _count: None)
            return sync(mirror, lock, source, now(), tell=lambda _text: None)

    def stored(self) -> set[str]:
        """Return the digests of all blobs in hex."""
        blobs = self.folder / "kgate-data" / "blobs"
        return {path.name for path in blobs.rglob("*") if path.is_file()}


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def make_site(folder: Path, upstream: str) -> Site:
    """Found a site without passphrases."""
    found_site(folder, Founding(upstream=upstream, site="https://kgate.test"), now())
    return Site(folder)
