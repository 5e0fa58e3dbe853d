"""A mirror for tests: kernels published as `kgate sync` would, and served on an ephemeral port.

`MirrorKit` signs with the test trust of `trustkit`, stores blobs on disk and publishes into a real
catalog; `served` runs the real server in a process of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import socket
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kgate_core.digest import Digest
from kgate_core.kernel import WHOLE, KernelId, KernelRef, RepoType, Revision
from kgate_mirror_server.catalog.sql import SqlCatalog
from kgate_mirror_server.ports import (
    Denial,
    EvidenceKind,
    Publication,
    PublishedVariant,
    ServedFile,
)
from kgate_mirror_server.serve import gitids
from kgate_mirror_server.serve.app import create_app
from kgate_mirror_server.serve.settings import ServeSettings
from kgate_mirror_server.store.disk import DiskStore
from kgate_mirror_server.trust.files import write_trust
from tests.trustkit import EXPERIMENTAL, ORIGIN, TrustKit, make_trust, manifest_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from kgate_mirror_server.serve.access import Access
    from kgate_mirror_server.serve.app import ServeApp

REPO = KernelRef("acme", "relu")
VARIANT = "torch-cpu"
START_TIMEOUT = 60  # seconds until the server must answer; a busy machine takes long to start it


def commit_of(text: str) -> Revision:
    """Return a made-up commit."""
    return Revision(hashlib.sha256(text.encode()).hexdigest()[:40])


COMMIT = commit_of("first")
FILES: Mapping[str, bytes] = {
    "metadata.json": b'{"name":"relu","id":"_acme_relu","version":1,"license":"Apache-2.0",'
    b'"python-depends":[],"backend":{"type":"cpu"}}',
    "__init__.py": b"from .layers import *\n\n\ndef relu(x):\n    return x.clamp(min=0)\n",
    "layers.py": b"ANSWER = 42\n",
    "_relu.abi3.so": bytes(range(256)) * 1024,
}


@dataclass
class MirrorKit:
    """A store, a catalog and a trust folder under one folder, and ways to fill them."""

    root: Path
    trust: TrustKit
    settings: ServeSettings
    catalog: SqlCatalog
    store: DiskStore

    def put(self, data: bytes) -> Digest:
        """Store bytes."""
        digest = Digest.of(data)
        self.store.put(digest, len(data), [data])
        return digest

    def variant(
        self,
        files: Mapping[str, bytes] = FILES,
        *,
        repo: KernelRef = REPO,
        served: Revision = COMMIT,
        variant: str = VARIANT,
        lane: str = EXPERIMENTAL,
        repo_type: RepoType = RepoType.KERNEL,
        **changes: Any,
    ) -> PublishedVariant:
        """Store and sign one variant; files ending in `.so` are LFS files."""
        manifest = manifest_of(files)
        kernel = KernelId(ORIGIN, repo_type, repo, served, variant)
        claims = {"kernel": kernel, "upstream_revision": served, "lane": lane, **changes}
        bundle = self.trust.bundle(manifest, **claims)
        served_files = []
        for path, data in sorted(files.items()):
            digest, lfs = self.put(data), path.endswith(".so")
            content = gitids.pointer(digest, len(data)) if lfs else data
            full = f"build/{variant}/{path}"
            served_files.append(ServedFile(full, len(data), digest, gitids.blob_id(content), lfs))
        return PublishedVariant(
            variant,
            self.put(manifest.canonical),
            tuple(served_files),
            (self.put(bundle),),
            {EvidenceKind.MANIFEST: manifest.digest},
        )

    def publish(self, *variants: PublishedVariant, **changes: Any) -> Publication:
        """Publish variants (one default variant if none are given) as v1 of the default repo."""
        publication = Publication(
            ORIGIN,
            RepoType.KERNEL,
            REPO,
            COMMIT,
            COMMIT,
            1,
            EXPERIMENTAL,
            variants or (self.variant(),),
            self.trust.now,
        )
        publication = replace(publication, **changes)
        self.catalog.publish(publication)
        return publication

    def deny(self, **changes: Any) -> Denial:
        """Deny a variant of `acme/evil` v1."""
        reason = {"rule": "no-bytecode", "outcome": "deny", "seen": "a.pyc", "hint": "remove it"}
        denial = Denial(
            ORIGIN,
            RepoType.KERNEL,
            KernelRef("acme", "evil"),
            commit_of("evil"),
            1,
            EXPERIMENTAL,
            VARIANT,
            None,
            (reason,),
            self.trust.now,
        )
        denial = replace(denial, **changes)
        self.catalog.deny(denial)
        return denial

    def app(self, access: Access | None = None, **changes: Any) -> ServeApp:
        """Return the application with a snapshot of what is published now."""
        settings = replace(self.settings, **changes)
        app = create_app(
            self.catalog, self.store, settings, access=access, clock=lambda: self.trust.now
        )
        app.turn(0.0)
        return app


def make_mirror(root: Path, database: str | None = None) -> MirrorKit:
    """Make an empty mirror under a folder; its trust metadata was issued just now."""
    trust = make_trust(now=datetime.now(UTC).replace(microsecond=0))
    write_trust(root / "trust", trust.trust)
    url = database or f"sqlite:///{root / 'kgate.db'}"
    settings = ServeSettings(url, root / "store", root / "trust", EXPERIMENTAL, poll_seconds=0.1)
    return MirrorKit(root, trust, settings, SqlCatalog(url), DiskStore(root / "store"))


def publish_model(kit: MirrorKit, files: Mapping[str, bytes], name: str = "model") -> Publication:
    """Publish a model repository; files ending in `.safetensors` are LFS files."""
    repo, served_as = KernelRef("acme", name), commit_of(name)
    manifest = manifest_of(files)
    model = KernelId(ORIGIN, RepoType.MODEL, repo, served_as, WHOLE)
    bundle = kit.trust.bundle(
        manifest, kernel=model, upstream_revision=served_as, lane=EXPERIMENTAL
    )
    listed = []
    for path, data in sorted(files.items()):
        digest, lfs = kit.put(data), path.endswith(".safetensors")
        content = gitids.pointer(digest, len(data)) if lfs else data
        listed.append(ServedFile(path, len(data), digest, gitids.blob_id(content), lfs))
    item = PublishedVariant(
        WHOLE, kit.put(manifest.canonical), tuple(listed), (kit.put(bundle),), {}
    )
    return kit.publish(
        item,
        repo=repo,
        repo_type=RepoType.MODEL,
        served=served_as,
        upstream=served_as,
        version=None,
    )


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def served(settings: ServeSettings) -> Iterator[str]:
    """Run the real server in a process of its own; yields its address, ready."""
    settings = replace(settings, port=free_port())
    process = multiprocessing.get_context("spawn").Process(target=_run, args=(settings,))
    process.start()
    try:
        address = f"http://127.0.0.1:{settings.port}"
        _wait_ready(address, process.is_alive)
        yield address
    finally:
        process.terminate()
        process.join(10)
        if process.is_alive():
            process.kill()
            process.join()


def _run(settings: ServeSettings) -> None:
    from kgate_mirror_server.serve.server import run

    run(settings)


def _wait_ready(address: str, alive: Any) -> None:
    until = time.monotonic() + START_TIMEOUT
    while time.monotonic() < until and alive():
        try:
            with urllib.request.urlopen(f"{address}/readyz", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise AssertionError("the server did not become ready")
