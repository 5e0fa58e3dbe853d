"""Ask a timestamp authority when a signature was made (RFC 3161 over HTTP, section 3.4).

An independent authority's word lets keys run out without signing everything again, and cuts a
stolen key off from the moment it was revoked. Its answer is checked at once against the key that
the site pinned: an authority that answers nonsense makes signing fail, never publish.
"""

from __future__ import annotations

import secrets
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kgate_core.clock import write_time
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput, TrustError, UpstreamError
from kgate_core.timestamp import MAX_RESPONSE, Authority, read_response
from kgate_signer import der

if TYPE_CHECKING:
    from datetime import datetime

TIMEOUT: Final = timedelta(seconds=10)
TOLERANCE: Final = timedelta(minutes=5)  # between the authority's clock and ours
_SHA256: Final = bytes.fromhex("0609608648016503040201")
_NONCE: Final = 64  # bits
_TEN_YEARS: Final = timedelta(days=3650)


class Stamper(Protocol):
    """Something that says when it saw a signature."""

    def stamp(self, signature: bytes, now: datetime, /) -> bytes:
        """Return a checked RFC 3161 response; raises UpstreamError or TrustError."""


@dataclass(frozen=True, slots=True)
class HttpStamper:
    """A timestamp authority behind a URL that an operator configured."""

    url: str
    authority: Authority

    def __post_init__(self) -> None:
        if not self.url.startswith(("https://", "http://")):
            raise InvalidInput(f"not the URL of a timestamp authority: {self.url!r}")

    def stamp(self, signature: bytes, now: datetime, /) -> bytes:
        """Return the authority's checked response."""
        response = self._ask(request_of(signature))
        try:
            moment = read_response(response, signature, self.authority)
        except InvalidInput as exc:
            raise TrustError(
                f"the answer of {self.url} is no timestamp: {exc.message}",
                hint="nothing was published; compare the authority's key with the pinned one",
            ) from exc
        if abs(moment - now) > TOLERANCE:
            raise TrustError(
                f"{self.url} says it is {write_time(moment)}, this machine says {write_time(now)}",
                hint="nothing was published; check both clocks",
            )
        return response

    def _ask(self, body: bytes) -> bytes:
        question = urllib.request.Request(  # noqa: S310  # the scheme was checked above
            self.url, body, {"Content-Type": "application/timestamp-query"}
        )
        try:
            with urllib.request.urlopen(  # noqa: S310  # as above
                question, timeout=TIMEOUT.total_seconds()
            ) as answer:
                found: bytes = answer.read(MAX_RESPONSE + 1)
        except (OSError, ValueError, urllib.error.URLError) as exc:
            raise UpstreamError(
                f"the timestamp authority {self.url} did not answer ({type(exc).__name__})",
                hint="nothing was published; run again when it is back",
            ) from exc
        return found


def authority_from(pem: bytes, name: str, now: datetime) -> Authority:
    """Return an authority from its certificate or its bare public key, both in PEM.

    A certificate says from when until when it counts; a bare key counts from now on for ten years.
    Raises InvalidInput. Whoever pins it is the one who checked it: no chain is built.
    """
    if b"CERTIFICATE" not in pem:
        return Authority(name, pem.decode("ascii", "replace"), now - TOLERANCE, now + _TEN_YEARS)
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError as exc:
        raise InvalidInput(f"{name}: not a PEM certificate") from exc
    key = certificate.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return Authority(
        name,
        key.decode("ascii"),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
    )


def request_of(signature: bytes) -> bytes:
    """Return a TimeStampReq (section 2.4.1) over a signature, asking for the certificate too."""
    imprint = der.sequence(
        der.sequence(_SHA256, der.NULL),
        der.value(der.OCTETS, bytes.fromhex(Digest.of(signature).hex)),
    )
    nonce = der.integer(secrets.randbits(_NONCE))
    return der.sequence(der.integer(1), imprint, nonce, der.TRUE)
