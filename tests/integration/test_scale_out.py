"""PostgreSQL, an object store, several workers and several replicas, all real and on this host."""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_mirror_server.catalog.claims import open_claims
from kgate_mirror_server.catalog.sql import SqlCatalog
from kgate_mirror_server.hubsim.faults import Slow
from kgate_mirror_server.jobs.queue import INGEST, SCRUB, SIGN, enqueue_all
from kgate_mirror_server.jobs.worker import Working, work
from kgate_mirror_server.upkeep.garbage import collect_garbage
from tests.mirrorkit import free_port, served
from tests.objectstores import s3_server
from tests.scalekit import KGATE, LARGE, ended, fetches, hub_of, replica, scaled_site, start
from tests.services import postgresql
from tests.sitekit import REPO, VARIANT, Site, time_now

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgate_mirror_server.ports import Publication
    from tests.objectstores import S3

SOON = 1.0  # seconds in which every replica shows a publication; what docs/scale-out.md states


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgresql() as url:
        yield url


@pytest.fixture
def url(database: str, tmp_path: Path) -> str:
    """Return the URL of an empty database."""
    name = f"t{abs(hash(tmp_path.name))}"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    return database.replace("/postgres", f"/{name}")


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[S3]:
    with s3_server(tmp_path) as server:
        yield server


def once_each(hub: Any) -> None:
    """Check that each file of the variant came from upstream, and came once."""
    counted = fetches(hub)
    assert len(counted) == 5
    assert set(counted.values()) == {1}, counted


def published(site: Site) -> list[str]:
    return [str(item.served) for item in site.publications()]


def test_t36_two_syncs_of_a_pin_at_once_fetch_each_blob_once(
    tmp_path: Path, url: str, s3: S3
) -> None:
    with hub_of(tmp_path) as hub:
        hub.inject(Slow(0.005), "*/tables.bin")
        site = scaled_site(tmp_path / "site", hub, url, s3)
        assert site.kgate("lock") == 0  # locking reads small files: it is no part of the race
        hub.forget_requests()
        running = [start(site, "sync", "--locked") for _ in range(2)]
        for process in running:
            code, said, errors = ended(process)
            assert code == 0, said + errors
        once_each(hub)
        assert len(published(site)) == 1


def test_t36_two_embedded_syncs_at_once_fetch_each_blob_once(tmp_path: Path) -> None:
    with hub_of(tmp_path) as hub:
        hub.inject(Slow(0.005), "*/tables.bin")
        site = scaled_site(tmp_path / "site", hub, "sqlite:///kgate-data/kgate.db")
        assert site.kgate("lock") == 0  # locking reads small files: it is no part of the race
        hub.forget_requests()
        running = [start(site, "sync", "--locked") for _ in range(2)]
        for process in running:
            code, said, errors = ended(process)
            assert code == 0, said + errors
        once_each(hub)
        assert len(published(site)) == 1


def test_t36_two_workers_share_the_jobs_and_publish_once(tmp_path: Path, url: str, s3: S3) -> None:
    with hub_of(tmp_path) as hub:
        site = scaled_site(tmp_path / "site", hub, url, s3)
        assert site.kgate("lock") == 0
        hub.forget_requests()
        assert site.kgate("sync", "--enqueue") == 0
        assert site.kgate("sync", "--enqueue") == 0  # one waiting job will do
        keys = (site.folder / "keys").rename(site.folder / "keys.away")
        running = [start(site, "worker", "--queue", "ingest", "--once") for _ in range(2)]
        for process in running:
            code, said, errors = ended(process)
            assert code == 0, said + errors
        once_each(hub)
        assert published(site) == []
        keys.rename(site.folder / "keys")
        hub.stop()  # who signs reaches no upstream
        code, said, errors = ended(start(site, "worker", "--queue", "sign", "--once"))
        assert code == 0, said + errors
        assert len(published(site)) == 1


def test_t34_the_job_of_a_killed_worker_is_taken_up_by_another(
    tmp_path: Path, url: str, s3: S3
) -> None:
    with hub_of(tmp_path) as hub:
        site = scaled_site(tmp_path / "site", hub, url, s3)
        assert site.kgate("lock") == 0
        hub.forget_requests()
        hub.inject(Slow(20), "*/tables.bin", times=1)
        assert site.kgate("sync", "--enqueue") == 0
        doomed = start(site, "worker", "--queue", "ingest")
        until = time.monotonic() + 60
        while not any(path.endswith("tables.bin") for path in fetches(hub)):
            assert time.monotonic() < until
            time.sleep(0.05)
        doomed.send_signal(signal.SIGKILL)
        ended(doomed)
        hub.heal()
        assert published(site) == []
        mirror = site.mirror()
        how = Working((INGEST, SIGN), once=True, stalled_seconds=1.0)
        until = time.monotonic() + 60
        while not published(site):
            assert time.monotonic() < until
            work(mirror, lambda: Opened(site), how)
        mirror.close()
        assert len(published(site)) == 1
        assert site.kgate("verify", REPO) == 0


