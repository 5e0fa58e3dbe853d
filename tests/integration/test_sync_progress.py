"""The bar of `kgate sync` knows its end before the first byte: rate and time left make sense."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kgate_mirror_server.examples import default_cache
from kgate_mirror_server.examples.build import build_gelu_and_mul
from kgate_mirror_server.ingest.fetch import bytes_ahead
from tests import repos
from tests.ingestkit import make_site

if TYPE_CHECKING:
    from pathlib import Path

REPO = "kernels-community/gelu-and-mul"


def test_what_is_ahead_is_the_size_of_what_is_locked_and_nothing_once_it_came(
    tmp_path: Path,
) -> None:
    built = build_gelu_and_mul(default_cache(os.environ), native=False, cuda=False)
    repos.copy_repo(built, tmp_path / "built" / REPO)
    site = make_site(tmp_path / "site", str(tmp_path / "built"))
    site.pin(f"repo: {REPO}, version: 1")
    lock = site.lock()
    sizes = [item.size for kernel in lock.kernels for item in kernel.variants.values()]
    with site.mirror() as mirror:
        assert bytes_ahead(mirror.store, lock) == sum(sizes) > 0
    site.sync()
    with site.mirror() as mirror:
        assert bytes_ahead(mirror.store, lock) == 0
