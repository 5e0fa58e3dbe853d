"""The pod's channel against its OpenAPI description, with requests that schemathesis makes up."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kgate_mirror_server.ports import EvidenceKind
from kgate_mirror_server.serve.openapi import DOCUMENT
from tests.asgi import ask
from tests.mirrorkit import COMMIT, FILES, VARIANT, MirrorKit, make_mirror
from tests.trustkit import manifest_of

if TYPE_CHECKING:
    from kgate_mirror_server.serve.app import ServeApp

SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
REAL = {
    "org": "acme",
    "name": "relu",
    "revision": str(COMMIT),
    "variant": VARIANT,
    "digest": manifest_of(FILES).digest.hex,
    "kind": "sbom",
    "document": "timestamp.json",
}


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> MirrorKit:
    kit = make_mirror(tmp_path_factory.mktemp("mirror"))
    item = kit.variant()
    evidence = {**item.evidence, EvidenceKind.SBOM: kit.put(b"{}")}
    kit.publish(replace(item, evidence=evidence))
    return kit


@pytest.fixture(scope="module")
def app(kit: MirrorKit) -> ServeApp:
    return kit.app()


def check(app: ServeApp, path: str, target: str, method: str = "GET") -> int:
    """Ask, and compare the answer with the description; returns its status."""
    reply = ask(app, target, method)
    assert reply.status < 500, target
    described = DOCUMENT["paths"][path]["get"]["responses"]
    if method == "GET":
        assert str(reply.status) in described, (target, reply.status)
        schema = described[str(reply.status)]["content"]["application/json"]["schema"]
        jsonschema.validate(json.loads(reply.body), schema)
    return reply.status


@pytest.mark.parametrize("path", DOCUMENT["paths"])
def test_what_exists_is_answered_as_described(app: ServeApp, path: str) -> None:
    assert check(app, path, path.format(**REAL)) == 200


@SCHEMA.parametrize()
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_made_up_requests_are_answered_as_described(case: Any, app: ServeApp) -> None:
    filled = {name: quote(str(value), safe="") for name, value in case.path_parameters.items()}
    check(app, case.operation.path, case.operation.path.format(**filled), case.method.upper())


@pytest.mark.parametrize("path", DOCUMENT["paths"])
@given(data=st.data())
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_requests_beyond_the_description_get_no_server_error(
    app: ServeApp, path: str, data: st.DataObject
) -> None:
    anything = st.text(max_size=40) | st.sampled_from(sorted(REAL.values()))
    filled = {
        name: quote(data.draw(anything).encode("utf-8", "surrogatepass"), safe="") for name in REAL
    }
    assert ask(app, path.format(**filled)).status in {200, 400, 404}
