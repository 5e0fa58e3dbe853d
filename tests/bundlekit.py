"""Two sites for tests of bundles: a connected one that has synced, and an island without anything.

`World.make` copies a template that is built once for a test run; every test changes its own copy.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kgate_mirror_server.bundle.exporting import Exported, Wish, export, plan_bundle
from kgate_mirror_server.bundle.importing import Imported, import_bundle
from kgate_mirror_server.bundle.senders import pin_sender
from tests.sitekit import CONNECTED, ISLAND, Site, built_kernels, time_now

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from kgate_mirror_server.bundle.receipts import Receipt

PART = 256 * 1024  # bytes; the kernel below takes six parts, its large file is cut
LARGE = 1_200_000  # bytes of the kernel's large file


def silent(_said: object) -> None:
    """Nobody asked for progress."""


@dataclass(frozen=True)
class World:
    """Both sites and the folder that is carried between them."""

    connected: Site
    island: Site
    disc: Path

    @classmethod
    def template(cls, folder: Path) -> World:
        """Found both sites, admit the kernel at the first and introduce it to the second."""
        connected = Site.found(folder / "connected", CONNECTED, kernels=built_kernels(folder / "c"))
        connected.add_file("table.bin", os.urandom(LARGE))
        result = connected.sync()
        assert (result.approved, result.denied, result.failures) == (1, 0, [])
        island = Site.found(folder / "island", ISLAND)
        pin_sender(island.folder / "trust", connected.root.read_bytes())
        return cls(connected, island, folder / "disc")

    def copy(self, folder: Path) -> World:
        """Return the same world in another folder."""
        for site in (self.connected, self.island):
            shutil.copytree(site.folder, folder / site.folder.name)
        return World(Site(folder / "connected"), Site(folder / "island"), folder / "disc")

    def export(
        self,
        disc: Path | None = None,
        *,
        receipt: Receipt | None = None,
        part_size: int = PART,
        now: datetime | None = None,
    ) -> Exported:
        """Write a bundle to the disc."""
        mirror = self.connected.mirror()
        try:
            wish = Wish(part_size, lambda _item: True, receipt)
            plan = plan_bundle(mirror, wish, now or time_now())
            return export(mirror, plan, disc or self.disc, silent, silent)
        finally:
            mirror.close()

    def bring(
        self, *places: Path, now: datetime | None = None, lane: str | None = None
    ) -> Imported:
        """Take the disc in at the island."""
        mirror = self.island.mirror()
        try:
            return import_bundle(
                mirror,
                places or (self.disc,),
                now or time_now(),
                lane=lane,
                progress=silent,
                tell=silent,
            )
        finally:
            mirror.close()


def parts(disc: Path) -> list[Path]:
    """Return the part files on a disc, in order."""
    return sorted(disc.glob("*.tar"))


def flip(path: Path, position: int) -> None:
    """Change one byte of a file."""
    with path.open("r+b") as stream:
        stream.seek(position)
        byte = stream.read(1)[0]
        stream.seek(position)
        stream.write(bytes([byte ^ 1]))
