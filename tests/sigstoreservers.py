"""A private Sigstore on loopback: Fulcio, CT, Rekor v1 and v2, a timestamp authority, OIDC.

It issues to whoever shows a token that its own identity provider signed, so that the real
SigningContext of `sigstore` can be driven without a network. `trust_config` names the services;
`job` is the environment of a CI job whose runner hands out tokens, as GitHub Actions does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from jwt.algorithms import ECAlgorithm

from tests.sigstorekit import PrivateSigstore, b64, new_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.tsakit import LocalAuthority

JOB_SECRET: Final = "the runner's own secret"
PROVIDER: Final = "https://oidc.test"
ACCOUNT: Final = "https://cluster.test/namespaces/kgate/serviceaccounts/mirror"


@dataclass
class Services:
    """All services with their keys; `address` is known while they are served."""

    timestamps: LocalAuthority
    sigstore: PrivateSigstore = field(default_factory=PrivateSigstore)
    provider: Any = field(default_factory=new_key)
    address: str = ""
    broken: bool = False
    """If set, the log answers with an entry about something else."""

    def token(self, subject: str = ACCOUNT, *, key: Any = None, **claims: Any) -> str:
        """Return an identity token of the provider, or one that somebody else's key signed."""
        now = datetime.now(UTC)
        content = {
            "iss": PROVIDER,
            "sub": subject,
            "aud": "sigstore",
            "iat": now,
            "exp": now + timedelta(minutes=5),
        }
        return jwt.encode(content | claims, key or self.provider, algorithm="ES256")

    def trust_config(self, rekor: int) -> bytes:
        """Return the ClientTrustConfig with one of the two kinds of log."""
        since = {"start": "2020-01-01T00:00:00Z"}
        root = json.loads(self.sigstore.trusted_root)
        root["timestampAuthorities"] = [
            {
                "subject": {"organization": "test", "commonName": "timestamps.test"},
                "uri": "https://timestamps.test",
                "certChain": {
                    "certificates": [{"rawBytes": b64(data)} for data in self.timestamps.chain]
                },
                "validFor": since,
            }
        ]

        def service(path: str, version: int) -> list[dict[str, Any]]:
            url = f"{self.address}{path}"
            return [{"url": url, "majorApiVersion": version, "validFor": since, "operator": "test"}]

        document = {
            "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
            "trustedRoot": root,
            "signingConfig": {
                "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
                "caUrls": service("", 1),
                "oidcUrls": service("", 1),
                "rekorTlogUrls": service("", rekor),
                "rekorTlogConfig": {"selector": "ANY"},
                "tsaUrls": service("/timestamps", 1),
                "tsaConfig": {"selector": "ANY"},
            },
        }
        return json.dumps(document).encode()

    def issue(self, token: str, request: dict[str, Any]) -> dict[str, Any]:
        """Fulcio: a certificate over the requester's key for the identity in the token."""
        claims = jwt.decode(
            token, self.provider.public_key(), algorithms=["ES256"], audience="sigstore"
        )
        asked = x509.load_pem_x509_csr(base64.b64decode(request["certificateSigningRequest"]))
        found = self.sigstore.certificate(
            asked, claims["sub"], "https://cluster.test", claims["iss"], datetime.now(UTC)
        )
        chain = [item.public_bytes(Encoding.PEM).decode() for item in (found, self.sigstore.root)]
        return {"signedCertificateEmbeddedSct": {"chain": {"certificates": chain}}}

    def log_first(self, proposed: dict[str, Any]) -> dict[str, Any]:
        """Rekor v1: a DSSE entry, in the old API's own spelling."""
        content = proposed["spec"]["proposedContent"]
        envelope = json.loads(content["envelope"])
        payload = base64.b64decode(envelope["payload"]) + (b"!" if self.broken else b"")
        body = {
            "apiVersion": "0.0.1",
            "kind": "dsse",
            "spec": {
                "envelopeHash": _hash(content["envelope"].encode()),
                "payloadHash": _hash(payload),
                "signatures": [
                    {"signature": item["sig"], "verifier": content["verifiers"][0]}
                    for item in envelope["signatures"]
                ],
            },
        }
        entry = self.sigstore.log_entry(body, datetime.now(UTC))
        proof = entry["inclusionProof"]
        return {
            "0": {
                "body": entry["canonicalizedBody"],
                "integratedTime": int(entry["integratedTime"]),
                "logID": base64.b64decode(entry["logId"]["keyId"]).hex(),
                "logIndex": 0,
                "verification": {
                    "signedEntryTimestamp": entry["inclusionPromise"]["signedEntryTimestamp"],
                    "inclusionProof": {
                        "logIndex": 0,
                        "rootHash": base64.b64decode(proof["rootHash"]).hex(),
                        "treeSize": 1,
                        "hashes": [],
                        "checkpoint": proof["checkpoint"]["envelope"],
                    },
                },
            }
        }

    def log_second(self, proposed: dict[str, Any]) -> dict[str, Any]:
        """Rekor v2: an entry without a time, which the timestamp authority gives instead."""
        asked = proposed["hashedRekordRequestV002"]
        digest = b64(b"\0" * 32) if self.broken else asked["digest"]
        body = {
            "apiVersion": "0.0.2",
            "kind": "hashedrekord",
            "spec": {
                "hashedRekordV002": {
                    "data": {"algorithm": "SHA2_256", "digest": digest},
                    "signature": asked["signature"],
                }
            },
        }
        return self.sigstore.log_entry(body, None)

    @contextmanager
    def served(self) -> Iterator[Services]:
        """Serve everything on loopback until the block ends."""
        services = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the interface's name
                data = self.rfile.read(int(self.headers["Content-Length"]))
                try:
                    status, answer = 201, services.answer(self.path, data, dict(self.headers))
                except (jwt.InvalidTokenError, KeyError) as exc:
                    status, answer = 400, json.dumps({"message": type(exc).__name__}).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def do_GET(self) -> None:  # the interface's name
                found = services.provided(self.path, dict(self.headers))
                answer = json.dumps(found or {"message": "forbidden"}).encode()
                self.send_response(200 if found else 403)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Say nothing: a test's output is its own."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            self.address = f"http://127.0.0.1:{server.server_port}"
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()

    @property
    def job(self) -> dict[str, str]:
        """The environment of a CI job whose runner hands out this provider's tokens."""
        return {
            "GITHUB_ACTIONS": "true",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": JOB_SECRET,
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.address}/job/token?run=1",
        }

    def provided(self, path: str, headers: dict[str, str]) -> dict[str, Any] | None:
        """Return what the identity provider answers; None if it refuses."""
        if path == "/.well-known/openid-configuration":
            return {"issuer": PROVIDER, "jwks_uri": f"{self.address}/keys"}
        if path == "/keys":
            key = ECAlgorithm.to_jwk(self.provider.public_key(), as_dict=True)
            return {"keys": [key | {"use": "sig", "alg": "ES256"}]}
        asked = path.startswith("/job/token") and "audience=sigstore" in path
        if asked and headers.get("Authorization") == f"bearer {JOB_SECRET}":
            return {"value": self.token()}
        return None

    def answer(self, path: str, data: bytes, headers: dict[str, str]) -> bytes:
        """Return what the service behind a path answers."""
        if path.startswith("/timestamps"):
            return self.timestamps.answer(data, chain=False)
        request = json.loads(data)
        if path == "/api/v2/signingCert":
            token = headers["Authorization"].removeprefix("Bearer ")
            return json.dumps(self.issue(token, request)).encode()
        logs = {"/api/v1/log/entries": self.log_first, "/api/v2/log/entries": self.log_second}
        return json.dumps(logs[path](request)).encode()


def _hash(data: bytes) -> dict[str, str]:
    return {"algorithm": "sha256", "value": hashlib.sha256(data).hexdigest()}
