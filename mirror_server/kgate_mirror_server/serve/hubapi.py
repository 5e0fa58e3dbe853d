"""The Hub's read interface, as huggingface_hub and `kernels` use it, over a snapshot.

Kernels stand under their own addresses and, for clients that know no kernel repositories, under
those of models. There is no Xet, no redirect and no pass-through here: every byte and header of
an answer is the mirror's own. File bodies are sent by `blobresponse`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from kgate_core.errors import InvalidInput
from kgate_mirror_server.serve import repodocs
from kgate_mirror_server.serve.lookup import Empty
from kgate_mirror_server.serve.target import (
    commit_header,
    find_target,
    no_entry,
    no_repo,
    no_revision,
)
from kgate_mirror_server.serve.wire import error, flag, json_answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kgate_mirror_server.ports import ServedFile
    from kgate_mirror_server.serve.lookup import Visible
    from kgate_mirror_server.serve.target import Target
    from kgate_mirror_server.serve.wire import Answer, Header, Request

PAGE: Final = 1000  # entries of a tree in one answer
_MAX_DIGITS: Final = 9  # of a cursor or page size


@dataclass(frozen=True, slots=True)
class FileAnswer:
    """A file that a caller may have, and the headers that go with it."""

    file: ServedFile
    headers: tuple[Header, ...]


class HubApi:
    """Answers API requests below `/api/…` and finds files for `resolve`; holds no state."""

    def __init__(self, public_url: str) -> None:
        self._public_url = public_url

    async def api(self, request: Request, parts: Sequence[str], visible: Visible) -> Answer:
        """Answer a request whose path, after `/api/`, is `parts`."""
        match parts:
            case ["organizations", org, "overview"]:
                return repodocs.overview(org, visible)
            case ["whoami-v2"]:
                return repodocs.whoami(visible)
            case ["kernels" | "models" as kind, org, name, *rest]:
                target = find_target(kind, org, name, visible)
                if target is None:
                    return no_repo(f"{org}/{name}")
                return await self._repo(request, target, rest)
            case ["datasets" | "spaces" as kind, *_]:
                return error(404, f"kgate serves kernels, not {kind}", code="RepoNotFound")
            case _:
                return error(404, "there is nothing at this address")

    async def _repo(self, request: Request, target: Target, rest: Sequence[str]) -> Answer:
        match rest:
            case ["paths-info", revision] if request.method == "POST":
                return await repodocs.paths_info(request, target, revision)
            case []:
                return repodocs.info(target, None, request)
            case ["refs"]:
                return repodocs.refs(target, request)
            case ["revision", revision]:
                return repodocs.info(target, revision, request)
            case ["tree", revision, *path]:
                return self._tree(request, target, revision, "/".join(path).rstrip("/"))
            case ["commits", revision]:
                return repodocs.commits(target, revision)
            case _:
                return error(404, "there is nothing at this address", code="EntryNotFound")

    def _tree(self, request: Request, target: Target, revision: str, path: str) -> Answer:
        found = target.revision(revision)
        if found is None:
            if target.uniform and path:
                return json_answer([])
            return no_revision(target, revision)
        if isinstance(found, Empty):
            return json_answer([])
        if path and path not in found.entries:
            return no_entry(found, path)
        query = request.query()
        entries = found.below(path) if flag(query, "recursive") else found.entries[path]
        start = _cursor(query.get("cursor"), len(entries))
        size = _page_size(query.get("limit"))
        page = entries[start : start + size]
        if flag(query, "expand"):
            page = [{**entry, "lastCommit": found.last_commit} for entry in page]
        headers: tuple[Header, ...] = ()
        if start + size < len(entries):
            headers = (self._next_page(request, query, start + size),)
        return json_answer(page, *headers)

    def _next_page(self, request: Request, query: dict[str, str], start: int) -> Header:
        fields = {**query, "cursor": str(start)}
        text = "&".join(f"{quote(key)}={quote(value, safe='')}" for key, value in fields.items())
        path = "".join("/" + quote(part, safe="") for part in request.segments or ())
        base = self._public_url
        if not base:
            host = request.header(b"host") or ""
            if not host or any(char in host for char in '<>"\\ /'):
                raise InvalidInput("the Host header is missing or malformed")
            base = f"{request.scope.get('scheme', 'http')}://{host}"
        url = f"{base}{path}?{text}"
        return (b"link", f'<{url}>; rel="next"'.encode("ascii", "replace"))


def find_file(target: Target, revision: str, path: str) -> FileAnswer | Answer:
    """Return the file that a resolve URL names, or the answer that there is none."""
    found = target.revision(revision)
    if found is None:
        return no_revision(target, revision)
    if isinstance(found, Empty):
        # No commit header: with one, clients would remember the absence.
        return error(404, f"{target.ref} has no file {path!r}", code="EntryNotFound")
    file = found.files.get(path)
    if file is None:
        return no_entry(found, path)
    return FileAnswer(file, (commit_header(found),))


def _cursor(text: str | None, limit: int) -> int:
    if text is None:
        return 0
    if not text.isascii() or not text.isdecimal() or len(text) > _MAX_DIGITS or int(text) > limit:
        raise InvalidInput("not a cursor of this list")
    return int(text)


def _page_size(text: str | None) -> int:
    if text is None or not text.isascii() or not text.isdecimal() or len(text) > _MAX_DIGITS:
        return PAGE
    return min(max(int(text), 1), PAGE)
