"""What a replica served last, kept on its own disk: it starts from it while the database is down.

Written after every change of the catalog and only about variants that were proven; read back when
the catalog cannot be read, or is older than what was served. Nothing in it is believed: a variant
from here is proven against signed bundles, blobs and trust metadata like one from a database row.
Client tokens are kept as digests. Each file is replaced whole and bears the digest of its content.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from kgate_core import strictjson
from kgate_core.clock import read_time, write_time
from kgate_core.digest import Digest
from kgate_core.errors import IntegrityError, KgateError
from kgate_core.kernel import KernelRef, RepoType, Revision
from kgate_mirror_server.catalog.rows import of_evidence, to_evidence
from kgate_mirror_server.catalog.tokens import Token
from kgate_mirror_server.ports import Denial, Publication, PublishedVariant, ServedFile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from pathlib import Path

SCHEMA: Final = "kgate.dev/kept/v1"
MAX_BYTES: Final = 256 * 1024 * 1024  # of one file
_MODE: Final = 0o600
_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Records:
    """What the catalog said at one generation."""

    generation: int
    publications: tuple[Publication, ...]
    denials: tuple[Denial, ...]


class Kept:
    """The folder of what is kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written: dict[str, Digest] = {}

    @property
    def exists(self) -> bool:
        """Whether a catalog was kept here before."""
        return (self._folder / "catalog.json").exists()

    def keep(self, records: Records) -> None:
        """Keep what is served; a failure is logged, for it must not stop serving."""
        self._write(
            "catalog.json",
            {
                "schema": SCHEMA,
                "generation": records.generation,
                "publications": [_of_publication(item) for item in records.publications],
                "denials": [_of_denial(item) for item in records.denials],
            },
        )

    def records(self) -> Records | None:
        """Return what was kept, or None; raises IntegrityError if the file is damaged."""
        data = self._read("catalog.json")
        if data is None:
            return None
        what = "kept catalog"
        return Records(
            strictjson.take(data, "generation", int, what=what),
            tuple(map(_to_publication, strictjson.take(data, "publications", list, what=what))),
            tuple(map(_to_denial, strictjson.take(data, "denials", list, what=what))),
        )

    def tokens(self, ask: Callable[[], Sequence[Token]]) -> Sequence[Token]:
        """Return the tokens that `ask` knows, keeping them; what was kept if it cannot say."""
        try:
            found = ask()
        except KgateError:
            data = self._read("tokens.json")
            if data is None:
                raise
            return [_to_token(item) for item in data["tokens"]]
        self._write("tokens.json", {"schema": SCHEMA, "tokens": [_of_token(t) for t in found]})
        return found

    def _write(self, name: str, value: dict[str, Any]) -> None:
        body = strictjson.dumps(value)
        digest = Digest.of(body)
        if self._written.get(name) == digest:
            return
        temporary = self._folder / f".{name}.{os.getpid()}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                os.fchmod(file.fileno(), _MODE)
                file.write(digest.hex.encode("ascii") + b"\n" + body)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._folder / name)
        except OSError as exc:
            _log.error("kept.not-written", file=name, reason=str(exc))
            return
        self._written[name] = digest

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self._folder / name
        try:
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise IntegrityError(f"{path} cannot be read: {exc.strerror}") from exc
        head, _, body = data.partition(b"\n")
        if len(data) > MAX_BYTES or Digest.of(body).hex.encode("ascii") != head:
            raise IntegrityError(f"{path} is damaged", hint="it is written anew with the catalog")
        value = strictjson.loads(body, what=name, max_bytes=MAX_BYTES)
        if strictjson.take(value, "schema", str, what=name) != SCHEMA or not isinstance(
            value, dict
        ):
            raise IntegrityError(f"{path} was written by another version")
        return value


def _of_publication(item: Publication) -> dict[str, Any]:
    return {
        "origin": item.origin,
        "type": str(item.repo_type),
        "repo": str(item.repo),
        "served": str(item.served),
        "upstream": str(item.upstream),
        "version": item.version,
        "lane": item.lane,
        "publishedAt": write_time(item.published_at),
        "depends": list(item.depends),
        "variants": [
            {
                "variant": variant.variant,
                "manifest": str(variant.manifest),
                "bundles": [str(digest) for digest in variant.bundles],
                "evidence": of_evidence(variant.evidence),
                "files": [
                    [file.path, file.size, str(file.digest), file.oid, file.lfs]
                    for file in variant.files
                ],
            }
            for variant in item.variants
        ],
    }


def _to_publication(data: Any) -> Publication:  # noqa: ANN401  # JSON of our own, digest-checked
    return Publication(
        data["origin"],
        RepoType(data["type"]),
        KernelRef.parse(data["repo"]),
        Revision(data["served"]),
        Revision(data["upstream"]),
        data["version"],
        data["lane"],
        tuple(
            PublishedVariant(
                item["variant"],
                Digest.parse(item["manifest"]),
                tuple(
                    ServedFile(path, size, Digest.parse(digest), oid, lfs)
                    for path, size, digest, oid, lfs in item["files"]
                ),
                tuple(Digest.parse(text) for text in item["bundles"]),
                to_evidence(item["evidence"]),
            )
            for item in data["variants"]
        ),
        read_time(data["publishedAt"], what="kept publication"),
        tuple(data["depends"]),
    )


def _of_denial(item: Denial) -> dict[str, Any]:
    return {
        "origin": item.origin,
        "type": str(item.repo_type),
        "repo": str(item.repo),
        "upstream": str(item.upstream),
        "version": item.version,
        "lane": item.lane,
        "variant": item.variant,
        "manifest": None if item.manifest is None else str(item.manifest),
        "reasons": list(item.reasons),
        "deniedAt": write_time(item.denied_at),
        "evidence": of_evidence(item.evidence),
    }


def _to_denial(data: Any) -> Denial:  # noqa: ANN401  # as above
    return Denial(
        data["origin"],
        RepoType(data["type"]),
        KernelRef.parse(data["repo"]),
        Revision(data["upstream"]),
        data["version"],
        data["lane"],
        data["variant"],
        None if data["manifest"] is None else Digest.parse(data["manifest"]),
        tuple(data["reasons"]),
        read_time(data["deniedAt"], what="kept denial"),
        to_evidence(data["evidence"]),
    )


def _of_token(item: Token) -> dict[str, Any]:
    def time(value: datetime | None) -> str | None:
        return None if value is None else write_time(value)

    return {
        "id": item.identifier,
        "digest": item.digest,
        "name": item.name,
        "repos": list(item.repos),
        "lanes": list(item.lanes),
        "createdAt": write_time(item.created_at),
        "expiresAt": time(item.expires_at),
        "revokedAt": time(item.revoked_at),
        "may": list(item.may),
    }


def _to_token(data: Any) -> Token:  # noqa: ANN401  # as above
    def time(name: str) -> datetime | None:
        return None if data[name] is None else read_time(data[name], what="kept token")

    return Token(
        data["id"],
        data["digest"],
        data["name"],
        tuple(data["repos"]),
        tuple(data["lanes"]),
        read_time(data["createdAt"], what="kept token"),
        time("expiresAt"),
        time("revokedAt"),
        tuple(data.get("may", ())),
    )
