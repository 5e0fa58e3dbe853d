"""The stock client's own files: `kernels.lock` in both of its forms, and `pyproject.toml`.

Read as pins, written from `kgate.lock`. `kernels.lock` up to kernels 0.16 is a list of objects
with `repo_id`, `sha` and one hash for each variant; from 0.17 on it is a list of `dependency` and
`lock` without hashes. The stock client never checks those hashes on loading; here they are, once,
against what upstream lists. Nothing is fetched here.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from kgate_core import strictjson
from kgate_core.errors import Conflict, IntegrityError, InvalidInput, NotFound
from kgate_core.kernel import KernelRef, Revision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from kgate_core.lock import Lock
    from kgate_mirror_server.ports import UpstreamFile

KERNELS_LOCK: Final = "kernels.lock"
_HASH_TYPE: Final = "git_lfs_concat"
_MAX_BYTES: Final = 16 * 1024**2
_VERSION_OF_COMMIT: Final = 40  # hex digits


@dataclass(frozen=True, slots=True)
class Asked:
    """One kernel that a project's file asks for."""

    repo: KernelRef
    version: int | None
    commit: Revision | None
    """The commit that the file names; None if it names a version alone."""
    hashes: Mapping[str, str] = field(default_factory=dict)
    """Hash of each variant over paths and object ids in hex, as old lock files have it."""

    @property
    def wanted(self) -> str:
        """The pin as `kgate.lock` writes it."""
        return f"v{self.version}" if self.version is not None else str(self.commit)


def read_asked(path: Path) -> tuple[Asked, ...]:
    """Read `kernels.lock` (old or new form) or `pyproject.toml`; raises InvalidInput, NotFound.

    Which of them it is is seen from the content, but for the ending `.toml`.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as exc:
        raise NotFound(f"there is no {path}") from exc
    except OSError as exc:
        raise InvalidInput(f"{path}: cannot be read ({exc.strerror})") from exc
    asked = _read_toml(data, path.name) if path.suffix == ".toml" else _read_lock(data, path.name)
    if not asked:
        raise InvalidInput(f"{path.name} names no kernels")
    known: dict[tuple[KernelRef, str], Asked] = {}
    for item in asked:
        if (item.repo, item.wanted) in known:
            raise InvalidInput(f"{path.name}: {item.repo}@{item.wanted} stands twice")
        known[item.repo, item.wanted] = item
    return asked


def _read_toml(data: bytes, name: str) -> tuple[Asked, ...]:
    try:
        document: Any = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise InvalidInput(f"{name}: {exc}") from exc
    for part in ("tool", "kernels", "dependencies"):
        document = document.get(part) if isinstance(document, dict) else None
    if not isinstance(document, dict):
        raise InvalidInput(
            f"{name} has no table [tool.kernels.dependencies]",
            hint='write there: "org/name" = 1',
        )
    asked = []
    for repo, version in document.items():
        if not isinstance(version, int) or isinstance(version, bool) or version < 0:
            raise InvalidInput(
                f"{name}: {repo} = {version!r} is not the number of a version",
                hint="kernels 0.17 and kgate know whole versions only, such as 1 for branch v1",
            )
        asked.append(Asked(KernelRef.parse(repo), version, None))
    return tuple(asked)


def _read_lock(data: bytes, name: str) -> tuple[Asked, ...]:
    items = strictjson.loads(data, what=name, max_bytes=_MAX_BYTES)
    if not isinstance(items, list):
        hint = "that is kgate's own lock: it needs no reading in" if isinstance(items, dict) else ""
        raise InvalidInput(f"{name} is not a list, as kernels.lock is", hint=hint)
    read = [
        _old(item, f"{name}: entry {number}")
        if isinstance(item, dict) and "repo_id" in item
        else _new(item, f"{name}: entry {number}")
        for number, item in enumerate(items, 1)
    ]
    return tuple(read)


def _old(item: dict[str, Any], what: str) -> Asked:
    strictjson.refuse_unknown(item, {"repo_id", "sha", "variants", "kernel_depends"}, what=what)
    hashes = {}
    variants = strictjson.take(item, "variants", dict, what=what) if "variants" in item else {}
    for variant, lock in variants.items():
        inner = f"{what}: variant {variant}"
        kind = strictjson.take(lock, "hash_type", str, what=inner)
        text = strictjson.take(lock, "hash", str, what=inner)
        if kind != _HASH_TYPE or not text.startswith("sha256-"):
            raise InvalidInput(f"{inner}: unknown kind of hash {kind!r}")
        hashes[variant] = text.removeprefix("sha256-")
    return Asked(
        KernelRef.parse(strictjson.take(item, "repo_id", str, what=what)),
        None,
        Revision(strictjson.take(item, "sha", str, what=what)),
        hashes,
    )


def _new(item: strictjson.JsonValue, what: str) -> Asked:
    dependency = strictjson.take(item, "dependency", dict, what=what)
    strictjson.refuse_unknown(dependency, {"repo-id", "version", "revision"}, what=what)
    lock = strictjson.take(item, "lock", dict, what=what)
    repo = KernelRef.parse(strictjson.take(dependency, "repo-id", str, what=what))
    version = None
    if "version" in dependency:
        version = strictjson.take(dependency, "version", int, what=what)
    # A dependency by branch or tag is as good as its commit: that is what was locked.
    return Asked(repo, version, Revision(strictjson.take(lock, "commit", str, what=what)))


def check_hashes(asked: Asked, files: Sequence[UpstreamFile]) -> None:
    """Raise IntegrityError if a variant upstream is not the one that an old lock file means."""
    found: dict[str, list[tuple[bytes, str]]] = {}
    for file in files:
        top, _, rest = file.path.partition("/")
        variant, _, path = rest.partition("/")
        if top == "build" and path:
            found.setdefault(variant, []).append((path.encode(), file.lfs_sha256 or file.oid))
    for variant, promised in asked.hashes.items():
        state = hashlib.sha256()
        for name, oid in sorted(found.get(variant, [])):
            state.update(name)
            state.update(bytes.fromhex(oid))
        if state.hexdigest() != promised:
            raise IntegrityError(
                f"{asked.repo}@{asked.wanted[:12]}: {variant} is not what {KERNELS_LOCK} promises",
                hint="the files under that commit are others than when the project was locked",
            )


def write_kernels_lock(lock: Lock, *, lane: str | None = None) -> str:
    """Return the text of a `kernels.lock` for kernels 0.17 and newer, every pin in it.

    Raises Conflict if lanes disagree about a pin and none was chosen, NotFound if nothing is left.
    """
    chosen: dict[tuple[str, str], Revision] = {}
    for kernel in lock.kernels:
        if lane is not None and kernel.lane != lane:
            continue
        by_version = kernel.pin.startswith("v") and kernel.pin[1:].isdecimal()
        key = (str(kernel.repo), kernel.pin if by_version else str(kernel.commit))
        if chosen.setdefault(key, kernel.commit) != kernel.commit:
            raise Conflict(
                f"{kernel.repo}@{kernel.pin} is locked at different commits in different lanes",
                hint="choose one with --lane",
            )
    if not chosen:
        raise NotFound("nothing is locked that could be written", hint="pin a kernel first")
    document = [
        {
            "dependency": {"repo-id": repo}
            | ({"revision": pin} if len(pin) == _VERSION_OF_COMMIT else {"version": int(pin[1:])}),
            "lock": {"commit": str(commit)},
        }
        for (repo, pin), commit in sorted(chosen.items())
    ]
    return json.dumps(document, indent=2) + "\n"
