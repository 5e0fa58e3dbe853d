"""Private keys on devices and in key services, through securesystemslib's signers.

What securesystemslib opens by URI (PKCS#11 HSMs, the KMS of three clouds, Vault) signs here behind
the `KeyProvider` port. Every answer is checked against the public key that the operator named, so
a device that holds another key is noticed at once. No error of that library leaves this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from securesystemslib.exceptions import UnsupportedLibraryError
from securesystemslib.signer import (  # type: ignore[attr-defined]  # re-exports without __all__
    SIGNER_FOR_URI_SCHEME,
    Key,
    SecretsHandler,
    Signature,
    Signer,
    SSlibKey,
)

from kgate_core.errors import InvalidInput, TrustError
from kgate_core.tuf import key_to_json

if TYPE_CHECKING:
    from kgate_core.keys import PublicKey
    from kgate_signer.keys import KeyProvider

_EXTRAS: Final = {"hv": "vault"}
"""What securesystemslib calls a scheme's libraries, where the name differs."""


@dataclass(frozen=True, slots=True)
class DeviceKey:
    """A key behind a securesystemslib signer."""

    _signer: Signer
    _public: PublicKey

    @classmethod
    def open(cls, uri: str, public: PublicKey, secret: bytes | None) -> Self:
        """Open a device's key by its URI; raises InvalidInput for schemes that nobody serves."""
        scheme = uri.partition(":")[0]
        # `file2` reads plain files without our checks: `file:` is the way to them.
        if scheme not in SIGNER_FOR_URI_SCHEME or scheme.startswith("file"):
            known = sorted(name for name in SIGNER_FOR_URI_SCHEME if not name.startswith("file"))
            raise InvalidInput(
                f"no signer for keys of the scheme {scheme!r}",
                hint=f"known are file, {', '.join(known)}",
            )
        try:
            signer = Signer.from_priv_key_uri(
                uri, to_library_key(public), lambda _: (secret or b"").decode()
            )
        except Exception as exc:  # the library documents no closed set of errors
            raise _translated(scheme, exc) from exc
        return cls(signer, public)

    def public_key(self) -> PublicKey:
        """Return the public key that the operator named."""
        return self._public

    def sign(self, message: bytes) -> bytes:
        """Return the device's signature; raises TrustError if it fails or is another key's."""
        try:
            signature = bytes.fromhex(self._signer.sign(message).signature)
        except Exception as exc:  # as in `open`
            raise _translated(type(self._signer).__name__, exc) from exc
        if not self._public.verify(signature, message):
            raise TrustError(
                "the device signed with another key than the one named by public-key-file",
                hint="check the key's label or number and its public key file",
            )
        return signature


def to_library_key(public: PublicKey) -> SSlibKey:
    """Return a public key as securesystemslib and python-tuf hold it, under our key id."""
    written = key_to_json(public)
    return SSlibKey(public.keyid, written["keytype"], written["scheme"], written["keyval"])


class PortSigner(Signer):
    """The other direction: one of our keys, as python-tuf wants to call it."""

    def __init__(self, key: KeyProvider) -> None:
        self._key = key
        self._public = to_library_key(key.public_key())

    @property
    def public_key(self) -> SSlibKey:
        """The public half, under our key id."""
        return self._public

    def sign(self, payload: bytes) -> Signature:
        """Return a signature in hex, as TUF writes it."""
        return Signature(self._public.keyid, self._key.sign(payload).hex())

    @classmethod
    def from_priv_key_uri(
        cls,
        priv_key_uri: str,
        public_key: Key,  # noqa: ARG003  # the interface's signature
        secrets_handler: SecretsHandler | None = None,  # noqa: ARG003  # the same
    ) -> Self:
        """Refuse: keys are opened by `keys.from_uri`."""
        raise InvalidInput(f"open {priv_key_uri.partition(':')[0]} keys with keys.from_uri")


def _translated(where: str, exc: Exception) -> TrustError:
    if isinstance(exc, UnsupportedLibraryError):
        extra = _EXTRAS.get(where, where)
        return TrustError(
            f"the library for keys of the scheme {where!r} is not installed",
            hint=f"pip install 'securesystemslib[{extra}]'",
        )
    # Only the kind of the error is told: device libraries put PINs and tokens into their texts.
    return TrustError(
        f"the key device behind {where!r} did not answer ({type(exc).__name__})",
        hint="is its library installed, the device there, and the PIN right?",
    )
