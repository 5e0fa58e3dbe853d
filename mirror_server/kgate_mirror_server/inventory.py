"""Find kernels in the catalog by what a person types, and tell what is known about them.

A reference is `org/name`, `org/name@v1`, `org/name@<commit>` (any unambiguous prefix of seven
digits or more) or a manifest digest. It reads the catalog and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput, NotFound
from kgate_core.kernel import KernelRef

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from kgate_core.kernel import Revision
    from kgate_mirror_server.ports import Catalog, Denial, Publication

MIN_PREFIX: Final = 7  # hex digits of a commit that name it


@dataclass(frozen=True, slots=True)
class Reference:
    """What a person named."""

    repo: KernelRef | None
    pin: str
    manifest: Digest | None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a reference; raises InvalidInput."""
        if text.startswith("sha256:"):
            return cls(None, "", Digest.parse(text))
        name, _, pin = text.partition("@")
        if pin and not _is_pin(pin):
            raise InvalidInput(
                f"not a version or a commit: {pin!r}",
                hint=f"write v1, or at least {MIN_PREFIX} hex digits of a commit",
            )
        return cls(KernelRef.parse(name), pin, None)

    def matches_publication(self, item: Publication) -> bool:
        """Return whether a publication is meant."""
        if self.manifest is not None:
            return any(variant.manifest == self.manifest for variant in item.variants)
        return item.repo == self.repo and self._matches(
            item.version, str(item.served), str(item.upstream)
        )

    def matches_denial(self, item: Denial) -> bool:
        """Return whether a denial is meant."""
        if self.manifest is not None:
            return item.manifest == self.manifest
        return item.repo == self.repo and self._matches(item.version, str(item.upstream))

    def _matches(self, version: int | None, *commits: str) -> bool:
        if not self.pin:
            return True
        return self.pin == f"v{version}" or any(commit.startswith(self.pin) for commit in commits)


@dataclass(frozen=True, slots=True)
class Found:
    """What the catalog holds about a reference."""

    publications: tuple[Publication, ...]
    denials: tuple[Denial, ...]


@dataclass(frozen=True, slots=True)
class Contested:
    """A published variant that the policy of today denies: it is served until it is revoked."""

    publication: Publication
    variant: str
    manifest: Digest
    denial: Denial

    @property
    def rules(self) -> str:
        """The rules that deny it."""
        return ", ".join(str(reason.get("rule", "?")) for reason in self.denial.reasons)


def contested(
    publications: Iterable[Publication], denials: Iterable[Denial], gone: Container[Digest]
) -> tuple[Contested, ...]:
    """Return the published variants that were denied since, in the order of publications.

    `gone` has the manifests that are revoked: nobody is served those any more.
    """
    by_name: dict[tuple[object, ...], list[Denial]] = {}
    for denial in denials:
        key = (denial.origin, denial.repo_type, denial.repo, denial.lane, denial.variant)
        by_name.setdefault(key, []).append(denial)
    found = []
    for item in publications:
        for variant in item.variants:
            if variant.manifest in gone:
                continue
            key = (item.origin, item.repo_type, item.repo, item.lane, variant.variant)
            found += [
                Contested(item, variant.variant, variant.manifest, denial)
                for denial in by_name.get(key, ())
                if denial.denied_at >= item.published_at
                and means(denial, item.upstream, variant.manifest)
            ]
    return tuple(found)


def means(denial: Denial, upstream: Revision, manifest: Digest) -> bool:
    """Return whether a denial is about these bytes; without any, whether about that commit."""
    if denial.manifest is None:
        return denial.upstream == upstream
    return denial.manifest == manifest


def find(catalog: Catalog, text: str) -> Found:
    """Return everything that a reference means; raises NotFound if that is nothing."""
    reference = Reference.parse(text)
    found = Found(
        tuple(item for item in catalog.publications() if reference.matches_publication(item)),
        tuple(item for item in catalog.denials() if reference.matches_denial(item)),
    )
    if not found.publications and not found.denials:
        raise NotFound(
            f"{text} is not in the catalog",
            hint="`kgate ls` lists what is; pin it in kgate.yaml and run `kgate sync`",
        )
    return found


def _is_pin(text: str) -> bool:
    if text.startswith("v"):
        return text[1:].isdecimal()
    return len(text) >= MIN_PREFIX and all(char in "0123456789abcdef" for char in text)
