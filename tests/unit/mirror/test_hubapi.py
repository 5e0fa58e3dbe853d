from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kgate_core.kernel import KernelRef
from kgate_mirror_server.serve import hubapi
from kgate_mirror_server.serve.lookup import EMPTY_COMMIT
from kgate_mirror_server.serve.settings import DenyStyle
from tests.asgi import ask
from tests.mirrorkit import COMMIT, FILES, VARIANT, MirrorKit, commit_of, make_mirror
from tests.trustkit import PRODUCTION

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_mirror_server.serve.app import ServeApp

API = "/api/kernels/acme/relu"
FILE = f"build/{VARIANT}/layers.py"
LARGE = f"build/{VARIANT}/_relu.abi3.so"
SECOND = commit_of("second")


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> MirrorKit:
    kit = make_mirror(tmp_path_factory.mktemp("mirror"))
    kit.publish()
    wider = [kit.variant(served=SECOND, variant=name) for name in (VARIANT, "torch-cuda")]
    kit.publish(*wider, served=SECOND, upstream=SECOND, version=3)
    kit.deny()
    return kit


@pytest.fixture(scope="module")
def app(kit: MirrorKit) -> ServeApp:
    return kit.app()


@pytest.fixture(scope="module")
def strict(kit: MirrorKit) -> ServeApp:
    return kit.app(deny_style=DenyStyle.ERROR)


def test_refs_list_published_versions_and_empty_ones_up_to_sixteen(app: ServeApp) -> None:
    refs = ask(app, f"{API}/refs?include_prs=1").json
    assert set(refs) == {"tags", "branches", "converts", "pullRequests"}
    table = {branch["name"]: branch["targetCommit"] for branch in refs["branches"]}
    assert table.pop("v1") == str(COMMIT)
    assert table.pop("v3") == str(SECOND)
    assert table == {f"v{n}": EMPTY_COMMIT for n in range(1, 17) if n not in {1, 3}}
    assert all(branch["ref"] == f"refs/heads/{branch['name']}" for branch in refs["branches"])
    assert "pullRequests" not in ask(app, f"{API}/refs").json


def test_style_error_lists_published_versions_only(strict: ServeApp) -> None:
    names = [branch["name"] for branch in ask(strict, f"{API}/refs").json["branches"]]
    assert names == ["v1", "v3"]


@pytest.mark.parametrize("revision", ["v1", str(COMMIT), "refs%2Fheads%2Fv1", "refs%2fheads%2fv1"])
def test_a_published_revision_has_many_names(app: ServeApp, revision: str) -> None:
    for target in (f"{API}/tree/{revision}", f"{API}/tree/{revision}?recursive=True&expand=False"):
        assert ask(app, target).json[0]["path"] == "build"
    assert ask(app, f"{API}/revision/{revision}").json["sha"] == str(COMMIT)
    reply = ask(app, f"/kernels/acme/relu/resolve/{revision}/{FILE}")
    assert (reply.status, reply.body) == (200, FILES["layers.py"])
    assert reply.headers["x-repo-commit"] == str(COMMIT)


def test_the_tree_lists_folders_files_and_lfs_files(app: ServeApp) -> None:
    root = ask(app, f"{API}/tree/v1").json
    assert [entry["path"] for entry in root] == ["build"]
    variants = ask(app, f"{API}/tree/v3/build?recursive=false&expand=false").json
    assert [entry["path"] for entry in variants] == ["build/torch-cpu", "build/torch-cuda"]
    everything = ask(app, f"{API}/tree/v1?recursive=true&expand=true").json
    assert [entry["path"] for entry in everything] == sorted(e["path"] for e in everything)
    large = next(entry for entry in everything if entry["path"] == LARGE)
    assert large["lfs"]["size"] == large["size"] == len(FILES["_relu.abi3.so"])
    assert all("xetHash" not in entry for entry in everything)
    assert all(entry["lastCommit"]["id"] == str(COMMIT) for entry in everything)
    assert (
        ask(app, f"{API}/tree/v1/build%2F{VARIANT}").json
        == ask(app, f"{API}/tree/v1/build/{VARIANT}/").json
    )


