"""in-toto Statement v1 as the in-toto project's own library and its specification read it."""

from __future__ import annotations

import json

import pytest
from google.protobuf import json_format  # type: ignore[import-untyped]  # ships no stubs
from in_toto_attestation.v1.statement import Statement as PeerStatement
from in_toto_attestation.v1.statement_pb2 import Statement as PeerMessage

from kgate_core.bundle import Bundle
from kgate_core.statement import PAYLOAD_TYPE, TYPE, Statement
from kgate_signer.predicates import import_statement, sbom_statement
from tests.trustkit import FILES, make_trust, manifest_of
from tests.unit.signer.test_predicates import RECORD, SBOM

MANIFEST = manifest_of()
STATEMENTS = {
    "vsa": Statement.parse(Bundle.parse(make_trust().bundle(MANIFEST)).envelope.payload),
    "import": import_statement(MANIFEST, RECORD),
    "sbom": sbom_statement(MANIFEST, SBOM),
}


def test_names_are_those_of_the_specification() -> None:
    assert TYPE == "https://in-toto.io/Statement/v1"
    assert PAYLOAD_TYPE == "application/vnd.in-toto+json"


@pytest.mark.parametrize("name", STATEMENTS)
def test_the_reference_library_finds_our_statements_valid(name: str) -> None:
    ours = STATEMENTS[name]
    message = json_format.Parse(ours.data, PeerMessage())
    peer = PeerStatement.copy_from_pb(message)
    peer.validate()
    assert [(subject.name, subject.digest["sha256"]) for subject in message.subject] == [
        (subject.name, subject.digest.hex) for subject in ours.subjects
    ]
    assert message.predicate_type == ours.predicate_type
    assert [subject.name for subject in message.subject][1:] == sorted(FILES)


def test_statements_of_the_reference_library_are_read_here() -> None:
    ours = STATEMENTS["vsa"]
    message = json_format.Parse(ours.data, PeerMessage())
    theirs = Statement.parse(json_format.MessageToJson(message).encode())
    assert (theirs.subjects, theirs.predicate_type) == (ours.subjects, ours.predicate_type)
    assert theirs.predicate == json.loads(ours.data)["predicate"]
