"""What `kgate gc` takes away and what never goes: retention, holds, receipts; a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from kgate_core.digest import Digest
from kgate_core.errors import Conflict
from kgate_core.manifest import Manifest
from kgate_mirror_server.catalog.keeping import Place
from kgate_mirror_server.store.disk import DiskStore
from kgate_mirror_server.store.occupancy import OccupiedStore
from kgate_mirror_server.upkeep.references import blobs_of
from kgate_mirror_server.upkeep.shelf import shelved
from tests.sitekit import CONNECTED, REPO, Site, built_kernels, time_now

if TYPE_CHECKING:
    from kgate_mirror_server.ports import Publication

KILLED_AFTER: Final = """
import os, signal, sys
from kgate_cli.main import main
from kgate_mirror_server.store.disk import DiskStore
left = int(sys.argv[1])
real = DiskStore.remove
def remove(self, digest):
    global left
    real(self, digest)
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
DiskStore.remove = remove
sys.exit(main(["gc", "--config", sys.argv[2]]))
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def made(cache: Path) -> Site:
    found = Site.found(cache / "site", CONNECTED, kernels=built_kernels(cache))
    found.sync()
    return found


@pytest.fixture
def site(tmp_path: Path, made: Site) -> Site:
    """A copy of a site that serves one kernel."""
    return Site(Path(shutil.copytree(made.folder, tmp_path / "site")))


def configure(site: Site, text: str) -> None:
    with site.config.open("a", encoding="utf-8") as stream:
        stream.write(f"\n{text}\n")


def age(site: Site) -> None:
    """Let every blob be a year old, and every run that brought something in."""
    long_ago = time.time() - 365 * 86_400
    for path in (site.folder / "kgate-data" / "blobs").rglob("*"):
        if path.is_file():
            os.utime(path, (long_ago, long_ago))
    mirror = site.mirror()
    with mirror.catalog.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE intake SET changed_at = '2020-01-01T00:00:00Z'")
    mirror.close()


def apart(site: Site, *items: Publication) -> None:
    """Let a day lie between two publications: made within one second, neither is newer."""
    mirror = site.mirror()
    with mirror.catalog.engine.begin() as connection:
        for day, item in enumerate(items, start=1):
            connection.exec_driver_sql(
                f"UPDATE publication SET published_at = '2020-01-{day:02}T00:00:00Z'"
                f" WHERE served = '{item.served}'"
            )
        connection.exec_driver_sql("UPDATE meta SET generation = generation + 1")
    mirror.close()


def stored(site: Site) -> set[str]:
    folder = site.folder / "kgate-data" / "blobs"
    return {path.name for path in folder.rglob("*") if path.is_file()}


def put(site: Site, data: bytes) -> str:
    digest = Digest.of(data)
    DiskStore(site.folder / "kgate-data").put(digest, len(data), [data])
    return digest.hex


def revisions(site: Site, count: int) -> list[Publication]:
    """Publish so many more revisions of the kernel; return all, the oldest first."""
    for number in range(count):
        site.add_file(f"more{number}.py", b"MORE = %d\n" % number)
        site.sync()
    return sorted(site.publications(), key=lambda item: (item.version is not None, item.served))


