"""Two workers start on the same pin at once, with an empty store; then two replicas meet a storm.

Counts how often each blob was asked of the upstream: a simulated Hub on the loopback interface,
PostgreSQL, and an S3-speaking server. Speed is not measured here.
"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

from benchmarks.support.load import Ask, storm
from tests.mirrorkit import served
from tests.objectstores import s3_server
from tests.scalekit import ended, fetches, hub_of, replica, scaled_site, start
from tests.services import postgresql
from tests.sitekit import REPO

if TYPE_CHECKING:
    from pathlib import Path


def fetches_per_blob(root: Path, clients: int) -> int:
    """Return the most requests that any blob cost the upstream."""
    root.mkdir()
    with (
        redirect_stdout(sys.stderr),
        s3_server(root) as s3,
        postgresql() as url,
        hub_of(root) as hub,
    ):
        site = scaled_site(root / "site", hub, url, s3)
        running = [start(site, "sync", "--no-sign") for _ in range(2)]
        for process in running:
            code, said, errors = ended(process)
            if code:
                raise RuntimeError(said + errors)
        if site.kgate("sign"):
            raise RuntimeError("nothing was signed")
        (publication,) = site.publications()
        asks = [
            Ask(f"/{REPO}/resolve/{publication.served}/{file.path}")
            for file in publication.variants[0].files
        ]
        replicas = [replica(site, root / name) for name in ("one", "two")]
        with served(replicas[0]) as one, served(replicas[1]) as two:
            for address in (one, two):
                result = storm(int(address.rpartition(":")[2]), asks, clients)
                if result.errors:
                    raise RuntimeError(f"{result.errors} requests failed")
        counted = fetches(hub)
        if len(counted) != len(asks):
            raise RuntimeError("not every blob was fetched")
        return max(counted.values())
