"""The simulator against the real huggingface_hub client."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import huggingface_hub
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from kgate_core.errors import InvalidInput, NotFound
from kgate_mirror_server.hubsim import (
    Corrupt,
    Endless,
    HubSimulator,
    Resized,
    Short,
    Slow,
    Status,
    serve_folder,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

REPO = "kernels-test/tiny"
VARIANT = "build/torch-cpu"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository of eight files; one is big enough to be streamed, two are LFS files."""
    root = tmp_path / "repo"
    variant = root / VARIANT
    (variant / "deep" / "er").mkdir(parents=True)
    (root / "README.md").write_text("# tiny\n")
    (variant / "__init__.py").write_text("answer = 42\n")
    (variant / "metadata.json").write_text("{}\n")
    (variant / "empty.py").touch()
    (variant / "deep" / "a.py").write_text("a = 1\n")
    (variant / "deep" / "er" / "b.py").write_text("b = 2\n")
    (variant / "tiny.so").write_bytes(b"\x7fELF" + bytes(range(256)) * 64)
    (variant / "large.dat").write_bytes(bytes(range(256)) * 4096 * 11)
    return root


@pytest.fixture
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as simulator:
        yield simulator


@pytest.fixture
def api(hub: HubSimulator) -> HfApi:
    return HfApi(endpoint=hub.url, token=False)


def fetch(hub: HubSimulator, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    request = urllib.request.Request(hub.url + path, headers=headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def test_refs_name_main_and_every_version(hub: HubSimulator, api: HfApi, folder: Path) -> None:
    first = hub.publish(REPO, folder)
    second = hub.publish(REPO, folder, branch="v2", message="Version 2")
    refs = api.list_repo_refs(REPO, repo_type="kernel", include_pull_requests=True)
    heads = {branch.name: branch.target_commit for branch in refs.branches}
    assert heads["v1"] == first
    assert heads["v2"] == second != first
    assert heads.keys() == {"main", "v1", "v2"}
    assert [file.path for file in api.list_repo_tree(REPO, repo_type="kernel")] == ["README.md"]


def test_ids_are_those_that_git_computes(hub: HubSimulator, folder: Path, tmp_path: Path) -> None:
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("README.md")
    (folder / VARIANT / "tiny.so").unlink()  # LFS files differ: git would need the extension
    (folder / VARIANT / "large.dat").unlink()
    commit = hub.publish(REPO, folder, message="Upload kernel")
    git = ["git", "-C", str(folder), "-c", "core.autocrlf=false", "-c", "commit.gpgsign=false"]
    who = ["Hub simulator", "hub@simulator.invalid", "2026-01-01T00:00:00+0000"]
    names = ("NAME", "EMAIL", "DATE")
    environment = {
        f"GIT_{role}_{name}": value
        for role in ("AUTHOR", "COMMITTER")
        for name, value in zip(names, who, strict=True)
    } | {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "GIT_CONFIG_NOSYSTEM": "1"}
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "Upload kernel"]):
        subprocess.run([*git, *arguments], check=True, env=environment)
    head = subprocess.run(
        [*git, "rev-parse", "HEAD"], check=True, env=environment, capture_output=True, text=True
    )
    assert commit == head.stdout.strip()


def test_the_same_folder_gives_the_same_commit_everywhere(folder: Path) -> None:
    with HubSimulator() as one, HubSimulator() as other:
        assert one.publish(REPO, folder) == other.publish(REPO, folder)


@pytest.mark.parametrize("expand", [False, True])
def test_a_paged_tree_lists_every_file_once(folder: Path, *, expand: bool) -> None:
    with HubSimulator(page_size=3) as hub:
        commit = hub.publish(REPO, folder)
        api = HfApi(endpoint=hub.url, token=False)
        tree = list(
            api.list_repo_tree(
                REPO, recursive=True, expand=expand, revision=commit, repo_type="kernel"
            )
        )
        assert len({entry.path for entry in tree}) == len(tree) == 8 + 4
        assert hub.count("*/tree/*") == 4
        if expand:
            assert all(entry.last_commit.oid == commit for entry in tree)


