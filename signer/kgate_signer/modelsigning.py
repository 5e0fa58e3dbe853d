"""The same files, signed once more in the format of OpenSSF Model Signing v1.0.

So that `model_signing verify key` and the tools built on it can check a variant without knowing
kgate: https://github.com/sigstore/model-transparency. That format has one subject (a digest over
all file digests), names the key by the sha256 of its PEM text, and its keyed verifier knows
elliptic curves only. It binds no repository, revision or lane: pods never look at it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput
from kgate_core.keys import Algorithm
from kgate_core.statement import Statement, Subject
from kgate_signer.sign import sign_statement

if TYPE_CHECKING:
    from kgate_core.keys import PublicKey
    from kgate_core.manifest import Manifest
    from kgate_signer.keys import KeyProvider

PREDICATE_TYPE: Final = "https://model_signing/signature/v1.0"


def model_statement(manifest: Manifest, name: str) -> Statement:
    """Return the files of a manifest as a model named `name`."""
    return Statement.of(
        (model_subject(manifest, name),),
        PREDICATE_TYPE,
        {
            # Nothing may be ignored: the peer's default list would let `.git/evil.py` pass.
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [],
            },
            "resources": [
                {"name": entry.path, "algorithm": "sha256", "digest": entry.digest.hex}
                for entry in manifest.files
            ],
        },
    )


def model_subject(manifest: Manifest, name: str = "model") -> Subject:
    """Return the one subject of a manifest's files taken as a model."""
    digests = b"".join(bytes.fromhex(entry.digest.hex) for entry in manifest.files)
    return Subject(name, Digest.of(digests))


def model_hint(public: PublicKey) -> str:
    """Return the name that this format has for a key: the sha256 of its PEM text in hex."""
    return hashlib.sha256(public.pem.encode("ascii")).hexdigest()


def sign_model(manifest: Manifest, name: str, key: KeyProvider) -> bytes:
    """Return the bundle that `model_signing` reads; raises InvalidInput unless the key is P-256."""
    public = key.public_key()
    if public.algorithm is not Algorithm.ECDSA_P256:
        raise InvalidInput(
            f"model signatures cannot be made with a key of type {public.algorithm}",
            hint="use a P-256 key",
        )
    return sign_statement(model_statement(manifest, name), key, hint=model_hint(public))
