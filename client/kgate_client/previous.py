"""Remembers which verified versions this pod ran, for kernels that should keep the previous one.

A note names a manifest and where it came from. It proves nothing: before a noted version runs
again, its copy is digested and today's trust is asked, as for any other (see `gate.recheck`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from kgate_client import versions
from kgate_client.answer import Cleared
from kgate_client.asked import Asked
from kgate_client.report import torch_version
from kgate_core import strictjson
from kgate_core.digest import Digest
from kgate_core.errors import KgateError
from kgate_core.kernel import KernelRef, Revision, Variant

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from kgate_client.gate import Gate
    from kgate_client.store import DocumentStore

SCHEMA: Final = "kgate.dev/previous/v1"
MAX_NOTES: Final = 4  # versions remembered for each pin
_FIELDS: Final = ("manifest", "revision", "variant", "torch")


@dataclass(frozen=True, slots=True)
class Earlier:
    """One version that was verified and ran here."""

    manifest: str
    """Hex digits of its digest."""
    revision: str
    variant: str
    torch: str
    """Version of torch beside which it ran: native code fits no other for certain."""

    def check(self) -> Earlier:
        """Return itself if every field is well-formed; raises InvalidInput."""
        Digest(self.manifest)
        Revision(self.revision)
        Variant.parse(self.variant)
        return self

    @property
    def digest(self) -> Digest:
        """Digest of its manifest."""
        return Digest(self.manifest)


class PreviousVersions:
    """Notes in the pod's cache, newest first, for each pin that was asked for."""

    def __init__(self, store: DocumentStore) -> None:
        self._store = store

    def note(self, repo: str, pins: Iterable[str], ran: Earlier) -> None:
        """Remember that a pin meant this version."""
        for pin in pins:
            before = self.of(repo, pin)
            notes = [ran, *(note for note in before if note != ran)][:MAX_NOTES]
            if tuple(notes) != before:
                document = {"schema": SCHEMA, "versions": [asdict(note) for note in notes]}
                self._store.write(_name(repo, pin), strictjson.dumps(document))

    def of(self, repo: str, pin: str) -> tuple[Earlier, ...]:
        """Return what a pin meant before; nothing for notes that nobody could have written."""
        try:
            KernelRef.parse(repo)
            data = self._store.read(_name(repo, pin)) if _is_name(pin) else None
            if data is None:
                return ()
            document = strictjson.loads(data, what="previous versions")
            notes = strictjson.take(document, "versions", list, what="previous versions")
            return tuple(
                Earlier(
                    *(strictjson.take(n, f, str, what="previous versions") for f in _FIELDS)
                ).check()
                for n in notes[:MAX_NOTES]
            )
        except KgateError:
            return ()


def noted(root: Path) -> Iterator[tuple[str, str, Path]]:
    """Yield repository, pin and file of every note under a pod's cache, sorted."""
    for path in sorted((root / "previous").glob("*/*/*.json")):
        org, name = path.parts[-3:-1]
        yield f"{org}/{name}", path.stem, path


def note_version(notes: PreviousVersions, asked: Asked, answer: Cleared) -> None:
    """Remember a version that ran, under every pin that it was or could be asked by."""
    kernel = answer.verdict.vsa.kernel
    digest = answer.manifest.digest.hex
    ran = Earlier(digest, str(kernel.revision), kernel.variant, torch_version())
    own = Asked(str(kernel.repo), str(kernel.revision))
    pins = {*versions.pins_of(asked), *versions.pins_of(own)}
    notes.note(str(kernel.repo), sorted(pins), ran)


def find_previous(
    gate: Gate,
    notes: PreviousVersions,
    asked: Asked,
    *,
    depends: Sequence[Digest],
    refused: str,
) -> Cleared | None:
    """Return the newest version of before that today's trust admits, other than `refused`."""
    repo = asked.repo or ""
    for pin in versions.pins_of(asked):
        for noted in notes.of(repo, pin):
            if str(noted.digest) == refused or noted.torch != torch_version():
                continue
            answer = gate.recheck(Asked(repo, pin), noted, depends=depends)
            if isinstance(answer, Cleared):
                return answer
    return None


def _is_name(pin: str) -> bool:
    # A pin becomes a file's name: versions and commits only, never a branch with a slash.
    return pin.isalnum() and pin.isascii()


def _name(repo: str, pin: str) -> str:
    return f"previous/{repo}/{pin}.json"
