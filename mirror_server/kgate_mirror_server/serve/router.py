"""From an address to an answer: who asks, in which lane, for what.

Requests that would change something are refused here, and callers with bad credentials. Each
request is answered from one snapshot. What the parts answer is theirs to know.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kgate_core.kernel import RepoType
from kgate_mirror_server.catalog.keeping import Place
from kgate_mirror_server.serve.access import NOBODY, SHIM_MARK
from kgate_mirror_server.serve.hubapi import FileAnswer, HubApi, find_file
from kgate_mirror_server.serve.logapi import LogApi
from kgate_mirror_server.serve.lookup import Visible
from kgate_mirror_server.serve.page import kernel_page
from kgate_mirror_server.serve.target import find_target, no_repo
from kgate_mirror_server.serve.view import RevisionView
from kgate_mirror_server.serve.wire import error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kgate_mirror_server.serve.access import Access, Caller
    from kgate_mirror_server.serve.blobresponse import BlobSender
    from kgate_mirror_server.serve.delegate import ModelDelegate
    from kgate_mirror_server.serve.evidenceapi import EvidenceApi
    from kgate_mirror_server.serve.podapi import PodApi
    from kgate_mirror_server.serve.qualifications import QualificationInbox
    from kgate_mirror_server.serve.reports import ReportInbox
    from kgate_mirror_server.serve.settings import ServeSettings
    from kgate_mirror_server.serve.snapshot import Snapshot
    from kgate_mirror_server.serve.wire import Answer, Request, Send

READ_ONLY: Final = "kgate mirror is read-only"
_READING: Final = frozenset({"GET", "HEAD"})
_TAKEN: Final = (["api", "kgate", "v1", "reports"], ["api", "kgate", "v1", "qualifications"])
"""The only addresses that take something in."""
_CHALLENGE: Final = (b"www-authenticate", b"Bearer")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request with what was found out about it before anything is looked up."""

    request: Request
    parts: Sequence[str]
    """Decoded path segments, without the lane."""
    lane: str
    caller: Caller


class Router:
    """Finds the part that answers."""

    def __init__(
        self,
        hub: HubApi,
        pod: PodApi,
        evidence: EvidenceApi,
        sender: BlobSender,
        access: Access,
        settings: ServeSettings,
        reports: ReportInbox,
        delegate: ModelDelegate | None = None,
    ) -> None:
        self._hub = hub
        self._pod = pod
        self._evidence = evidence
        self._sender = sender
        self._access = access
        self._settings = settings
        self._reports = reports
        self._log = LogApi(settings.trust)
        self._delegate = delegate
        self.used: Callable[[Place], None] = lambda _place: None
        """Told which publication a file was asked of."""
        self.qualifications: QualificationInbox | None = None
        """Takes results of `kgate qualify`; without, there is no such address."""

    def admit(self, request: Request, parts: Sequence[str]) -> Asked | Answer:
        """Return the request with its lane and caller, or the answer that refuses it."""
        lane = self._settings.lane
        if len(parts) > 2 and parts[0] == "l":  # noqa: PLR2004  # /l/<lane>/…
            lane, parts = parts[1], parts[2:]
        asks_paths = request.method == "POST" and "paths-info" in parts
        brings = request.method == "POST" and list(parts) in _TAKEN
        if request.method not in _READING and not asks_paths and not brings:
            return error(403, READ_ONLY)
        caller = self._access.caller(request)
        if caller is None:
            return error(401, "Invalid credentials in Authorization header", _CHALLENGE)
        if lane in self._settings.marked_lanes and not _is_marked(request, parts):
            caller = NOBODY
        return Asked(request, parts, lane, caller)

    async def answer(self, asked: Asked, snapshot: Snapshot, send: Send) -> Answer | None:
        """Return the answer, or None if it was sent already."""
        if snapshot.generation < 0:
            return error(503, "the catalog could not be read yet", (b"retry-after", b"1"))
        style = self._settings.deny_style
        visible = Visible(asked.lane, snapshot.lane(asked.lane), asked.caller, style)
        if self._delegate is not None and (strange := _strange_model(asked.parts, snapshot)):
            known = {self._settings.lane, *snapshot.lanes}
            return await self._model(self._delegate, asked, strange, send, known)
        match asked.parts:
            case ["api", "kgate", "v1", *rest]:
                return await self._own(asked.request, rest, visible)
            case ["api", *rest]:
                return await self._hub.api(asked.request, rest, visible)
            case ["k", org, name]:
                return kernel_page(asked.request, org, name, visible)
            case ["kernels", org, name, "resolve", revision, *path]:
                named = ("kernels", org, name)
                return await self._file(asked, send, visible, named, revision, path)
            case ["datasets" | "spaces" as kind, _, _, "resolve", *_]:
                return error(404, f"kgate serves kernels, not {kind}", code="RepoNotFound")
            case [org, name, "resolve", revision, *path]:
                named = ("models", org, name)
                return await self._file(asked, send, visible, named, revision, path)
            case _:
                return error(404, "there is nothing at this address")

    async def _own(self, request: Request, rest: Sequence[str], visible: Visible) -> Answer:
        match rest:
            case ["evidence", *asked]:
                return await asyncio.to_thread(self._evidence.answer, asked, visible)
            case ["reports"]:
                return await self._reports.answer(request)
            case ["qualifications"] if self.qualifications is not None:
                return await self.qualifications.answer(request, visible.caller)
            case ["log", after]:
                whole = visible.caller.sees_everything
                return await asyncio.to_thread(self._log.answer, after, whole=whole)
            case _:
                return self._pod.answer(rest, visible)

    async def _model(
        self, delegate: ModelDelegate, asked: Asked, repo: str, send: Send, lanes: set[str]
    ) -> Answer | None:
        if asked.lane not in lanes or not asked.caller.sees(asked.lane, repo):
            return no_repo(repo)
        return await delegate.answer(asked.request, asked.parts, asked.lane, send)

    async def _file(
        self,
        asked: Asked,
        send: Send,
        visible: Visible,
        named: tuple[str, str, str],
        revision: str,
        path: Sequence[str],
    ) -> Answer | None:
        target = find_target(*named, visible)
        if target is None:
            return no_repo("/".join(named[1:]))
        found = find_file(target, revision, "/".join(path))
        if not isinstance(found, FileAnswer):
            return found
        view = target.revision(revision)
        if target.found is not None and isinstance(view, RevisionView):
            kind = str(target.found.repo_type)
            self.used(Place(kind, str(target.ref), str(view.served), asked.lane))
        if not asked.request.head:
            repo = "/".join(named[1:])
            self._reports.downloaded(asked.request, repo, revision, "/".join(path))
        await self._sender.send(asked.request, send, found.file, found.headers)
        return None


def _strange_model(parts: Sequence[str], snapshot: Snapshot) -> str | None:
    """Return the model asked for if no lane knows its name, as model or as kernel."""
    match parts:
        case ["api", "models", org, name, *_]:
            pass
        case [org, name, "resolve", _, *_] if org not in {"kernels", "datasets", "spaces"}:
            pass
        case _:
            return None
    repo = f"{org}/{name}"
    known = any(
        repo in lane.denials or any((kind, repo) in lane.repos for kind in RepoType)
        for lane in snapshot.lanes.values()
    )
    return None if known else repo


def _is_marked(request: Request, parts: Sequence[str]) -> bool:
    """Return whether the shim is beside this client, or the shim itself asks (T55)."""
    return parts[:2] == ["api", "kgate"] or SHIM_MARK in (request.header(b"user-agent") or "")
