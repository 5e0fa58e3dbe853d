"""The simulator: repositories, trust and faults behind one Hub on localhost.

It keeps what clients asked for as long as it runs, so it is no server for production.
"""

from __future__ import annotations

import threading
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final, Self

from kgate_core.errors import InvalidInput, NotFound
from kgate_mirror_server.hubsim.api import HubApi
from kgate_mirror_server.hubsim.content import EPOCH, Repository, read_folder
from kgate_mirror_server.hubsim.faults import Injection, spoil
from kgate_mirror_server.hubsim.server import LoopbackServer
from kgate_mirror_server.hubsim.wire import Recorded

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path
    from types import TracebackType

    from kgate_mirror_server.hubsim.faults import Fault
    from kgate_mirror_server.hubsim.wire import Answer, Request

_PAGE_SIZE: Final = 1000  # entries; the Hub's own for trees


class HubSimulator:
    """A Hub of folders; a context manager, and safe to use from several threads."""

    def __init__(self, *, port: int = 0, page_size: int = _PAGE_SIZE) -> None:
        self._lock = threading.RLock()
        self._repositories: dict[str, Repository] = {}
        self._trust: dict[str, bool] = {}
        self._injections: list[Injection] = []
        self._requests: list[Recorded] = []
        self._api = HubApi(self._repositories, self._trust, page_size)
        self._port = port
        self._server: LoopbackServer | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The value for `HF_ENDPOINT`; raises InvalidInput before `start`."""
        if self._server is None:
            raise InvalidInput("the simulator is not running", hint="call start() first")
        return self._server.url

    def start(self) -> None:
        """Begin to serve; raises InvalidInput if the port is taken. Twice is the same as once."""
        if self._server is not None:
            return
        try:
            self._server = LoopbackServer(self.respond, self._port)
        except OSError as exc:
            raise InvalidInput(f"port {self._port} cannot be used: {exc.strerror}") from exc
        self._server.begin()

    def stop(self) -> None:
        """Stop serving and cut every connection. Twice is the same as once."""
        if self._server is not None:
            self._server.end()
            self._server = None

    def publish(
        self,
        repo: str,
        folder: Path,
        *,
        branch: str = "v1",
        message: str = "Upload kernel",
        date: datetime = EPOCH,
    ) -> str:
        """Put the folder's content as a new commit on the branch and return the commit's id.

        A new repository also gets a `main` that holds the README, as upstream lays it out. The
        same calls give the same ids. Raises NotFound if there is no such folder.
        """
        files = read_folder(folder)
        with self._lock:
            found = self._repositories.setdefault(repo, Repository(repo))
            if branch != "main" and "main" not in found.branches:
                card = {path: blob for path, blob in files.items() if path == "README.md"}
                found.commit("main", card, "initial commit", date)
            return found.commit(branch, files, message, date).id

    def take_down(self, repo: str, branch: str | None = None) -> None:
        """Remove a branch, whose commits stay reachable, or the whole repository.

        Raises NotFound if there is none.
        """
        with self._lock:
            found = self._repositories.get(repo)
            if found is None or (branch is not None and branch not in found.branches):
                raise NotFound(f"the simulator does not serve {repo} {branch or ''}".rstrip())
            if branch is None:
                del self._repositories[repo]
            else:
                del found.branches[branch]

    def trust(self, org: str, *, trusted: bool = True) -> None:
        """Say whether the organization is a trusted kernel publisher; all are unless said."""
        with self._lock:
            self._trust[org] = trusted

    def inject(
        self, fault: Fault, path: str = "*", *, method: str = "*", times: int | None = None
    ) -> None:
        """Let the fault strike requests whose path matches the pattern, `times` times or always.

        The pattern is a shell's (`*/resolve/*.so`); of several faults that match, the oldest
        strikes.
        """
        with self._lock:
            self._injections.append(Injection(fault, path, method, times))

    def heal(self) -> None:
        """Forget every injected fault."""
        with self._lock:
            self._injections.clear()

    @property
    def repositories(self) -> tuple[str, ...]:
        """The names of the repositories that are served."""
        with self._lock:
            return tuple(self._repositories)

    @property
    def requests(self) -> tuple[Recorded, ...]:
        """Every request so far, oldest first."""
        with self._lock:
            return tuple(self._requests)

    def count(self, path: str = "*", *, method: str = "*", blob: str | None = None) -> int:
        """Count the requests for paths of this pattern, or those answered with this blob's ETag."""
        return sum(
            fnmatchcase(each.path, path)
            and method in {"*", each.method}
            and blob in {None, each.blob}
            for each in self.requests
        )

    def forget_requests(self) -> None:
        """Start counting anew."""
        with self._lock:
            self._requests.clear()

    def respond(self, request: Request) -> Answer:
        """Answer one request, with the fault that strikes it, and record it."""
        with self._lock:
            answer = self._api.answer(request)
            struck = next((each for each in self._injections if each.strikes(request)), None)
            if struck is not None:
                answer = spoil(answer, struck.fault)
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            self._requests.append(
                Recorded(
                    method=request.method,
                    path=request.path,
                    query=request.query,
                    headers=request.headers,
                    token=token if scheme.lower() == "bearer" else None,
                    status=answer.status,
                    blob=answer.blob.etag if answer.blob else None,
                )
            )
            return answer


def serve_folder(root: Path, port: int = 0) -> HubSimulator:
    """Start a simulator that serves `root/<org>/<name>/<branch>/…`; the caller stops it.

    A repository folder that holds `build` itself is its own branch `v1`. Raises NotFound if there
    is no repository, InvalidInput if the port is taken.
    """
    simulator = HubSimulator(port=port)
    for repository in sorted(path for path in root.glob("*/*") if path.is_dir()):
        name = f"{repository.parent.name}/{repository.name}"
        if name.startswith("."):
            continue
        if (repository / "build").is_dir():
            simulator.publish(name, repository)
            continue
        for branch in sorted(path for path in repository.iterdir() if path.is_dir()):
            simulator.publish(name, branch, branch=branch.name)
    if not simulator.repositories:
        raise NotFound(f"{root} holds no repository", hint="expected <org>/<name>/<branch>/build")
    simulator.start()
    return simulator
