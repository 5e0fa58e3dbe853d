"""`object_store:` and `sync:` in kgate.yaml: how an object store is reached, and when sync runs.

Field names are what people write. Credentials are never values here: they come from the
environment, as the store's own tools read it, or from a file. Nothing is opened.
"""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from kgate_mirror_server.settings.keeping import Bytes  # noqa: TC001  # pydantic reads it

SCHEMES: Final = ("s3", "gs", "az")
_SPAN: Final = re.compile(r"([1-9]\d{0,4})\s*([mhd])")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}


def _to_span(value: object) -> object:
    """Turn `6h`, `30m` or `1d` into a time span."""
    if not isinstance(value, str):
        return value
    found = _SPAN.fullmatch(value.strip())
    if found is None:
        raise ValueError(f"not a time span: {value!r}; write 30m, 6h or 1d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ObjectStorage(_Model):
    """How the object store that `store:` names is reached; a folder needs none of it."""

    endpoint: Annotated[str, Field(pattern=r"^https?://[^/]+")] | None = None
    """Address of a store that is not the cloud's own, such as `http://minio:9000`."""
    region: str | None = None
    credentials: Path | None = None
    """File with lines `AWS_ACCESS_KEY_ID=…` as the environment would have them."""
    path_style: bool = True
    """Whether S3 buckets are named in the path, not in the host."""
    cache: Path = Path("kgate-data/cache")
    """Folder of local copies; bytes are checked there before they are sent to the store."""
    cache_size: Annotated[Bytes, Field(ge=1)] = 20 * 10**9
    """Bytes of local copies that are kept; the oldest go first."""
    stream: bool = False
    """Serve large files in ranges straight from the store, without local copies."""


class Schedule(_Model):
    """When pins are synced without anybody asking; off unless `every` is given."""

    every: (
        Annotated[timedelta, BeforeValidator(_to_span), Field(ge=timedelta(minutes=5))] | None
    ) = None
    """Time between two runs, such as `6h`; what is locked is taken, as `sync --locked` does."""


def _check_place(text: str) -> str:
    scheme, found, rest = text.partition("://")
    if found and (scheme not in SCHEMES or not rest.strip("/")):
        raise ValueError(
            f"not a store: {text!r}; name a folder, s3://bucket/prefix, gs://bucket/prefix"
            " or az://account/container/prefix"
        )
    return text


StorePlace = Annotated[str, AfterValidator(_check_place)]
"""A folder, or the URL of a bucket."""


def is_remote(store: str) -> bool:
    """Return whether a store is an object store."""
    return "://" in store
