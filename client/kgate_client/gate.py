"""Decides about one variant directory: whether these very bytes may run for what was asked.

This is the product, seen from the pod. `Gate.check` goes through numbered steps and answers with a
value; it neither imports a kernel nor chooses what happens after a no (see `pod`). Every doubt,
every missing document and every error of kgate's own family is a refusal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kgate_client.answer import Answer, Cleared, Refused, Trace
from kgate_client.closure import check_closure, mapped_files
from kgate_client.files import copy_files, digest_files, walk
from kgate_client.loader import check_name
from kgate_client.locks import disallowed
from kgate_client.place import Mismatch, Place, expect
from kgate_client.seal import discard
from kgate_core import strictjson
from kgate_core.digest import Digest
from kgate_core.errors import IntegrityError, InvalidInput, KgateError, NotFound, TrustError
from kgate_core.kernel import KernelRef, Revision
from kgate_core.verify import Expected, Reason, Rejected, Verified, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from kgate_client.asked import Asked
    from kgate_client.attestations import AttestationFinder
    from kgate_client.files import Walked
    from kgate_client.locks import HeldLock
    from kgate_client.previous import Earlier
    from kgate_client.seal import SealedStore
    from kgate_client.trust import TrustKeeper
    from kgate_core.manifest import Manifest
    from kgate_core.trust import TrustedRoot
    from kgate_core.verify import Verdict

METADATA: Final = "metadata.json"
# A fresh document from the mirror cannot change these answers.
_FINAL: Final = frozenset({Reason.REVOKED, Reason.STALE, Reason.UNKNOWN_LANE})


class _Stop(Exception):  # noqa: N818  # control flow inside this module, never leaves it
    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Gate:
    """Holds what the steps need; one per process."""

    def __init__(
        self,
        *,
        lane: str,
        keeper: TrustKeeper,
        finder: AttestationFinder,
        sealed: SealedStore,
        lock: Callable[[], HeldLock | None],
        pool: str = "",
        library_path: str,
        now: Callable[[], datetime],
    ) -> None:
        self._lane = lane
        self._keeper = keeper
        self._finder = finder
        self._sealed = sealed
        self._lock = lock
        self._pool = pool
        self._library_path = library_path
        self._now = now

    def check(
        self, asked: Asked, path: Path, *, depends: Sequence[Digest] = (), seal: bool = True
    ) -> Answer:
        """Answer for one request.

        1. There is trust metadata that a pinned root vouches for.
        2. What was asked for and where the files lie do not contradict each other.
        3. The files can be read; each byte is digested, and copied in the same pass.
        4. Attestations for exactly these files verify for this request (`kgate_core.verify`).
        5. The lock, the version asked for, the module name and the dependencies agree, and its
           libraries would be found in the variant and nowhere else.
        6. The copy is kept, read-only, under the name of its manifest.
        """
        trace = Trace(str(asked), str(path))
        staging: Path | None = None
        try:
            # 1.
            with trace.timed("trust"):
                trace.trusted = trusted = self._keeper.current(self._now())
            # 2.
            place = Place.of(path)
            expected = expect(asked, place, self._lane)
            trace.variant = place.variant
            trace.repo = "" if expected.repo is None else str(expected.repo)
            trace.revision = "" if expected.revision is None else str(expected.revision)
            # 3.
            walked = walk(path, links_into=place.repo_folder)
            trace.ignored = walked.ignored
            manifest, staging, sealed = self._read(walked, expected, trace, seal=seal)
            trace.manifest = str(manifest.digest)
            # 4.
            with trace.timed("verify"):
                verdict = self._verify(expected, manifest, trusted, trace)
            # 5.
            metadata = _read_metadata(staging or sealed or path, manifest)
            self._agree(asked, verdict, metadata, depends)
            self._agree_lock(asked, verdict, manifest, trusted)
            self._agree_libraries(staging or sealed or path, manifest)
            # 6.
            if staging is not None:
                with trace.timed("seal"):
                    sealed = self._sealed.keep(staging, manifest)
                staging = None
                self._finder.note(_name_of(verdict), manifest.digest)
            return Cleared(trace, verdict, manifest, metadata, sealed)
        except (_Stop, Mismatch, KgateError, OSError) as exc:
            return _refused(trace, exc)
        finally:
            if staging is not None:
                discard(staging)

    def recheck(self, asked: Asked, noted: Earlier, *, depends: Sequence[Digest] = ()) -> Answer:
        """Answer for a version that ran before, under today's trust: steps 1, 4 and 5 of `check`.

        Its own copy is digested again. The lock must know the kernel, but may hold a newer version.
        """
        copy = self._sealed.path(noted.digest)
        trace = Trace(str(asked), str(copy), str(asked.repo), noted.revision, noted.variant)
        trace.manifest = str(noted.digest)
        try:
            return self._recheck(asked, noted, depends, trace)
        except (_Stop, KgateError, OSError) as exc:
            return _refused(trace, exc)

    def _recheck(
        self, asked: Asked, noted: Earlier, depends: Sequence[Digest], trace: Trace
    ) -> Cleared:
        trace.trusted = trusted = self._keeper.current(self._now())
        attested = self._finder.cached(noted.digest)
        if attested is None:
            raise _Stop(str(Reason.NO_BUNDLE), "the cache holds no attestation for it any more")
        manifest = attested.manifest
        repo, revision = KernelRef.parse(trace.repo), Revision(noted.revision)
        expected = Expected(noted.variant, self._lane, repo, revision)
        verdict = verify(expected, manifest, attested.bundles, trusted, now=self._now())
        trace.verdict = verdict
        if isinstance(verdict, Rejected):
            raise _Stop(str(verdict.reason), verdict.message)
        sealed = self._sealed.check(manifest)
        metadata = _read_metadata(sealed, manifest)
        if metadata.get("kernel-depends") and not depends:
            raise _Stop("dependency", "its dependencies are not loaded")
        self._agree(asked, verdict, metadata, depends)
        held = self._lock()
        if refused := disallowed(held, trusted.lanes[self._lane], self._pool):
            raise _Stop("lock-not-allowed", refused)
        if held is not None and not held.knows(repo, self._lane):
            raise _Stop("not-locked", f"{repo} is not locked")
        self._agree_libraries(sealed, manifest)
        return Cleared(trace, verdict, manifest, metadata, sealed)

    def _read(
        self, walked: Walked, expected: Expected, trace: Trace, *, seal: bool
    ) -> tuple[Manifest, Path | None, Path | None]:
        """Return the manifest of the files with a new copy, or with one that was there."""
        if not seal:
            with trace.timed("digest"):
                return digest_files(walked), None, None
        name = _name(expected)
        known = None if name is None else self._finder.hint(name)
        if known is not None and self._sealed.path(known.manifest.digest).is_dir():
            with trace.timed("compare"):
                sealed = self._sealed.compare(known.manifest, walked)
            if sealed is not None:
                return known.manifest, None, sealed
        manifest, staging = self._copy(walked, trace)
        return manifest, staging, None

    def _copy(self, walked: Walked, trace: Trace) -> tuple[Manifest, Path]:
        with trace.timed("copy"):
            staging = self._sealed.stage()
            try:
                return copy_files(walked, staging), staging
            except BaseException:
                discard(staging)
                raise

    def _verify(
        self, expected: Expected, manifest: Manifest, trusted: TrustedRoot, trace: Trace
    ) -> Verified:
        verdict: Verdict | None = None
        cached = self._finder.cached(manifest.digest)
        if cached is not None:
            verdict = verify(expected, manifest, cached.bundles, trusted, now=self._now())
        undecided = not isinstance(verdict, Verified) and (
            verdict is None or verdict.reason not in _FINAL
        )
        if undecided and self._finder.online:
            verdict = self._ask_mirror(expected, manifest, trusted, verdict)
        if verdict is None:
            self._explain_difference(expected, manifest)
            raise _Stop(str(Reason.NO_BUNDLE), "offline, and the cache holds no attestation for it")
        trace.verdict = verdict
        match verdict:
            case Verified():
                trace.repo = str(verdict.vsa.kernel.repo)
                trace.revision = str(verdict.vsa.kernel.revision)
                return verdict
            case Rejected():
                raise _Stop(str(verdict.reason), verdict.message)

    def _ask_mirror(
        self,
        expected: Expected,
        manifest: Manifest,
        trusted: TrustedRoot,
        before: Verdict | None,
    ) -> Verdict:
        try:
            fresh = self._finder.fetch(_name(expected), manifest.digest)
        except NotFound as exc:
            return before or Rejected(Reason.NO_BUNDLE, exc.message)
        except KgateError as exc:
            if before is not None:
                return before
            raise _Stop(
                str(Reason.NO_BUNDLE), f"no attestation in the cache, and {exc.message}"
            ) from exc
        if fresh.manifest != manifest:
            changes = "; ".join(fresh.manifest.differences(manifest.files))
            raise _Stop(IntegrityError.code, changes)
        return verify(expected, manifest, fresh.bundles, trusted, now=self._now())

    def _explain_difference(self, expected: Expected, manifest: Manifest) -> None:
        name = _name(expected)
        known = None if name is None else self._finder.hint(name)
        if known is not None:
            changes = "; ".join(known.manifest.differences(manifest.files))
            raise _Stop(IntegrityError.code, changes)

    def _agree(
        self,
        asked: Asked,
        verdict: Verified,
        metadata: dict[str, Any],
        depends: Sequence[Digest],
    ) -> None:
        vsa = verdict.vsa
        name = strictjson.take(metadata, "id", str, what=METADATA)
        if name != vsa.metadata_id:
            raise _Stop(
                str(Reason.WRONG_IDENTITY), f"metadata.json has the id {name!r}, not the signed one"
            )
        if refused := check_name(name):
            raise _Stop("module-name", refused)
        version = metadata.get("version")
        if asked.version is not None and asked.repo and isinstance(version, int):
            self._agree_version(asked, version)
        for digest in depends:
            if vsa.depends and digest not in vsa.depends:
                raise _Stop("dependency", f"the dependency {digest} is not one that was admitted")

    @staticmethod
    def _agree_version(asked: Asked, version: int) -> None:
        # A request for a directory is noted as version 0: there is nothing to compare.
        if asked.version and asked.version != version:
            raise _Stop(
                str(Reason.WRONG_IDENTITY),
                f"asked for version {asked.version}, these files are version {version}",
            )

    def _agree_libraries(self, directory: Path, manifest: Manifest) -> None:
        problem = check_closure(
            directory, manifest, library_path=self._library_path, mapped=mapped_files()
        )
        if problem:
            raise _Stop("library-replaced", problem)

    def _agree_lock(
        self, asked: Asked, verdict: Verified, manifest: Manifest, trusted: TrustedRoot
    ) -> None:
        held = self._lock()
        if refused := disallowed(held, trusted.lanes[self._lane], self._pool):
            raise _Stop("lock-not-allowed", refused)
        kernel = verdict.vsa.kernel
        if held is not None and not held.holds(asked, kernel, self._lane, manifest.digest):
            raise _Stop(
                "not-locked", f"{kernel.repo} {kernel.variant} with these files is not locked"
            )


def _refused(trace: Trace, exc: Exception) -> Refused:
    match exc:
        case _Stop():
            return Refused(trace, exc.reason, exc.message)
        case Mismatch():
            return Refused(trace, str(Reason.WRONG_IDENTITY), str(exc))
        case TrustError():
            return Refused(trace, "no-trust", exc.message)
        case KgateError():
            return Refused(trace, exc.code, exc.message)
        case _:
            return Refused(trace, "cannot-seal", f"no private copy could be made: {exc}")


def _name(expected: Expected) -> str | None:
    if expected.repo is None or expected.revision is None:
        return None
    return f"{expected.repo}/{expected.revision}/{expected.variant}"


def _name_of(verdict: Verified) -> str:
    kernel = verdict.vsa.kernel
    return f"{kernel.repo}/{kernel.revision}/{kernel.variant}"


def _read_metadata(directory: Path, manifest: Manifest) -> dict[str, Any]:
    entry = manifest.by_path.get(METADATA)
    if entry is None:
        raise InvalidInput("the variant has no metadata.json")
    data = (directory / METADATA).read_bytes()
    if Digest.of(data) != entry.digest:
        raise IntegrityError("metadata.json changed while it was read")
    document = strictjson.loads(data, what=METADATA, floats=True)
    if not isinstance(document, dict):
        raise InvalidInput("metadata.json is not an object")
    return document
