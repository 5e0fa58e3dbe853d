"""`retention:` and `quotas:` in kgate.yaml: what stays for how long, and how much may come in."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_SIZE: Final = re.compile(r"(\d{1,15})\s*(B|kB|MB|GB|TB)?")
_UNITS: Final = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def _to_bytes(value: object) -> object:
    """Turn `500 GB` into a number of bytes; decimal units, as disks are sold."""
    if not isinstance(value, str):
        return value
    found = _SIZE.fullmatch(value.strip())
    if found is None:
        raise ValueError(f"not a size: {value!r}; write 500GB, 20MB or a number of bytes")
    return int(found[1]) * _UNITS[found[2] or "B"]


Bytes = Annotated[int, BeforeValidator(_to_bytes), Field(ge=1)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Retention(_Model):
    """Which publications `kgate gc` takes away; those with a version, a pin or a hold never."""

    keep_newest: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Newest served revisions of each repository in each lane; None keeps all, for ever."""
    keep_days: Annotated[int, Field(ge=0, le=36_500)] = 90
    """Days since a client last used one, or since it was published, that keep it all the same."""
    grace_days: Annotated[int, Field(ge=1, le=3_650)] = 7
    """Days that a blob to which nothing refers stays: a bundle's parts may arrive over days."""


class Scrub(_Model):
    """How the server reads its store again in the background; see `kgate scrub`."""

    every_days: Annotated[float, Field(gt=0, le=365)] = 7
    rate: Bytes = 20 * 10**6
    """Bytes read in a second; 20 MB/s are 1.7 TB a day."""
    repair: bool = False
    """Whether the server fetches damaged files again; only where it may reach the upstream."""


class Quotas(_Model):
    """How many bytes published files may take, each blob counted once."""

    site: Bytes | None = None
    repo: Bytes | None = None
    """Of one repository, all lanes and revisions together."""
