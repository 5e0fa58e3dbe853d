"""From pins to a lock: which commit each pin means now, and which bytes each variant has.

Small files are fetched and stored while resolving (their sha256 is not known otherwise); large
ones are named by the sha256 that upstream promises. Nothing is decided or published, and a pin
that a lock already holds is not moved unless it is asked for.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from kgate_core.digest import Digest
from kgate_core.errors import Conflict, InvalidInput, NotFound
from kgate_core.kernel import KernelRef, RepoType, Revision
from kgate_core.lock import Lock, LockedKernel, LockedVariant
from kgate_mirror_server.ingest.card import CARD_FILE, read_card
from kgate_mirror_server.ingest.evidence import parse_metadata
from kgate_mirror_server.ingest.fetch import describe_variant, select_variants
from kgate_mirror_server.ingest.fleet import covers_targets, serve_targets
from kgate_mirror_server.settings import marks
from kgate_mirror_server.settings.site import LOCK_NAME
from kgate_mirror_server.settings.targets import declared_archs

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence
    from pathlib import Path

    from kgate_mirror_server.ingest.fetch import DescribedVariant, Progress
    from kgate_mirror_server.ports import BlobStore, HubClient, UpstreamFile
    from kgate_mirror_server.settings.site import Config, Pin

STATUS_FILE: Final = "kernel-status.toml"


@dataclass(frozen=True, slots=True)
class Need:
    """A kernel that another one loads: repository and version branch."""

    repo: KernelRef
    version: int

    def __str__(self) -> str:
        return f"{self.repo}@v{self.version}"


@dataclass(frozen=True, slots=True)
class Moved:
    """A version branch that points elsewhere than the lock says."""

    repo: KernelRef
    version: int
    locked: Revision
    now: Revision


@dataclass(slots=True)
class Source:
    """One upstream as seen in one run: every question is asked once."""

    upstream: HubClient
    store: BlobStore
    progress: Progress
    open: Callable[[str | None], HubClient] | None = None
    """Opens one of the other upstreams by name; without, there are none."""
    fetched_bytes: int = 0
    _others: dict[str, Source] = field(default_factory=dict)
    _versions: dict[KernelRef, Mapping[int, Revision]] = field(default_factory=dict)
    _files: dict[tuple[KernelRef, Revision], Sequence[UpstreamFile]] = field(default_factory=dict)
    _variants: dict[tuple[KernelRef, Revision, str], DescribedVariant] = field(default_factory=dict)
    _cards: dict[tuple[KernelRef, Revision], dict[str, Any] | None] = field(default_factory=dict)

    def of(self, pin: Pin) -> Source:
        """Return the source that a pin comes from; raises InvalidInput, TrustError."""
        if pin.upstream is None:
            return self
        if pin.upstream not in self._others:
            if self.open is None:
                raise InvalidInput(f"{pin}: there is no upstream {pin.upstream!r}")
            upstream = self.open(pin.upstream)
            self._others[pin.upstream] = Source(upstream, self.store, self.progress)
        return self._others[pin.upstream]

    @property
    def all_fetched(self) -> int:
        """How many bytes came from all upstreams."""
        return self.fetched_bytes + sum(item.fetched_bytes for item in self._others.values())

    def versions(self, repo: KernelRef) -> Mapping[int, Revision]:
        """Return what each version branch points at now."""
        if repo not in self._versions:
            self._versions[repo] = self.upstream.versions(repo)
        return self._versions[repo]

    def files(self, repo: KernelRef, revision: Revision) -> Sequence[UpstreamFile]:
        """Return every file of a commit."""
        key = (repo, revision)
        if key not in self._files:
            self._files[key] = self.upstream.files(repo, revision)
        return self._files[key]

    def commit(self, pin: Pin) -> Revision:
        """Return the commit that a pin means now; raises NotFound naming what there is."""
        if pin.revision is not None:
            return Revision(pin.revision)
        versions = self.versions(pin.ref)
        if pin.version is None and pin.digest is not None:
            return self._commit_with(pin, Digest.parse(pin.digest))
        if pin.version is None or pin.version not in versions:
            offered = ", ".join(f"v{number}" for number in sorted(versions)) or "no versions"
            raise NotFound(f"{pin.repo} has no version v{pin.version}", hint=f"there is {offered}")
        return versions[pin.version]

    def _commit_with(self, pin: Pin, digest: Digest) -> Revision:
        """Return the newest version's commit that has a variant with this manifest digest."""
        versions = self.versions(pin.ref)
        for _, commit in sorted(versions.items(), reverse=True):
            found = self._described(pin, commit, None)
            if any(item.manifest.digest == digest for item in found.values()):
                return commit
        looked = ", ".join(f"v{number}" for number in sorted(versions)) or "no versions"
        raise NotFound(
            f"{pin.repo}: no variant has the manifest digest {digest} now (looked at {looked})",
            hint="name the commit that has it: revision: beside digest:",
        )

    def describe(
        self, pin: Pin, commit: Revision, *, only: Container[str] | None = None
    ) -> dict[str, DescribedVariant]:
        """Return the wanted variants of a commit as upstream promises them.

        With `only`, those of these names. Raises NotFound if a pinned digest is none of theirs.
        """
        found = self._described(pin, commit, only)
        if pin.digest is None:
            return found
        if only is not None:
            return found  # what is locked is compared with the lock, with a better message
        chosen = {n: item for n, item in found.items() if str(item.manifest.digest) == pin.digest}
        if not chosen:
            offered = "; ".join(f"{n} {item.manifest.digest}" for n, item in found.items())
            raise NotFound(
                f"{pin.repo}@{commit.short}: no variant has the manifest digest {pin.digest}",
                hint=f"there are {offered}",
            )
        return chosen

    def _described(
        self, pin: Pin, commit: Revision, only: Container[str] | None
    ) -> dict[str, DescribedVariant]:
        chosen = select_variants(pin.ref, self.files(pin.ref, commit), pin.variants)
        described = {}
        for name, files in chosen.items():
            if only is not None and name not in only:
                continue
            key = (pin.ref, commit, name)
            if key not in self._variants:
                self._variants[key] = describe_variant(
                    self.upstream, self.store, pin.ref, commit, name, files, self.progress
                )
                self.fetched_bytes += self._variants[key].fetched_bytes
            described[name] = self._variants[key]
        return described

    def metadata(self, described: DescribedVariant) -> dict[str, Any]:
        """Return a variant's metadata.json as an object; empty if it has none that is readable."""
        entry = described.manifest.by_path.get("metadata.json")
        if entry is None or not self.store.has(entry.digest):
            return {}
        with self.store.open(entry.digest) as stream:
            return parse_metadata(stream.read())

    def redirects(self, repo: KernelRef, commit: Revision) -> bool:
        """Return whether some client versions would be sent to another repository.

        The file has no other use, so its mere presence counts and its content is not read.
        """
        return any(file.path == STATUS_FILE for file in self.files(repo, commit))

    def card(self, repo: KernelRef, commit: Revision) -> dict[str, Any] | None:
        """Return what a commit's README.md holds, or None; raises as reading files does."""
        key = (repo, commit)
        if key not in self._cards:
            listed = next((f for f in self.files(repo, commit) if f.path == CARD_FILE), None)
            self._cards[key] = None if listed is None else read_card(self, repo, commit, listed)
        return self._cards[key]


