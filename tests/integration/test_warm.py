"""`kgate warm` from a real mirror; then the stock client with the network off."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from kgate_client import entry
from kgate_client.cachecare import look_after
from kgate_client.hubcache import RemoteFile
from kgate_client.warm import Wanted, warm
from kgate_core.errors import InvalidInput, KgateError, NotFound, UpstreamError
from kgate_core.kernel import KernelRef, Revision
from tests.mirrorkit import MirrorKit, make_mirror, served
from tests.podkit import COMMIT, FILES, MODEL, REPO, VARIANT, Pod, lock_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ALL_WAYS = """
import json, pathlib
from kernels import get_kernel, has_kernel, load_kernel
repo, commit = {repo!r}, {commit!r}
lock = pathlib.Path("kernels.lock")
lock.write_text(json.dumps([{{"dependency": {{"repo-id": repo, "version": 1}},
                             "lock": {{"commit": commit}}}}]))
print(json.dumps([
    get_kernel(repo, version=1).double(1),
    get_kernel(repo, revision=commit).double(2),
    load_kernel(repo, lockfile=lock).double(3),
    has_kernel(repo, version=1),
]))
"""


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MirrorKit, str]]:
    """Run a mirror that publishes the kernel of the pod kit, with one large file."""
    kit = make_mirror(tmp_path_factory.mktemp("mirror"))
    files = FILES | {"_data.so": bytes(range(256)) * 512}
    repo, served_as = KernelRef.parse(REPO), Revision(COMMIT)
    variant = kit.variant(
        files, repo=repo, served=served_as, metadata_id=json.loads(FILES["metadata.json"])["id"]
    )
    kit.publish(variant, repo=repo, served=served_as, upstream=served_as)
    with served(kit.settings) as address:
        yield kit, address


@pytest.fixture
def pod(tmp_path: Path, mirror: tuple[MirrorKit, str]) -> Pod:
    """Return a pod that has pinned the mirror's root and nothing else."""
    pod = Pod(tmp_path, mirror[0].trust)
    pod.root.write_bytes(mirror[0].trust.pinned)
    return pod


def _online(pod: Pod, mirror: tuple[MirrorKit, str], **changes: str | None) -> dict[str, str]:
    return pod.environment(HF_HUB_OFFLINE=None, HF_ENDPOINT=mirror[1], **changes)


def test_a_warmed_cache_serves_every_way_to_load_offline(
    pod: Pod, mirror: tuple[MirrorKit, str]
) -> None:
    first = warm(_online(pod, mirror), [f"{REPO}@v1"], patterns=[], seal=True)
    again = warm(_online(pod, mirror), [f"{REPO}@v1"], patterns=["torch-*"], seal=True)
    program = (
        "import sys\nseen = []\n"
        "sys.addaudithook(lambda e, a: seen.append(e) if e.startswith('socket.') else None)\n"
        + ALL_WAYS.format(repo=REPO, commit=COMMIT)
        + "\nassert not seen, seen\n"
    )

    result = pod.run(program)

    assert first.ok, list(first.lines())
    assert first.rows[0].downloaded == first.rows[0].size > 100_000
    assert again.rows[0].downloaded == 0
    assert result.value == [2, 4, 6, True]
    assert [report["outcome"] for report in result.reports] == ["loaded"]
    assert "compare" in result.reports[0]["milliseconds"]


def test_a_warmed_cache_can_be_moved_and_mounted_read_only(
    pod: Pod, mirror: tuple[MirrorKit, str], tmp_path: Path
) -> None:
    assert warm(_online(pod, mirror), [f"{REPO}@{COMMIT}"], patterns=[], seal=False).ok
    moved = tmp_path / "elsewhere"
    shutil.copytree(pod.home / "hf", moved, symlinks=True)
    shutil.rmtree(pod.home / "hf")
    for path in moved.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o555)

    result = pod.run(MODEL + "\nprint(json.dumps(run()))", HF_HOME=str(moved))

    assert result.value == {"outcome": "loaded", "value": [2.0, 2.0]}


def test_the_lock_says_what_to_fetch(pod: Pod, mirror: tuple[MirrorKit, str]) -> None:
    lock = pod.home / "kgate.lock"
    lock.write_bytes(lock_of())

    report = warm(_online(pod, mirror, KGATE_LOCK=str(lock)), [], patterns=[], seal=False)

    # The lock holds other bytes for this variant: it was fetched, refused and taken out again.
    assert [row.reason for row in report.rows] == ["not-locked"]
    assert not report.ok
    assert not list(pod.hub.glob("kernels--*/snapshots/*/build/*"))
    assert not list(pod.hub.glob("kernels--*/blobs/*"))
    assert "refused (not-locked" in "\n".join(report.lines())


