"""Fills a client cache ahead of time: `kgate warm` in a container build or an init container.

Kernels come from the mirror that HF_ENDPOINT names; each variant passes the gate before it stays.
Afterwards version, commit and locked loads work with the network off, trust and attestations
included. Nothing is imported or executed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from kgate_client.answer import Cleared
from kgate_client.asked import Asked
from kgate_client.hubcache import RemoteFile, RepoCache, hub_folder, remove_variant
from kgate_client.process import build
from kgate_core import strictjson
from kgate_core.errors import InvalidInput, NotFound, UpstreamError
from kgate_core.kernel import KernelRef, Revision, Variant
from kgate_core.lock import Lock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from kgate_client.channel import Channel
    from kgate_client.pod import Pod

MAX_TREE: Final = 32 * 1024**2  # bytes in the list of a repository's files
MAX_KERNELS: Final = 1000  # with all dependencies, in one run
_COMMIT: Final = 40  # hex digits


@dataclass(frozen=True, slots=True, order=True)
class Wanted:
    """A kernel to fetch: repository and `v1` or a commit."""

    repo: KernelRef
    pin: str

    @classmethod
    def parse(cls, text: str) -> Wanted:
        """Read `org/name@v1` or `org/name@<commit>`; raises InvalidInput."""
        repo, _, pin = text.partition("@")
        if not (pin[:1] == "v" and pin[1:].isdigit()):
            if len(pin) != _COMMIT:
                raise InvalidInput(f"{text}: write org/name@v1 or org/name@<commit>")
            Revision(pin)
        return cls(KernelRef.parse(repo), pin)

    def __str__(self) -> str:
        return f"{self.repo}@{self.pin}"


@dataclass(frozen=True, slots=True)
class Warmed:
    """What became of one variant."""

    kernel: str
    variant: str
    size: int
    """Bytes of its files."""
    downloaded: int
    """Bytes that were not there before."""
    reason: str = ""
    message: str = ""


@dataclass(slots=True)
class WarmReport:
    """Everything that was fetched or refused."""

    SCHEMA = "kgate.dev/warm/v1"

    rows: list[Warmed] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True if there was something to do and nothing was refused."""
        return bool(self.rows) and not any(row.reason for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return {
            "schema": self.SCHEMA,
            "ok": self.ok,
            "kernels": [
                {
                    "kernel": row.kernel,
                    "variant": row.variant,
                    "bytes": row.size,
                    "downloaded_bytes": row.downloaded,
                    "reason": row.reason,
                    "message": row.message,
                }
                for row in self.rows
            ],
        }

    def lines(self) -> Iterator[str]:
        """Yield the report for people."""
        for row in self.rows:
            said = f"refused ({row.reason}: {row.message})" if row.reason else "verified"
            yield f"{row.kernel} {row.variant}: {said}, {row.downloaded} bytes fetched"
        if not self.rows:
            yield "nothing matches: the mirror has none of these variants"


def warm(
    environ: Mapping[str, str], names: Sequence[str], *, patterns: Sequence[str], seal: bool
) -> WarmReport:
    """Fetch kernels with everything that they depend on.

    Without names, those of the lock (`KGATE_LOCK`). `patterns` choose variants; `seal` leaves the
    verified private copies, too. Raises UpstreamError, NotFound, InvalidInput, TrustError.
    """
    pod = build(environ)
    hub = hub_folder(environ, pod.config)
    if pod.channel is None:
        raise UpstreamError(
            "there is no mirror to fetch from", hint="set HF_ENDPOINT, and not HF_HUB_OFFLINE"
        )
    if hub is None:
        raise InvalidInput("there is no cache to fill", hint="set HF_HOME")
    pod.keeper.refresh(datetime.now(UTC))
    work = _Work(pod, pod.channel, hub, tuple(patterns), seal)
    queue = [Wanted.parse(name) for name in names] or _locked(pod.config.lock)
    seen: set[Wanted] = set()
    while queue:
        wanted = queue.pop(0)
        if wanted not in seen and len(seen) < MAX_KERNELS:
            seen.add(wanted)
            queue += work.fetch(wanted)
    return work.report


@dataclass(frozen=True, slots=True)
class _Work:
    pod: Pod
    channel: Channel
    hub: Path
    patterns: tuple[str, ...]
    seal: bool
    report: WarmReport = field(default_factory=WarmReport)

    def fetch(self, wanted: Wanted) -> list[Wanted]:
        """Fetch one kernel's variants; returns the kernels that they depend on."""
        revision = self._resolve(wanted)
        cache = RepoCache.of(self.hub, wanted.repo, revision)
        depends: list[Wanted] = []
        for name, files in self._variants(wanted.repo, revision).items():
            fetched = sum(file.size for file in files if self._add(cache, wanted, revision, file))
            size = sum(file.size for file in files)
            variant = cache.variant(name)
            asked = Asked(str(wanted.repo), wanted.pin)
            answer = self.pod.gate.check(asked, variant, seal=self.seal)
            if isinstance(answer, Cleared):
                depends += _depends(answer.metadata)
                self.report.rows.append(Warmed(str(wanted), name, size, fetched))
            else:
                remove_variant(variant)
                row = Warmed(str(wanted), name, size, fetched, answer.reason, answer.message)
                self.report.rows.append(row)
        if wanted.pin.startswith("v") and (cache.folder / "snapshots" / str(revision)).is_dir():
            cache.name(wanted.pin)
        return depends

    def _resolve(self, wanted: Wanted) -> Revision:
        if len(wanted.pin) == _COMMIT:
            return Revision(wanted.pin)
        what = f"refs of {wanted.repo}"
        document = strictjson.loads(self.channel.hub(f"{wanted.repo}/refs"), what=what)
        for branch in strictjson.take(document, "branches", list, what=what):
            if strictjson.take(branch, "name", str, what=what) == wanted.pin:
                return Revision(strictjson.take(branch, "targetCommit", str, what=what))
        raise NotFound(f"the mirror has no {wanted}")

    def _variants(self, repo: KernelRef, revision: Revision) -> dict[str, list[RemoteFile]]:
        what = f"tree of {repo}"
        path = f"{repo}/tree/{revision}?recursive=true&expand=false"
        found: dict[str, list[RemoteFile]] = {}
        for entry in strictjson.loads(self.channel.hub(path), what=what, max_bytes=MAX_TREE):
            if strictjson.take(entry, "type", str, what=what) != "file":
                continue
            name = strictjson.take(entry, "path", str, what=what)
            parts = name.split("/")
            if len(parts) < 3 or parts[0] != "build" or not self._matches(parts[1]):  # noqa: PLR2004  # build/<variant>/<file>
                continue
            etag = entry.get("lfs", {}).get("oid") or strictjson.take(entry, "oid", str, what=what)
            file = RemoteFile(name, strictjson.take(entry, "size", int, what=what), etag)
            found.setdefault(Variant.parse(parts[1]).name, []).append(file)
        return dict(sorted(found.items()))

    def _matches(self, variant: str) -> bool:
        return not self.patterns or any(fnmatchcase(variant, p) for p in self.patterns)

    def _add(self, cache: RepoCache, wanted: Wanted, revision: Revision, file: RemoteFile) -> bool:
        path = f"{wanted.repo}/resolve/{revision}/{file.path}"
        return cache.add(file, partial(self.channel.download, path, file.size))


def _locked(path: Path | None) -> list[Wanted]:
    if path is None:
        raise InvalidInput("no kernel was named", hint="name one, or set KGATE_LOCK to a lock")
    try:
        lock = Lock.parse(path.read_bytes())
    except OSError as exc:
        raise InvalidInput(f"the lock {path} cannot be read ({exc})") from exc
    return [
        # A digest is a pin that the Hub does not know: its commit says the same.
        Wanted(kernel.repo, kernel.pin if kernel.pin[:1] == "v" else str(kernel.commit))
        for kernel in lock.kernels
    ]


def _depends(metadata: Mapping[str, Any]) -> list[Wanted]:
    found = metadata.get("kernel-depends", [])
    return [
        Wanted(KernelRef.parse(str(item["repo-id"])), f"v{item['version']}")
        for item in (found if isinstance(found, list) else [])
        if isinstance(item, dict) and {"repo-id", "version"} <= item.keys()
    ]
