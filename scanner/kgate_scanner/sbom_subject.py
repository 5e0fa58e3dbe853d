"""What a bill of materials is about: a mirrored kernel, or anything else that was scanned.

It names things. A path on a machine is not an identity: such a subject is named as the person named
it, with the digest of its manifest as the version; only a wheel has a package URL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import quote

from packageurl import PackageURL

if TYPE_CHECKING:
    from kgate_core.kernel import KernelId
    from kgate_core.manifest import Manifest

_WHEEL: Final = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._]*)-(?P<version>[A-Za-z0-9._!+]+)(?:-[^-]+){3,4}\.whl"
)


@dataclass(frozen=True, slots=True)
class SbomSubject:
    """The root of a document, and the variant below it if there is one."""

    name: str
    version: str
    group: str | None
    ref: str
    """The reference of the root within the document."""
    purl: PackageURL | None
    variant: str | None
    """Name of the variant that holds the files; None if the root itself does."""
    inner_ref: str
    """The reference of what holds the files, and the beginning of theirs."""
    inner_purl: PackageURL | None
    distribution: str | None = None
    """Where it can be had."""

    @classmethod
    def of_kernel(cls, kernel: KernelId) -> Self:
        """Name one variant of a kernel at one commit."""
        repository = f"pkg:huggingface/{kernel.repo}@{kernel.revision}"
        tail = kernel.purl[len(repository) :].split("#")[0]
        web = f"{kernel.origin}/{kernel.repo_type}s/{kernel.repo}/tree/{kernel.revision}"
        return cls(
            name=kernel.repo.name,
            version=str(kernel.revision),
            group=kernel.repo.org,
            ref=repository,
            purl=PackageURL.from_string(repository + tail),
            variant=kernel.variant,
            inner_ref=kernel.purl,
            inner_purl=PackageURL.from_string(kernel.purl),
            distribution=web if kernel.origin.startswith("http") else None,
        )

    @classmethod
    def of_path(cls, name: str, manifest: Manifest, variant: str | None = None) -> Self:
        """Name what was found at a path; `name` is how the person called it."""
        wheel = _WHEEL.fullmatch(name)
        version = wheel["version"] if wheel else str(manifest.digest)
        title = wheel["name"].replace("_", "-").lower() if wheel else name
        ref = f"path:{quote(name)}"
        purl = PackageURL("pypi", name=title, version=version) if wheel else None
        return cls(
            name=title,
            version=version,
            group=None,
            ref=ref,
            purl=purl,
            variant=variant,
            inner_ref=ref if variant is None else f"{ref}#{variant}",
            inner_purl=None,
        )

    def file_ref(self, path: str) -> str:
        """Return the reference of a file within the document."""
        return f"{self.inner_ref}/{path}"

    def file_purl(self, path: str) -> PackageURL | None:
        """Return the package URL of a file, if what holds it has one."""
        if self.inner_purl is not None:
            return self.inner_purl._replace(subpath=f"{self.inner_purl.subpath}/{path}")
        return None if self.purl is None else self.purl._replace(subpath=path)
