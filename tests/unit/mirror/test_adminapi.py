from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from kgate_core.kernel import KernelRef
from kgate_mirror_server.catalog.tokens import SqlTokens
from kgate_mirror_server.serve.access import TokenAccess
from kgate_mirror_server.serve.adminapi import BASE
from tests.asgi import ask
from tests.mirrorkit import COMMIT, FILES, VARIANT, MirrorKit, make_mirror

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_mirror_server.serve.app import ServeApp


@pytest.fixture
def kit(tmp_path: Path) -> MirrorKit:
    kit = make_mirror(tmp_path)
    kit.publish()
    kit.deny(repo=KernelRef("acme", "evil"))
    return kit


def described(app: ServeApp, target: str) -> Any:
    """Ask, and return the answer after comparing it with FastAPI's own description."""
    path = target.partition("?")[0]
    document = ask(app, f"{BASE}/openapi.json").json
    reply = ask(app, target)
    response = document["paths"][path]["get"]["responses"][str(reply.status)]
    schema = response["content"]["application/json"]["schema"]
    jsonschema.validate(reply.json, {**schema, "components": document["components"]})
    return reply.json


def test_the_inventory_names_what_is_served_and_until_when(kit: MirrorKit) -> None:
    found = described(kit.app(), f"{BASE}/inventory")

    (item,) = found["items"]
    assert (item["repo"], item["served"], item["versions"]) == ("acme/relu", str(COMMIT), ["v1"])
    assert (item["variant"], item["files"]) == (VARIANT, len(FILES))
    assert item["size"] == sum(map(len, FILES.values()))
    assert item["validUntil"] > item["publishedAt"]


def test_denials_come_with_the_rules_that_said_no(kit: MirrorKit) -> None:
    found = described(kit.app(), f"{BASE}/denials?lane=experimental")

    (item,) = found["items"]
    assert (item["repo"], item["version"]) == ("acme/evil", "v1")
    assert item["reasons"][0]["rule"] == "no-bytecode"
    assert described(kit.app(), f"{BASE}/denials?lane=production")["total"] == 0


def test_the_status_says_how_the_replica_is_doing(kit: MirrorKit) -> None:
    found = described(kit.app(), f"{BASE}/status")

    assert (found["catalog"], found["fromKept"], found["trusted"]) == ("up", False, True)
    assert found["lanes"] == [
        {"name": "experimental", "repositories": 1, "variants": 1, "denied": 1}
    ]


@pytest.mark.parametrize("query", ["take=0", "take=1001", "skip=-1", "skip=x", "lane=" + "a" * 33])
def test_questions_out_of_bounds_are_refused_as_described(kit: MirrorKit, query: str) -> None:
    assert "detail" in described(kit.app(), f"{BASE}/inventory?{query}")


def test_pages_do_not_overlap(kit: MirrorKit) -> None:
    kit.publish(kit.variant(repo=KernelRef("acme", "gelu")), repo=KernelRef("acme", "gelu"))
    app = kit.app()

    pages = [described(app, f"{BASE}/inventory?take=1&skip={n}")["items"] for n in range(3)]

    assert [[item["repo"] for item in page] for page in pages] == [["acme/gelu"], ["acme/relu"], []]


def test_t18_who_does_not_see_everything_finds_nothing_there(kit: MirrorKit) -> None:
    tokens = SqlTokens(kit.catalog.engine)
    texts = [
        tokens.create("x", repos, lanes, now=kit.trust.now, expires_at=None)[0]
        for repos, lanes in ((("*/*",), ()), (("acme/*",), ()), (("*/*",), ("experimental",)))
    ]
    access = TokenAccess(tokens.tokens, (), lambda: kit.trust.now)
    app = kit.app(access)
    headers = [(("authorization", f"Bearer {text}"),) for text in texts]

    statuses = [
        ask(app, f"{BASE}/{name}", headers=list(header)).status
        for header in (*headers, ())
        for name in ("status", "inventory", "denials", "openapi.json")
    ]

    assert statuses == [200] * 4 + [404] * 12


def test_nothing_can_be_changed_here(kit: MirrorKit) -> None:
    app = kit.app()
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert ask(app, f"{BASE}/inventory", method).status == 403
    assert ask(app, f"{BASE}/nothing").status == 404


def test_a_worker_starts_without_fastapi() -> None:
    program = (
        "import json, sys, kgate_mirror_server.serve.server;"
        "print(json.dumps('fastapi' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert json.loads(done.stdout) is False
