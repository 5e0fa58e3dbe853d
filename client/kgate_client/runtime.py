"""What native code a process really has mapped, as a CycloneDX 1.6 SBOM: of this one, or by id.

Each mapped library with its digest; each verified kernel with its identity, its files and the
device code among them; drift against the lock. It reads `/proc/<pid>/maps` and needs no
cooperation, so it works for workers that never import `kernels`. Pure Python leaves no mapping: of
another process only kernels with native code are seen. Nothing is judged here.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from kgate_core.clock import write_time
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput, KgateError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from kgate_client.attestations import AttestationFinder
    from kgate_client.locks import HeldLock
    from kgate_core.manifest import Manifest

PROC: Final = Path("/proc")
MAX_LIBRARIES: Final = 5000  # mapped files that are looked at
_CHUNK: Final = 1024**2  # bytes
_SEALED: Final = re.compile(
    r"/sealed/([0-9a-f]{64})(?:-[0-9a-f]{16})?/|/kgate-[0-9a-f]{32}/([0-9a-f]{64})/"
)
_DELETED: Final = " (deleted)"
_MAPS_FIELDS: Final = 6
_DEVICE_CODE: Final = frozenset({".cubin", ".fatbin", ".ptx", ".hsaco", ".co", ".spv", ".metallib"})


@dataclass(frozen=True, slots=True)
class Mapped:
    """One file that a process has mapped as code."""

    path: str
    deleted: bool
    """True if that name leads nowhere, or elsewhere, by now."""
    digest: str
    """Hex digits of its sha256, empty where it could not be read."""


@dataclass(frozen=True, slots=True)
class Running:
    """One kernel in a process, by the manifest that names its private copy."""

    manifest: Digest
    repo: str = ""
    revision: str = ""
    variant: str = ""
    files: Manifest | None = None
    drift: str = "unlocked"
    """`locked`, `differs` from the lock, not in it (`not-locked`), or `unlocked` without one."""


def mapped_code(pid: int | str = "self", proc: Path = PROC) -> Iterator[Mapped]:
    """Yield every file that is mapped executable, once; raises InvalidInput for no such process."""
    try:
        text = (proc / str(pid) / "maps").read_text(encoding="utf-8", errors="replace")
    except OSError as exc:
        raise InvalidInput(
            f"process {pid} cannot be looked into ({exc.strerror})",
            hint="name a process of this user and this container",
        ) from exc
    seen: set[str] = set()
    for line in text.splitlines():
        fields = line.split(maxsplit=_MAPS_FIELDS - 1)
        if len(fields) < _MAPS_FIELDS or "x" not in fields[1] or not fields[5].startswith("/"):
            continue
        path = fields[5]
        if path in seen or len(seen) >= MAX_LIBRARIES:
            continue
        seen.add(path)
        deleted = path.endswith(_DELETED)
        # The mapping itself, whatever its name leads to by now; else the name as that process
        # sees it.
        places = (proc / str(pid) / "map_files" / fields[0], _inside(proc, pid, path))
        yield Mapped(
            path.removesuffix(_DELETED), deleted, _digest(places[:1] if deleted else places)
        )


def _inside(proc: Path, pid: int | str, path: str) -> Path:
    return proc / str(pid) / "root" / path.lstrip("/")


def _digest(places: Iterable[Path]) -> str:
    for place in places:
        state = hashlib.sha256()
        try:
            with place.open("rb") as stream:
                while data := stream.read(_CHUNK):
                    state.update(data)
        except OSError:
            continue
        return state.hexdigest()
    return ""


def running_kernels(
    mapped: Iterable[Mapped], finder: AttestationFinder, held: HeldLock | None, lane: str
) -> tuple[Running, ...]:
    """Return the kernels whose private copies are mapped."""
    digests: dict[str, None] = {}
    for item in mapped:
        if found := _SEALED.search(item.path):
            digests[found[1]] = None
    return tuple(describe(Digest(text), finder, held, lane) for text in digests)


def describe(
    manifest: Digest,
    finder: AttestationFinder,
    held: HeldLock | None,
    lane: str,
    *,
    identity: tuple[str, str, str] | None = None,
) -> Running:
    """Return what is known of a running kernel; `identity` is repository, revision, variant."""
    attested = finder.cached(manifest)
    repo, revision, variant = identity or _identity(attested.bundles if attested else ())
    return Running(
        manifest,
        repo,
        revision,
        variant,
        None if attested is None else attested.manifest,
        drift_of(manifest, repo, variant, held, lane),
    )


def _identity(bundles: Sequence[bytes]) -> tuple[str, str, str]:
    from kgate_core.bundle import Bundle
    from kgate_core.statement import Statement
    from kgate_core.vsa import PREDICATE_TYPE, Vsa

    for data in bundles:
        try:
            statement = Statement.parse(Bundle.parse(data).envelope.payload)
            if statement.predicate_type == PREDICATE_TYPE:
                kernel = Vsa.from_predicate(statement.predicate).kernel
                return str(kernel.repo), str(kernel.revision), kernel.variant
        except KgateError:
            continue
    return "", "", ""


def drift_of(manifest: Digest, repo: str, variant: str, held: HeldLock | None, lane: str) -> str:
    """Return how a running kernel stands to the lock."""
    if held is None:
        return "unlocked"
    entries = [k for k in held.lock.kernels if (str(k.repo), k.lane) == (repo, lane)]
    if not entries:
        return "not-locked"
    locked = [kernel.variants.get(variant) for kernel in entries]
    same = any(item is not None and item.manifest == manifest for item in locked)
    return "locked" if same else "differs"


def sbom(
    mapped: Sequence[Mapped],
    kernels: Sequence[Running],
    *,
    now: datetime,
    facts: Mapping[str, str],
    serial: uuid.UUID | None = None,
) -> dict[str, Any]:
    """Return the document (CycloneDX 1.6); `serial` is random unless given."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial or uuid.uuid4()}",
        "version": 1,
        "metadata": {
            "timestamp": write_time(now),
            "lifecycles": [{"phase": "operations"}],
            "tools": {"components": [{"type": "application", "name": "kgate"}]},
            "component": {"type": "application", "bom-ref": "process", "name": "process"},
            "properties": _properties({f"kgate:host:{k}": v for k, v in sorted(facts.items())}),
        },
        "components": [
            *(_kernel(item) for item in kernels),
            *(_library(number, item) for number, item in enumerate(mapped)),
        ],
    }


