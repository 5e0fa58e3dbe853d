"""`serve:` in kgate.yaml, as a person writes it, on a real server: service accounts and bounds."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from kgate_core.errors import InvalidInput
from kgate_mirror_server.serve.settings import Limits
from tests.mirrorkit import served
from tests.sitekit import REPO, VARIANT, Site, built_kernels

if TYPE_CHECKING:
    from pathlib import Path

ISSUER = "https://kubernetes.default.svc"
FOUNDED = "serve:\n  host: 127.0.0.1\n  port: 8800\n"
SERVE = """
serve:
  tokens: true
  jwt:
    jwks: jwks.json
    issuer: https://kubernetes.default.svc
    audience: kgate
    accounts:
      - {subject: "system:serviceaccount:team-a:*", repos: ["kernels-community/*"]}
      - {subject: "system:serviceaccount:team-b:*", repos: ["other/*"]}
"""


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_kernels(tmp_path_factory.mktemp("examples"))


def write_serve(site: Site, text: str) -> None:
    founded = site.config.read_text(encoding="utf-8")
    assert FOUNDED in founded
    site.config.write_text(founded.replace(FOUNDED, text), encoding="utf-8")


def account(key: ec.EllipticCurvePrivateKey, namespace: str, **changes: Any) -> str:
    claims = {
        "iss": ISSUER,
        "aud": ["kgate"],
        "sub": f"system:serviceaccount:{namespace}:default",
        "exp": int(time.time()) + 600,
        **changes,
    }
    return jwt.encode(claims, key, algorithm="ES256", headers={"kid": "one"})


def build(address: str, token: str) -> tuple[int, list[str]]:
    request = urllib.request.Request(
        f"{address}/api/kernels/{REPO}/tree/v1/build", headers={"Authorization": f"Bearer {token}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status, [entry["path"] for entry in json.load(reply)]
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, []


def test_service_accounts_see_what_kgate_yaml_gives_their_namespace(
    tmp_path: Path, kernels: Path
) -> None:
    site = Site.found(tmp_path / "site", "https://jwt.test", kernels=kernels)
    key = ec.generate_private_key(ec.SECP256R1())
    public = json.loads(ECAlgorithm.to_jwk(key.public_key()))
    jwks = {"keys": [{**public, "kid": "one", "alg": "ES256", "use": "sig"}]}
    (site.folder / "jwks.json").write_text(json.dumps(jwks), encoding="utf-8")
    write_serve(site, SERVE)
    site.sync()
    mirror = site.mirror()
    settings = mirror.serve_settings()
    mirror.close()

    with served(settings) as address:
        assert build(address, account(key, "team-a")) == (200, [f"build/{VARIANT}"])
        assert build(address, account(key, "team-b")) == (200, [])
        assert build(address, account(key, "team-c")) == (200, [])
        for bad in ({"aud": ["other"]}, {"iss": "https://evil"}, {"exp": int(time.time()) - 600}):
            assert build(address, account(key, "team-a", **bad))[0] == 401, bad
        stranger = ec.generate_private_key(ec.SECP256R1())
        assert build(address, account(stranger, "team-a"))[0] == 401


def test_bounds_of_kgate_yaml_reach_the_server(tmp_path: Path) -> None:
    site = Site.found(tmp_path / "site", "https://bounds.test")
    write_serve(site, "serve: {limits: {ranges: 3, requests_per_second: 7, burst: 9}}\n")
    settings = site.mirror().serve_settings()

    assert settings.limits == Limits(ranges=3, requests_per_second=7.0, burst=9)


def test_behind_nginx_the_proxy_bounds_clients(tmp_path: Path) -> None:
    site = Site.found(tmp_path / "site", "https://bounds.test")
    write_serve(site, "serve: {send_file: xaccel}\n")

    assert site.mirror().serve_settings().limits.requests_per_second is None


@pytest.mark.parametrize(
    ("serve", "complaint"),
    [
        ("{jwt: {jwks: a, issuer: b, accounts: [{subject: c, repos: [d]}]}}", "without tokens"),
        ("{tokens: true, jwt: {jwks: a, issuer: b, accounts: []}}", "accounts"),
        ("{limits: {ranges: 0}}", "ranges"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(
    tmp_path: Path, serve: str, complaint: str
) -> None:
    site = Site.found(tmp_path / "site", "https://bounds.test")
    write_serve(site, f"serve: {serve}\n")

    with pytest.raises(InvalidInput, match=complaint):
        site.mirror()
