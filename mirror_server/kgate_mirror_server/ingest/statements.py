"""What is known about a variant besides its import and its scan, as policies are asked about it.

The result of a test run that somebody submitted, and how much of its device code serving images
have too. Nothing is measured or judged here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kgate_core import strictjson
from kgate_core.errors import InvalidInput
from kgate_mirror_server.ports import EvidenceKind
from kgate_scanner.imagelist import device_images, read_image_list

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kgate_core.digest import Digest
    from kgate_core.evidence import Facts, ScanReport
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.settings.site import Config

# Fields of a qualification result that policies see as they were submitted.
_NUMBERS: Final = ("maxAbsErrorPpm", "maxRelErrorPpm", "speedupPpm")
_SAID: Final = ("passed", "finishedAt", "gpu", *_NUMBERS)


def statements(mirror: Mirror, found: Mapping[EvidenceKind, Digest], scan: ScanReport) -> Facts:
    """Return the facts; raises InvalidInput for a list of device images that cannot be read."""
    stated: Facts = {"images": _images(mirror, scan)}
    if EvidenceKind.QUALIFICATION in found:
        digest = found[EvidenceKind.QUALIFICATION]
        stated["qualification"] = qualification_facts(mirror.room.read(digest), digest)
    return stated


def qualification_facts(data: bytes, digest: Digest) -> Facts:
    """Return what policies see of a submitted result; raises InvalidInput."""
    what = "qualification result"
    document = strictjson.loads(data, what=what)
    submitter = strictjson.take(document, "submitter", dict, what=what)
    said = {name: document[name] for name in _SAID if name in document}
    return {"submitter": submitter.get("name"), "digest": str(digest), **said}


def _images(mirror: Mirror, scan: ScanReport) -> list[Facts]:
    lists = mirror.rules.image_lists
    own = device_images([scan]) if lists else frozenset()
    return [
        {"name": name, "found": len(own & known), "of": len(own)} for name, known in lists.items()
    ]


def read_image_lists(config: Config) -> dict[str, frozenset[Digest]]:
    """Return the device code of the serving images that `targets:` names; raises InvalidInput."""
    lists = {}
    for name in dict.fromkeys(item.device_images for item in config.targets):
        if name is not None:
            path = config.path(name)
            try:
                lists[str(name)] = read_image_list(path.read_bytes())
            except OSError as exc:
                raise InvalidInput(
                    f"targets: {path} cannot be read ({exc.strerror})",
                    hint="write it with `kgate scan PATH --device-images FILE`",
                ) from exc
    return lists