def test_git_itself_computes_the_same_tree_ids(app: ServeApp, tmp_path: Path) -> None:
    import subprocess

    def git(*arguments: str, data: bytes = b"") -> str:
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *arguments], input=data, capture_output=True, check=True
        )
        return done.stdout.decode().strip()

    git("init", "-q")
    lines = []
    for entry in ask(app, f"{API}/tree/v1?recursive=true").json:
        if entry["type"] == "file":
            data = FILES[entry["path"].rpartition("/")[2]]
            if lfs := entry.get("lfs"):
                data = (
                    f"version https://git-lfs.github.com/spec/v1\noid sha256:{lfs['oid']}\n"
                    f"size {lfs['size']}\n"
                ).encode()
                assert lfs["pointerSize"] == len(data)
            assert git("hash-object", "-w", "--stdin", data=data) == entry["oid"]
            lines.append(f"100644 {entry['oid']}\t{entry['path']}")
    git("update-index", "--add", "--index-info", data="\n".join(lines).encode())
    git("write-tree")
    build = next(entry for entry in ask(app, f"{API}/tree/v1").json)
    assert git("write-tree", "--prefix=build/") == build["oid"]


def test_a_long_tree_comes_in_pages_linked_with_a_cursor(
    app: ServeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ask(app, f"{API}/tree/v3?recursive=true").json
    monkeypatch.setattr(hubapi, "PAGE", 3)
    found: list[Any] = []
    target = f"{API}/tree/v3?recursive=true&expand=false"
    while target:
        reply = ask(app, target)
        assert len(reply.json) <= 3
        found += reply.json
        link = reply.headers.get("link", "")
        assert not link or (link.startswith("<http://mirror.test/") and 'rel="next"' in link)
        target = link.partition(">")[0].removeprefix("<http://mirror.test")
    assert found == whole
    assert len(ask(app, f"{API}/tree/v3?recursive=true&limit=2").json) == 2


def test_the_next_page_lies_at_the_public_address(kit: MirrorKit) -> None:
    app = kit.app(public_url="https://kgate.example/base")
    link = ask(app, f"{API}/tree/v1?recursive=true&limit=1").headers["link"]
    assert link.startswith(f"<https://kgate.example/base{API}/tree/v1?")


@pytest.mark.parametrize("query", ["cursor=-1", "cursor=x", "cursor=99999", "cursor=9" * 20])
def test_a_made_up_cursor_is_refused(app: ServeApp, query: str) -> None:
    assert ask(app, f"{API}/tree/v1?{query}").status == 400


def test_info_names_the_newest_version(app: ServeApp) -> None:
    info = ask(app, API).json
    assert (info["id"], info["sha"], info["author"]) == ("acme/relu", str(SECOND), "acme")
    assert info["gated"] is info["private"] is info["disabled"] is False


def test_info_lists_files_for_models_only(app: ServeApp) -> None:
    assert "siblings" not in ask(app, f"{API}/revision/v1").json
    as_model = API.replace("kernels", "models")
    assert {"rfilename": "build/torch-cuda/layers.py"} in ask(app, as_model).json["siblings"]
    with_blobs = ask(app, f"{as_model}/revision/v1?blobs=true").json["siblings"]
    large = next(item for item in with_blobs if item["rfilename"] == LARGE)
    assert large["size"] == large["lfs"]["size"]


def test_paths_info_answers_forms_and_json(app: ServeApp) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    data = f"paths={FILE}&paths=build&paths=nothing&expand=True".encode()
    reply = ask(app, f"{API}/paths-info/v1", "POST", form, data)
    assert [entry["path"] for entry in reply.json] == [FILE, "build"]
    assert reply.json[0]["lastCommit"]["id"] == str(COMMIT)
    as_json = {"content-type": "application/json"}
    body = f'{{"paths": "{FILE}", "expand": false}}'.encode()
    reply = ask(app, f"{API}/paths-info/v1", "POST", as_json, body)
    assert [entry["path"] for entry in reply.json] == [FILE]
    assert "lastCommit" not in reply.json[0]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b"{"),
        ("application/json", b"[1]"),
        ("application/json", b'{"paths": [1]}'),
        ("application/json", b'{"paths": 1}'),
        ("application/json", b"[" * 100_000),
        ("text/plain", b"\xff\xfe"),
        ("text/plain", b"paths=a&" * 2000),
        ("text/plain", b"paths=" + b"a" * (1024 * 1024 + 1)),
    ],
)
def test_a_malformed_paths_info_is_a_clean_refusal(app: ServeApp, kind: str, body: bytes) -> None:
    reply = ask(app, f"{API}/paths-info/v1", "POST", {"content-type": kind}, body)
    assert reply.status == 400
    assert reply.json["error"]


