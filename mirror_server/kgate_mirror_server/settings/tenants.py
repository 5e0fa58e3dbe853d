"""Teams with policies of their own: `tenants:` of kgate.yaml.

Values only; what a tenant's policy may do is `kgate_policy.tenancy`'s work.
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # pydantic reads the annotation
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class TenantPolicy(BaseModel):
    """One team, whose policy may tighten what the site's says and never loosen it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
    policy: Path
    """File or folder of its KernelPolicy documents, with at most one Policy among them."""
    repos: Annotated[tuple[str, ...], Field(min_length=1)]
    """Shell patterns of the repositories that it is asked about, such as `acme/*`."""


def _distinct(tenants: tuple[TenantPolicy, ...]) -> tuple[TenantPolicy, ...]:
    names = [item.name for item in tenants]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"there are two tenants {double!r}")
    return tenants


Tenants = Annotated[tuple[TenantPolicy, ...], AfterValidator(_distinct)]
