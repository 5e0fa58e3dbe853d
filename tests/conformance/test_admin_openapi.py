"""The admin API against its own OpenAPI description, and reports that make no sense."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.asgi import ask
from tests.mirrorkit import make_mirror

if TYPE_CHECKING:
    from kgate_mirror_server.serve.app import ServeApp

BASE = "/api/kgate/v1/admin"
REPORTS = "/api/kgate/v1/reports"
FEW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> ServeApp:
    root = tmp_path_factory.mktemp("mirror")
    kit = make_mirror(root)
    kit.publish()
    kit.deny()
    return kit.app(reports=root / "reports")


def test_made_up_requests_get_no_server_error(app: ServeApp) -> None:
    description = ask(app, f"{BASE}/openapi.json").json
    schema = schemathesis.openapi.from_dict(description)
    described: list[Any] = list(schema.get_all_operations())
    operations = [found.ok() for found in described]
    assert {operation.path for operation in operations} >= {
        f"{BASE}/status",
        f"{BASE}/inventory",
        f"{BASE}/denials",
    }
    for operation in operations:

        @FEW
        @given(case=operation.as_strategy())
        def made_up(case: Any) -> None:
            named = {key: quote(str(text), safe="") for key, text in case.path_parameters.items()}
            query = urlencode(case.query or {}, doseq=True)
            reply = ask(app, f"{case.operation.path.format(**named)}?{query}", case.method.upper())
            assert reply.status in {200, 400, 404, 422}, (case.operation.path, query)

        made_up()


@FEW
@given(rest=st.text(max_size=60), query=st.text(max_size=60))
def test_addresses_beyond_the_description_get_no_server_error(
    app: ServeApp, rest: str, query: str
) -> None:
    place = quote(rest.encode("utf-8", "replace"), safe="/")
    asked = quote(query.encode("utf-8", "replace"), safe="=&")
    assert ask(app, f"{BASE}/{place}?{asked}").status in {200, 307, 400, 404, 422}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["schema", "kernel", "outcome", "pod", "host"]), inner)
    ),
    max_leaves=12,
)


@FEW
@given(body=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_reports_that_make_no_sense_get_no_server_error(app: ServeApp, body: bytes) -> None:
    assert 200 <= ask(app, REPORTS, "POST", body=body).status < 500


@FEW
@given(
    name=st.sampled_from(["range", "if-range", "if-none-match", "accept", "host", "user-agent"]),
    value=st.binary(max_size=60) | st.from_regex(rb"bytes=[0-9,\- ]{0,40}", fullmatch=True),
)
def test_headers_that_make_no_sense_get_no_server_error(
    app: ServeApp, name: str, value: bytes
) -> None:
    target = "/kernels/acme/relu/resolve/v1/build/torch-cpu/layers.py"
    reply = ask(app, target, headers={name: value.decode("latin-1")})
    assert reply.status in {200, 206, 304, 400, 416}
