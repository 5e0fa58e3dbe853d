"""`feeds:` of kgate.yaml: which advisories count without a signature, and whose VEX does.

A feed that is signed by a key of the role `feed` needs nothing here. It opens nothing.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict

from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def check_feed_name(text: str) -> str:
    """Return a feed's name unchanged; raises InvalidInput."""
    if _NAME.fullmatch(text) is None:
        raise InvalidInput(
            f"not a feed's name: {text!r}", hint="use lower-case letters, digits, '-', '_' and '.'"
        )
    return text


def _checked_name(text: str) -> str:
    try:
        return check_feed_name(text)
    except InvalidInput as exc:
        raise ValueError(exc.message) from exc


def _checked_digest(text: str) -> str:
    try:
        return str(Digest.parse(text))
    except InvalidInput as exc:
        raise ValueError(exc.message) from exc


class Feeds(BaseModel):
    """Advisory feeds of a site."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    snapshot: Path = Path("kgate-data/feeds/snapshot.json")
    """Everything that was imported, as one file."""
    pins: dict[
        Annotated[str, AfterValidator(_checked_name)],
        Annotated[str, AfterValidator(_checked_digest)],
    ] = {}
    """Unsigned feeds by name, with the digest that `kgate feed import` prints."""
    vex_authors: tuple[str, ...] = ()
    """Whose VEX statements count, written as the statements write them."""
