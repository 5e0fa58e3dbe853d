from __future__ import annotations

from typing import TYPE_CHECKING

from kgate_mirror_server.catalog.tokens import SqlTokens
from kgate_mirror_server.serve.access import TokenAccess
from kgate_mirror_server.trust.files import write_trust
from kgate_signer.trustchanges import revoke_digest
from tests.asgi import ask
from tests.mirrorkit import COMMIT, VARIANT, MirrorKit, make_mirror

if TYPE_CHECKING:
    from pathlib import Path

ATTESTED = f"/api/kgate/v1/attestations/acme/relu/{COMMIT}/{VARIANT}"


def revoked(root: Path) -> MirrorKit:
    kit = make_mirror(root)
    manifest = kit.publish().variants[0].manifest
    trust = revoke_digest(
        kit.trust.trust, manifest, "writes to /tmp", kit.trust.offline, now=kit.trust.now
    )
    write_trust(root / "trust", kit.trust.changed(trust).trust)
    return kit


def test_the_page_of_a_kernel_says_that_it_was_revoked_and_why(tmp_path: Path) -> None:
    app = revoked(tmp_path).app()

    reply = ask(app, "/k/acme/relu")

    assert reply.status == 200
    (item,) = reply.json["withheld"]
    assert (item["variant"], item["revision"], item["revoked"]) == (VARIANT, str(COMMIT), True)
    assert "writes to /tmp" in item["reason"]
    html = ask(app, "/k/acme/relu", headers={"accept": "text/html"}).body.decode()
    assert "revoked" in html
    assert "writes to /tmp" in html


def test_a_pod_that_asks_for_a_revoked_kernel_is_told_so(tmp_path: Path) -> None:
    reply = ask(revoked(tmp_path).app(), ATTESTED)

    assert (reply.status, reply.json["reason"]) == (404, "revoked")
    assert "writes to /tmp" in reply.json["error"]


def test_what_is_withheld_for_another_reason_is_not_called_revoked(tmp_path: Path) -> None:
    kit = make_mirror(tmp_path)
    other = kit.variant({"a.py": b"1"}, variant="torch-cuda")
    file = kit.publish(kit.variant(), other).variants[0].files[0]
    kit.store.path(file.digest).unlink()

    reply = ask(kit.app(), ATTESTED)

    assert (reply.status, reply.json["reason"]) == (404, "withheld")


def test_t18_another_tenant_hears_nothing_of_a_revocation(tmp_path: Path) -> None:
    kit = revoked(tmp_path)
    tokens = SqlTokens(kit.catalog.engine)
    text, _ = tokens.create("b", ("beta/*",), (), now=kit.trust.now, expires_at=None)
    app = kit.app(TokenAccess(tokens.tokens, (), lambda: kit.trust.now))
    headers = {"authorization": f"Bearer {text}"}

    strange = ask(app, ATTESTED.replace("relu", "nothing"), headers=headers)
    hidden = ask(app, ATTESTED, headers=headers)

    assert (hidden.status, hidden.body) == (strange.status, strange.body)
    assert ask(app, "/k/acme/relu", headers=headers).status == 404