def test_commits_of_a_revision_are_its_publication(app: ServeApp) -> None:
    assert [commit["id"] for commit in ask(app, f"{API}/commits/v1").json] == [str(COMMIT)]
    assert ask(app, f"{API}/commits/v9").json == []


@pytest.mark.parametrize("repo", ["acme/unknown", "acme/evil", "nobody/nothing"])
def test_what_may_not_be_seen_is_a_kernel_without_builds(app: ServeApp, repo: str) -> None:
    api = f"/api/kernels/{repo}"
    table = ask(app, f"{api}/refs").json["branches"]
    assert {branch["targetCommit"] for branch in table} == {EMPTY_COMMIT}
    assert [branch["name"] for branch in table] == [f"v{number}" for number in range(1, 17)]
    for revision in (EMPTY_COMMIT, "v1", "v16", "main", "b" * 40, "refs%2Fheads%2Fv2"):
        reply = ask(app, f"{api}/tree/{revision}/build?recursive=false&expand=false")
        assert (reply.status, reply.json) == (200, [])
        missing = ask(app, f"/kernels/{repo}/resolve/{revision}/build/x/metadata.json", "HEAD")
        assert missing.status == 404
        assert missing.code in {"EntryNotFound", "RevisionNotFound"}
        assert "x-repo-commit" not in missing.headers
    assert ask(app, api).json["sha"] == EMPTY_COMMIT
    assert ask(app, f"{api}/revision/v7").json["sha"] == EMPTY_COMMIT
    assert ask(app, f"{api}/tree/v2?recursive=true").json == []


def test_a_commit_that_is_not_published_has_no_tree_that_clients_could_keep(
    app: ServeApp,
) -> None:
    for repo in ("acme/relu", "acme/unknown"):
        reply = ask(app, f"/api/kernels/{repo}/tree/{'b' * 40}?recursive=true&expand=false")
        assert (reply.status, reply.code) == (404, "RevisionNotFound")


def test_every_answer_about_what_may_not_be_seen_is_the_same(app: ServeApp) -> None:
    places = ("", "/refs", "/tree/v1/build", "/tree/main", "/revision/main", "/commits/v1",
              "/tree/v1", "/nothing", f"/tree/{commit_of('evil')}/build")  # fmt: skip
    for place in places:
        answers = set()
        for repo in ("acme/unknown", "acme/evilx", "acme/evil"):
            reply = ask(app, f"/api/kernels/{repo}{place}")
            body = reply.body.replace(repo.encode(), b"R").replace(b"acme", b"O")
            headers = {k: v.replace(repo, "R") for k, v in reply.headers.items()}
            headers.pop("content-length")
            answers.add((reply.status, body, str(sorted(headers.items()))))
        assert len(answers) == 1, (place, answers)


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/api/kernels/acme/unknown", 404, "RepoNotFound"),
        ("/api/kernels/acme/unknown/refs", 404, "RepoNotFound"),
        ("/api/kernels/acme/evil/tree/v1/build", 404, "RepoNotFound"),
        (f"{API}/tree/v2/build", 404, "RevisionNotFound"),
        (f"{API}/tree/nothing", 404, "RevisionNotFound"),
        ("/kernels/acme/relu/resolve/main/kernel-status.toml", 404, "EntryNotFound"),
        (f"{API}/tree/v1/nothing", 404, "EntryNotFound"),
        (f"{API}/revision/{EMPTY_COMMIT}", 404, "RevisionNotFound"),
        ("/kernels/acme/evil/resolve/v1/x", 404, "RepoNotFound"),
        ("/kernels/acme/relu/resolve/v2/x", 404, "RevisionNotFound"),
        ("/kernels/acme/relu/resolve/v1/x", 404, "EntryNotFound"),
        ("/api/models/acme/unknown", 404, "RepoNotFound"),
        ("/api/organizations/-/overview", 404, None),
    ],
)
def test_style_error_says_what_is_missing(
    strict: ServeApp, target: str, status: int, code: str | None
) -> None:
    reply = ask(strict, target)
    assert (reply.status, reply.code) == (status, code)