def test_lfs_files_carry_their_sha256_and_small_ones_their_git_id(
    hub: HubSimulator, api: HfApi, folder: Path
) -> None:
    hub.publish(REPO, folder)
    paths = [
        f"{VARIANT}/tiny.so",
        f"{VARIANT}/large.dat",
        f"{VARIANT}/empty.py",
        VARIANT,
        "nowhere",
    ]
    found = {
        entry.path: entry
        for entry in api.get_paths_info(REPO, paths, revision="v1", repo_type="kernel", expand=True)
    }
    assert found.keys() == set(paths) - {"nowhere"}
    for name in ("tiny.so", "large.dat"):
        data = (folder / VARIANT / name).read_bytes()
        assert found[f"{VARIANT}/{name}"].lfs.sha256 == hashlib.sha256(data).hexdigest()
        assert found[f"{VARIANT}/{name}"].lfs.size == len(data)
    assert found[f"{VARIANT}/empty.py"].lfs is None
    assert found[f"{VARIANT}/empty.py"].blob_id == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"


def test_a_snapshot_is_what_was_published_and_verifies(
    hub: HubSimulator, api: HfApi, folder: Path, tmp_path: Path
) -> None:
    commit = hub.publish(REPO, folder)
    cache = tmp_path / "cache"
    local = api.snapshot_download(REPO, repo_type="kernel", revision="v1", cache_dir=cache)
    for path in folder.rglob("*"):
        if path.is_file():
            copy = tmp_path / local / path.relative_to(folder)
            assert copy.read_bytes() == path.read_bytes()
    checked = api.verify_repo_checksums(REPO, repo_type="kernel", revision=commit, cache_dir=cache)
    assert checked.checked_count == 8
    assert not checked.mismatches
    assert not checked.missing_paths
    assert not checked.extra_paths
    assert not [each for each in hub.requests if "xet" in each.path]


def test_the_same_content_is_there_as_a_model(
    hub: HubSimulator, api: HfApi, folder: Path, tmp_path: Path
) -> None:
    commit = hub.publish(REPO, folder)
    path = api.hf_hub_download(
        REPO, f"{VARIANT}/__init__.py", revision="v1", cache_dir=tmp_path / "cache"
    )
    assert commit in path
    assert api.model_info(REPO, revision="v1").sha == commit


def test_repository_info_commits_and_existence(hub: HubSimulator, api: HfApi, folder: Path) -> None:
    first = hub.publish(REPO, folder)
    (folder / "README.md").write_text("# tiny, again\n")
    second = hub.publish(REPO, folder, message="Again\n\nwith a body")
    assert api.kernel_info(REPO, revision="v1").sha == second
    assert api.kernel_info(REPO, revision="refs/heads/v1").sha == second
    commits = api.list_repo_commits(REPO, revision="v1", repo_type="kernel")
    assert [each.commit_id for each in commits] == [second, first]
    assert commits[0].title == "Again"
    assert api.repo_exists(REPO, repo_type="kernel")
    assert api.revision_exists(REPO, "v1", repo_type="kernel")
    assert api.file_exists(REPO, "README.md", repo_type="kernel", revision=first)
    assert not api.file_exists(REPO, "nowhere", repo_type="kernel", revision=first)


def test_a_moved_branch_keeps_its_old_commit_readable(
    hub: HubSimulator, api: HfApi, folder: Path, tmp_path: Path
) -> None:
    old = hub.publish(REPO, folder)
    file = folder / VARIANT / "__init__.py"
    file.write_text("answer = 43\n")
    new = hub.publish(REPO, folder, message="Move")
    assert new != old
    for revision, answer in (("v1", "43"), (old, "42")):
        path = api.hf_hub_download(
            REPO,
            f"{VARIANT}/__init__.py",
            repo_type="kernel",
            revision=revision,
            cache_dir=tmp_path / "cache",
        )
        assert answer in Path(path).read_text()


