"""Package URLs in advisories and VEX, as what of a kernel they mean.

Format: package-url. Of its types, `pkg:huggingface` (a kernel repository) and `pkg:pypi` (a
library) can be in a kernel; others mean nothing here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from packageurl import PackageURL

from kgate_core.errors import InvalidInput
from kgate_core.kernel import KernelRef
from kgate_scanner.advisories.model import Kind

_SUFFIX: Final = re.compile(r"-cu\d{2}$")
_SEPARATORS: Final = re.compile(r"[-_.]+")


@dataclass(frozen=True, slots=True)
class Named:
    """What a package URL names."""

    kind: Kind
    name: str
    version: str
    origin: str = ""
    """Upstream of a repository, if the URL names one."""
    subpath: str = ""


def read_purl(text: str) -> Named | None:
    """Return what a package URL means, None if that cannot be in a kernel."""
    if not text.startswith("pkg:"):
        return None
    try:
        found = PackageURL.from_string(text)
    except ValueError:
        return None
    version, subpath = found.version or "", found.subpath or ""
    if found.type == "huggingface":
        try:
            repo = KernelRef.parse(f"{found.namespace}/{found.name}")
        except InvalidInput:
            return None
        qualifiers = found.qualifiers if isinstance(found.qualifiers, dict) else {}
        origin = qualifiers.get("repository_url", "")
        return Named(Kind.REPO, str(repo).lower(), version.lower(), origin, subpath)
    if found.type == "pypi":
        return Named(Kind.PACKAGE, project(found.name), version)
    return None


def project(name: str) -> str:
    """Return a PyPI project's name in normal form, without the -cuNN of NVIDIA's."""
    normal = _SEPARATORS.sub("-", name).lower()
    return _SUFFIX.sub("", normal) if normal.startswith("nvidia-") else normal
