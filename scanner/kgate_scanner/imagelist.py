"""The device images of whatever was scanned, as a sorted list of digests in a small file.

`kgate scan --device-images` writes it for a serving image; the mirror compares pins with it. The
digests are of decompressed bytes, so the same code is found however it is packed. What a list says
about an image is as true as the scan was complete; nothing is signed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kgate_core import strictjson
from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgate_core.evidence import ScanReport

SCHEMA: Final = "kgate.dev/device-images/v1"
MAX_BYTES: Final = 64 * 1024**2  # bytes: some 800,000 images; the largest libraries have 20,000


def device_images(reports: Iterable[ScanReport]) -> frozenset[Digest]:
    """Return the digests of all device images; those that could not be unpacked have none."""
    return frozenset(
        Digest.parse(image["digest"])
        for report in reports
        for facts in report.files.values()
        for image in facts.get("device", {}).get("images", ())
        if image.get("digest")
    )


def write_image_list(reports: Iterable[ScanReport]) -> bytes:
    """Return the file; equal images give equal bytes."""
    images = sorted(map(str, device_images(reports)))
    return strictjson.dumps({"schema": SCHEMA, "images": images})


def read_image_list(data: bytes) -> frozenset[Digest]:
    """Read what `write_image_list` wrote; raises InvalidInput."""
    what = "list of device images"
    document = strictjson.loads(data, what=what, max_bytes=MAX_BYTES)
    if strictjson.take(document, "schema", str, what=what) != SCHEMA:
        raise InvalidInput(
            f"{what}: unknown schema {document['schema']!r}",
            hint="write it with `kgate scan PATH --device-images FILE`",
        )
    return frozenset(map(Digest.parse, strictjson.take_strings(document, "images", what=what)))