def test_what_is_missing_is_named_by_its_own_error(
    hub: HubSimulator, api: HfApi, folder: Path
) -> None:
    with pytest.raises(RepositoryNotFoundError):
        api.list_repo_refs(REPO, repo_type="kernel")
    commit = hub.publish(REPO, folder)
    with pytest.raises(RevisionNotFoundError):
        list(api.list_repo_tree(REPO, revision="v9", repo_type="kernel"))
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree(REPO, "nowhere", revision=commit, repo_type="kernel"))
    with pytest.raises(RemoteEntryNotFoundError):
        api.hf_hub_download(REPO, "nowhere", revision=commit, repo_type="kernel")
    status, headers, _ = fetch(hub, f"/kernels/{REPO}/resolve/{commit}/nowhere")
    assert (status, headers["X-Error-Code"]) == (404, "EntryNotFound")
    assert headers["X-Repo-Commit"] == commit
    assert fetch(hub, "/api/agent-harnesses")[0] == 404
    assert fetch(hub, f"/api/kernels/{REPO}/nothing")[0] == 404
    assert fetch(hub, "/kernels/no/repo/resolve/main/x")[1]["X-Error-Code"] == "RepoNotFound"
    assert fetch(hub, f"/kernels/{REPO}/resolve/v9/x")[1]["X-Error-Code"] == "RevisionNotFound"


def test_taking_down_a_branch_keeps_its_commits_and_a_repository_nothing(
    hub: HubSimulator, api: HfApi, folder: Path
) -> None:
    commit = hub.publish(REPO, folder)
    hub.take_down(REPO, "v1")
    assert not api.revision_exists(REPO, "v1", repo_type="kernel")
    assert api.revision_exists(REPO, commit, repo_type="kernel")
    hub.take_down(REPO)
    assert not api.repo_exists(REPO, repo_type="kernel")
    with pytest.raises(NotFound):
        hub.take_down(REPO)


def test_trust_is_the_servers_word(hub: HubSimulator, folder: Path) -> None:
    overview = "/api/organizations/kernels-test/overview"
    assert fetch(hub, overview)[0] == 404
    hub.publish(REPO, folder)
    assert b'"trustedKernelPublisher":true' in fetch(hub, overview)[2]
    hub.trust("kernels-test", trusted=False)
    assert b'"trustedKernelPublisher":false' in fetch(hub, overview)[2]


def test_tokens_are_noted_where_they_arrive(hub: HubSimulator, folder: Path) -> None:
    hub.publish(REPO, folder)
    anonymous = HfApi(endpoint=hub.url, token=False)
    status, headers, _ = fetch(hub, "/api/whoami-v2")
    assert (status, headers["X-Error-Message"]) == (
        401,
        "Invalid credentials in Authorization header",
    )
    named = HfApi(endpoint=hub.url, token="hf_simulated")
    assert named.whoami()["name"] == "simulated"
    named.list_repo_refs(REPO, repo_type="kernel")
    anonymous.list_repo_refs(REPO, repo_type="kernel")
    assert [each.token for each in hub.requests if each.path.endswith("/refs")] == [
        "hf_simulated",
        None,
    ]
    assert f"hf_hub/{huggingface_hub.__version__}" in hub.requests[-1].user_agent


def test_uploads_are_refused_in_words(hub: HubSimulator, api: HfApi, folder: Path) -> None:
    hub.publish(REPO, folder)
    with pytest.raises(HfHubHTTPError, match="read-only"):
        api.upload_file(
            path_or_fileobj=b"x", path_in_repo="x", repo_id=REPO, repo_type="kernel", token="hf_x"
        )


def test_ranges_follow_the_rfc(hub: HubSimulator, folder: Path) -> None:
    commit = hub.publish(REPO, folder)
    data = (folder / VARIANT / "large.dat").read_bytes()
    path = f"/kernels/{REPO}/resolve/{commit}/{VARIANT}/large.dat"
    for header, start, stop in (
        ("bytes=10-", 10, len(data)),
        ("bytes=5-9", 5, 10),
        ("bytes=-7", len(data) - 7, len(data)),
        (f"bytes=0-{len(data) * 2}", 0, len(data)),
    ):
        status, headers, body = fetch(hub, path, Range=header)
        assert status == 206
        assert headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(data)}"
        assert body == data[start:stop]
    status, headers, _ = fetch(hub, path, Range=f"bytes={len(data)}-")
    assert (status, headers["Content-Range"]) == (416, f"bytes */{len(data)}")
    status, headers, body = fetch(hub, path, Range="bytes=0-1,4-5")
    assert (status, body) == (200, data)
    assert headers["ETag"] == f'"{hashlib.sha256(data).hexdigest()}"'
    assert headers["X-Repo-Commit"] == commit