def needs_of(metadata: Mapping[str, Any]) -> tuple[Need, ...]:
    """Return the kernels that a variant loads; raises InvalidInput if upstream wrote nonsense."""
    items = metadata.get("kernel-depends", [])
    if not isinstance(items, list):
        raise InvalidInput("metadata.json: kernel-depends should be a list")
    needs = []
    for item in items:
        repo = item.get("repo-id") if isinstance(item, dict) else None
        version = item.get("version") if isinstance(item, dict) else None
        if not isinstance(repo, str) or not isinstance(version, int):
            raise InvalidInput("metadata.json: kernel-depends needs repo-id and version")
        needs.append(Need(KernelRef.parse(repo), version))
    return tuple(needs)


def resolve_pin(
    source: Source, config: Config, pin: Pin, commit: Revision | None = None
) -> LockedKernel:
    """Return what the lock says about a pin at a commit; at what it means now unless given."""
    commit = commit or source.commit(pin)
    described = source.describe(pin, commit)
    archs = {name: declared_archs(source.metadata(item)) for name, item in described.items()}
    needs = {str(need) for item in described.values() for need in needs_of(source.metadata(item))}
    return LockedKernel(
        origin=source.upstream.origin,
        repo_type=RepoType.KERNEL,
        repo=pin.ref,
        lane=config.lane_of(pin),
        pin=pin.wanted,
        commit=commit,
        variants={
            name: LockedVariant(item.manifest.digest, item.manifest.size, len(item.manifest.files))
            for name, item in described.items()
        },
        depends=tuple(sorted(needs)),
        patterns=pin.variants,
        on_deny=pin.on_deny,
        targets=serve_targets(config, pin, commit, archs),
    )


