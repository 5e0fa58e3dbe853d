"""Looks after a pod's caches: `kgate cache verify` and `kgate cache purge`.

Every cached variant is put to the gate, every sealed copy is digested again, and every note of what
ran before (`onDeny: keep-previous`) is asked whether a copy of that is left. Purging takes out what
would not load anyway; it never touches a kernel that verifies, nor anything that is no kernel, nor
a copy that a running process is making.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kgate_client.answer import Cleared
from kgate_client.asked import Asked
from kgate_client.hubcache import cached_variants, hub_folder, remove_variant
from kgate_client.previous import PreviousVersions, noted
from kgate_client.process import build
from kgate_client.seal import discard
from kgate_core.digest import Digest
from kgate_core.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kgate_client.pod import Pod

_MANIFEST: Final = re.compile(r"[0-9a-f]{64}")
_STAGING: Final = re.compile(r"\.staging-(\d+)-.*")


@dataclass(frozen=True, slots=True)
class Kept:
    """One variant or sealed copy, and why it is no good."""

    kind: str
    """`kernel` in the Hub cache, `copy` or `note` in kgate's own."""
    name: str
    path: Path
    problem: str
    removed: bool


@dataclass(frozen=True, slots=True)
class CacheReport:
    """Everything that lies in the caches."""

    SCHEMA = "kgate.dev/cache/v1"

    rows: tuple[Kept, ...]

    @property
    def ok(self) -> bool:
        """True if nothing bad is left."""
        return all(not row.problem or row.removed for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return {
            "schema": self.SCHEMA,
            "ok": self.ok,
            "entries": [
                {
                    "kind": row.kind,
                    "name": row.name,
                    "path": str(row.path),
                    "problem": row.problem,
                    "removed": row.removed,
                }
                for row in self.rows
            ],
        }

    def lines(self) -> Iterator[str]:
        """Yield the report for people."""
        for row in self.rows:
            done = ", removed" if row.removed else ""
            yield f"{row.kind} {row.name}: {row.problem or 'verified'}{done}"
        if not self.rows:
            yield "the caches are empty"


def look_after(environ: Mapping[str, str], *, purge: bool) -> CacheReport:
    """Check the Hub cache and the sealed copies; with `purge`, remove what is no good."""
    pod = build(environ)
    hub = hub_folder(environ, pod.config)
    variants = [] if hub is None else list(cached_variants(hub))
    rows = [_variant(pod, variant, purge=purge) for variant in variants]
    rows += [_copy(pod, copy, purge=purge) for copy in _copies(pod)]
    # After the copies: a note is as good as the copies that it names.
    root = pod.store.root
    notes = [] if root is None else list(noted(root))
    rows += [_note(pod, note, purge=purge) for note in notes]
    return CacheReport(tuple(rows))


def _variant(pod: Pod, variant: Path, *, purge: bool) -> Kept:
    answer = pod.gate.check(Asked(), variant, seal=False)
    problem = "" if isinstance(answer, Cleared) else f"{answer.reason}: {answer.message}"
    if problem and purge:
        remove_variant(variant)
    name = f"{answer.trace.kernel} {variant.name}"
    return Kept("kernel", name, variant, problem, removed=bool(problem) and purge)


def _copies(pod: Pod) -> list[Path]:
    root = pod.sealed.shared or pod.sealed.root
    return sorted(path for path in root.glob("*") if path.is_dir()) if root.is_dir() else []


def _copy(pod: Pod, copy: Path, *, purge: bool) -> Kept:
    problem = ""
    maker = _STAGING.fullmatch(copy.name)
    if maker is not None and Path("/proc", maker[1]).exists():
        return Kept("copy", copy.name, copy, "", removed=False)
    if _MANIFEST.fullmatch(copy.name) is None:
        problem = "left over by a process that ended"
    else:
        attested = pod.finder.cached(Digest(copy.name))
        if attested is None:
            problem = "no attestation for it is cached"
        else:
            try:
                pod.sealed.check(attested.manifest)
            except IntegrityError as exc:
                problem = exc.message
    if problem and purge:
        discard(copy)
    removed = bool(problem) and purge and not copy.exists()
    return Kept("copy", copy.name, copy, problem, removed)


def _note(pod: Pod, note: tuple[str, str, Path], *, purge: bool) -> Kept:
    repo, pin, path = note
    versions = PreviousVersions(pod.store).of(repo, pin)
    problem = "" if versions else "it is not a note that a pod would write"
    if versions and not any(_is_kept(pod, item.digest) for item in versions):
        problem = "no copy of what it names is left"
    if problem and purge:
        path.unlink(missing_ok=True)
    removed = bool(problem) and purge and not path.exists()
    return Kept("note", f"{repo}@{pin}", path, problem, removed)


def _is_kept(pod: Pod, manifest: Digest) -> bool:
    return pod.sealed.path(manifest).is_dir() and pod.finder.cached(manifest) is not None
