"""The lock of this pod: which file it is, and what its digest is.

A pool of replicas (`KGATE_CANARY=blue`) takes `kgate.blue.lock` beside `kgate.lock` where there is
one: the pool is named in the pod's template, so all replicas of a revision read the same. Whether a
lock may be used at all is signed for the lane and compared by `gate`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput, KgateError
from kgate_core.kernel import RepoType

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_client.asked import Asked
    from kgate_client.attestations import AttestationFinder
    from kgate_core.kernel import KernelId, KernelRef
    from kgate_core.lock import Lock, LockedKernel
    from kgate_core.trust import Lane

_POOL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}")  # as Kubernetes writes labels


@dataclass(frozen=True, slots=True)
class HeldLock:
    """A lock as it was read, with the digest that signed floors name."""

    lock: Lock
    digest: Digest

    def entries(self, repo: KernelRef, lane: str) -> list[LockedKernel]:
        """Return what is locked of a kernel repository in a lane."""
        return [
            entry
            for entry in self.lock.kernels
            if (entry.repo, entry.repo_type, entry.lane) == (repo, RepoType.KERNEL, lane)
        ]

    def knows(self, repo: KernelRef, lane: str) -> bool:
        """Return whether a repository is locked in a lane, at whatever version."""
        return bool(self.entries(repo, lane))

    def holds(self, asked: Asked, kernel: KernelId, lane: str, manifest: Digest) -> bool:
        """Return whether these very files are locked for what was asked."""
        entries = self.entries(kernel.repo, lane) if kernel.repo_type is RepoType.KERNEL else []
        if asked.version and any(entry.pin == asked.pin for entry in entries):
            entries = [entry for entry in entries if entry.pin == asked.pin]
        variants = (entry.variants.get(kernel.variant) for entry in entries)
        return any(found is not None and found.manifest == manifest for found in variants)


def disallowed(held: HeldLock | None, lane: Lane, pool: str) -> str:
    """Return why a pool may not use this lock in a lane, or nothing.

    A rollback names only locks that current metadata allows, and going without one is no way
    around it (T41).
    """
    if not lane.locks:
        return ""
    if held is None:
        return f"lane {lane.name} needs one of its signed locks, and KGATE_LOCK names none"
    if held.digest in lane.allowed_locks(pool):
        return ""
    whose = f"pool {pool}" if pool else "pods of no pool"
    return f"lane {lane.name} does not allow {whose} the lock {held.digest}"


def lock_path(path: Path, pool: str) -> Path:
    """Return the file that a pool reads; a pool without a file of its own reads everybody's."""
    if _POOL.fullmatch(pool) is None:
        return path
    own = path.with_name(f"{path.stem}.{pool}{path.suffix}")
    return own if own.is_file() else path


def read_lock(path: Path | None, pool: str) -> HeldLock | None:
    """Return this pod's lock, None without one; raises InvalidInput."""
    if path is None:
        return None
    from kgate_core.lock import Lock  # only for pods that have one

    own = lock_path(path, pool)
    try:
        data = own.read_bytes()
    except OSError as exc:
        raise InvalidInput(f"the lock {own} cannot be read ({exc})") from exc
    return HeldLock(Lock.parse(data), Digest.of(data))


def locked_commit(
    held: HeldLock | None, finder: AttestationFinder, asked: tuple[str, str, str], resolved: str
) -> str:
    """Return the commit that a version means: the lock's where there is one, else the resolved.

    `asked` is repository, pin and lane. So replicas that start while a branch moves stay alike. A
    mirror may show a locked commit under a revision that it minted for more variants: then the
    locked files are found there, and the resolved revision stays. `resolved` is empty where the
    version could not be looked up.
    """
    repo, pin, lane = asked
    entry = None
    for kernel in held.lock.kernels if held is not None else ():
        if (str(kernel.repo), kernel.pin, kernel.lane) == (repo, pin, lane):
            entry = kernel
    if entry is None or resolved == str(entry.commit):
        return resolved
    for variant, locked in entry.variants.items() if resolved else ():
        name = f"{repo}/{resolved}/{variant}"
        known = finder.hint(name)
        if known is None and finder.online:
            try:
                known = finder.fetch(name, locked.manifest)
            except KgateError:
                continue
        if known is not None and known.manifest.digest == locked.manifest:
            return resolved
    return str(entry.commit)
