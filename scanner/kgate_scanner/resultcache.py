"""Keeps what the parsers said about a file, so that equal bytes are read once.

A result is kept by the digest of the file, its name and the version of the scanner; beside it
stands the digest of the rules for that kind of file, so a change of rules reads only files of that
kind again. What shows between files, and what advisories say, is never kept. Results are read as
strictly as a parser's answer, but whoever can write to the folder can lie: nothing that is signed
may rest on it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import stat
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kgate_core import strictjson
from kgate_core.errors import InvalidInput, KgateError, TrustError
from kgate_scanner.isolate import read_answer

if TYPE_CHECKING:
    from kgate_core.manifest import FileEntry
    from kgate_scanner.isolate import Inspected, ScanLimits

SCHEMA: Final = "kgate.dev/scan-result/v1"
_FILES: Final = "kgate_scanner.rules_files"
_BINARY: Final = (
    _FILES,
    "kgate_scanner.elf",
    "kgate_scanner.rules_host",
    "kgate_scanner.device.rules",
)
_TABLES: Final = {
    "python": (_FILES, "kgate_scanner.rules_python"),
    "metadata": (_FILES, "kgate_scanner.rules_metadata"),
    "text": (_FILES,),
    "script": (_FILES,),
    "signature": (_FILES,),
    "empty": (_FILES,),
}
"""The tables whose rules can be found in a file of this kind; the rest are read as binaries."""


@dataclass(slots=True)
class ResultCache:
    """A folder of results about single files, made by one version of the scanner."""

    folder: Path
    version: str
    limits: ScanLimits
    reused: int = field(default=0, init=False)
    """Results that were found."""

    def __post_init__(self) -> None:
        """Make the folder; raises TrustError if others than its owner may write to it."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self.folder.stat()
        except OSError as exc:
            raise TrustError(f"{self.folder} cannot hold results: {exc.strerror}") from exc
        if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o022:
            raise TrustError(
                f"{self.folder}: others could change the results in it",
                hint=f"name a folder of your own, or: chmod go-w {self.folder}",
            )

    def find(self, entry: FileEntry, system: str | None) -> Inspected | None:
        """Return the result about a file, None if there is none that can be used."""
        try:
            data = self._place(entry, system).read_bytes()
            document = strictjson.loads(data, what="result", max_bytes=self.limits.answer_bytes)
            found = read_answer(document, entry.path, self.limits.findings)
        except (OSError, KgateError):
            return None
        expected = {"schema": SCHEMA, **self._key(entry, system)}
        expected["rules"] = _rules_of(str(found.facts.get("kind")))
        if any(document.get(name) != value for name, value in expected.items()):
            return None
        self.reused += 1
        return found

    def keep(self, entry: FileEntry, system: str | None, result: Inspected) -> None:
        """Keep a complete result; one that cannot be written is left out."""
        if not result.complete:
            return
        document = {
            "schema": SCHEMA,
            **self._key(entry, system),
            "rules": _rules_of(str(result.facts.get("kind"))),
            "facts": result.facts,
            "findings": [finding.to_json() for finding in result.findings],
            "complete": True,
        }
        place = self._place(entry, system)
        with contextlib.suppress(OSError, InvalidInput):
            data = strictjson.dumps(document)
            place.parent.mkdir(mode=0o700, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=place.parent, delete=False) as stream:
                partial = Path(stream.name)
                try:
                    stream.write(data)
                    stream.flush()
                    partial.replace(place)
                except OSError:
                    partial.unlink()
                    raise

    def _key(self, entry: FileEntry, system: str | None) -> dict[str, str | None]:
        return {
            "scanner": self.version,
            "digest": str(entry.digest),
            "path": entry.path,
            "system": system,
        }

    def _place(self, entry: FileEntry, system: str | None) -> Path:
        name = hashlib.sha256(strictjson.dumps(self._key(entry, system))).hexdigest()
        return self.folder / name[:2] / f"{name[2:]}.json"


@cache
def _rules_of(kind: str) -> str:
    tables = (importlib.import_module(name).RULES for name in _TABLES.get(kind, _BINARY))
    lines = sorted(f"{rule.id} {rule.severity.label}" for table in tables for rule in table)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