def test_style_error_trusts_publishers_with_published_kernels_only(strict: ServeApp) -> None:
    def trusted(org: str) -> bool:
        return bool(
            ask(strict, f"/api/organizations/{org}/overview").json["trustedKernelPublisher"]
        )

    assert trusted("acme")
    assert not trusted("nobody")


def test_style_fallback_trusts_every_publisher(app: ServeApp) -> None:
    reply = ask(app, "/api/organizations/nobody/overview").json
    assert reply == {
        "name": "nobody",
        "fullname": "nobody",
        "avatarUrl": "",
        "trustedKernelPublisher": True,
    }


def test_kernels_are_found_under_model_addresses_too(app: ServeApp) -> None:
    assert ask(app, "/api/models/acme/relu").json["sha"] == str(SECOND)
    assert ask(app, "/api/models/acme/relu/revision/main").json["sha"] == str(SECOND)
    branches = ask(app, "/api/models/acme/relu/refs").json["branches"]
    assert [branch["name"] for branch in branches] == ["main", "v1", "v3"]
    assert ask(app, f"/acme/relu/resolve/main/{FILE}").body == FILES["layers.py"]
    assert ask(app, f"/acme/relu/resolve/v1/{FILE}", "HEAD").status == 200


def test_unknown_models_are_not_found(app: ServeApp) -> None:
    for target in ("/api/models/acme/unknown", "/acme/unknown/resolve/main/config.json"):
        reply = ask(app, target)
        assert (reply.status, reply.code) == (404, "RepoNotFound")


@pytest.mark.parametrize(
    "target",
    [
        "/api/datasets/acme/relu",
        "/api/spaces/acme/relu/refs",
        "/datasets/acme/relu/resolve/main/x",
        "/spaces/acme/relu/resolve/main/x",
    ],
)
def test_datasets_and_spaces_are_refused_cleanly(app: ServeApp, target: str) -> None:
    reply = ask(app, target)
    assert (reply.status, reply.code) == (404, "RepoNotFound")
    assert "kgate serves kernels" in reply.json["error"]


def test_the_rest_of_what_clients_ask_gets_harmless_answers(app: ServeApp) -> None:
    assert ask(app, "/api/agent-harnesses").status == 404
    reply = ask(app, "/api/whoami-v2")
    assert reply.status == 401
    assert "Invalid credentials" in reply.headers["x-error-message"]
    assert ask(app, f"{API}/xet-read-token/{COMMIT}").status == 404
    assert ask(app, "/").status == 404
    assert ask(app, "/healthz").json == {"status": "ok"}
    ready = ask(app, "/readyz")
    assert (ready.status, ready.json["status"]) == (200, "ready")


def test_each_lane_shows_its_own_publications(kit: MirrorKit, tmp_path: Path) -> None:
    mirror = make_mirror(tmp_path)
    repo = KernelRef("acme", "prod")
    item = mirror.variant(repo=repo, lane=PRODUCTION)
    approved = mirror.trust.bundle(
        mirror_manifest(), mirror.trust.approve, **claims_of(repo, PRODUCTION)
    )
    from dataclasses import replace

    item = replace(item, bundles=(*item.bundles, mirror.put(approved)))
    mirror.publish(item, repo=repo, lane=PRODUCTION)
    app = mirror.app()
    assert ask(app, "/api/kernels/acme/prod/tree/v1/build").json == []
    in_lane = f"/l/{PRODUCTION}/api/kernels/acme/prod/tree/v1/build"
    assert [entry["path"] for entry in ask(app, in_lane).json] == [f"build/{VARIANT}"]
    file = ask(app, f"/l/{PRODUCTION}/kernels/acme/prod/resolve/v1/{FILE}")
    assert file.body == FILES["layers.py"]
    assert ask(app, "/l/nolane/api/kernels/acme/prod/tree/v1/build").json == []
    link = ask(app, f"{in_lane}?recursive=true&limit=1").headers["link"]
    assert f"/l/{PRODUCTION}/api/" in link


def mirror_manifest() -> Any:
    from tests.trustkit import manifest_of

    return manifest_of(FILES)


def claims_of(repo: KernelRef, lane: str) -> dict[str, Any]:
    from kgate_core.kernel import KernelId, RepoType
    from tests.trustkit import ORIGIN

    kernel = KernelId(ORIGIN, RepoType.KERNEL, repo, COMMIT, VARIANT)
    return {"kernel": kernel, "upstream_revision": COMMIT, "lane": lane}
