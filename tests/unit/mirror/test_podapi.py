from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from kgate_core.kernel import KernelRef
from kgate_core.manifest import Manifest
from kgate_core.strictjson import dumps
from kgate_core.trust import TrustDocuments, load
from kgate_core.verify import Expected, Verified, verify
from kgate_mirror_server.ports import EvidenceKind
from kgate_mirror_server.serve.openapi import DOCUMENT
from kgate_mirror_server.trust.files import write_trust
from kgate_signer.trustwriter import refresh_timestamp
from tests.asgi import Reply, ask
from tests.mirrorkit import COMMIT, FILES, REPO, VARIANT, MirrorKit, commit_of, make_mirror
from tests.trustkit import EXPERIMENTAL, manifest_of

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_mirror_server.serve.app import ServeApp

API = "/api/kgate/v1"
BY_NAME = f"{API}/attestations/acme/relu/{COMMIT}/{VARIANT}"


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> MirrorKit:
    kit = make_mirror(tmp_path_factory.mktemp("mirror"))
    kit.publish()
    twin = KernelRef("beta", "relu")
    kit.publish(kit.variant(repo=twin), repo=twin)
    kit.deny()
    return kit


@pytest.fixture(scope="module")
def app(kit: MirrorKit) -> ServeApp:
    return kit.app()


def test_a_pod_can_verify_what_the_two_endpoints_give_it(app: ServeApp, kit: MirrorKit) -> None:
    documents = {
        name: ask(app, f"{API}/trust/{name}.json")
        for name in ("1.root", "timestamp", "snapshot", "targets")
    }
    assert all(reply.status == 200 for reply in documents.values())
    assert documents["1.root"].body == kit.trust.pinned
    trusted = load(
        kit.trust.pinned,
        TrustDocuments(
            (),
            documents["timestamp"].body,
            documents["snapshot"].body,
            documents["targets"].body,
        ),
        now=kit.trust.now,
    )
    answer = ask(app, BY_NAME).json
    assert set(answer) == {"schema", "manifest", "bundles"}
    assert answer["schema"] == "kgate.dev/attestations/v1"
    manifest = Manifest.parse(base64.b64decode(answer["manifest"]))
    assert manifest == manifest_of(FILES)
    bundles = [dumps(bundle) for bundle in answer["bundles"]]
    expected = Expected(VARIANT, EXPERIMENTAL, REPO, COMMIT)
    verdict = verify(expected, manifest, bundles, trusted, now=kit.trust.now)
    assert isinstance(verdict, Verified)


def test_the_same_bytes_under_two_names_bring_both_attestations(app: ServeApp) -> None:
    digest = manifest_of(FILES).digest
    by_manifest = ask(app, f"{API}/attestations/by-manifest/{digest.hex}").json
    assert len(by_manifest["bundles"]) == 2
    assert ask(app, BY_NAME).json["bundles"][0] in by_manifest["bundles"]
    assert ask(app, f"{API}/attestations/by-manifest/{digest}").json == by_manifest


@pytest.mark.parametrize(
    ("place", "status", "reason"),
    [
        (f"acme/relu/{'b' * 40}/{VARIANT}", 404, "unknown"),
        (f"acme/relu/{COMMIT}/torch-cuda", 404, "unknown"),
        (f"acme/relu/v1/{VARIANT}", 404, "unknown"),
        (f"acme/nothing/{COMMIT}/{VARIANT}", 404, "unknown"),
        (f"../..%2F/{COMMIT}/{VARIANT}", 404, "unknown"),
        (f"acme/evil/{commit_of('evil')}/{VARIANT}", 404, "denied"),
        (f"acme/evil/v1/{VARIANT}", 404, "denied"),
        (f"by-manifest/{'0' * 64}", 404, "unknown"),
        ("by-manifest/sha512:00", 400, "malformed"),
    ],
)
def test_what_is_not_attested_says_why(app: ServeApp, place: str, status: int, reason: str) -> None:
    reply = ask(app, f"{API}/attestations/{place}")
    assert (reply.status, reply.json["reason"]) == (status, reason)
    assert reply.json["error"]
    if reason == "denied":
        assert reply.json["reasons"][0]["rule"] == "no-bytecode"


@pytest.mark.parametrize(
    "name",
    ["root.json", "2.root.json", "0.root.json", "01.root.json", "..%2Fkgate.db", "x", ".json",
     "targets.json%00", "TARGETS.JSON"],
)  # fmt: skip
def test_other_files_are_not_trust_documents(app: ServeApp, name: str) -> None:
    assert ask(app, f"{API}/trust/{name}").status == 404


def test_a_new_timestamp_is_served_at_once(app: ServeApp, kit: MirrorKit) -> None:
    before = ask(app, f"{API}/trust/timestamp.json").body
    now = kit.trust.now + timedelta(minutes=1)
    newer = refresh_timestamp(kit.trust.trust, kit.trust.timestamp, now=now)
    write_trust(kit.root / "trust", newer)
    assert ask(app, f"{API}/trust/timestamp.json").body == newer.timestamp != before


