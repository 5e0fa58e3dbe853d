from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from securesystemslib.signer import (  # type: ignore[attr-defined]  # re-exports without __all__
    SIGNER_FOR_URI_SCHEME,
    Key,
    SecretsHandler,
    Signature,
    Signer,
    SSlibKey,
)

from kgate_core.errors import InvalidInput, TrustError
from kgate_signer.devices import DeviceKey, PortSigner, to_library_key
from kgate_signer.keys import FileKey, from_uri

if TYPE_CHECKING:
    from collections.abc import Iterator

DEVICE = FileKey.generate()
OTHER = FileKey.generate()


class FakeDevice(Signer):
    """A key service: signs with what its URI says, wants a PIN, and can be out of order."""

    def __init__(self, uri: str, public: Key, pin: str) -> None:
        self.uri, self._public, self.pin = uri, public, pin

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> FakeDevice:
        assert secrets_handler is not None
        pin = secrets_handler("pin")
        if pin != "1234":
            raise RuntimeError(f"CKR_PIN_INCORRECT {pin}")
        return cls(priv_key_uri, public_key, pin)

    @property
    def public_key(self) -> Key:
        return self._public

    def sign(self, payload: bytes) -> Signature:
        if "broken" in self.uri:
            raise OSError(f"the token {self.pin} was pulled out")
        key = OTHER if "other" in self.uri else DEVICE
        return Signature("x", key.sign(payload).hex())


@pytest.fixture(autouse=True)
def _service() -> Iterator[None]:
    SIGNER_FOR_URI_SCHEME["fake"] = FakeDevice
    yield
    del SIGNER_FOR_URI_SCHEME["fake"]


FILES = {"admit.pub": DEVICE.public_key().pem.encode(), "pin": b"1234\n", "badpin": b"9999"}


def opened(uri: str) -> DeviceKey:
    key = from_uri(uri, read_file=FILES.__getitem__)
    assert isinstance(key, DeviceKey)
    return key


def test_a_key_service_signs_behind_the_port() -> None:
    key = opened("fake:slot/2?label=a+b&public-key-file=admit.pub&pin-file=pin")
    assert key.public_key() == DEVICE.public_key()
    assert key.public_key().verify(key.sign(b"message"), b"message")
    # Our own parameters do not reach the device's URI; its own do.
    assert isinstance(key._signer, FakeDevice)
    assert key._signer.uri == "fake:slot/2?label=a+b"


def test_a_device_that_holds_another_key_is_noticed() -> None:
    key = opened("fake:other?public-key-file=admit.pub&pin-file=pin")
    with pytest.raises(TrustError, match="signed with another key"):
        key.sign(b"message")


@pytest.mark.parametrize("pin", ["badpin", None])
def test_a_device_that_refuses_is_reported_without_its_secret(pin: str | None) -> None:
    uri = "fake:2?public-key-file=admit.pub" + (f"&pin-file={pin}" if pin else "")
    with pytest.raises(TrustError, match="'fake' did not answer \\(RuntimeError\\)") as caught:
        opened(uri)
    assert "9999" not in f"{caught.value} {caught.value.hint}"
    assert "PIN" in caught.value.hint


def test_a_device_that_fails_while_signing_is_reported_without_its_secret() -> None:
    key = opened("fake:broken?public-key-file=admit.pub&pin-file=pin")
    with pytest.raises(TrustError, match="did not answer \\(OSError\\)") as caught:
        key.sign(b"message")
    assert "1234" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["nowhere", "file2"])
def test_schemes_that_nobody_serves_are_refused_with_those_that_are_known(scheme: str) -> None:
    with pytest.raises(InvalidInput, match=f"scheme '{scheme}'") as caught:
        opened(f"{scheme}:x?public-key-file=admit.pub")
    assert all(name in caught.value.hint for name in ("file", "hsm", "awskms", "gcpkms", "hv"))
    assert "file2" not in caught.value.hint


def test_our_keys_serve_python_tuf() -> None:
    signer = PortSigner(DEVICE)
    assert isinstance(signer.public_key, SSlibKey)
    assert signer.public_key == to_library_key(DEVICE.public_key())
    signature = signer.sign(b"message")
    assert signature.keyid == DEVICE.public_key().keyid
    signer.public_key.verify_signature(signature, b"message")
    with pytest.raises(InvalidInput, match="open fake keys with"):
        PortSigner.from_priv_key_uri("fake:secret", signer.public_key)


@pytest.mark.parametrize(
    ("uri", "package"),
    [
        ("gcpkms:projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1", "gcpkms"),
        ("azurekms://vault.vault.azure.net/keys/admit/1", "azurekms"),
        ("awskms:alias/admit", "awskms"),
        ("hv:admit/1", "vault"),
    ],
)
def test_a_key_service_without_its_library_says_what_to_install(
    uri: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in (
        ("_gcp_signer", "GCP_IMPORT_ERROR"),
        ("_azure_signer", "AZURE_IMPORT_ERROR"),
        ("_aws_signer", "AWS_IMPORT_ERROR"),
        ("_vault_signer", "VAULT_IMPORT_ERROR"),
    ):
        monkeypatch.setattr(f"securesystemslib.signer.{module}.{name}", "not installed")
    with pytest.raises(TrustError, match="is not installed") as caught:
        opened(f"{uri}?public-key-file=admit.pub")
    assert caught.value.hint == f"pip install 'securesystemslib[{package}]'"


def test_a_scheme_that_nobody_serves_names_those_that_somebody_does() -> None:
    with pytest.raises(
        InvalidInput, match="no signer for keys of the scheme 'hashivault'"
    ) as caught:
        opened("hashivault:admit?public-key-file=admit.pub")
    for scheme in ("awskms", "azurekms", "gcpkms", "hsm", "hv"):
        assert scheme in caught.value.hint
