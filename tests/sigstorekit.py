"""A private Sigstore in memory: a certificate authority, a certificate log and a signature log.

It issues what the public one issues (RFC 6962 timestamps inside the certificate, a log entry with
inclusion proof and signed checkpoint), under keys that live for one test run, so that the real
`sigstore` verifier can be driven without a network. `trusted_root` is what a site would pin.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kgate_signer import der

SIGNED_AT: Final = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
DAY: Final = timedelta(days=1)
WORKFLOW: Final = "https://github.com/acme/kernels/.github/workflows/build.yaml@refs/heads/main"
REPOSITORY: Final = "https://github.com/acme/kernels"
ISSUER: Final = "https://token.actions.githubusercontent.com"
_FULCIO: Final = "1.3.6.1.4.1.57264.1."  # Fulcio's own extensions
_SCT: Final = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")  # RFC 6962 section 3.3
_UTF8: Final = 0x0C


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def key_name(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A key identifier without SHA-1 (RFC 7093 section 2)."""
    return hashlib.sha256(spki(key)).digest()[:20]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def signed(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


@dataclass
class PrivateSigstore:
    """The keys of all three services, and what they issue."""

    authority: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    certificates: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    log: ec.EllipticCurvePrivateKey = field(default_factory=new_key)

    def __post_init__(self) -> None:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fulcio.test")])
        usage = x509.KeyUsage(
            digital_signature=False, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, key_cert_sign=True, crl_sign=True,
            encipher_only=False, decipher_only=False,
        )  # fmt: skip
        self.root = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.authority.public_key())
            .serial_number(1)
            .not_valid_before(SIGNED_AT - 365 * DAY)
            .not_valid_after(SIGNED_AT + 3650 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier(key_name(self.authority)), critical=False)
            .sign(self.authority, hashes.SHA256())
        )

    @property
    def trusted_root(self) -> bytes:
        """The roots of this Sigstore, as its trusted_root.json."""
        since = {"start": "2020-01-01T00:00:00Z"}

        def service(key: ec.EllipticCurvePrivateKey, name: str) -> dict[str, Any]:
            return {
                "baseUrl": f"https://{name}.test",
                "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": b64(spki(key)),
                    "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "validFor": since,
                },
                "logId": {"keyId": b64(hashlib.sha256(spki(key)).digest())},
            }

        chain = [{"rawBytes": b64(self.root.public_bytes(Encoding.DER))}]
        document = {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [service(self.log, "rekor")],
            "ctlogs": [service(self.certificates, "ctfe")],
            "certificateAuthorities": [
                {
                    "subject": {"organization": "test", "commonName": "fulcio.test"},
                    "uri": "https://fulcio.test",
                    "certChain": {"certificates": chain},
                    "validFor": since,
                }
            ],
            "timestampAuthorities": [],
        }
        return json.dumps(document).encode()

    def sign(
        self,
        artifact: bytes,
        *,
        workflow: str = WORKFLOW,
        repository: str = REPOSITORY,
        issuer: str = ISSUER,
        logged_at: datetime = SIGNED_AT,
    ) -> bytes:
        """Return the bundle of an artifact that a workflow signed keyless."""
        key = new_key()
        certificate = self.certificate(key, workflow, repository, issuer)
        digest = hashlib.sha256(artifact).digest()
        signature = signed(key, artifact)
        entry = self._entry(digest, signature, certificate, logged_at)
        bundle = {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "certificate": {"rawBytes": b64(certificate.public_bytes(Encoding.DER))},
                "tlogEntries": [entry],
            },
            "messageSignature": {
                "messageDigest": {"algorithm": "SHA2_256", "digest": b64(digest)},
                "signature": b64(signature),
            },
        }
        return json.dumps(bundle).encode()

    def certificate(
        self,
        holder: ec.EllipticCurvePrivateKey | x509.CertificateSigningRequest,
        workflow: str,
        repository: str,
        issuer: str,
        moment: datetime = SIGNED_AT,
    ) -> x509.Certificate:
        usage = x509.KeyUsage(
            digital_signature=True, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, key_cert_sign=False, crl_sign=False,
            encipher_only=False, decipher_only=False,
        )  # fmt: skip
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.root.subject)
            .public_key(holder.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(moment - timedelta(minutes=1))
            .not_valid_after(moment + timedelta(minutes=9))
            .add_extension(usage, critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier(key_name(self.authority), None, None),
                critical=False,
            )
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(workflow)]),
                critical=True,
            )
        )
        for number, text in (("8", issuer), ("9", workflow), ("12", repository)):
            builder = builder.add_extension(
                x509.UnrecognizedExtension(
                    x509.ObjectIdentifier(_FULCIO + number), der.value(_UTF8, text.encode())
                ),
                critical=False,
            )
        # The timestamp is over the certificate without it, so that one is built first.
        bare = builder.sign(self.authority, hashes.SHA256())
        stamp = self._certificate_timestamp(bare.tbs_certificate_bytes, moment)
        return builder.add_extension(
            x509.UnrecognizedExtension(_SCT, der.value(der.OCTETS, stamp)), critical=False
        ).sign(self.authority, hashes.SHA256())

    def _certificate_timestamp(self, tbs: bytes, when: datetime) -> bytes:
        # RFC 6962 sections 3.2 and 3.3: one signed timestamp over a precertificate.
        issuer = hashlib.sha256(spki(self.authority)).digest()
        moment = int(when.timestamp() * 1000)
        over = struct.pack("!BBQH", 0, 0, moment, 1) + issuer
        over += len(tbs).to_bytes(3) + tbs + b"\0\0"
        signature = signed(self.certificates, over)
        log_id = hashlib.sha256(spki(self.certificates)).digest()
        stamp = b"\0" + log_id + struct.pack("!QHBBH", moment, 0, 4, 3, len(signature)) + signature
        return struct.pack("!HH", len(stamp) + 2, len(stamp)) + stamp

    def _entry(
        self, digest: bytes, signature: bytes, certificate: x509.Certificate, logged_at: datetime
    ) -> dict[str, Any]:
        body = {
            "apiVersion": "0.0.1",
            "kind": "hashedrekord",
            "spec": {
                "data": {"hash": {"algorithm": "sha256", "value": digest.hex()}},
                "signature": {
                    "content": b64(signature),
                    "publicKey": {"content": b64(certificate.public_bytes(Encoding.PEM))},
                },
            },
        }
        return self.log_entry(body, logged_at)

    def log_entry(self, body: dict[str, Any], logged_at: datetime | None) -> dict[str, Any]:
        """Return a log entry; without a time it is one of Rekor v2, which promises nothing."""
        canonical = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
        log_id = hashlib.sha256(spki(self.log)).digest()
        # A log of one entry: its leaf is its root (RFC 6962 section 2.1).
        leaf = hashlib.sha256(b"\0" + canonical).digest()
        note = f"rekor.test - 1\n1\n{b64(leaf)}\n"
        sealed = b64(log_id[:4] + signed(self.log, note.encode()))
        entry = {
            "logIndex": "0",
            "logId": {"keyId": b64(log_id)},
            "kindVersion": {"kind": body["kind"], "version": body["apiVersion"]},
            "inclusionProof": {
                "logIndex": "0",
                "rootHash": b64(leaf),
                "treeSize": "1",
                "hashes": [],
                "checkpoint": {"envelope": f"{note}\n— rekor.test {sealed}\n"},
            },
            "canonicalizedBody": b64(canonical),
        }
        if logged_at is None:
            return entry
        moment = int(logged_at.timestamp())
        promise = {
            "body": b64(canonical),
            "integratedTime": moment,
            "logID": log_id.hex(),
            "logIndex": 0,
        }
        promised = json.dumps(promise, sort_keys=True, separators=(",", ":")).encode()
        return entry | {
            "integratedTime": str(moment),
            "inclusionPromise": {"signedEntryTimestamp": b64(signed(self.log, promised))},
        }