def page(app: ServeApp, repo: str, accept: str) -> Reply:
    return ask(app, f"/k/{repo}", headers={"accept": accept})


def test_the_page_of_a_kernel_shows_what_is_published(app: ServeApp) -> None:
    document = page(app, "acme/relu", "application/json").json
    assert document["lane"] == EXPERIMENTAL
    assert document["denied"] == []
    assert [item["variant"] for item in document["published"]] == [VARIANT]
    assert document["published"][0]["versions"] == ["v1"]
    html = page(app, "acme/relu", "text/html,*/*")
    assert html.headers["content-type"].startswith("text/html")
    assert str(COMMIT) in html.body.decode()


def test_the_page_of_a_denied_kernel_says_why(app: ServeApp) -> None:
    document = page(app, "acme/evil", "*/*").json
    assert document["denied"][0]["reasons"][0] == {
        "rule": "no-bytecode",
        "outcome": "deny",
        "seen": "a.pyc",
        "hint": "remove it",
    }
    html = page(app, "acme/evil", "text/html").body.decode()
    assert "no-bytecode" in html
    assert "remove it" in html


def test_the_page_escapes_what_strangers_wrote(kit: MirrorKit) -> None:
    evil = "<script>alert(1)</script>"
    reason = {"rule": evil, "outcome": "deny", "seen": evil, "hint": f'"{evil}'}
    kit.deny(repo=KernelRef("acme", "xss"), reasons=(reason,))
    reply = page(kit.app(), "acme/xss", "text/html")
    assert b"<script" not in reply.body
    assert "default-src 'none'" in reply.headers["content-security-policy"]


def test_a_page_of_nothing_is_not_found(app: ServeApp) -> None:
    for accept in ("text/html", "*/*"):
        assert page(app, "acme/nothing", accept).status == 404
    assert ask(app, "/k/-/x").status == 404


def test_answers_are_json_whatever_happens(app: ServeApp) -> None:
    for target in (BY_NAME, f"{API}/nothing", f"{API}/attestations/x", "/nothing", "/a/b/c/d/e"):
        reply = ask(app, target)
        assert isinstance(json.loads(reply.body), dict)
        assert reply.headers["x-content-type-options"] == "nosniff"


def evidence_kit(tmp_path: Path) -> tuple[MirrorKit, str]:
    kit = make_mirror(tmp_path)
    sbom = b'{"bomFormat":"CycloneDX"}'
    item = kit.variant()
    evidence = {**item.evidence, EvidenceKind.SBOM: kit.put(sbom)}
    kit.publish(replace(item, evidence=evidence))
    return kit, sbom.decode()


def test_evidence_is_listed_and_read_by_name_and_by_digest(tmp_path: Path) -> None:
    kit, sbom = evidence_kit(tmp_path)
    app = kit.app()
    digest = manifest_of(FILES).digest
    for place in (f"acme/relu/{COMMIT}/{VARIANT}", f"by-manifest/{digest.hex}"):
        listed = ask(app, f"{API}/evidence/{place}").json
        assert listed["manifest"] == str(digest)
        assert set(listed["evidence"]) == {"manifest", "sbom"}
        reply = ask(app, f"{API}/evidence/{place}/sbom")
        assert reply.body.decode() == sbom
        tag = reply.headers["etag"]
        assert tag.strip('"') == listed["evidence"]["sbom"].removeprefix("sha256:")
        again = ask(app, f"{API}/evidence/{place}/sbom", headers={"if-none-match": tag})
        assert (again.status, again.body) == (304, b"")
        for kind in ("scan", "nothing", ""):
            assert ask(app, f"{API}/evidence/{place}/{kind}").status == 404
    for place in ("x", "acme/relu", f"acme/relu/{COMMIT}/none", "by-manifest/x", "a/b/c/d/e/f"):
        assert ask(app, f"{API}/evidence/{place}").status == 404


def test_changed_or_lost_evidence_is_not_shown(tmp_path: Path) -> None:
    kit, _ = evidence_kit(tmp_path)
    app = kit.app()
    place = f"{API}/evidence/acme/relu/{COMMIT}/{VARIANT}/sbom"
    (item,) = kit.catalog.publications()[0].variants
    path = kit.store.path(item.evidence[EvidenceKind.SBOM])
    path.chmod(0o644)
    path.write_bytes(b"{}")
    assert ask(app, place).status == 500
    path.unlink()
    assert ask(app, place).status == 404


def test_attestations_that_a_pod_has_already_are_not_sent(app: ServeApp) -> None:
    tag = ask(app, BY_NAME).headers["etag"]
    reply = ask(app, BY_NAME, headers={"if-none-match": tag})
    assert (reply.status, reply.body) == (304, b"")
    assert "content-length" not in reply.headers


def test_the_description_names_every_address_and_is_served(app: ServeApp) -> None:
    document = ask(app, f"{API}/openapi.json").json
    assert document == DOCUMENT
    assert document["openapi"].startswith("3.1")
    assert len(document["paths"]) == 7
