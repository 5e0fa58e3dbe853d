"""The first disc for a site that has nothing: kgate's own wheels and the root that it will pin.

An empty site cannot check a signature yet, so everything is listed in one file of digests, and a
person compares the digest of that one file with the sender over another way. Kernels come with
bundles, not here. Nothing is downloaded: the wheels are those in a folder that a person filled; pip
is asked whether they would install, because the far side cannot fetch what is missing.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kgate_core.digest import Digest
from kgate_core.errors import Conflict, KgateError, NotFound
from kgate_mirror_server.trust.files import read_pinned

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_mirror_server.app import Mirror

SUMS: Final = "SHA256SUMS"
ROOT: Final = "sender-root.json"
_PIP: Final = 120  # seconds for pip to think
_FILL: Final = 'fill it where there is a network: pip download "kgate[all]" -d FOLDER.'
_UNCHECKED: Final = (
    "If the far side has another Python or processor, fill it for that one (pip download"
    " --platform --python-version) and say --unchecked."
)
_NOTE: Final = """\
kgate for a site without internet, from {site}

1. Compare the digest of the list with the sender, by telephone for example:
     sha256sum SHA256SUMS
2. Check that every file is the listed one:
     sha256sum -c SHA256SUMS
3. Install without a network:
     python3 -m venv kgate-venv
     kgate-venv/bin/pip install --no-index --find-links wheels "kgate[all]"
4. Found the site, and take bundles from this sender only:
     kgate-venv/bin/kgate init site
     kgate-venv/bin/kgate bundle import DISC --sender-root sender-root.json -c site/kgate.yaml
"""


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """A first disc as it was written."""

    files: tuple[Path, ...]
    sums: Digest
    """Of the list of digests: what two people compare."""


def check_wheels(wheels: Path) -> None:
    """Raise NotFound, saying what is missing, unless pip could install kgate from this folder.

    Asked for this machine's Python and processor. Nothing is installed and nothing fetched.
    """
    command = [sys.executable, "-m", "pip", "--isolated", "install", "--dry-run", "--quiet"]
    command += ["--ignore-installed", "--no-index", "--find-links", str(wheels), "kgate[all]"]
    command += ["--disable-pip-version-check", "--only-binary=:all:"]
    try:
        done = subprocess.run(  # noqa: S603  # a fixed program; the folder is one argument
            command, capture_output=True, text=True, timeout=_PIP, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise KgateError(f"the wheels cannot be tried: {exc}", hint=_UNCHECKED) from exc
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        reason = said[0].removeprefix("ERROR: ") if said else "pip failed"
        raise NotFound(f"{wheels} would not install: {reason}", hint=f"{_FILL} {_UNCHECKED}")


def write_bootstrap(
    mirror: Mirror, wheels: Path, folder: Path, *, checked: bool = True
) -> Bootstrap:
    """Write the first disc into an empty folder.

    Raises NotFound if no kgate wheel is there or, if they are to be checked, not all of its needs.
    """
    found = sorted(wheels.glob("*.whl"))
    if not any(path.name.startswith("kgate-") for path in found):
        raise NotFound(
            f"there is no wheel of kgate in {wheels}",
            hint=_FILL,
        )
    if checked:
        check_wheels(wheels)
    try:
        if folder.exists() and any(folder.iterdir()):
            raise Conflict(f"{folder} is not empty", hint="name an empty folder or disc")
        (folder / "wheels").mkdir(parents=True)
        files = [folder / "wheels" / path.name for path in found]
        for source, target in zip(found, files, strict=True):
            shutil.copyfile(source, target)
        files += [folder / ROOT, folder / "INSTALL.txt"]
        files[-2].write_bytes(read_pinned(mirror.config.path(mirror.config.trust)))
        files[-1].write_text(_NOTE.format(site=mirror.config.site), encoding="utf-8")
        sums = b"".join(_line(path, folder) for path in files)
        (folder / SUMS).write_bytes(sums)
    except OSError as exc:
        raise KgateError(f"{folder}: cannot be written ({exc.strerror})") from exc
    return Bootstrap((*files, folder / SUMS), Digest.of(sums))


def _line(path: Path, folder: Path) -> bytes:
    # The copy is read back: what is listed is what lies on the disc.
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return f"{digest}  {path.relative_to(folder)}\n".encode()