def download(api: HfApi, name: str, tmp_path: Path) -> bytes:
    path = api.hf_hub_download(
        REPO,
        f"{VARIANT}/{name}",
        repo_type="kernel",
        revision="v1",
        cache_dir=tmp_path / "cache",
    )
    return Path(path).read_bytes()


def test_corrupted_bytes_of_the_same_length_pass_upstreams_client(
    hub: HubSimulator, api: HfApi, folder: Path, tmp_path: Path
) -> None:
    hub.publish(REPO, folder)
    hub.inject(Corrupt(), "*/resolve/*/tiny.so", method="GET", times=1)
    got, right = download(api, "tiny.so", tmp_path), (folder / VARIANT / "tiny.so").read_bytes()
    assert len(got) == len(right)
    assert got[0] == right[0] ^ 0xFF
    assert got[1:] == right[1:]
    assert download(api, "tiny.so", tmp_path / "other") == right


def test_a_body_of_another_size_is_refused_by_upstreams_client(
    hub: HubSimulator, api: HfApi, folder: Path, tmp_path: Path
) -> None:
    hub.publish(REPO, folder)
    for by in (-1, 5):
        hub.heal()
        hub.inject(Resized(by), "*/tiny.so", method="GET")
        with pytest.raises(OSError, match="Consistency check failed"):
            download(api, "tiny.so", tmp_path)


def test_a_cut_connection_is_resumed_with_a_range(
    hub: HubSimulator, api: HfApi, folder: Path, tmp_path: Path
) -> None:
    hub.publish(REPO, folder)
    hub.inject(Short(missing=100_000), "*/large.dat", method="GET", times=1)
    right = (folder / VARIANT / "large.dat").read_bytes()
    assert download(api, "large.dat", tmp_path) == right
    gets = [each for each in hub.requests if each.path.endswith("large.dat")][-2:]
    assert [each.status for each in gets] == [200, 206]
    assert gets[1].headers["range"].startswith("bytes=")
    assert hub.count(blob=hashlib.sha256(right).hexdigest(), method="GET") == 2


def test_an_endless_body_ends_when_the_client_hangs_up(hub: HubSimulator, folder: Path) -> None:
    commit = hub.publish(REPO, folder)
    hub.inject(Endless(), "*/tiny.so")
    url = f"{hub.url}/kernels/{REPO}/resolve/{commit}/{VARIANT}/tiny.so"
    with urllib.request.urlopen(url) as answer:
        assert answer.headers["Content-Length"] is None
        size = (folder / VARIANT / "tiny.so").stat().st_size
        assert len(answer.read(size * 10)) == size * 10


def test_a_server_error_passes_after_as_many_times_as_injected(
    hub: HubSimulator, api: HfApi, folder: Path, tmp_path: Path
) -> None:
    hub.publish(REPO, folder)
    hub.inject(Status(503), "*/tiny.so", method="HEAD", times=1)
    assert download(api, "tiny.so", tmp_path)
    statuses = [each.status for each in hub.requests if each.path.endswith("tiny.so")]
    assert statuses == [503, 200, 200]


def test_a_rate_limit_is_waited_for(hub: HubSimulator, api: HfApi, folder: Path) -> None:
    hub.publish(REPO, folder)
    hub.inject(Status(429, "slow down", retry_after=1), "*/tree/*", times=1)
    begin = time.monotonic()
    assert list(api.list_repo_tree(REPO, revision="v1", repo_type="kernel"))
    assert time.monotonic() - begin >= 1
    assert hub.count("*/tree/*") == 2


def test_a_lasting_error_says_its_message(hub: HubSimulator, api: HfApi, folder: Path) -> None:
    hub.publish(REPO, folder)
    hub.inject(Status(403, "no kernels today"), "*/refs")
    with pytest.raises(HfHubHTTPError, match="no kernels today"):
        api.list_repo_refs(REPO, repo_type="kernel")
    hub.heal()
    hub.forget_requests()
    assert api.list_repo_refs(REPO, repo_type="kernel").branches
    assert hub.count() == 1


