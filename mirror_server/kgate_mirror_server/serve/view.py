"""One served revision of one repository as clients see it: its files, folders and git ids.

Built once from proven variants and never changed; what is computed later is only kept, not
changed. Nothing here knows HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kgate_core.clock import write_time
from kgate_mirror_server.serve import gitids

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from kgate_core.digest import Digest
    from kgate_core.kernel import KernelRef, RepoType, Revision
    from kgate_mirror_server.ports import Denial, PublishedVariant, ServedFile
    from kgate_mirror_server.serve.proof import Proof


@dataclass(frozen=True, slots=True)
class ProvenVariant:
    """A published variant together with the proof that it may be served."""

    repo: KernelRef
    repo_type: RepoType
    served: Revision
    item: PublishedVariant
    proof: Proof


@dataclass(frozen=True)
class RevisionView:
    """What clients see under one served revision."""

    served: Revision
    upstream: Revision
    published_at: datetime
    variants: Mapping[str, ProvenVariant]

    @cached_property
    def files(self) -> dict[str, ServedFile]:
        """Every file by its path in the repository."""
        return {
            file.path: file for variant in self.variants.values() for file in variant.item.files
        }

    @cached_property
    def entries(self) -> dict[str, list[dict[str, Any]]]:
        """Folder path ("" is the root) to its direct entries, as the Hub's tree API writes them."""
        children: dict[str, dict[str, ServedFile | None]] = {"": {}}
        for path, file in self.files.items():
            parent, _, name = path.rpartition("/")
            children.setdefault(parent, {})[name] = file
            while parent:
                above, _, name = parent.rpartition("/")
                children.setdefault(above, {}).setdefault(name, None)
                parent = above
        entries: dict[str, list[dict[str, Any]]] = {}
        # The deepest folders first: a folder's git id needs those of its own folders.
        for folder in sorted(children, key=lambda path: path.count("/") + bool(path), reverse=True):
            entries[folder] = [
                _file_entry(file) if file else _folder_entry(folder, name, entries)
                for name, file in sorted(children[folder].items())
            ]
        return entries

    @cached_property
    def recursive(self) -> list[dict[str, Any]]:
        """Every entry below the root, folders before what is in them."""
        return self.below("")

    def below(self, folder: str) -> list[dict[str, Any]]:
        """Return every entry below a folder that exists, folders before what is in them."""
        found: list[dict[str, Any]] = []
        for entry in self.entries[folder]:
            found.append(entry)
            if entry["type"] == "directory":
                found += self.below(entry["path"])
        return found

    @property
    def last_commit(self) -> dict[str, str]:
        """The commit object that entries carry when a client asks for expanded ones."""
        return {
            "id": str(self.served),
            "title": "Published by kgate",
            "date": write_time(self.published_at),
        }


@dataclass(frozen=True, slots=True)
class RepoView:
    """Everything of one repository that one lane shows."""

    repo: KernelRef
    repo_type: RepoType
    branches: Mapping[int, Revision]
    """Version number to served revision."""
    revisions: Mapping[str, RevisionView]
    """By commit."""

    @property
    def newest(self) -> RevisionView:
        """What the highest version means; without versions, what was published last."""
        if self.branches:
            return self.revisions[str(self.branches[max(self.branches)])]
        return max(self.revisions.values(), key=lambda view: (view.published_at, str(view.served)))


@dataclass(frozen=True, slots=True)
class Withheld:
    """A variant that was published and may not be served now."""

    repo_type: RepoType
    repo: KernelRef
    served: Revision
    variant: str
    reason: str
    """Why: a stable word, a colon, a sentence."""

    @property
    def revoked(self) -> bool:
        """Whether somebody revoked it."""
        return self.reason.startswith("revoked")


@dataclass(frozen=True, slots=True)
class LaneView:
    """Everything that one lane shows."""

    repos: Mapping[tuple[RepoType, str], RepoView] = field(default_factory=dict)
    manifests: Mapping[Digest, tuple[ProvenVariant, ...]] = field(default_factory=dict)
    """Variants by the digest of their manifest; several repositories may hold the same bytes."""
    denials: Mapping[str, tuple[Denial, ...]] = field(default_factory=dict)
    """By `org/name`; told to people, never served."""
    withheld: Mapping[str, tuple[Withheld, ...]] = field(default_factory=dict)
    """By `org/name`, as above."""


def _file_entry(file: ServedFile) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "type": "file",
        "oid": file.oid,
        "size": file.size,
        "path": file.path,
    }
    if file.lfs:
        entry["lfs"] = {
            "oid": file.digest.hex,
            "size": file.size,
            "pointerSize": len(gitids.pointer(file.digest, file.size)),
        }
    return entry


def _folder_entry(
    parent: str, name: str, entries: Mapping[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    path = f"{parent}/{name}" if parent else name
    identifier = gitids.tree_id(
        (entry["path"].rpartition("/")[2], entry["oid"], entry["type"] == "directory")
        for entry in entries[path]
    )
    return {"type": "directory", "oid": identifier, "size": 0, "path": path}
