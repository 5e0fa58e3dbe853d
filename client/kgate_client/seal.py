"""Keeps verified copies of variants in a private read-only directory.

A copy is made in a directory with a secret name, and gets the name of its manifest when all checks
are over. A copy that is found is digested again before it is used. Whether its files may run is not
decided here.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kgate_client.files import digest_files, same_files, walk
from kgate_core.errors import IntegrityError, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kgate_client.files import Walked
    from kgate_core.digest import Digest
    from kgate_core.manifest import Manifest

_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class SealedStore:
    """The directory of verified copies, `<manifest hex>/` each, owned by this user only."""

    root: Path
    """Where new copies are made."""
    shared: Path | None = None
    """A read-only directory with copies that somebody prepared, such as a node's cache."""

    spare: Callable[[], Path] | None = None
    """Chooses another root, for a root that turns out not to be writable."""

    def stage(self) -> Path:
        """Return a new empty private directory; raises OSError if there is no place for one."""
        try:
            return _stage(self.root)
        except OSError:
            if self.spare is None:
                raise
            return _stage(self.spare())

    def keep(self, staging: Path, manifest: Manifest) -> Path:
        """Make a staged copy read-only and give it its name; raises OSError.

        Where another process was first, its copy is used if it passes the same checks; where
        something else took the name, this copy keeps one of its own.
        """
        for directory, _, _ in os.walk(staging):
            Path(directory).chmod(0o500)
        final = staging.parent / manifest.digest.hex
        try:
            staging.rename(final)
        except OSError:
            try:
                self.check(manifest)
            except IntegrityError:
                final = staging.parent / f"{manifest.digest.hex}-{os.urandom(8).hex()}"
                staging.rename(final)
            else:
                discard(staging)
                return self.path(manifest.digest)
        return final

    def path(self, manifest: Digest) -> Path:
        """Return where the copy of these files lies or would lie."""
        if self.shared is not None:
            prepared = self.shared / manifest.hex
            if os.path.isdir(prepared):  # noqa: PTH112  # no error where it may not be looked into
                return prepared
        return self.root / manifest.hex

    def check(self, manifest: Manifest) -> Path:
        """Return an existing copy after digesting all of it again; raises IntegrityError."""
        walked = self._walk(manifest)
        try:
            found = digest_files(walked)
        except InvalidInput as exc:
            raise IntegrityError(f"the sealed copy {walked.root}: {exc.message}") from exc
        if found != manifest:
            changes = "; ".join(manifest.differences(found.files))
            raise IntegrityError(f"the sealed copy {walked.root} was changed: {changes}")
        return walked.root

    def compare(self, manifest: Manifest, files: Walked) -> Path | None:
        """Return an existing copy that is intact and equals these files; None for any doubt."""
        try:
            walked = self._walk(manifest)
            return walked.root if same_files(files, walked) == manifest else None
        except (IntegrityError, InvalidInput):
            return None

    def _walk(self, manifest: Manifest) -> Walked:
        path = self.path(manifest.digest)
        walked = walk(path)
        if walked.ignored:
            raise IntegrityError(f"the sealed copy {path} holds bytecode: {walked.ignored[0]}")
        _check_private(walked)
        return walked


def is_private(directory: Path) -> bool:
    """Return whether nobody else can change what lies here: every parent is looked at, too."""
    owners = {os.geteuid(), 0}
    path = Path(os.path.realpath(directory))
    for parent in (path, *path.parents):
        try:
            status = parent.stat()
        except FileNotFoundError:
            continue  # made by us later, inside a parent that is looked at next
        except OSError:
            return False
        shared = status.st_mode & _WRITABLE_BY_OTHERS and not status.st_mode & stat.S_ISVTX
        if status.st_uid not in owners or shared:
            return False
    return True


def discard(directory: Path) -> None:
    """Remove a staged or spoilt copy; what cannot be removed stays."""
    with contextlib.suppress(OSError):
        for parent, _, _ in os.walk(directory):
            Path(parent).chmod(0o700)
    import shutil  # only where something has to go: a pod that starts does without

    shutil.rmtree(directory, ignore_errors=True)


def _stage(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    # A predictable or reused name could be prepared by somebody else.
    staging = root / f".staging-{os.getpid()}-{os.urandom(8).hex()}"
    staging.mkdir(mode=0o700)
    return staging


def _check_private(walked: Walked) -> None:
    owners = {os.geteuid(), 0}
    directories: Sequence[Path] = [Path(parent) for parent, _, _ in os.walk(walked.root)]
    for path in [*directories, *(source.location for source in walked.files)]:
        status = os.lstat(path)
        if status.st_uid not in owners or status.st_mode & _WRITABLE_BY_OTHERS:
            raise IntegrityError(f"{path} could have been written by somebody else")