def test_a_slow_answer_comes_late_and_whole(hub: HubSimulator, folder: Path) -> None:
    hub.publish(REPO, folder)
    hub.inject(Slow(0.1), "*/refs")
    begin = time.monotonic()
    status, _, body = fetch(hub, f"/api/kernels/{REPO}/refs")
    assert time.monotonic() - begin >= 0.1
    assert status == 200
    assert b"refs/heads/v1" in body


def test_a_file_that_never_comes_leaves_nothing_in_the_cache(
    hub: HubSimulator, api: HfApi, folder: Path, tmp_path: Path
) -> None:
    hub.publish(REPO, folder)
    hub.inject(Status(404), "*/resolve/*")
    with pytest.raises((LocalEntryNotFoundError, HfHubHTTPError)):
        download(api, "tiny.so", tmp_path)
    assert not list((tmp_path / "cache").rglob("tiny.so"))


def test_stopping_does_not_wait_for_an_answer_under_way(folder: Path) -> None:
    with HubSimulator() as hub:
        hub.publish(REPO, folder)
        hub.inject(Slow(60))
        address = ("127.0.0.1", int(hub.url.rpartition(":")[2]))
        connection = socket.create_connection(address, timeout=5)
        connection.sendall(f"GET /api/kernels/{REPO}/refs HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        while not hub.requests:
            time.sleep(0.01)
        begin = time.monotonic()
    assert time.monotonic() - begin < 5
    with connection:
        assert connection.recv(100) == b""


def test_a_served_folder_has_its_branches_and_frees_its_port(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    folder.rename(tmp_path / "moved")
    for place in ("orga/one/v1", "orga/one/v2", "orgb/two"):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).symlink_to(tmp_path / "moved")
    hub = serve_folder(root)
    port = int(hub.url.rpartition(":")[2])
    try:
        assert hub.repositories == ("orga/one", "orgb/two")
        api = HfApi(endpoint=hub.url, token=False)
        refs = api.list_repo_refs("orga/one", repo_type="kernel")
        assert {branch.name for branch in refs.branches} == {"main", "v1", "v2"}
        assert api.revision_exists("orgb/two", "v1", repo_type="kernel")
        with pytest.raises(InvalidInput, match="port"):
            serve_folder(root, port)
    finally:
        hub.stop()
    serve_folder(root, port).stop()
    with pytest.raises(InvalidInput, match="not running"):
        _ = hub.url
    with pytest.raises(NotFound, match="holds no repository"):
        serve_folder(tmp_path / "nowhere")
    with pytest.raises(NotFound, match="no folder"):
        HubSimulator().publish(REPO, tmp_path / "nowhere")


def test_only_what_git_can_hold_is_published(hub: HubSimulator, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(InvalidInput, match="neither a file nor a folder nor a link"):
        hub.publish(REPO, folder)


def test_hidden_folders_are_no_organizations(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for org in (".git", "orga"):
        (root / org).mkdir(parents=True)
        (root / org / "one").symlink_to(folder)
    hub = serve_folder(root)
    hub.start()  # once more changes nothing
    assert hub.repositories == ("orga/one",)
    hub.stop()
    hub.stop()


def test_a_body_that_is_too_large_is_not_read(hub: HubSimulator) -> None:
    request = urllib.request.Request(
        f"{hub.url}/api/kernels/{REPO}/paths-info/main",
        headers={"Content-Length": str(10**9)},
        data=b"x",
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    with refused.value as answer:
        assert answer.code == 413


def test_a_client_that_hangs_up_disturbs_nobody(
    hub: HubSimulator, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub.publish(REPO, folder)
    hub.inject(Endless(), "*/large.dat", times=1)
    address = ("127.0.0.1", int(hub.url.rpartition(":")[2]))
    with (
        caplog.at_level("DEBUG", "kgate_mirror_server.hubsim"),
        socket.create_connection(address, timeout=5) as connection,
    ):
        path = f"/kernels/{REPO}/resolve/v1/{VARIANT}/large.dat"
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert connection.recv(100)
        connection.close()
        deadline = time.monotonic() + 5
        while "ended early" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)
    assert "ended early" in caplog.text
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert fetch(hub, path)[0] == 200
