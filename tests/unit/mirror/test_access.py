from __future__ import annotations

import base64
import json
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from kgate_core.errors import InvalidInput, NotFound
from kgate_mirror_server.catalog.sql import SqlCatalog
from kgate_mirror_server.catalog.tokens import SqlTokens
from kgate_mirror_server.serve.access import Grant, TokenAccess
from kgate_mirror_server.serve.jwts import AccountGrant, JwtAccess
from kgate_mirror_server.serve.wire import Request

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
ISSUER = "https://kubernetes.default.svc"


@pytest.fixture
def catalog() -> SqlCatalog:
    return SqlCatalog("sqlite://")


@pytest.fixture
def tokens(catalog: SqlCatalog) -> SqlTokens:
    return SqlTokens(catalog.engine)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def asking(*headers: tuple[str, str]) -> Request:
    async def receive() -> dict[str, Any]:
        return {}

    pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return Request({"method": "GET", "headers": pairs}, receive)


def bearer(text: str) -> Request:
    return asking(("authorization", f"Bearer {text}"))


def access_of(tokens: SqlTokens, clock: Clock, **named: Any) -> TokenAccess:
    access = TokenAccess(tokens.tokens, named.pop("anonymous", ()), clock, **named)
    access.refresh()
    return access


def make(tokens: SqlTokens, **changes: Any) -> tuple[str, str]:
    named = {"name": "ci", "repos": ("acme/*",), "lanes": (), "now": NOW, "expires_at": None}
    text, kept = tokens.create(**{**named, **changes})
    return text, kept.identifier


def test_a_token_opens_what_it_names_and_nothing_else(tokens: SqlTokens) -> None:
    text, _ = make(tokens, repos=("acme/*", "beta/gelu"), lanes=("production",))
    caller = access_of(tokens, Clock()).caller(bearer(text))
    assert caller is not None
    assert caller.name == "ci"
    assert caller.sees("production", "acme/relu")
    assert caller.sees("production", "beta/gelu")
    assert not caller.sees("production", "beta/relu")
    assert not caller.sees("production", "xacme/relu")
    assert not caller.sees("experimental", "acme/relu")


def test_only_a_digest_of_a_token_is_kept(tokens: SqlTokens, catalog: SqlCatalog) -> None:
    text, identifier = make(tokens)
    assert text.startswith(f"kg_{identifier}_")
    with catalog.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT * FROM token").all()
    assert len(rows) == 1
    assert text.rpartition("_")[2] not in repr(rows)
    assert text not in repr(tokens.tokens())


def test_a_token_counts_until_it_is_revoked_or_expires(tokens: SqlTokens) -> None:
    clock = Clock()
    revoked, identifier = make(tokens)
    expiring, _ = make(tokens, expires_at=NOW + timedelta(days=1))
    access = access_of(tokens, clock)
    assert access.caller(bearer(revoked))
    tokens.revoke(identifier, now=NOW)
    tokens.revoke(identifier, now=NOW + timedelta(1))
    access.refresh()
    assert access.caller(bearer(revoked)) is None
    assert access.caller(bearer(expiring))
    clock.now = NOW + timedelta(days=1)
    assert access.caller(bearer(expiring)) is None


def test_changing_tokens_is_seen_by_everybody_who_polls(
    tokens: SqlTokens, catalog: SqlCatalog
) -> None:
    _, identifier = make(tokens)
    tokens.revoke(identifier, now=NOW)
    assert catalog.generation() == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": " "},
        {"name": "a\nb"},
        {"name": "x" * 201},
        {"repos": ()},
        {"repos": ("acme",)},
        {"repos": ("*",)},
        {"repos": ("a/b/c",)},
        {"repos": ("acme/[a-z]",)},
        {"lanes": ("../x",)},
        {"expires_at": NOW},
    ],
)
def test_a_token_without_a_clear_scope_is_refused(
    tokens: SqlTokens, changes: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput):
        make(tokens, **changes)


def test_revoking_what_does_not_exist_says_so(tokens: SqlTokens) -> None:
    with pytest.raises(NotFound):
        tokens.revoke("000000000000", now=NOW)


def test_bad_credentials_are_bad_and_no_credentials_are_anonymous(tokens: SqlTokens) -> None:
    text, identifier = make(tokens)
    access = access_of(tokens, Clock(), anonymous=(Grant(("open/*",)),))
    for wrong in (
        "",
        "x",
        "hf_token",
        text[:-1],
        text + "x",
        text.upper(),
        f"kg_{identifier}_{'A' * 43}",
        f"kg_{'0' * 12}_{text.rpartition('_')[2]}",
    ):
        assert access.caller(bearer(wrong)) is None, wrong
    assert access.caller(asking(("authorization", f"Basic {text}"))) is None
    assert access.caller(asking(("authorization", text))) is None
    assert access.caller(asking(("authorization", "Bearer " + "x" * 10_000))) is None
    twice = [("authorization", f"Bearer {text}")] * 2
    assert access.caller(asking(*twice)) is None
    anonymous = access.caller(asking())
    assert anonymous is not None
    assert anonymous.name is None
    assert anonymous.sees("production", "open/relu")
    assert not anonymous.sees("production", "acme/relu")


