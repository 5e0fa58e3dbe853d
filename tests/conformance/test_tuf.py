"""Trust metadata between our reader and writer and python-tuf's client and repository API."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]  # no __all__
from tuf.api.exceptions import DownloadHTTPError, RepositoryError
from tuf.api.metadata import (  # type: ignore[attr-defined]  # re-exports without __all__
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)
from tuf.ngclient import (  # type: ignore[attr-defined]  # re-exports without __all__
    FetcherInterface,
    Updater,
    UpdaterConfig,
)

from kgate_core.clock import write_time
from kgate_core.errors import TrustError
from kgate_core.trust import FIELD, TrustDocuments, load
from kgate_signer import trustchanges
from kgate_signer.keys import FileKey
from kgate_signer.trustwriter import Offline, RootKeys, TrustSet
from tests.trustkit import NOW, TrustKit, make_trust

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BASE = "https://mirror.test/api/kgate/v1/trust/"


class Served(FetcherInterface):
    """The files of a trust set, as the mirror would serve them."""

    def __init__(self, trust: TrustSet) -> None:
        self.files = trust.files

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.removeprefix(BASE)
        if name not in self.files:
            raise DownloadHTTPError("not found", 404)
        return iter([self.files[name]])


def client(kit: TrustKit, folder: Path, trust: TrustSet | None = None) -> Updater:
    """Return python-tuf's client over what is served; it keeps what it saw in `folder`."""
    return Updater(
        str(folder),
        BASE,
        fetcher=Served(trust or kit.trust),
        config=UpdaterConfig(prefix_targets_with_hash=False),
        bootstrap=kit.pinned,
    )


@pytest.fixture
def kit() -> TrustKit:
    # python-tuf's client reads the clock by itself.
    return make_trust(now=datetime.now(UTC).replace(microsecond=0))


def rotated(kit: TrustKit) -> TrustKit:
    new, second = FileKey.generate(), FileKey.generate()
    publics = (new.public_key(), second.public_key())
    keys = RootKeys(publics, publics, (kit.timestamp.public_key(),), 2, 2)
    by = Offline(kit.pinned, (kit.root, new, second))
    return replace(kit, root=new).changed(
        trustchanges.rotate_root(kit.trust, keys, by, now=kit.now)
    )


def test_python_tufs_client_accepts_what_is_written_here(kit: TrustKit, tmp_path: Path) -> None:
    client(kit, tmp_path).refresh()
    newer = rotated(kit.changed(trustchanges.renew(kit.trust, kit.offline, now=kit.now)))
    client(newer, tmp_path).refresh()
    assert json.loads((tmp_path / "targets.json").read_bytes())["signed"]["version"] == 3
    assert newer.trusted().versions.root == 2


def test_both_readers_refuse_the_same_attacks(kit: TrustKit, tmp_path: Path) -> None:
    stranger = make_trust(now=kit.now)
    newer = kit.changed(trustchanges.renew(kit.trust, kit.offline, now=kit.now))
    edited = kit.trust.targets.replace(b"enforce", b"observe")
    attacks = {
        "another site's timestamp": replace(kit.trust, timestamp=stranger.trust.timestamp),
        "another site's targets": replace(kit.trust, targets=stranger.trust.targets),
        "edited targets": replace(kit.trust, targets=edited),
        "old snapshot": replace(newer.trust, snapshot=kit.trust.snapshot),
        "old targets": replace(newer.trust, targets=kit.trust.targets),
        "a root out of order": replace(
            kit.trust, roots=(kit.pinned, rotated(rotated_once(kit)).trust.roots[2])
        ),
        "a stranger's root": replace(
            kit.trust, roots=(kit.pinned, rotated(stranger).trust.roots[1])
        ),
    }
    for name, trust in attacks.items():
        with pytest.raises(TrustError):
            trust.load(kit.now)
        folder = tmp_path / name
        folder.mkdir()
        peer = client(kit, folder, trust)
        with pytest.raises(RepositoryError):
            peer.refresh()


def rotated_once(kit: TrustKit) -> TrustKit:
    """Return the kit after a rotation to a single key, so that it can rotate again."""
    new = FileKey.generate()
    keys = RootKeys((new.public_key(),), (new.public_key(),), (kit.timestamp.public_key(),))
    by = Offline(kit.pinned, (kit.root, new))
    return replace(kit, root=new).changed(
        trustchanges.rotate_root(kit.trust, keys, by, now=kit.now)
    )


def test_both_readers_refuse_a_rollback(kit: TrustKit, tmp_path: Path) -> None:
    newer = kit.changed(kit.trust)
    client(newer, tmp_path).refresh()
    old = client(kit, tmp_path)
    with pytest.raises(RepositoryError):
        old.refresh()
    with pytest.raises(TrustError, match="older than"):
        load(kit.pinned, kit.trust.since(1), now=kit.now, seen=newer.trusted().versions)


def test_metadata_written_by_python_tuf_alone_is_read_here() -> None:
    # Its own key ids, both key types, a threshold of two, compact and indented bytes.
    signers = [
        CryptoSigner.generate_ecdsa(),
        CryptoSigner.generate_ed25519(),
        CryptoSigner.generate_ecdsa(),
    ]
    later = NOW + timedelta(days=1)
    root = Root(expires=later, consistent_snapshot=False)
    for role in ("root", "targets", "snapshot", "timestamp"):
        for signer in signers:
            root.add_key(signer.public_key, role)
        root.roles[role].threshold = 2
    targets = Targets(expires=later)
    targets.unrecognized_fields[FIELD] = {
        "site": "elsewhere.test",
        "keys": {},
        "lanes": {},
        "revoked": {"keys": {}, "digests": {}},
    }
    timestamp = Timestamp(expires=later, snapshot_meta=MetaFile(1))
    timestamp.unrecognized_fields[FIELD] = {"issued": write_time(NOW), "logHead": 'ü\\"'}

    def signed(document: Any, count: int) -> bytes:
        metadata: Metadata[Any] = Metadata(document)
        for signer in signers[:count]:
            metadata.sign(signer, append=True)
        return metadata.to_bytes()

    def documents(count: int) -> TrustDocuments:
        snapshot = Snapshot(expires=later)
        return TrustDocuments(
            (), signed(timestamp, count), signed(snapshot, count), signed(targets, count)
        )

    trusted = load(signed(root, 2), documents(3), now=NOW)
    assert (trusted.site, trusted.log_head) == ("elsewhere.test", 'ü\\"')
    with pytest.raises(TrustError, match=r"timestamp\.json version 1 has 1 valid"):
        load(signed(root, 2), documents(1), now=NOW)
