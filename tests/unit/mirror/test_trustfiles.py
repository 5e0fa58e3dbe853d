from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from kgate_core.digest import Digest
from kgate_mirror_server.ingest.sync import refresh_trust
from kgate_mirror_server.trust.files import adopt_timestamp, changing, read_trust
from kgate_signer.trustwriter import refresh_timestamp
from tests.ingestkit import Site, make_site, now

if TYPE_CHECKING:
    from pathlib import Path


def folder_of(site: Site) -> Path:
    return site.folder / "trust"


def test_a_refresh_never_writes_back_what_it_read_before_a_change(tmp_path: Path) -> None:
    """The server's thread waits while somebody signs, and then signs over what is there."""
    site = make_site(tmp_path / "site", "./built")
    digest = Digest.of(b"bad")
    with site.mirror() as mirror:
        folder = folder_of(site)
        with changing(folder):
            server = threading.Thread(target=refresh_trust, args=(mirror, now()))
            server.start()
            server.join(timeout=0.3)
            assert server.is_alive()
            before = read_trust(folder)
        server.join(timeout=10)
        assert read_trust(folder).timestamp != before.timestamp
        from kgate_mirror_server.trust.revocation import revoke

        revoke(mirror, str(digest), "an advisory", now())
        refresh_trust(mirror, now())
        assert digest in mirror.trusted(now()).revoked_digests


def test_an_older_timestamp_is_not_adopted(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site", "./built")
    folder = folder_of(site)
    with site.mirror() as mirror:
        key = mirror.key(mirror.config.keys.timestamp)
        second = refresh_timestamp(read_trust(folder), key, now=now())
        third = refresh_timestamp(second, key, now=now())
    adopt_timestamp(folder, third)
    adopt_timestamp(folder, second)
    assert read_trust(folder).timestamp == third.timestamp