def test_while_the_catalog_is_gone_known_tokens_count(
    tokens: SqlTokens, catalog: SqlCatalog
) -> None:
    text, _ = make(tokens)
    access = access_of(tokens, Clock())
    with catalog.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE token")
    access.refresh()
    assert access.caller(bearer(text))


class Cluster:
    """Signs service-account tokens as a cluster does, and writes its keys to a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keys: dict[str, Any] = {
            "rsa": rsa.generate_private_key(public_exponent=65537, key_size=2048),
            "ec": ec.generate_private_key(ec.SECP256R1()),
        }
        self.write()

    def write(self) -> None:
        rsa_key, ec_key = (self.keys[name].public_key() for name in ("rsa", "ec"))
        keys = [
            {**RSAAlgorithm.to_jwk(rsa_key, as_dict=True), "kid": "rsa"},
            {**ECAlgorithm.to_jwk(ec_key, as_dict=True), "kid": "ec"},
        ]
        self.path.write_text(json.dumps({"keys": keys}))

    def token(self, key: str = "rsa", algorithm: str = "RS256", **claims: Any) -> str:
        kid = claims.pop("kid", key)
        body = {
            "iss": ISSUER,
            "aud": ["kgate"],
            "sub": "system:serviceaccount:team-a:runner",
            "exp": int(NOW.timestamp()) + 3600,
            "nbf": int(NOW.timestamp()),
            **claims,
        }
        body = {name: value for name, value in body.items() if value is not None}
        return jwt.encode(body, self.keys[key], algorithm, headers={"kid": kid})

    def access(self) -> JwtAccess:
        accounts = (
            AccountGrant("system:serviceaccount:team-a:*", Grant(("acme/*",), ("production",))),
            AccountGrant("system:serviceaccount:*:runner", Grant(("shared/*",))),
        )
        return JwtAccess(self.path, ISSUER, "kgate", accounts)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return Cluster(tmp_path_factory.mktemp("jwks") / "jwks.json")


@pytest.mark.parametrize(("key", "algorithm"), [("rsa", "RS256"), ("ec", "ES256")])
def test_a_service_account_sees_what_its_namespace_may(
    cluster: Cluster, tokens: SqlTokens, key: str, algorithm: str
) -> None:
    access = access_of(tokens, Clock(), jwts=cluster.access())
    caller = access.caller(bearer(cluster.token(key, algorithm)))
    assert caller is not None
    assert caller.name == "system:serviceaccount:team-a:runner"
    assert caller.sees("production", "acme/relu")
    assert caller.sees("experimental", "shared/relu")
    assert not caller.sees("experimental", "acme/relu")


def test_a_service_account_of_no_grant_sees_nothing(cluster: Cluster) -> None:
    text = cluster.token(sub="system:serviceaccount:other:web")
    caller = cluster.access().caller(text, NOW)
    assert caller is not None
    assert caller.grants == ()


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": ["other"]},
        {"aud": None},
        {"iss": "https://evil"},
        {"iss": None},
        {"exp": int(NOW.timestamp()) - 61},
        {"exp": None},
        {"exp": "tomorrow"},
        {"nbf": int(NOW.timestamp()) + 61},
        {"sub": None},
        {"kid": "unknown"},
    ],
)
def test_a_token_for_another_purpose_time_or_place_is_refused(
    cluster: Cluster, claims: dict[str, Any]
) -> None:
    assert cluster.access().caller(cluster.token(**claims), NOW) is None


def test_a_token_signed_otherwise_is_refused(cluster: Cluster) -> None:
    access = cluster.access()
    good = cluster.token()
    head, body, signature = good.split(".")
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    forged = jwt.encode(
        jwt.decode(good, options={"verify_signature": False}),
        stranger,
        "RS256",
        headers={"kid": "rsa"},
    )
    none = base64.urlsafe_b64encode(b'{"alg":"none","kid":"rsa"}').rstrip(b"=").decode()
    unsigned = f"{none}.{body}."
    shared = jwt.encode({"iss": ISSUER}, "x" * 64, "HS256", headers={"kid": "rsa"})
    other = cluster.token("rsa", "RS512")
    cut = [f"{head}.{body}.", f"{head}.{body}.{signature[:-4]}"]
    for text in (forged, unsigned, shared, other, *cut, "a.b.c", "...", ""):
        assert access.caller(text, NOW) is None
    assert access.caller(good, NOW) is not None


def test_new_keys_count_from_the_moment_they_are_written(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "jwks.json")
    access = cluster.access()
    assert access.caller(cluster.token(), NOW)
    cluster.path.write_text("{half")
    time.sleep(0.01)
    assert access.caller(cluster.token(), NOW)
    cluster.keys["rsa"] = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    cluster.write()
    assert access.caller(cluster.token(), NOW)


def test_without_a_key_file_nobody_is_let_in(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "jwks.json")
    access = cluster.access()
    cluster.path.unlink()
    assert access.caller(cluster.token(), NOW) is None
