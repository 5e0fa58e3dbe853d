"""The least of a lane: `lanes:` of kgate.yaml, signed into the trust metadata by a person.

No pod goes below what stands here. Reading the locks that are named happens when they are signed.
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # pydantic reads it at run time
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from kgate_core.errors import KgateError
from kgate_core.ondeny import OnDeny, check_choices
from kgate_core.trust import Mode  # noqa: TC001  # pydantic reads it at run time
from kgate_policy.profiles import PROFILES


class Floors(BaseModel):
    """One lane's floors; what is left out stays as it is signed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Mode | None = None
    """What pods do at least: observe, warn, enforce or strict."""
    on_deny: Annotated[dict[str, OnDeny] | None, Field(alias="onDeny")] = None
    """By `org/name` or `*`: keep-previous, fallback or block."""
    locks: dict[str, tuple[str, ...]] | None = None
    """By pool (`KGATE_CANARY`) or `*`: the locks that pods may use, as files or digests."""

    profile: str | None = None
    """Built-in rule set that decides about the lane's kernels, such as `production`."""
    policy: Path | None = None
    """Policy file or folder that decides about the lane's kernels; the site's unless given."""

    @model_validator(mode="after")
    def _one_policy(self) -> Floors:
        if self.profile is not None and self.policy is not None:
            raise ValueError("give profile or policy, not both; a policy can extend a profile")
        if self.profile is not None and self.profile not in PROFILES:
            raise ValueError(
                f"profile: there is no {self.profile!r}; built in: {', '.join(PROFILES)}"
            )
        return self

    @field_validator("on_deny")
    @classmethod
    def _named(cls, choices: dict[str, OnDeny] | None) -> dict[str, OnDeny] | None:
        try:
            check_choices(choices or {}, what="onDeny")
        except KgateError as exc:
            raise ValueError(exc.message) from exc
        return choices
