"""The documents of the Hub's interface about a whole repository: refs, info, commits, paths.

Built from a snapshot's views; the mirror's own words, never copied from an upstream.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from kgate_core.clock import write_time
from kgate_core.errors import InvalidInput
from kgate_core.kernel import RepoType
from kgate_mirror_server.serve.lookup import EMPTY_COMMIT, Empty, branch_table, parse_ref
from kgate_mirror_server.serve.settings import DenyStyle
from kgate_mirror_server.serve.target import no_revision
from kgate_mirror_server.serve.wire import error, flag, json_answer

if TYPE_CHECKING:
    from kgate_mirror_server.serve.lookup import Visible
    from kgate_mirror_server.serve.target import Target
    from kgate_mirror_server.serve.view import RevisionView
    from kgate_mirror_server.serve.wire import Answer, Request

MAX_FORM: Final = 1024 * 1024  # bytes of a paths-info form
MAX_PATHS: Final = 1000  # paths in one paths-info request
_EPOCH: Final = "1970-01-01T00:00:00Z"


def overview(org: str, visible: Visible) -> Answer:
    """Answer what a publisher is: above all, whether `kernels` may trust it."""
    if parse_ref(org, "name") is None:
        return error(404, "there is no such organization")
    # Nothing undecided can be fetched from here, so every publisher may be trusted.
    trusted = visible.style is DenyStyle.FALLBACK or visible.publishes_for(org)
    return json_answer(
        {"name": org, "fullname": org, "avatarUrl": "", "trustedKernelPublisher": trusted}
    )


def whoami(visible: Visible) -> Answer:
    """Answer who the caller is."""
    name = visible.caller.name
    if name is None:
        return error(401, "Invalid credentials in Authorization header")
    return json_answer(
        {
            "type": "user",
            "name": name,
            "fullname": name,
            "auth": {"type": "access_token", "accessToken": {"displayName": name, "role": "read"}},
            "orgs": [],
        }
    )


def refs(target: Target, request: Request) -> Answer:
    """Answer the branches of a repository."""
    if target.uniform:
        table = branch_table(target.found)
    else:
        branches = target.found.branches if target.found else {}
        table = {number: str(served) for number, served in sorted(branches.items())}
    listed = {f"v{number}": commit for number, commit in table.items()}
    if target.asked_as is RepoType.MODEL and target.found is not None:
        listed = {"main": str(target.found.newest.served), **listed}
    document: dict[str, Any] = {
        "tags": [],
        "branches": [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit}
            for name, commit in listed.items()
        ],
        "converts": [],
    }
    if flag(request.query(), "include_prs"):
        document["pullRequests"] = []
    return json_answer(document)


def info(target: Target, revision: str | None, request: Request) -> Answer:
    """Answer what a repository is at a revision, or at its newest."""
    found: RevisionView | Empty | None
    if revision is None:
        found = target.found.newest if target.found is not None else Empty.COMMIT
    else:
        found = target.revision(revision)
    if found is None:
        return no_revision(target, revision or "")
    commit, changed = EMPTY_COMMIT, _EPOCH
    if not isinstance(found, Empty):
        commit, changed = str(found.served), write_time(found.published_at)
    document: dict[str, Any] = {
        "_id": commit[:24],
        "id": str(target.ref),
        "author": target.ref.org,
        "sha": commit,
        "lastModified": changed,
        "createdAt": changed,
        "private": False,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
    }
    if target.asked_as is RepoType.MODEL:
        # For models only, as the Hub has it: clients of 1.x stumble over a kernel's file list here.
        document |= {"tags": [], "siblings": _siblings(found, blobs=flag(request.query(), "blobs"))}
    return json_answer(document)


def _siblings(found: RevisionView | Empty, *, blobs: bool) -> list[dict[str, Any]]:
    if isinstance(found, Empty):
        return []
    files = [entry for entry in found.recursive if entry["type"] == "file"]
    return [_sibling(entry, blobs=blobs) for entry in files]


def _sibling(entry: dict[str, Any], *, blobs: bool) -> dict[str, Any]:
    sibling: dict[str, Any] = {"rfilename": entry["path"]}
    if blobs:
        sibling |= {"size": entry["size"], "blobId": entry["oid"]}
        if lfs := entry.get("lfs"):
            sibling["lfs"] = {
                "sha256": lfs["oid"],
                "size": lfs["size"],
                "pointerSize": lfs["pointerSize"],
            }
    return sibling


def commits(target: Target, revision: str) -> Answer:
    """Answer the history of a revision: one publication."""
    found = target.revision(revision)
    if found is None:
        return no_revision(target, revision)
    if isinstance(found, Empty):
        return json_answer([])
    last = found.last_commit
    return json_answer([{**last, "message": "", "authors": [{"user": "kgate"}]}])


async def paths_info(request: Request, target: Target, revision: str) -> Answer:
    """Answer the entries of the paths that the body names."""
    paths, expand = _read_paths(await request.body(MAX_FORM), request.header(b"content-type"))
    found = target.revision(revision)
    if found is None:
        return no_revision(target, revision)
    if isinstance(found, Empty):
        return json_answer([])
    by_path = {entry["path"]: entry for entry in found.recursive}
    wanted = [by_path[path] for path in paths if path in by_path]
    if expand:
        wanted = [{**entry, "lastCommit": found.last_commit} for entry in wanted]
    return json_answer(wanted)


def _read_paths(body: bytes, content_type: str | None) -> tuple[list[str], bool]:
    """Read the paths of a paths-info body, a form or JSON; raises InvalidInput."""
    try:
        if content_type is not None and content_type.startswith("application/json"):
            data = json.loads(body)
            paths, expand = data.get("paths", []), data.get("expand") is True
            if isinstance(paths, str):
                paths = [paths]
            if not all(isinstance(path, str) for path in paths):
                raise InvalidInput("paths should be a list of strings")
        else:
            fields = parse_qsl(
                body.decode("utf-8"), keep_blank_values=True, max_num_fields=MAX_PATHS + 10
            )
            paths = [value for key, value in fields if key == "paths"]
            expand = any(key == "expand" and value.lower() == "true" for key, value in fields)
    except (ValueError, AttributeError, TypeError, RecursionError) as exc:
        raise InvalidInput("the body is not a form or JSON object of paths") from exc
    if len(paths) > MAX_PATHS:
        raise InvalidInput(f"more than {MAX_PATHS} paths in one request")
    return [path.strip("/") for path in paths], expand
