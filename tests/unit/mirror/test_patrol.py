from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from kgate_core.digest import Digest
from kgate_mirror_server.serve.blobguard import BlobGuard
from kgate_mirror_server.serve.patrol import Patrol
from kgate_mirror_server.serve.settings import PatrolSettings
from tests.asgi import ask
from tests.mirrorkit import FILES, REPO, make_mirror

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.mirrorkit import MirrorKit

FAST = PatrolSettings(7, 10**9)
BYTES = FILES["layers.py"]
ADDRESS = f"/kernels/{REPO}/resolve/v1/build/torch-cpu/layers.py"


@pytest.fixture
def kit(tmp_path: Path) -> MirrorKit:
    made = make_mirror(tmp_path)
    made.publish()
    return made


def rot(kit: MirrorKit, digest: Digest) -> None:
    """Change one byte as a disk does: the file's times and size stay."""
    path = kit.store.path(digest)
    seen = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as stream:
        stream.write(b"X")
    path.chmod(0o444)
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))


def patrol(
    kit: MirrorKit,
    guard: BlobGuard,
    repair: Callable[[Digest], str | None] | None = None,
    settings: PatrolSettings = FAST,
) -> Patrol:
    return Patrol(kit.settings.store, kit.store, guard, settings, repair)


def test_t15_bit_rot_is_withdrawn_while_the_server_runs(kit: MirrorKit) -> None:
    app = kit.app()
    assert app.guard is not None
    assert ask(app, ADDRESS).status == 200
    rot(kit, Digest.of(BYTES))
    assert patrol(kit, app.guard).round() == 1
    app.turn(1.0)
    assert ask(app, ADDRESS).status == 404
    assert (kit.settings.store / "damaged" / Digest.of(BYTES).hex).exists()


def test_t15_what_can_be_had_again_is_served_again(kit: MirrorKit) -> None:
    app = kit.app()
    assert app.guard is not None

    def repair(digest: Digest) -> str | None:
        kit.store.put(digest, len(BYTES), [BYTES])
        return None

    rot(kit, Digest.of(BYTES))
    assert patrol(kit, app.guard, repair).round() == 1
    app.turn(1.0)
    assert ask(app, ADDRESS).status == 200


def test_a_round_is_read_once_and_by_one_process(kit: MirrorKit) -> None:
    guard = BlobGuard(kit.store)
    assert patrol(kit, guard).round() == 0
    assert patrol(kit, guard).round() is None, "the next one is due in a week"
    week_ago = time.time() - 8 * 86_400
    os.utime(kit.settings.store / ".patrolled", (week_ago, week_ago))
    assert patrol(kit, guard).round() == 0


def test_reading_is_no_faster_than_asked_for(kit: MirrorKit) -> None:
    total = sum(kit.store.path(digest).stat().st_size for digest in kit.store.digests())
    began = time.monotonic()
    patrol(kit, BlobGuard(kit.store), settings=PatrolSettings(7, total * 5)).round()
    assert time.monotonic() - began >= 0.15
