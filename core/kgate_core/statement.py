"""in-toto Statement v1: which bytes a claim is about, and the claim.

Format: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md. The signed bytes are
kept as they came; nothing is re-serialised. Predicates are opaque here (`vsa` has the one that
pods read).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kgate_core import strictjson
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput

if TYPE_CHECKING:
    from kgate_core.manifest import Manifest

TYPE: Final = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
MAX_SUBJECTS: Final = 1024  # sigstore-go refuses more
MAX_FILE_SUBJECTS: Final = 1000  # with more files only the manifest is a subject
MANIFEST_SUBJECT: Final = "kgate:manifest"
"""Name of the first subject; the colon keeps it apart from every file path."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A name and the sha256 of the bytes it stands for; the name alone proves nothing."""

    name: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class Statement:
    """A parsed statement together with the exact bytes that were or will be signed."""

    data: bytes
    subjects: tuple[Subject, ...]
    predicate_type: str
    predicate: dict[str, Any]

    @classmethod
    def of(
        cls, subjects: tuple[Subject, ...], predicate_type: str, predicate: dict[str, Any]
    ) -> Statement:
        """Write a new statement in canonical bytes; raises InvalidInput if unreadable."""
        data = strictjson.dumps(
            {
                "_type": TYPE,
                "subject": [
                    {"name": subject.name, "digest": {"sha256": subject.digest.hex}}
                    for subject in subjects
                ],
                "predicateType": predicate_type,
                "predicate": predicate,
            }
        )
        return cls.parse(data)

    @classmethod
    def parse(cls, data: bytes) -> Statement:
        """Read signed bytes; raises InvalidInput for other types, doubled or too many subjects."""
        what = "statement"
        document = strictjson.loads(data, what=what)
        if strictjson.take(document, "_type", str, what=what) != TYPE:
            raise InvalidInput(f"{what}: _type is {document['_type']!r}, expected {TYPE}")
        items = strictjson.take(document, "subject", list, what=what)
        if not 1 <= len(items) <= MAX_SUBJECTS:
            raise InvalidInput(f"{what}: {len(items)} subjects, allowed are 1 to {MAX_SUBJECTS}")
        subjects = tuple(_parse_subject(item) for item in items)
        names = {subject.name for subject in subjects}
        if len(names) != len(subjects):
            raise InvalidInput(f"{what}: two subjects bear the same name")
        return cls(
            data,
            subjects,
            strictjson.take(document, "predicateType", str, what=what),
            strictjson.take(document, "predicate", dict, what=what),
        )


def _parse_subject(item: strictjson.JsonValue) -> Subject:
    what = "statement subject"
    name = strictjson.take(item, "name", str, what=what)
    digests = strictjson.take(item, "digest", dict, what=what)
    return Subject(name, Digest(strictjson.take(digests, "sha256", str, what=f"{what} {name!r}")))


def subjects_of(manifest: Manifest) -> tuple[Subject, ...]:
    """Return the subjects of every attestation about a variant: its manifest, then its files.

    The manifest comes first because some verifiers compare the first subject only. With more
    than 1,000 files it stands alone; its digest binds them all the same.
    """
    first = Subject(MANIFEST_SUBJECT, manifest.digest)
    if len(manifest.files) > MAX_FILE_SUBJECTS:
        return (first,)
    return (first, *(Subject(entry.path, entry.digest) for entry in manifest.files))