class Opened:
    """A mirror that is closed at the end, as the command line opens one."""

    def __init__(self, site: Site) -> None:
        self._mirror = site.mirror()

    def __enter__(self) -> Any:
        return self._mirror

    def __exit__(self, *_: object) -> None:
        self._mirror.close()


def test_workers_sync_and_scrub_on_schedule_without_being_asked(
    tmp_path: Path, url: str, s3: S3
) -> None:
    with hub_of(tmp_path) as hub:
        site = scaled_site(tmp_path / "site", hub, url, s3)
        assert site.kgate("lock") == 0
        with site.config.open("a", encoding="utf-8") as file:
            file.write("sync: {every: 6h}\n")
        assert published(site) == []
        mirror = site.mirror()
        for _ in range(2):  # the second time in the same slot nothing is asked for
            work(mirror, lambda: Opened(site), Working((INGEST, SIGN, SCRUB), once=True))
        assert len(published(site)) == 1
        with mirror.catalog.engine.connect() as connection:
            asked = connection.exec_driver_sql(
                "SELECT count(*) FROM procrastinate_jobs WHERE task_name = 'kgate.enqueue'"
            ).scalar()
        mirror.close()
        assert asked == 1


def test_jobs_need_postgresql_and_a_fresh_lock(tmp_path: Path) -> None:
    with hub_of(tmp_path) as hub:
        site = scaled_site(tmp_path / "site", hub, "sqlite:///kgate-data/kgate.db")
        assert site.kgate("sync", "--enqueue") == 1
        assert site.kgate("lock") == 0
        assert site.kgate("worker", "--once") == 4
        mirror = site.mirror()
        with pytest.raises(InvalidInput, match="PostgreSQL"):
            enqueue_all(mirror)
        mirror.close()


@pytest.mark.parametrize("kind", ["files", "sessions"])
def test_a_claim_is_held_by_one_and_ends_with_its_holder(
    tmp_path: Path, url: str, kind: str
) -> None:
    where = url if kind == "sessions" else "sqlite:///x.db"
    one, two = (open_claims(where, tmp_path / "locks") for _ in range(2))
    order: list[str] = []

    def second() -> None:
        with two.hold("pin:a"):
            order.append("second")

    waiting = threading.Thread(target=second)
    with one.hold("pin:a"):
        waiting.start()
        waiting.join(0.3)
        order.append("first")
    waiting.join(10)
    assert order == ["first", "second"]
    shared = one.share("store")
    with two.hold("blob:b"), shared.alone(0.2):
        order.append("alone")
    shared.close()
    one.close()
    two.close()


@pytest.mark.parametrize("stream", [False, True])
def test_replicas_without_state_show_a_publication_within_a_second(
    tmp_path: Path, url: str, s3: S3, monkeypatch: pytest.MonkeyPatch, *, stream: bool
) -> None:
    committed: list[float] = []
    publish = SqlCatalog.publish

    def timed(self: SqlCatalog, publication: Publication) -> None:
        publish(self, publication)
        committed.append(time.monotonic())

    monkeypatch.setattr(SqlCatalog, "publish", timed)
    with hub_of(tmp_path) as hub:
        site = scaled_site(tmp_path / "site", hub, url, s3, stream=stream)
        one, two = (replica(site, tmp_path / name) for name in ("one", "two"))
        with served(one) as first, served(two) as second:
            addresses = (first, second)
            assert [builds(item) for item in addresses] == [False, False]
            assert site.kgate("sync", "--no-sign") == 0
            seen: dict[str, float] = {}
            watching = [threading.Thread(target=watch, args=(item, seen)) for item in addresses]
            for thread in watching:
                thread.start()
            assert site.kgate("sign") == 0
            for thread in watching:
                thread.join(30)
            assert all(seen[item] - committed[0] < SOON for item in addresses)
            want = (tmp_path / "upstream" / REPO / "build" / VARIANT / "tables.bin").read_bytes()
            path = f"/{REPO}/resolve/{published(site)[0]}/build/{VARIANT}/tables.bin"
            hub.stop()
            for item in addresses:
                assert get(item + path)[1] == want
                assert get(item + path, Range="bytes=100-199")[1] == want[100:200]
            copies = [size_of(tmp_path / name) >= LARGE for name in ("one", "two")]
            assert copies == [not stream] * 2