def test_what_matches_nothing_is_said(pod: Pod, mirror: tuple[MirrorKit, str]) -> None:
    report = warm(_online(pod, mirror), [f"{REPO}@v1"], patterns=["*-cu1*"], seal=False)

    assert not report.ok
    assert "nothing matches" in "\n".join(report.lines())


def test_what_cannot_be_done_is_named(pod: Pod, mirror: tuple[MirrorKit, str]) -> None:
    online = _online(pod, mirror)
    with pytest.raises(NotFound, match="has no acme/double@v99"):
        warm(online, [f"{REPO}@v99"], patterns=[], seal=False)
    with pytest.raises(InvalidInput, match="no kernel was named"):
        warm(online, [], patterns=[], seal=False)
    with pytest.raises(InvalidInput, match="cannot be read"):
        warm(online | {"KGATE_LOCK": "/nowhere"}, [], patterns=[], seal=False)
    with pytest.raises(UpstreamError, match="no mirror"):
        warm(pod.environment(), [f"{REPO}@v1"], patterns=[], seal=False)
    without = {name: value for name, value in online.items() if name not in {"HOME", "HF_HOME"}}
    with pytest.raises(InvalidInput, match="no cache to fill"):
        warm(without, [f"{REPO}@v1"], patterns=[], seal=False)
    full = _online(pod, mirror, HF_HUB_CACHE="/proc/nowhere")
    with pytest.raises((KgateError, OSError)):
        warm(full, [f"{REPO}@v1"], patterns=[], seal=False)
    for odd in ("acme/double", "acme/double@main", "acme/double@" + "g" * 40, "double@v1"):
        with pytest.raises(InvalidInput):
            Wanted.parse(odd)


@pytest.mark.parametrize(
    ("path", "etag"), [("build/../x", "a" * 64), ("build/x", "../../x"), ("build/x", "A" * 64)]
)
def test_a_hostile_tree_names_no_files(path: str, etag: str) -> None:
    with pytest.raises(InvalidInput):
        RemoteFile(path, 1, etag)


def test_caches_are_verified_and_purged(pod: Pod, mirror: tuple[MirrorKit, str]) -> None:
    environment = _online(pod, mirror)
    assert warm(environment, [f"{REPO}@v1"], patterns=[], seal=True).ok
    offline = pod.environment()
    pod.run(MODEL + "\nprint(json.dumps(run(version=1)))")
    notes = {path.name for path in (pod.cache / "previous" / REPO).iterdir()}
    clean = look_after(offline, purge=False)
    assert clean.ok
    assert notes == {"v1.json", f"{COMMIT}.json"}
    assert notes == {row.path.name for row in clean.rows if row.kind == "note"}
    (pod.cache / "previous" / REPO / "v9.json").write_text("{}")
    (pod.variant() / "added.py").write_text("")
    sealed = next((pod.cache / "sealed").iterdir())
    (sealed / "numbers.py").chmod(0o600)
    (sealed / "numbers.py").write_text("FACTOR = 3")
    (pod.cache / "sealed" / ".staging-999999999-x").mkdir()
    in_use = pod.cache / "sealed" / f".staging-{os.getpid()}-x"
    in_use.mkdir()

    found = look_after(offline, purge=False)
    purged = look_after(offline, purge=True)

    # Verifying changes nothing: the notes are good as long as the copy that they name is there.
    assert {row.path.name for row in found.rows if not row.problem} == {in_use.name, *notes}
    assert len(found.rows) == 7
    assert not found.ok
    assert {row.path.name for row in purged.rows if not row.removed} == {in_use.name}
    assert {row.problem for row in purged.rows if row.path.name in notes} == {
        "no copy of what it names is left"
    }
    assert purged.ok
    in_use.rmdir()
    assert look_after(offline, purge=False).rows == ()
    assert "the caches are empty" in "\n".join(look_after(offline, purge=False).lines())


def test_the_commands_are_there_in_a_base_install(
    pod: Pod,
    mirror: tuple[MirrorKit, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in os.environ:
        if name.startswith(("HF_", "KGATE_", "TRANSFORMERS_")):
            monkeypatch.delenv(name)
    for name, value in _online(pod, mirror).items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> tuple[int, Any]:
        code = entry.run([*arguments, "--json"])
        return code, json.loads(capsys.readouterr().out or "null")

    code, report = run("warm", f"{REPO}@v1", "--variant", VARIANT)
    assert (code, report["ok"], report["kernels"][0]["variant"]) == (0, True, VARIANT)
    code, report = run("cache", "verify")
    assert (code, [item["problem"] for item in report["entries"]]) == (0, [""])
    assert run("warm", f"{REPO}@v99")[0] == 1
    assert run("warm")[0] == 4