def whole(site: Site) -> bool:
    """Return whether everything that is published is there and verifies."""
    here = stored(site)
    needed = {digest.hex for item in site.publications() for digest in blobs_of(item)}
    return needed <= here and site.kgate("verify", REPO) == 0


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_only_old_blobs_that_nobody_needs_go_and_the_proof_is_printed(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    old = put(site, b"nobody needs me")
    age(site)
    young = put(site, b"somebody may need me soon")
    before = stored(site)
    capsys.readouterr()
    assert site.kgate("gc", "--dry-run", "--json") == 0
    said = printed(capsys)
    assert stored(site) == before
    assert [item["digest"] for item in said["removed"]] == [f"sha256:{old}"]
    assert [item["digest"] for item in said["waiting"]] == [f"sha256:{young}"]
    assert said["asked"]["publications"] == 1
    assert {d.removeprefix("sha256:") for d in said["kept"]} >= before - {old, young}
    assert site.kgate("gc") == 0
    assert stored(site) == before - {old}
    assert whole(site)


def test_somebody_can_ask_who_needs_a_blob(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    (publication,) = site.publications()
    capsys.readouterr()
    assert site.kgate("gc", "--why", str(publication.variants[0].manifest)) == 0
    assert f"{REPO}@{publication.served.short}" in capsys.readouterr().out
    assert site.kgate("gc", "--why", f"sha256:{'0' * 64}") == 1


def test_without_a_rule_no_publication_ever_goes(site: Site) -> None:
    assert len(revisions(site, 2)) == 3
    age(site)
    assert site.kgate("gc") == 0
    assert len(site.publications()) == 3
    assert whole(site)


def test_old_revisions_go_but_not_what_a_version_or_a_hold_names(site: Site) -> None:
    first, second, newest = revisions(site, 2)
    assert (first.version, second.version, newest.version) == (None, None, 1)
    apart(site, first, second, newest)
    configure(site, "retention: {keep_newest: 1, keep_days: 0}")
    assert site.kgate("hold", f"{REPO}@{second.served}", "--reason", "case 7") == 0
    age(site)
    assert site.kgate("gc") == 0
    assert {item.served for item in site.publications()} == {second.served, newest.served}
    gone = {digest.hex for digest in blobs_of(first)}
    assert gone - {shelved(first)[0].hex} <= stored(site), (
        "a client may be reading it: its bytes wait for the next run"
    )
    assert site.kgate("gc") == 0
    kept = {digest.hex for item in (second, newest) for digest in blobs_of(item)}
    assert not (gone - kept) & stored(site)
    assert whole(site)
    assert site.kgate("hold", f"{REPO}@{second.served}", "--release") == 0
    assert site.kgate("gc") == 0
    assert {item.served for item in site.publications()} == {newest.served}
    assert whole(site)


def test_what_was_used_lately_stays(site: Site) -> None:
    first, second, newest = revisions(site, 2)
    configure(site, "retention: {keep_newest: 1, keep_days: 0}")
    text = site.config.read_text(encoding="utf-8").replace("keep_days: 0", "keep_days: 30")
    mirror = site.mirror()
    mirror.keeping.use([Place.of(first)], (time_now() - timedelta(days=29)).date())
    mirror.keeping.use([Place.of(second)], (time_now() - timedelta(days=40)).date())
    with mirror.catalog.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE publication SET published_at = '2020-01-01T00:00:00Z'"
            f" WHERE served != '{newest.served}'"
        )
        connection.exec_driver_sql("UPDATE meta SET generation = generation + 1")
    mirror.close()
    site.config.write_text(text, encoding="utf-8")
    assert site.kgate("gc") == 0
    assert second.served not in {item.served for item in site.publications()}
    assert first.served in {item.served for item in site.publications()}


def test_what_was_promised_in_a_receipt_stays(site: Site) -> None:
    files = {"a.py": b"A = 1\n"}
    manifest = Manifest.of(
        [entry for entry in site_manifest(site).files if entry.path == "metadata.json"]
    )
    put(site, manifest.canonical)
    put(site, files["a.py"])
    folder = site.folder / "trust" / "senders" / "other"
    folder.mkdir(parents=True)
    (folder / "root.json").write_bytes((site.folder / "trust" / "root.json").read_bytes())
    state = {
        "schema": "kgate.dev/sender/v1", "site": "https://other.test", "sequence": 1,
        "versions": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
        "bundle": f"sha256:{'1' * 64}", "publications": [], "manifests": [str(manifest.digest)],
    }  # fmt: skip
    (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
    age(site)
    assert site.kgate("gc") == 0
    assert manifest.digest.hex in stored(site)
    (folder / "state.json").write_text("{}", encoding="utf-8")
    before = stored(site)
    assert site.kgate("gc") == 4, "a place that cannot be asked ends it"
    assert stored(site) == before


def site_manifest(site: Site) -> Manifest:
    mirror = site.mirror()
    try:
        return mirror.room.manifest(site.publications()[0].variants[0].evidence)
    finally:
        mirror.close()


@pytest.mark.parametrize("after", [1, 3])
def test_t34_a_collection_killed_in_the_middle_leaves_a_whole_site(site: Site, after: int) -> None:
    for number in range(5):
        put(site, b"garbage %d" % number)
    age(site)
    before = len(stored(site))
    command = [sys.executable, "-c", KILLED_AFTER, str(after), str(site.config)]
    killed = subprocess.run(command, check=False, capture_output=True, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert len(stored(site)) == before - after
    assert whole(site)
    assert site.kgate("gc") == 0
    assert len(stored(site)) == before - 5
    assert whole(site)


def test_a_store_that_somebody_adds_to_is_left_alone(tmp_path: Path) -> None:
    adding, removing = OccupiedStore(tmp_path), OccupiedStore(tmp_path)
    with pytest.raises(Conflict, match="another command"), removing.alone(wait=0.1):
        raise AssertionError("somebody else is there")
    adding.close()
    with removing.alone(wait=0.1):
        assert removing.has(Digest.of(b"")) is False


def test_a_killed_run_gives_its_place_in_the_store_back(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path;"
        "from kgate_mirror_server.store.occupancy import OccupiedStore;"
        "s = OccupiedStore(Path(sys.argv[1])); print('in', flush=True); time.sleep(60)"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "in\n"
    mine = OccupiedStore(tmp_path)
    with pytest.raises(Conflict), mine.alone(wait=0.1):
        raise AssertionError("somebody else is there")
    run.kill()
    run.wait()
    run.stdout.close()
    with mine.alone(wait=1):
        assert mine.has(Digest.of(b"")) is False


@pytest.mark.parametrize("quota", ["site: 1kB", "repo: 1kB", "site: 1kB, repo: 1GB"])
def test_a_quota_refuses_before_anything_is_fetched(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str], quota: str
) -> None:
    made = Site.found(tmp_path / "site", CONNECTED, kernels=built_kernels(cache))
    configure(made, f"quotas: {{{quota}}}")
    assert made.kgate("sync") == 1
    said = capsys.readouterr()
    assert "bytes more" in said.out + said.err
    assert "nothing was fetched" in said.out + said.err
    assert made.publications() == []


def test_a_quota_counts_what_is_there_once(site: Site) -> None:
    taken = sum(file.size for v in site.publications()[0].variants for file in v.files)
    configure(site, f"quotas: {{site: {taken + 800}}}")
    site.add_file("tiny.py", b"T = 1\n")
    assert not site.sync().failures
    site.add_file("large.py", b"#" * 1000 + b"\n")
    (failure,) = site.sync().failures
    assert "quotas.site" in failure.error.message


def test_a_hold_needs_something_to_hold(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.kgate("hold", "acme/unknown", "--reason", "x") == 1
    assert site.kgate("hold", REPO) == 2
    assert site.kgate("hold", REPO, "--release") == 1
    assert site.kgate("hold", f"{REPO}@v1", "--reason", "case 7") == 0
    capsys.readouterr()
    assert site.kgate("hold", "--json") == 0
    (held,) = printed(capsys)["holds"]
    assert (held["repo"], held["reason"]) == (REPO, "case 7")