def _kernel(item: Running) -> dict[str, Any]:
    files = () if item.files is None else item.files.files
    device = [entry for entry in files if PurePosixPath(entry.path).suffix in _DEVICE_CODE]
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": str(item.manifest),
        "name": item.repo or "unknown kernel",
        "version": item.revision or "unknown",
        "properties": _properties(
            {
                "kgate:manifest": str(item.manifest),
                "kgate:variant": item.variant,
                "kgate:drift": item.drift,
                "kgate:device-code-files": str(len(device)),
            }
        ),
        "components": [
            {
                "type": "file",
                "bom-ref": f"{item.manifest}/{entry.path}",
                "name": entry.path,
                "hashes": [{"alg": "SHA-256", "content": entry.digest.hex}],
                "properties": _properties({"kgate:device-code": "true"} if entry in device else {}),
            }
            for entry in files
        ],
    }
    if item.repo and item.revision:
        component["purl"] = f"pkg:huggingface/{item.repo}@{item.revision}"
    return component


def _library(number: int, item: Mapped) -> dict[str, Any]:
    found = _SEALED.search(item.path)
    facts = {"kgate:path": item.path, "kgate:deleted": "true" if item.deleted else ""}
    if found is not None:
        facts["kgate:manifest"] = f"sha256:{found[1]}"
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": f"mapped-{number}",
        "name": PurePosixPath(item.path).name or item.path,
        "properties": _properties(facts),
    }
    if item.digest:
        component["hashes"] = [{"alg": "SHA-256", "content": item.digest}]
    return component


def _properties(facts: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in facts.items() if value]
