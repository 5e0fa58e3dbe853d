from __future__ import annotations

import os
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from kgate_core.errors import Conflict, InvalidInput, TrustError
from kgate_core.keys import Algorithm
from kgate_signer import pkcs8
from kgate_signer.keys import FileKey, from_uri, read_private_file, write_private_file

if TYPE_CHECKING:
    from pathlib import Path

PASSPHRASE = "correct horse — battery".encode()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Derive keys in no time; one test below uses the real number of rounds."""
    monkeypatch.setattr(pkcs8, "KDF_ROUNDS", 1000)


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("passphrase", [None, PASSPHRASE, b"x" * 300])
def test_a_key_is_read_back_as_it_was_written(
    algorithm: Algorithm, passphrase: bytes | None, quick: None
) -> None:
    key = FileKey.generate(algorithm)
    pem = key.to_pem(passphrase)
    again = FileKey.from_pem(pem, passphrase)
    assert again.public_key() == key.public_key()
    assert again.public_key().algorithm is algorithm
    assert key.public_key().verify(again.sign(b"message"), b"message")
    assert (b"ENCRYPTED" in pem) is (passphrase is not None)


def test_openssl_opens_an_encrypted_key_and_sees_its_work_factor(tmp_path: Path) -> None:
    key = FileKey.generate()
    secret = tmp_path / "passphrase"
    secret.write_bytes(PASSPHRASE)
    pem = key.to_pem(PASSPHRASE)

    def openssl(*arguments: str | Path) -> str:
        command = ["openssl", *arguments]
        done = subprocess.run(command, input=pem, capture_output=True, check=True)
        return done.stdout.decode()

    assert openssl("pkey", "-pubout", "-passin", f"file:{secret}") == key.public_key().pem
    structure = openssl("asn1parse")
    assert all(word in structure for word in ("PBES2", "PBKDF2", "hmacWithSHA256", "aes-256-cbc"))
    assert f":{600_000:06X}" in structure


def test_a_wrong_passphrase_says_so_and_never_shows_it(quick: None) -> None:
    pem = FileKey.generate().to_pem(PASSPHRASE)
    with pytest.raises(TrustError, match=r"admit\.pem: the passphrase does not open") as caught:
        FileKey.from_pem(pem, b"wrong horse", what="admit.pem")
    assert "wrong horse" not in f"{caught.value} {caught.value.hint}"
    with pytest.raises(TrustError, match="is encrypted") as caught:
        FileKey.from_pem(pem, None)
    assert "passphrase-file" in caught.value.hint
    with pytest.raises(TrustError, match="is not encrypted"):
        FileKey.from_pem(FileKey.generate().to_pem(None), PASSPHRASE)
    with pytest.raises(InvalidInput, match="protects nothing"):
        FileKey.generate().to_pem(b"")


def test_a_key_does_not_show_itself() -> None:
    key = FileKey.generate()
    assert "private" not in repr(key).lower()
    secret = key.to_pem(None).decode().splitlines()[1]
    assert secret not in repr(key)


@pytest.mark.parametrize(
    "private",
    [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())],
    ids=["RSA", "P-384"],
)
def test_other_kinds_of_keys_are_refused(
    private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
) -> None:
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(TrustError, match="not supported") as caught:
        FileKey.from_pem(pem, None)
    assert "P-256" in caught.value.hint
    with pytest.raises(TrustError, match="not a PEM private key"):
        FileKey.from_pem(b"-----BEGIN PRIVATE KEY-----", None)


def test_a_key_file_is_its_owners_alone_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "admit.pem"
    old = os.umask(0)
    try:
        write_private_file(path, b"secret")
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_private_file(str(path)) == b"secret"
    with pytest.raises(Conflict, match="exists"):
        write_private_file(path, b"other")
    with pytest.raises(TrustError, match="cannot be written"):
        write_private_file(tmp_path / "missing" / "x.pem", b"")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o777])
def test_a_key_file_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "admit.pem"
    write_private_file(path, b"secret")
    path.chmod(mode)
    with pytest.raises(TrustError, match=f"mode {mode:04o}") as caught:
        read_private_file(str(path))
    assert caught.value.hint == f"chmod 600 {path}"


@pytest.mark.parametrize(
    ("owner", "reader", "mode", "refused"),
    [
        (0, 10001, 0o440, False),
        (0, 10001, 0o640, False),
        (0, 10001, 0o660, True),
        (0, 10001, 0o444, True),
        (0, 0, 0o440, True),
        (10001, 10001, 0o440, True),
    ],
)
def test_a_key_file_of_roots_may_be_readable_by_its_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: int, reader: int, mode: int, *,
    refused: bool,
) -> None:  # fmt: skip
    path = tmp_path / "admit.pem"
    write_private_file(path, b"secret")
    seen = list(path.stat())
    seen[0], seen[4] = stat.S_IFREG | mode, owner
    monkeypatch.setattr("kgate_signer.keys.os.fstat", lambda _file: os.stat_result(seen))
    monkeypatch.setattr("kgate_signer.keys.os.geteuid", lambda: reader)
    if refused:
        with pytest.raises(TrustError, match=f"mode {mode:04o}"):
            read_private_file(str(path))
    else:
        assert read_private_file(str(path)) == b"secret"


def test_a_public_key_may_be_read_by_everybody(tmp_path: Path) -> None:
    path = tmp_path / "admit.pub"
    path.write_text(FileKey.generate().public_key().pem)
    path.chmod(0o644)
    assert read_private_file(str(path)) == path.read_bytes()


def test_a_missing_or_enormous_key_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrustError, match="cannot be read: No such file"):
        read_private_file(str(tmp_path / "none.pem"))
    path = tmp_path / "big.pem"
    write_private_file(path, b"x" * 70_000)
    with pytest.raises(TrustError, match="not a key"):
        read_private_file(str(path))


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
def test_a_uri_opens_a_file_key_with_its_passphrase_file(
    tmp_path: Path, ending: bytes, quick: None
) -> None:
    key = FileKey.generate()
    write_private_file(tmp_path / "admit.pem", key.to_pem(PASSPHRASE))
    write_private_file(tmp_path / "pass", PASSPHRASE + ending)
    uri = f"file:{tmp_path}/admit.pem?passphrase-file={tmp_path}/pass"
    assert from_uri(uri).public_key() == key.public_key()
    assert from_uri(uri.replace("file:/", "file:///", 1)).public_key() == key.public_key()


def test_names_in_a_uri_mean_what_the_caller_wants() -> None:
    key = FileKey.generate()
    files = {"keys/admit.pem": key.to_pem(None)}
    opened = from_uri("file:keys/admit.pem", read_file=files.__getitem__)
    assert opened.public_key() == key.public_key()


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("keys/admit.pem", "not the URI of a key"),
        ("file:a?passphrase=hunter2", "carries a passphrase"),
        ("hsm:2?pin=hunter2", "carries a pin"),
        ("file:a?colour=red", "no parameter 'colour'"),
        ("awskms:abc", "needs public-key-file"),
    ],
)
def test_malformed_uris_are_refused_and_secrets_in_them_not_repeated(uri: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        from_uri(uri, read_file=lambda _: b"")
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


def test_an_empty_passphrase_file_is_refused() -> None:
    with pytest.raises(TrustError, match="pass is empty"):
        from_uri("file:a?passphrase-file=pass", read_file=lambda _: b"\n")
