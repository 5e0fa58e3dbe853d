"""What the images of one file say together: debug builds, build paths, no machine code.

One finding for each distinct fact, not for each image.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

from kgate_scanner.device import rules
from kgate_scanner.device.images import DeviceImage, ImageKind

if TYPE_CHECKING:
    from kgate_scanner.device.ledger import Ledger

_PATH: Final = re.compile(r"(?<![\w.:/])-?[A-Z]?(/(?:[\w.+@-]+/)+)[\w.+@-]*")
_ORDINARY: Final = ("/usr/", "/opt/rocm", "/lib/", "/lib64/", "/bin/", "/dev/")
_MOST: Final = 20  # findings of one rule
_TEXT_MAX: Final = 16_384  # characters of one text that are searched
_CONTAINERS: Final = frozenset({ImageKind.DEVICE_ARCHIVE, ImageKind.METALLIB, ImageKind.UNKNOWN})


def judge_images(ledger: Ledger) -> None:
    """Report what only the whole of a file's images shows."""
    images = ledger.images
    debug = [image for image in images if image.debug]
    if debug:
        targets = ", ".join(sorted({image.target for image in debug}))
        ledger.report(rules.DEBUG, f"{len(debug)} images ({targets})", debug[0].offset)
    encoded = [image for image in images if image.kind is ImageKind.LTO_IR]
    if encoded:
        targets = ", ".join(sorted({image.target for image in encoded}))
        ledger.report(rules.OPAQUE, f"{len(encoded)} images ({targets})", encoded[0].offset)
    code = [image for image in images if image.kind not in _CONTAINERS]
    if code and not any(image.is_machine_code for image in code):
        kinds = ", ".join(sorted({str(image.kind) for image in code}))
        ledger.report(rules.NO_MACHINE_CODE, f"{len(code)} images, all {kinds}", code[0].offset)
    for path, (count, offset) in _paths(images).items():
        ledger.report(rules.BUILD_PATH, f"{path} in {count} images", offset)


def _paths(images: tuple[DeviceImage, ...]) -> dict[str, tuple[int, int]]:
    counts: Counter[str] = Counter()
    first: dict[str, int] = {}
    known: dict[tuple[str, ...], set[str]] = {}  # many images name the same texts
    for image in images:
        texts = (image.options, image.lineinfo, *(tool.args for tool in image.tools))
        if texts not in known:
            found = (_PATH.finditer(text[:_TEXT_MAX]) for text in texts)
            known[texts] = {match.group(1) for matches in found for match in matches}
        for path in known[texts]:
            if not path.startswith(_ORDINARY):
                counts[path] += 1
                first.setdefault(path, image.offset)
    listed = sorted(counts)[:_MOST]
    return {path: (counts[path], first[path]) for path in listed}
