"""The least of a lane: `lanes:` of kgate.yaml, signed into the trust metadata by a person.

No pod goes below what stands here. Reading the locks that are named happens when they are signed.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from kgate_core.errors import KgateError
from kgate_core.ondeny import OnDeny, check_choices
from kgate_core.trust import Mode  # noqa: TC001  # pydantic reads it at run time


class Floors(BaseModel):
    """One lane's floors; what is left out stays as it is signed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Mode | None = None
    """What pods do at least: observe, warn, enforce or strict."""
    on_deny: Annotated[dict[str, OnDeny] | None, Field(alias="onDeny")] = None
    """By `org/name` or `*`: keep-previous, fallback or block."""
    locks: dict[str, tuple[str, ...]] | None = None
    """By pool (`KGATE_CANARY`) or `*`: the locks that pods may use, as files or digests."""

    @field_validator("on_deny")
    @classmethod
    def _named(cls, choices: dict[str, OnDeny] | None) -> dict[str, OnDeny] | None:
        try:
            check_choices(choices or {}, what="onDeny")
        except KgateError as exc:
            raise ValueError(exc.message) from exc
        return choices