def find_locked(lock: Lock | None, config: Config, pin: Pin) -> LockedKernel | None:
    """Return the lock's entry for a pin, or None if it was not locked from this upstream."""
    key = (
        pin.repo,
        pin.wanted,
        config.lane_of(pin),
        config.upstream_of(pin).identity,
        str(RepoType.KERNEL),
    )
    kernels = lock.kernels if lock else ()
    at = bisect_left(kernels, key, key=lambda kernel: kernel.key)  # a lock is sorted by it
    if at == len(kernels) or (kernel := kernels[at]).key != key or kernel.patterns != pin.variants:
        return None
    if pin.digest is not None and [str(v.manifest) for v in kernel.variants.values()] != [
        pin.digest
    ]:
        return None
    return replace(kernel, on_deny=pin.on_deny)


def unpinned_path(
    kernel: LockedKernel, locked: Sequence[LockedKernel], config: Config
) -> tuple[str, ...]:
    """Return the path to the first needed kernel that nobody pinned; empty if all are."""
    if not kernel.depends:
        return ()
    pinned = {(str(pin.ref), pin.wanted, config.lane_of(pin)) for pin in config.kernels}
    by_pin = {(str(item.repo), item.pin, item.lane): item for item in locked}

    def walk(item: LockedKernel, path: tuple[str, ...]) -> tuple[str, ...]:
        for need in item.depends:
            repo, _, version = need.partition("@")
            longer = (*path, need)
            key = (repo, version, kernel.lane)
            if need in path:
                continue  # a cycle: upstream's client refuses those itself
            if key not in pinned:
                return longer
            if key in by_pin and (found := walk(by_pin[key], longer)):
                return found
        return ()

    return walk(kernel, (f"{kernel.repo}@{kernel.pin}",))


def read_lock(folder: Path) -> Lock | None:
    """Read `kgate.lock`; None if there is none, InvalidInput with the line if it is malformed."""
    path = folder / LOCK_NAME
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise InvalidInput(f"{path}: cannot be read ({exc.strerror})") from exc
    try:
        return Lock.parse(data)
    except InvalidInput as exc:
        line = _line_of(data, exc.message)
        raise InvalidInput(
            f"{LOCK_NAME}{line}: {exc.message}",
            hint=exc.hint or "write it anew with `kgate lock`",
        ) from exc


def require_lock(lock: Lock | None, config: Config, *, targets: bool = True) -> Lock:
    """Return the lock if it covers exactly the pins; raises Conflict naming what differs.

    Without `targets`, for which machines it was written does not matter.
    """
    hint = "run `kgate lock` and commit kgate.lock"
    if lock is None:
        raise Conflict("there is no kgate.lock", hint=hint)
    wanted = {(pin.repo, pin.wanted, config.lane_of(pin)) for pin in config.kernels}
    for pin in config.kernels:
        if (found := find_locked(lock, config, pin)) is None:
            raise Conflict(f"kgate.lock is out of date: {pin} is not in it", hint=hint)
        if targets and not covers_targets(found, config):
            raise Conflict(f"kgate.lock is out of date: {pin} has other targets in it", hint=hint)
    for kernel in lock.kernels:
        if (str(kernel.repo), kernel.pin, kernel.lane) not in wanted:
            raise Conflict(
                f"kgate.lock is out of date: {kernel.repo}@{kernel.pin} is not in kgate.yaml",
                hint=hint,
            )
    return lock


def _line_of(data: bytes, message: str) -> str:
    """Say on which line the entry stands that a core error names as `kernels[N]`."""
    if "kernels[" not in message:
        return ""
    index = int(message.partition("kernels[")[2].partition("]")[0])
    try:
        return f", line {marks.read(data, name=LOCK_NAME).line(('kernels', index))}"
    except InvalidInput:
        return ""
