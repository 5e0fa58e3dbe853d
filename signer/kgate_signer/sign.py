"""Sign a statement: DSSE over its exact bytes, in a Sigstore bundle, checked before it leaves.

What to sign is decided in `attest`; nothing here looks into a statement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgate_core.bundle import Bundle, Envelope, pae
from kgate_core.errors import KgateError, TrustError
from kgate_core.statement import PAYLOAD_TYPE

if TYPE_CHECKING:
    from collections.abc import Callable

    from kgate_core.statement import Statement
    from kgate_signer.keys import KeyProvider


def sign_statement(
    statement: Statement,
    key: KeyProvider,
    *,
    hint: str | None = None,
    stamp: Callable[[bytes], bytes] | None = None,
) -> bytes:
    """Return a bundle over the statement's bytes, read back and verified; raises TrustError.

    `hint` replaces the usual name of the key, for readers that expect another one. `stamp`
    returns a checked timestamp over a signature.
    """
    public = key.public_key()
    name = public.hint if hint is None else hint
    signature = key.sign(pae(PAYLOAD_TYPE, statement.data))
    dates = () if stamp is None else (stamp(signature),)
    envelope = Envelope(statement.data, PAYLOAD_TYPE, signature, name)
    data = Bundle(envelope, name, dates).to_bytes()
    # Read back as a stranger would: a signer that failed halfway must not publish anything.
    try:
        found = Bundle.parse(data).envelope
    except KgateError as exc:
        raise TrustError(f"the signed bundle cannot be read back: {exc.message}") from exc
    if not public.verify(found.signature, found.signed_bytes):
        raise TrustError(
            f"the key {public.hint} returned a signature that is not its own",
            hint="nothing was published; check the key device",
        )
    return data
