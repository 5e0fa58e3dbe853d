"""Carries out what the gate answers, once for each kernel of a process.

Here a mode becomes behaviour: observe changes nothing, warn loads and complains, enforce refuses
in the one way that callers take for "use your own implementation", strict refuses and lets nobody
mistake it. What is checked stands in `gate`; how `kernels` reaches this stands in `hook`.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, assert_never

from kgate_client import versions
from kgate_client.answer import Answer, Cleared, Refused, Trace
from kgate_client.attestations import AttestationFinder
from kgate_client.blocked import KgateBlocked
from kgate_client.gate import Gate
from kgate_client.loader import import_sealed
from kgate_client.place import Mismatch, Place, expect
from kgate_client.store import DocumentStore
from kgate_client.trust import TrustKeeper
from kgate_core.errors import InvalidInput
from kgate_core.trust import Mode

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path
    from types import ModuleType

    from kgate_client.asked import Asked
    from kgate_client.channel import Channel
    from kgate_client.config import PodConfig
    from kgate_client.report import Reporter
    from kgate_client.request import Request
    from kgate_client.seal import SealedStore
    from kgate_core.digest import Digest
    from kgate_core.lock import Lock

REMEMBER_REFUSAL: Final = 30.0  # seconds in which the same refused files are not read again
_FALLBACK: Final = "Running the PyTorch fallback."
_RAISED: Final = "Mode strict: the caller gets the error."
_LOADED_ANYWAY: Final = "Loaded all the same: mode {mode} does not stop it."


@dataclass(slots=True)
class _Loaded:
    answer: Cleared
    module: ModuleType


@dataclass(slots=True)
class _Memory:
    by_path: dict[Path, _Loaded] = field(default_factory=dict)
    by_manifest: dict[Digest, _Loaded] = field(default_factory=dict)
    refused: dict[tuple[Path, Asked], tuple[float, Refused]] = field(default_factory=dict)


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
            pinned, self.store, channel, lane=config.lane, monotonic=monotonic
        )
        self.finder = AttestationFinder(self.store, channel)
        self.sealed = sealed
        self.gate = Gate(
            lane=config.lane,
            keeper=self.keeper,
            finder=self.finder,
            sealed=self.sealed,
            lock=self._read_lock,
            library_path=config.library_path,
            now=now,
        )
        self._now = now
        self._monotonic = monotonic
        self._memory = _Memory()
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
        if self.keeper.pinned:
            trusted = self.keeper.floor(self._now())
            if trusted is not None:
                lane = trusted.lanes.get(self.config.lane)
                floor = Mode.ENFORCE if lane is None else lane.mode
                return floor if wanted is None else max(wanted, floor, key=_strictness)
        if wanted is None or wanted is Mode.WARN:
            return Mode.ENFORCE
        return wanted

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

    def blocked(self, kernel: str, reason: str, message: str, *, asked: Asked) -> KgateBlocked:
        """Report a load that failed before or after the gate and return what to raise for it."""
        mode = self.mode()
        trace = Trace(str(asked), "", repo=asked.repo or "")
        self._report(trace, mode, _refusal_outcome(mode), reason, message)
        self._say(kernel, reason, message, mode)
        return KgateBlocked(kernel, reason, message)

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
                self._report(
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

    def _again(self, request: Request, loaded: _Loaded, mode: Mode) -> ModuleType:
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
        until, answer = self._memory.refused.get((request.path, request.asked), (0.0, None))
        return answer if self._monotonic() < until else None

    def _import(self, request: Request, answer: Cleared, mode: Mode) -> ModuleType:
        digest = answer.manifest.digest
        same = self._memory.by_manifest.get(digest)
        if same is not None:
            # Another path to the same bytes; native code can be registered only once.
            module = same.module
        else:
            if answer.sealed is None:
                raise InvalidInput("a kernel can only be imported from a sealed copy")
            try:
                with answer.trace.timed("import"):
                    module = import_sealed(
                        answer.sealed,
                        answer.manifest,
                        name=str(answer.metadata["id"]),
                        package=str(answer.metadata.get("name", "")).replace("-", "_"),
                        context=request.library.context(),
                    )
            except Exception as exc:
                self._report(answer.trace, mode, "import-error", type(exc).__name__, str(exc))
                raise
        loaded = _Loaded(answer, module)
        self._memory.by_path[request.path] = loaded
        self._memory.by_manifest.setdefault(digest, loaded)
        if answer.sealed is not None:
            request.library.register(request.path, module, answer.sealed)
        if not self.config.offline:
            versions.keep(Place.of(request.path))
        self._report(answer.trace, mode, "loaded")
        self._warn_stale(answer)
        return module

    def _refuse(self, request: Request, answer: Refused, mode: Mode) -> ModuleType:
        kernel = answer.trace.kernel
        if mode is Mode.WARN:
            self._report(answer.trace, mode, "warned", answer.reason, answer.message)
            self._say(kernel, answer.reason, answer.message, mode)
            return request.library.load_ungated()
        key = (request.path, request.asked)
        if self._remembered(request) is None:
            self._memory.refused[key] = (self._monotonic() + REMEMBER_REFUSAL, answer)
        outcome = _refusal_outcome(mode)
        self._report(answer.trace, mode, outcome, answer.reason, answer.message)
        self._say(kernel, answer.reason, answer.message, mode)
        raise KgateBlocked(kernel, answer.reason, answer.message)

    def _depends(self, request: Request) -> tuple[Digest, ...]:
        found = (self.digest_of(module) for module in request.depends)
        return tuple(digest for digest in found if digest is not None)

    def _say(self, kernel: str, reason: str, message: str, mode: Mode) -> None:
        match mode:
            case Mode.STRICT:
                consequence = _RAISED
            case Mode.ENFORCE:
                consequence = _FALLBACK
            case Mode.WARN | Mode.OBSERVE:
                consequence = _LOADED_ANYWAY.format(mode=mode)
        self.reporter.refused(kernel, reason, message, consequence=consequence)

    def _warn_stale(self, answer: Cleared) -> None:
        trusted = answer.trace.trusted
        lane = None if trusted is None else trusted.lanes.get(self.config.lane)
        if trusted is None or lane is None or trusted.age(self._now()) <= lane.soft_staleness:
            return
        minutes = int(trusted.age(self._now()).total_seconds() // 60)
        self.reporter.warn(
            "stale-trust",
            f"kgate: the trust metadata is {minutes} min old and could not be refreshed"
            f" ({self.keeper.problem or 'offline'}).",
        )

    def _report(
        self, trace: Trace, mode: Mode, outcome: str, reason: str = "", message: str = ""
    ) -> None:
        self.reporter.decision(
            trace,
            now=self._now(),
            mode=str(mode),
            outcome=outcome,
            reason=reason,
            message=message,
            problem=self.keeper.problem,
        )

    def _read_lock(self) -> Lock | None:
        if self.config.lock is None:
            return None
        from kgate_core.lock import Lock

        try:
            return Lock.parse(self.config.lock.read_bytes())
        except OSError as exc:
            raise InvalidInput(f"the lock {self.config.lock} cannot be read ({exc})") from exc


def _strictness(mode: Mode) -> int:
    return mode.strictness


def _refusal_outcome(mode: Mode) -> str:
    match mode:
        case Mode.STRICT:
            return "raised"
        case Mode.ENFORCE:
            return "fallback"
        case Mode.WARN:
            return "warned"
        case Mode.OBSERVE:
            return "observed"
