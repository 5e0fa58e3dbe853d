from __future__ import annotations

import json
from typing import Any

import pytest

from kgate_core import strictjson
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_core.statement import (
    MAX_FILE_SUBJECTS,
    MAX_SUBJECTS,
    TYPE,
    Statement,
    Subject,
    subjects_of,
)
from tests.trustkit import manifest_of

ONE = Subject("a", Digest.of(b"a"))


def document(**changes: Any) -> bytes:
    base = json.loads(Statement.of((ONE,), "https://x.test/v1", {"k": 1}).data)
    return strictjson.dumps(base | changes)


def test_a_statement_keeps_the_exact_bytes_it_was_read_from() -> None:
    written = Statement.of((ONE,), "https://x.test/v1", {"k": [1]})
    spaced = json.dumps(json.loads(written.data), indent=1).encode()
    read = Statement.parse(spaced)
    assert read.data == spaced
    assert (read.subjects, read.predicate_type, read.predicate) == (
        (ONE,),
        "https://x.test/v1",
        {"k": [1]},
    )
    assert json.loads(written.data)["_type"] == TYPE


def test_fields_and_digests_that_others_add_are_passed_over() -> None:
    # The in-toto parsing rules: unknown fields are ignored.
    subject = {"name": "a", "digest": {"sha256": ONE.digest.hex, "sha512": "00"}, "uri": "x"}
    assert Statement.parse(document(subject=[subject], more=1)).subjects == (ONE,)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"_type": "https://in-toto.io/Statement/v0.1"}, "expected https"),
        ({"subject": []}, "0 subjects"),
        ({"subject": [{"name": "a", "digest": {"sha512": "00"}}]}, "'sha256' is missing"),
        ({"subject": [{"name": "a", "digest": {"sha256": "00"}}]}, "64 lower-case hex"),
        ({"subject": [{"digest": {"sha256": "0" * 64}}]}, "'name' is missing"),
        ({"subject": ["a"]}, "expected an object"),
        ({"subject": [{"name": "a", "digest": {"sha256": "0" * 64}}] * 2}, "bear the same name"),
        ({"predicateType": 1}, "should be str"),
        ({"predicate": []}, "should be dict"),
    ],
)
def test_malformed_statements_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        Statement.parse(document(**changes))


def test_no_more_subjects_than_other_verifiers_read() -> None:
    def many(count: int) -> tuple[Subject, ...]:
        return tuple(Subject(str(number), ONE.digest) for number in range(count))

    assert len(Statement.of(many(MAX_SUBJECTS), "x", {}).subjects) == MAX_SUBJECTS
    with pytest.raises(InvalidInput, match="1025 subjects"):
        Statement.of(many(MAX_SUBJECTS + 1), "x", {})


def test_the_manifest_comes_first_and_stands_alone_when_there_are_too_many_files() -> None:
    manifest = manifest_of()
    first, *files = subjects_of(manifest)
    assert first == Subject("kgate:manifest", manifest.digest)
    assert [(file.name, file.digest) for file in files] == [
        (entry.path, entry.digest) for entry in manifest.files
    ]
    at_limit = manifest_of({f"f{number}": b"" for number in range(MAX_FILE_SUBJECTS)})
    over = manifest_of({f"f{number}": b"" for number in range(MAX_FILE_SUBJECTS + 1)})
    assert len(subjects_of(at_limit)) == MAX_FILE_SUBJECTS + 1 <= MAX_SUBJECTS
    assert subjects_of(over) == (Subject("kgate:manifest", over.digest),)