def test_t15_an_object_that_changed_is_not_served_and_comes_back_from_upstream(
    tmp_path: Path, url: str, s3: S3
) -> None:
    with hub_of(tmp_path) as hub:
        site = scaled_site(tmp_path / "site", hub, url, s3)
        assert site.kgate("sync") == 0
        (publication,) = site.publications()
        (large,) = (
            file for file in publication.variants[0].files if file.path.endswith("tables.bin")
        )
        path = f"/{REPO}/resolve/{publication.served}/{large.path}"
        s3.overwrite(large.digest, bytes(large.size))
        with served(replica(site, tmp_path / "one")) as address:
            assert get(address + path)[0] == 503
        assert site.kgate("scrub") == 1
        assert site.kgate("scrub", "--repair") == 0
        with served(replica(site, tmp_path / "two")) as address:
            assert get(address + path)[0] == 200
        # T35: the bucket goes away. What has a copy is served, what has none says so.
        s3.stop()
        with served(replica(site, tmp_path / "two")) as address:
            assert get(address + path)[0] == 200


def test_gc_backup_and_rebuild_work_on_a_bucket(tmp_path: Path, url: str, s3: S3) -> None:
    with hub_of(tmp_path) as hub:
        site = scaled_site(tmp_path / "site", hub, url, s3)
        assert site.kgate("sync") == 0
        before = site.publications()
        mirror = site.mirror()
        stray = Digest.of(b"nobody needs this")
        mirror.store.put(stray, 17, [b"nobody needs this"])
        assert mirror.store.has(stray)
        found = collect_garbage(
            mirror, time_now() + timedelta(days=30), dry_run=False, tell=lambda _text: None
        )
        assert stray in {item.digest for item in found.removed}
        assert not mirror.store.has(stray)
        mirror.close()
        assert site.kgate("backup", str(tmp_path / "saved"), "--blobs") == 0
        text = site.config.read_text(encoding="utf-8")
        site.config.write_text(
            text.replace(f"database: {url}", "database: sqlite:///fresh.db"), encoding="utf-8"
        )
        assert site.publications() == []
        assert site.kgate("rebuild", "--from", "s3://kernels/site") == 0
        after = site.publications()
        assert [item.variants for item in after] == [item.variants for item in before]
        assert site.kgate("scrub") == 0


def test_serve_runs_as_a_role_that_cannot_publish_and_writes_nothing_but_its_cache(
    tmp_path: Path, url: str, s3: S3
) -> None:
    with hub_of(tmp_path) as hub:
        site = scaled_site(tmp_path / "site", hub, url, s3)
        assert site.kgate("sync") == 0
    for statement in roles():
        run_sql(url, statement)
    own = tmp_path / "own"
    own.mkdir()
    port = free_port()
    text = site.config.read_text(encoding="utf-8").replace("://kgate@", "://kgate_serve@")
    text = text.replace("stream: false", f"stream: false, cache: {own}/cache")
    config = site.folder / "serve.yaml"
    text = text.replace("serve:\n", "serve:\n  kept: null\n", 1)
    config.write_text(text, encoding="utf-8")
    shutil.rmtree(site.folder / "keys")
    before = contents(site.folder)
    process = subprocess.Popen(
        [KGATE, "serve", "--no-refresh", "--port", str(port), "--config", str(config)],
        env={"TMPDIR": str(own)},
        cwd="/",
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until = time.monotonic() + 60
        while not answers(f"http://127.0.0.1:{port}"):
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.1)
        assert builds(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert contents(site.folder) == before
    for role, forbidden in {
        "kgate_serve": ["publication", "published_variant", "branch", "denial", "meta", "token"],
        "kgate_ingest": ["publication", "published_variant", "branch", "token", "hold"],
    }.items():
        for table in forbidden:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                run_sql(
                    url.replace("://kgate@", f"://{role}@"), f"DELETE FROM {table}"
                )  # names from above
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        run_sql(url.replace("://kgate@", "://kgate_signer@"), "DELETE FROM audit")


def contents(folder: Path) -> dict[str, int]:
    """Return every file below a folder with the time of its last change."""
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def roles() -> list[str]:
    """Return the statements that the documentation names."""
    text = (Path(__file__).parents[2] / "docs" / "scale-out.md").read_text(encoding="utf-8")
    first = text.split("```sql\n")[1].split("```")[0]
    return [item for item in first.split(";\n") if item.strip()]


def run_sql(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


def get(url: str, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, b""


def builds(address: str) -> bool:
    return VARIANT.encode() in get(f"{address}/api/kernels/{REPO}/tree/v1/build")[1]


def answers(address: str) -> bool:
    try:
        return get(f"{address}/readyz")[0] == 200
    except OSError:
        return False


def watch(address: str, seen: dict[str, float]) -> None:
    until = time.monotonic() + 25
    while time.monotonic() < until:
        if builds(address):
            seen[address] = time.monotonic()
            return
        time.sleep(0.005)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
