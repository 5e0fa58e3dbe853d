"""The Hub's HTTP interface as huggingface_hub 2.4 uses it, from a request to an answer.

Covered: refs, tree, revision, repository info, paths-info, commits, resolve, organizations and
whoami, for kernels and, under the same names, for models. Not covered: Xet, uploads, gating,
discussions, search.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from kgate_mirror_server.hubsim.wire import Answer, answer_error, answer_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import datetime

    from kgate_mirror_server.hubsim.content import Blob, Commit, Repository
    from kgate_mirror_server.hubsim.wire import Request

_TYPES: Final = frozenset({"kernels", "models"})
_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)")
_READ_ONLY: Final = "the simulator is read-only"


class HubApi:
    """Answers requests from repositories it is given; holds no state of its own."""

    def __init__(
        self, repositories: Mapping[str, Repository], trust: Mapping[str, bool], page_size: int
    ) -> None:
        self._repositories = repositories
        self._trust = trust
        self._page_size = page_size

    def answer(self, request: Request) -> Answer:
        """Return the answer; never raises for anything that a client can send."""
        paths_info = request.method == "POST" and "/paths-info/" in request.path
        if request.method not in {"GET", "HEAD"} and not paths_info:
            return answer_error(403, _READ_ONLY)
        match request.segments:
            case ["api", "whoami-v2"]:
                return _whoami(request)
            case ["api", "organizations", org, "overview"]:
                return self._organization(org)
            case ["api", kind, org, name, *rest] if kind in _TYPES:
                found = self._repositories.get(f"{org}/{name}")
                return self._repository(found, rest, request) if found else _no_repository()
            case ["kernels", org, name, "resolve", revision, *path]:
                return self._resolve(f"{org}/{name}", revision, "/".join(path), request)
            case [org, name, "resolve", revision, *path]:
                return self._resolve(f"{org}/{name}", revision, "/".join(path), request)
            case _:
                return answer_error(404, "Sorry, we can't find the page you are looking for.")

    def _organization(self, org: str) -> Answer:
        if org not in self._trust and not any(
            name.startswith(f"{org}/") for name in self._repositories
        ):
            return answer_error(404, f"Organization {org} not found")
        return answer_json(
            {
                "name": org,
                "fullname": org,
                "avatarUrl": "",
                "trustedKernelPublisher": self._trust.get(org, True),
            }
        )

    def _repository(self, found: Repository, rest: list[str], request: Request) -> Answer:
        match rest:
            case []:
                return _with_commit(found, "main", lambda commit: _info(found, commit))
            case ["refs"]:
                return answer_json(_refs(found, request.query))
            case ["revision", revision]:
                return _with_commit(found, revision, lambda commit: _info(found, commit))
            case ["commits", revision]:
                return _with_commit(found, revision, lambda commit: _commits(found, commit))
            case ["tree", revision, *path]:
                place = "/".join(path)
                return _with_commit(
                    found, revision, lambda commit: self._tree(commit, place, request)
                )
            case ["paths-info", revision] if request.method == "POST":
                return _with_commit(found, revision, lambda commit: _paths(commit, request))
            case _:
                return answer_error(404, "Sorry, we can't find the page you are looking for.")

    def _tree(self, commit: Commit, place: str, request: Request) -> Answer:
        if place and place not in commit.directories:
            return _no_entry(place)
        query = request.query
        deep, expand = _true(query.get("recursive")), _true(query.get("expand"))
        prefix = f"{place}/" if place else ""
        entries = [
            _entry(commit, path, expand=expand)
            for path in sorted([*commit.files, *commit.directories])
            if path.startswith(prefix) and (deep or "/" not in path[len(prefix) :])
        ]
        cursor = query.get("cursor", "0")
        start = int(cursor) if cursor.isdecimal() else 0
        end = start + self._page_size
        if end >= len(entries):
            return answer_json(entries[start:])
        following = urlencode({**query, "cursor": str(end)})
        link = f'<{request.base}{request.path}?{following}>; rel="next"'
        return answer_json(entries[start:end], headers={"Link": link})

    def _resolve(self, name: str, revision: str, path: str, request: Request) -> Answer:
        found = self._repositories.get(name)
        if found is None:
            return _no_repository()
        commit = found.find(revision)
        if commit is None:
            return _no_revision(revision)
        blob = commit.files.get(path)
        if blob is None:
            missing = _no_entry(path)
            return Answer(
                missing.status,
                {**missing.headers, "X-Repo-Commit": commit.id},
                missing.length,
                missing.chunks,
            )
        return _file(blob, commit, request)


def _file(blob: Blob, commit: Commit, request: Request) -> Answer:
    headers = {
        "Content-Type": "application/octet-stream",
        "X-Repo-Commit": commit.id,
        "ETag": f'"{blob.etag}"',
        "Accept-Ranges": "bytes",
    }
    wanted = _range(request.headers.get("range", ""), blob.size)
    if wanted is None:
        return Answer(200, headers, blob.size, lambda: blob.chunks(0, blob.size), blob)
    start, length = wanted
    if length <= 0:
        return Answer(416, {**headers, "Content-Range": f"bytes */{blob.size}"}, blob=blob)
    headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{blob.size}"
    return Answer(206, headers, length, lambda: blob.chunks(start, length), blob)


def _range(header: str, size: int) -> tuple[int, int] | None:
    """Return start and length of a single byte range, RFC 9110 §14.1.2; None means the whole."""
    found = _RANGE.fullmatch(header.replace(" ", ""))
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        length = min(size, int(found[2]))
        return size - length, length
    start = int(found[1])
    end = min(int(found[2]) + 1, size) if found[2] else size
    return start, end - start


def _refs(found: Repository, query: Mapping[str, str]) -> dict[str, Any]:
    branches = [
        {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit}
        for name, commit in sorted(found.branches.items())
    ]
    refs: dict[str, Any] = {"branches": branches, "converts": [], "tags": []}
    if _true(query.get("include_prs")):
        refs["pullRequests"] = []
    return refs


def _info(found: Repository, commit: Commit) -> Answer:
    return answer_json(
        {
            "_id": commit.id[:24],
            "id": found.name,
            "modelId": found.name,
            "author": found.name.partition("/")[0],
            "sha": commit.id,
            "lastModified": _time(commit.date),
            "createdAt": _time(commit.date),
            "private": False,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": ["kernel"],
            "siblings": [{"rfilename": path} for path in commit.files],
        }
    )


def _commits(found: Repository, commit: Commit) -> Answer:
    def walk() -> Iterator[Commit]:
        following: Commit | None = commit
        while following is not None:
            yield following
            following = found.commits.get(following.parent or "")

    return answer_json(
        [
            {
                "id": each.id,
                "title": each.message.partition("\n")[0],
                "message": each.message.partition("\n")[2],
                "date": _time(each.date),
                "authors": [{"user": found.name.partition("/")[0]}],
            }
            for each in walk()
        ]
    )


def _paths(commit: Commit, request: Request) -> Answer:
    form = request.form()
    expand = _true(form.get("expand", [""])[-1])
    wanted: Iterable[str] = form.get("paths", [])
    known = [path for path in wanted if path in commit.files or path in commit.directories]
    return answer_json([_entry(commit, path, expand=expand) for path in known])


def _entry(commit: Commit, path: str, *, expand: bool) -> dict[str, Any]:
    entry: dict[str, Any]
    blob = commit.files.get(path)
    if blob is None:
        entry = {"type": "directory", "oid": commit.directories[path], "size": 0, "path": path}
    else:
        entry = {"type": "file", "oid": blob.oid, "size": blob.size, "path": path}
        if blob.sha256 is not None:
            entry["lfs"] = {
                "oid": blob.sha256,
                "size": blob.size,
                "pointerSize": blob.pointer_size,
            }
    if expand:
        title = commit.message.partition("\n")[0]
        entry["lastCommit"] = {"id": commit.id, "title": title, "date": _time(commit.date)}
    return entry


def _with_commit(found: Repository, revision: str, then: Callable[[Commit], Answer]) -> Answer:
    commit = found.find(revision)
    return _no_revision(revision) if commit is None else then(commit)


def _whoami(request: Request) -> Answer:
    if not request.headers.get("authorization", "").startswith("Bearer "):
        return answer_error(401, "Invalid credentials in Authorization header")
    # Any token will do: whether a token is right is not simulated, only where it goes.
    return answer_json(
        {
            "type": "user",
            "name": "simulated",
            "fullname": "Simulated User",
            "auth": {
                "type": "access_token",
                "accessToken": {"displayName": "simulated", "role": "read"},
            },
            "orgs": [],
        }
    )


def _no_repository() -> Answer:
    return answer_error(404, "Repository not found", "RepoNotFound")


def _no_revision(revision: str) -> Answer:
    return answer_error(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def _no_entry(path: str) -> Answer:
    return answer_error(404, f"Entry not found: {path}", "EntryNotFound")


def _true(value: str | None) -> bool:
    return value is not None and value.lower() in {"true", "1"}


def _time(date: datetime) -> str:
    return date.strftime("%Y-%m-%dT%H:%M:%S.000Z")
