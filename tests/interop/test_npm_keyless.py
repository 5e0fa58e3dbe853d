"""npm's `@sigstore/verify` accepts keyless statements, offline, from the pinned roots."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kgate_signer.keyless import Keyless
from kgate_signer.predicates import vsa_statement
from tests.interop import toolbox
from tests.interop.test_npm_verify import PACKAGES
from tests.sigstoreservers import ACCOUNT, PROVIDER, Services
from tests.trustkit import make_trust, manifest_of
from tests.tsakit import LocalAuthority

pytestmark = pytest.mark.matrix

SCRIPT = Path(__file__).with_name("verify_keyless.js")


def peer(document: Any, root: Any, name: str = ACCOUNT) -> dict[str, Any]:
    """Return what the other implementation says about a bundle."""
    node, folder = toolbox.node(*PACKAGES)
    question = {"bundle": document, "root": root, "identity": {"name": name, "issuer": PROVIDER}}
    done = subprocess.run(
        [node, SCRIPT],
        input=json.dumps(question),
        env={"NODE_PATH": str(folder / "node_modules")},
        capture_output=True,
        text=True,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("rekor", [1, 2])
def test_it_accepts_a_keyless_statement_and_refuses_a_changed_one(
    rekor: int, tmp_path: Path
) -> None:
    manifest = manifest_of()
    statement = vsa_statement(manifest, make_trust().vsa(manifest))
    with Services(LocalAuthority(tmp_path, digits=0)).served() as services:
        config = services.trust_config(rekor)
        document = json.loads(Keyless(config).sign(statement, services.token))
    root = json.loads(config)["trustedRoot"]
    assert peer(document, root) == {"ok": True}
    other = peer(document, root, f"{ACCOUNT}-2")
    assert other["ok"] is False
    payload = base64.b64decode(document["dsseEnvelope"]["payload"]).replace(b"relu", b"gelu")
    document["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    assert peer(document, root)["ok"] is False


@pytest.mark.parametrize("name", ["rekor-v1", "rekor-v2"])
def test_it_accepts_the_stored_bundles(name: str) -> None:
    folder = Path(__file__).parents[1] / "assets" / "keyless"
    root = json.loads((folder / "trust-config.json").read_bytes())["trustedRoot"]
    document = json.loads((folder / f"{name}.sigstore.json").read_bytes())
    assert peer(document, root) == {"ok": True}
