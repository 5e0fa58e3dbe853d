"""T35: the disk is full in the middle of a command; what was published is served on, nothing lost.

The kernel itself refuses to write: each command runs under a limit on the size of files, which
fails at the same system calls as a full disk does, for blobs and for the database's own file.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.sitekit import CONNECTED, REPO, Site, built_kernels

if TYPE_CHECKING:
    from pathlib import Path

RUN = "import sys; from kgate_cli.entry import main; sys.exit(main())"
LIMIT = 2_000_000  # bytes of one file; more than the database has, less than the new blob


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def site(tmp_path: Path, cache: Path) -> Site:
    made = Site.found(tmp_path / "site", CONNECTED, kernels=built_kernels(cache))
    assert made.kgate("sync") == 0
    return made


def limited(site: Site, size: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command that can write no file beyond a size."""
    return subprocess.run(
        [sys.executable, "-c", RUN, *arguments, "--config", str(site.config)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_t35_a_blob_that_does_not_fit_is_refused_clearly_and_the_next_run_goes_on(
    site: Site,
) -> None:
    before = site.publications()
    site.add_file("large.py", b"#" * (2 * LIMIT) + b"\n")
    done = limited(site, LIMIT, "lock", "--upgrade", REPO)
    assert done.returncode == 4, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    said = done.stdout + done.stderr
    assert "cannot be stored" in said
    assert "kgate gc" in said, "it says what to do next"
    assert site.publications() == before
    assert site.kgate("verify", REPO) == 0
    assert list((site.folder / "kgate-data" / "tmp").iterdir()) == []
    site.sync()
    assert len(site.publications()) == 2
    assert site.kgate("verify", REPO) == 0


def test_t35_a_database_that_cannot_grow_is_reported_and_keeps_what_it_has(site: Site) -> None:
    before = site.publications()
    site.add_file("more.py", b"MORE = 1\n")
    done = limited(site, 4_096, "hold", REPO, "--reason", "case 7")
    assert done.returncode in {3, 4}, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "error:" in done.stderr
    assert site.publications() == before
    assert site.kgate("hold", REPO, "--reason", "case 7") == 0
    assert site.kgate("audit", "verify") == 0
    site.sync()
    assert len(site.publications()) == 2


def test_t35_a_backup_that_does_not_fit_leaves_nothing_behind(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "out" / "backup"
    target.parent.mkdir()
    done = limited(site, 2_000, "backup", str(target), "--blobs")
    assert done.returncode in {3, 4}, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert list(target.parent.iterdir()) == []
    assert site.kgate("backup", str(target), "--blobs") == 0
