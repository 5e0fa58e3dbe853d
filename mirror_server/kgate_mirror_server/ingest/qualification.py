"""Takes in results of `kgate qualify`, and lets them take part in the next decision.

A result counts for bytes that this mirror knows. It is kept with who submitted it, and that is what
is signed: this mirror was told so by them. Nothing is measured here, and nobody's numbers are
believed any further.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kgate_core import strictjson
from kgate_core.clock import read_time
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput, NotFound
from kgate_core.kernel import KernelId
from kgate_mirror_server.catalog.qualifications import SqlQualifications, Submitted
from kgate_mirror_server.ports import EvidenceKind, IntakeState
from kgate_signer.predicates import QUALIFICATION_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from kgate_core.lock import Lock, LockedKernel
    from kgate_mirror_server.app import Mirror

MAX_RESULT: Final = 1024**2  # bytes of one result
MAX_NAME: Final = 200  # characters of a submitter's name
_NUMBERS: Final = ("speedupPpm", "maxAbsErrorPpm", "maxRelErrorPpm")
_WHAT: Final = "qualification result"


def take_in(
    known: SqlQualifications,
    data: bytes,
    now: datetime,
    *,
    through: str | None = None,
    may: Callable[[KernelId, str], bool] = lambda _kernel, _lane: True,
    accepted_by: str = "",
) -> Submitted:
    """Keep a result; raises InvalidInput if it is none, NotFound if its bytes are unknown here.

    `through` is who sent it, if the mirror knows better than the result itself; `may` says whether
    the submitter may know of a kernel in a lane; `accepted_by` is who took a file in.
    """
    document = read_result(data)
    manifest = Digest.parse(document["manifest"])
    places = known.places(manifest)
    if not any(may(kernel, lane) for kernel, lane in places):
        raise NotFound(
            f"no kernel here has the manifest {manifest}",
            hint="results count for what the mirror has: pin it and run `kgate sync` first",
        )
    submitter: dict[str, Any] = document["submitter"]
    if through is not None:
        submitter = {"name": through, "said": submitter["name"]}
    elif accepted_by:
        submitter = {**submitter, "acceptedBy": accepted_by}
    kept = strictjson.dumps({**document, "submitter": submitter})
    item = Submitted(manifest, str(submitter["name"]), kept, now)
    known.add(item)
    return item


def read_result(data: bytes) -> dict[str, Any]:
    """Read what `kgate qualify` wrote; raises InvalidInput."""
    document: dict[str, Any] = strictjson.loads(data, what=_WHAT, max_bytes=MAX_RESULT)
    schema = strictjson.take(document, "schema", str, what=_WHAT)
    if schema != QUALIFICATION_SCHEMA:
        raise InvalidInput(f"{_WHAT}: the schema is {schema!r}, not {QUALIFICATION_SCHEMA}")
    Digest.parse(strictjson.take(document, "manifest", str, what=_WHAT))
    submitter = strictjson.take(document, "submitter", dict, what=_WHAT)
    name = strictjson.take(submitter, "name", str, what=f"{_WHAT}: submitter")
    if not name.strip() or len(name) > MAX_NAME or not name.isprintable():
        raise InvalidInput(f"{_WHAT}: nobody is named as its submitter")
    read_time(strictjson.take(document, "finishedAt", str, what=_WHAT), what=_WHAT)
    strictjson.take(document, "passed", bool, what=_WHAT)
    for field in _NUMBERS:
        if field in document:
            strictjson.take(document, field, int, what=_WHAT)
    return document


def attach(mirror: Mirror, lock: Lock, now: datetime) -> None:
    """Put new results beside the evidence of what the lock names, so that it is decided anew."""
    known = SqlQualifications(mirror.catalog.engine)
    qualified = known.manifests()
    for locked in lock.kernels:
        for name, promised in locked.variants.items():
            if str(promised.manifest) not in qualified:
                continue
            if (item := known.newest(promised.manifest)) is not None:
                _attach(mirror, locked, name, item, now)


def _attach(
    mirror: Mirror, locked: LockedKernel, name: str, item: Submitted, now: datetime
) -> None:
    kernel = KernelId(locked.origin, locked.repo_type, locked.repo, locked.commit, name)
    digest = Digest.of(item.document)
    found = dict(mirror.room.found(kernel, locked.lane) or {})
    if found.get(EvidenceKind.MANIFEST, item.manifest) != item.manifest:
        return  # other bytes than the lock promises: the sync says so
    kept = found.get(EvidenceKind.QUALIFICATION)
    if kept == digest and _published(mirror, locked, name) in {None, digest}:
        return
    mirror.room.keep(item.document)
    found |= {EvidenceKind.MANIFEST: item.manifest, EvidenceKind.QUALIFICATION: digest}
    # Without a decision it is looked at again, and signed with the result.
    found.pop(EvidenceKind.DECISION, None)
    scanned = EvidenceKind.SCAN in found
    state = IntakeState.SCANNED if scanned else IntakeState.QUARANTINE
    mirror.room.remember(kernel, locked.lane, item.manifest, found, state, now)


def _published(mirror: Mirror, locked: LockedKernel, name: str) -> Digest | None:
    """Return the result that was signed with what is served now; None if nothing is served."""
    served = [
        item
        for item in mirror.catalog.publications_of(locked.repo, locked.lane)
        if item.upstream == locked.commit and any(v.variant == name for v in item.variants)
    ]
    if not served:
        return None
    newest = max(served, key=lambda item: item.published_at)
    variant = next(v for v in newest.variants if v.variant == name)
    # A publication without any result is told apart from none at all by a digest that nothing has.
    return variant.evidence.get(EvidenceKind.QUALIFICATION, variant.manifest)
