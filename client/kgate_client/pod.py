"""Carries out what the gate answers, once for each kernel of a process.

Here a mode becomes behaviour: observe changes nothing, warn loads and complains, enforce refuses
in the one way that callers take for "use your own implementation", strict refuses and lets nobody
mistake it. What is checked stands in `gate`; how `kernels` reaches this stands in `hook`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, assert_never

from kgate_client import versions
from kgate_client.answer import Answer, Cleared, Refused, Trace
from kgate_client.asked import Asked
from kgate_client.attestations import AttestationFinder
from kgate_client.blocked import KgateBlocked, KgateRefusal, KgateStopped
from kgate_client.choice import Choices
from kgate_client.gate import Gate
from kgate_client.loader import import_sealed
from kgate_client.locks import locked_commit, read_lock
from kgate_client.memory import Loaded, Memory
from kgate_client.place import Mismatch, Place, expect
from kgate_client.previous import PreviousVersions, find_previous, note_version
from kgate_client.store import DocumentStore
from kgate_client.trust import TrustKeeper
from kgate_client.voice import Voice
from kgate_core.errors import InvalidInput, KgateError
from kgate_core.ondeny import OnDeny
from kgate_core.trust import Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime
    from types import ModuleType

    from kgate_client.channel import Channel
    from kgate_client.config import PodConfig
    from kgate_client.locks import HeldLock
    from kgate_client.report import Reporter
    from kgate_client.request import Request
    from kgate_client.seal import SealedStore
    from kgate_core.digest import Digest


class Pod:
    """The shim of this process."""

    def __init__(
        self,
        config: PodConfig,
        *,
        pinned: bytes | None,
        sealed: SealedStore,
        channel: Channel | None,
        reporter: Reporter,
        now: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.channel = channel
        self.reporter = reporter
        self.store = DocumentStore(config.cache)
        self.keeper = TrustKeeper(
            pinned, self.store, channel, lane=config.lane, log=channel, monotonic=monotonic
        )
        self.finder = AttestationFinder(self.store, channel)
        self.sealed = sealed
        self.gate = Gate(
            lane=config.lane,
            keeper=self.keeper,
            finder=self.finder,
            sealed=self.sealed,
            lock=self._read_lock,
            pool=config.canary,
            library_path=config.library_path,
            now=now,
        )
        self._voice = Voice(reporter, self.keeper, now, config.lane)
        self._previous = PreviousVersions(self.store)
        self._now = now
        self._monotonic = monotonic
        self._memory = Memory()
        self._hub: Channel | None = None
        self._turn = threading.RLock()

    def renew_locks(self) -> None:
        """Forget who holds which lock: nobody does in a process that was just forked."""
        self._turn = threading.RLock()
        self.keeper.renew_lock()
        self.store.renew_lock()
        self.reporter.renew_lock()

    def mode(self) -> Mode:
        """Return the mode that binds: the environment's, but never below the signed floor.

        Without a trust root only observe loads anything, so warn means enforce there.
        """
        wanted = self.config.mode
        trusted = self.keeper.floor(self._now())
        if trusted is not None:
            lane = trusted.lanes.get(self.config.lane)
            floor = Mode.ENFORCE if lane is None else lane.mode
            return floor if wanted is None else max(wanted, floor, key=_strictness)
        if wanted is None or wanted is Mode.WARN:
            return Mode.ENFORCE
        return wanted

    def choice(self, repo: str) -> OnDeny:
        """Return what becomes of a refused kernel (`choice`); a lock that is none says nothing."""
        trusted = self.keeper.floor(self._now())
        lane = None if trusted is None else trusted.lanes.get(self.config.lane)
        try:
            held = self._read_lock()
        except KgateError:
            held = None
        lock = None if held is None else held.lock
        return Choices(self.mode(), lane, lock, self.config.on_deny).of(repo)

    def locked_commit(self, repo: str, pin: str, resolved: str) -> str:
        """Return which commit a pin means under this pod's lock (`locks.locked_commit`)."""
        try:
            held = self._read_lock()
        except KgateError:
            return resolved  # the gate says so for every kernel
        return locked_commit(held, self.finder, (repo, pin, self.config.lane), resolved)

    def load(self, request: Request) -> ModuleType:
        """Load, or refuse with KgateBlocked, one variant; raises what the kernel's code raises."""
        mode = self.mode()
        if mode is Mode.OBSERVE:
            return self._observe(request)
        with self._turn:
            return self._load(request, mode)

    def unreachable(self) -> str:
        """Return why the endpoint cannot be reached, or nothing; remembered for half a minute."""
        from kgate_client.channel import PUBLIC_HUB, Channel

        if self.config.offline:
            return ""
        if self._hub is None:
            self._hub = self.channel or Channel(PUBLIC_HUB)
        return self._hub.probe()

    def blocked(self, kernel: str, reason: str, message: str, *, asked: Asked) -> KgateRefusal:
        """Report a load that failed before or after the gate and return what to raise for it.

        A mirror's no may be a revocation that this process has not heard of: it asks for one.
        """
        self.keeper.hurry(self._now())
        mode = self.mode()
        choice = self.choice(asked.repo or "")
        trace = Trace(str(asked), "", repo=asked.repo or "")
        self._voice.refuse(trace, kernel, mode, choice, reason, message)
        return _refusal(choice, kernel, reason, message)

    def previous(self, asked: Asked, reason: str, message: str) -> ModuleType | None:
        """Return the version of before for a load that failed before the gate, where one is kept.

        Only for kernels without dependencies: nothing has loaded those at that point.
        """
        with self._turn:
            found = self._kept(asked)
            if found is None:
                return None
            return self._keep(found, contextlib.nullcontext(), str(asked), reason, message)

    def previous_commit(self, asked: Asked) -> str | None:
        """Return the commit of the version of before, for callers that ask for a commit first."""
        found = self._kept(asked)
        return None if found is None else str(found.verdict.vsa.kernel.revision)

    def _kept(
        self, asked: Asked, depends: Sequence[Digest] = (), refused: str = ""
    ) -> Cleared | None:
        if self.mode() is not Mode.ENFORCE:
            return None
        if self.choice(asked.repo or "") is not OnDeny.KEEP_PREVIOUS:
            return None
        return find_previous(self.gate, self._previous, asked, depends=depends, refused=refused)

    def digest_of(self, module: ModuleType) -> Digest | None:
        """Return the manifest digest of a module that came through the gate."""
        for digest, loaded in self._memory.by_manifest.items():
            if loaded.module is module:
                return digest
        return None

    def loaded(self) -> tuple[Cleared, ...]:
        """Return what was cleared and loaded in this process, in order."""
        return tuple(item.answer for item in self._memory.by_manifest.values())

    def _observe(self, request: Request) -> ModuleType:
        if request.library.find(request.path) is None:
            try:
                answer = self.gate.check(
                    request.asked, request.path, depends=self._depends(request), seal=False
                )
                refused = answer if isinstance(answer, Refused) else None
                self._voice.report(
                    answer.trace,
                    Mode.OBSERVE,
                    "observed",
                    "" if refused is None else refused.reason,
                    "" if refused is None else refused.message,
                )
            except Exception:  # observing may never change what a program does
                import logging

                logging.getLogger(__name__).debug("observing failed", exc_info=True)
        return request.library.load_ungated()

    def _load(self, request: Request, mode: Mode) -> ModuleType:
        loaded = self._memory.by_path.get(request.path)
        if loaded is not None:
            return self._again(request, loaded, mode)
        known = request.library.find(request.path)
        if known is not None and mode is Mode.WARN:
            return known  # said once, when it was loaded
        answer: Answer = self._remembered(request) or self.gate.check(
            request.asked, request.path, depends=self._depends(request)
        )
        match answer:
            case Cleared():
                return self._import(request, answer, mode)
            case Refused():
                return self._refuse(request, answer, mode)
            case _:
                assert_never(answer)

    def _again(self, request: Request, loaded: Loaded, mode: Mode) -> ModuleType:
        """Answer for a path that is loaded: the module stands, the question may be another."""
        kernel = loaded.answer.verdict.vsa.kernel
        try:
            expected = expect(request.asked, Place.of(request.path), self.config.lane)
        except Mismatch as exc:
            problem = str(exc)
        else:
            same = expected.repo in {None, kernel.repo} and expected.revision in {
                None,
                kernel.revision,
            }
            if same:
                return loaded.module
            problem = f"asked for {request.asked}, the files are those of {kernel.repo}"
        trace = Trace(str(request.asked), str(request.path))
        return self._refuse(request, Refused(trace, "wrong-identity", problem), mode)

    def _remembered(self, request: Request) -> Refused | None:
        return self._memory.refusal(request, self._monotonic())

    def _import(self, request: Request, answer: Cleared, mode: Mode) -> ModuleType:
        digest = answer.manifest.digest
        same = self._memory.by_manifest.get(digest)
        if same is not None:
            # Another path to the same bytes; native code can be registered only once.
            module = same.module
        else:
            try:
                module = self._run(answer, request.library.context())
            except Exception as exc:
                name = type(exc).__name__
                self._voice.report(answer.trace, mode, "import-error", name, str(exc))
                raise
        loaded = Loaded(answer, module)
        self._memory.by_path[request.path] = loaded
        self._memory.by_manifest.setdefault(digest, loaded)
        if answer.sealed is not None:
            request.library.register(request.path, module, answer.sealed)
        if not self.config.offline:
            versions.keep(Place.of(request.path))
        note_version(self._previous, request.asked, answer)
        self._voice.report(answer.trace, mode, "loaded")
        self._voice.warn_stale(answer)
        self._voice.warn_opened(answer)
        return module

    def _run(self, answer: Cleared, context: AbstractContextManager[object]) -> ModuleType:
        if answer.sealed is None:
            raise InvalidInput("a kernel can only be imported from a sealed copy")
        with answer.trace.timed("import"):
            return import_sealed(
                answer.sealed,
                answer.manifest,
                name=str(answer.metadata["id"]),
                package=str(answer.metadata.get("name", "")).replace("-", "_"),
                context=context,
            )

    def _refuse(self, request: Request, answer: Refused, mode: Mode) -> ModuleType:
        kernel, repo = answer.trace.kernel, answer.trace.repo or request.asked.repo or ""
        choice = self.choice(repo)
        if mode is Mode.WARN:
            self._voice.refuse(answer.trace, kernel, mode, choice, answer.reason, answer.message)
            return request.library.load_ungated()
        self._memory.remember(request, answer, self._monotonic())
        asked = Asked(repo or None, request.asked.pin or answer.trace.revision or None)
        kept = self._kept(asked, self._depends(request), answer.trace.manifest)
        if kept is not None:
            context = request.library.context()
            return self._keep(kept, context, kernel, answer.reason, answer.message)
        self._voice.refuse(answer.trace, kernel, mode, choice, answer.reason, answer.message)
        raise _refusal(choice, kernel, answer.reason, answer.message)

    def _keep(
        self,
        kept: Cleared,
        context: AbstractContextManager[object],
        kernel: str,
        reason: str,
        message: str,
    ) -> ModuleType:
        digest = kept.manifest.digest
        loaded = self._memory.by_manifest.get(digest) or Loaded(kept, self._run(kept, context))
        self._memory.by_manifest.setdefault(digest, loaded)
        self._voice.keep(kept, kernel, self.mode(), reason, message)
        return loaded.module

    def _depends(self, request: Request) -> tuple[Digest, ...]:
        found = (self.digest_of(module) for module in request.depends)
        return tuple(digest for digest in found if digest is not None)

    def _read_lock(self) -> HeldLock | None:
        return read_lock(self.config.lock, self.config.canary)


def _strictness(mode: Mode) -> int:
    return mode.strictness


def _refusal(choice: OnDeny, kernel: str, reason: str, message: str) -> KgateRefusal:
    kind = KgateStopped if choice is OnDeny.BLOCK else KgateBlocked
    return kind(kernel, reason, message)
