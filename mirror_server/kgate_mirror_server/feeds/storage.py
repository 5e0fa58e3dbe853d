"""The snapshot of all feeds as one file, replaced whole and never half."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgate_core.errors import KgateError
from kgate_mirror_server.trust.files import replace_file
from kgate_scanner.advisories.snapshot import Snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_core.digest import Digest
    from kgate_mirror_server.app import Mirror


def read_snapshot(path: Path) -> Snapshot:
    """Read the snapshot, an empty one if nothing was imported; raises InvalidInput, KgateError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Snapshot()
    except OSError as exc:
        raise KgateError(f"{path}: cannot be read ({exc.strerror})") from exc
    return Snapshot.parse(data)


def keep_snapshot(mirror: Mirror, snapshot: Snapshot) -> Digest:
    """Write the snapshot, and keep it in the store so that decisions can name it for ever."""
    path = mirror.config.path(mirror.config.feeds.snapshot)
    data = snapshot.to_bytes()
    digest = mirror.room.keep(data)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise KgateError(f"{path.parent}: cannot be made ({exc.strerror})") from exc
    replace_file(path, data)
    mirror.__dict__.pop("feed", None)  # it may have been read before
    return digest
