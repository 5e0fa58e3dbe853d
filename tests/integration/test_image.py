"""The Containerfile of docs/images.md, step by step, without a container engine.

Its `ENV` and `RUN kgate` lines run against a real mirror; then the image's program runs where a pod
would run it: no network, read-only root, another user, no home directory, nowhere to write.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from kgate_core.kernel import KernelRef, Revision
from tests.mirrorkit import make_mirror, served
from tests.podkit import FILES, REPO

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "images.md"
COMMIT: Final = "0123456789abcdef0123456789abcdef01234567"
# The command as a base install has it, whatever else this environment holds.
BASE: Final = "import sys; from kgate_client.entry import run; sys.exit(run(sys.argv[1:]))"
PROGRAM: Final = f"""
import json, os, socket
import kernels
kernel = kernels.get_kernel({REPO!r}, version=1)
try:
    socket.create_connection(("127.0.0.1", 1), 1)
    network = "something answered"
except OSError as exc:
    network = type(exc).__name__
try:
    open(os.path.join(os.environ["HF_HOME"], "written"), "w")
    disk = "writable"
except OSError as exc:
    disk = "read-only"
print(json.dumps([kernel.double(21), kernel.__file__, network, disk, os.getuid()]))
"""


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """Run a mirror with the kernel; returns the pinned root and the address."""
    folder = tmp_path_factory.mktemp("mirror")
    kit = make_mirror(folder)
    repo, revision = KernelRef.parse(REPO), Revision(COMMIT)
    name = json.loads(FILES["metadata.json"])["id"]
    variant = kit.variant(FILES, repo=repo, served=revision, metadata_id=name)
    kit.publish(variant, repo=repo, served=revision, upstream=revision)
    root = folder / "pinned.json"
    root.write_bytes(kit.trust.pinned)
    with served(kit.settings) as address:
        yield root, address


def _build(image: Path, root: Path, address: str) -> dict[str, str]:
    """Carry out the Containerfile below a folder; returns the image's environment."""
    text = DOCUMENT.read_text(encoding="utf-8")
    found = re.search(r"```dockerfile\n(.*?)```", text, re.DOTALL)
    assert found is not None
    (image / "etc" / "kgate").mkdir(parents=True)
    shutil.copy(root, image / "etc" / "kgate" / "root.json")
    environment: dict[str, str] = {"PATH": os.environ["PATH"], "NO_PROXY": "127.0.0.1"}
    warmed = 0
    for line in found[1].splitlines():
        instruction, _, rest = line.partition(" ")
        if instruction == "ENV":
            for pair in shlex.split(rest):
                name, _, value = pair.partition("=")
                environment[name] = f"{image}{value}" if value.startswith("/") else value
        elif instruction == "RUN" and " kgate warm " in rest:
            command = rest.removeprefix("--network=host ")
            tool = shlex.join([sys.executable, "-c", BASE])
            subprocess.run(
                ["/bin/sh", "-ec", command.replace(" kgate ", f" {tool} ", 1)],
                env=environment | {"MIRROR": address},
                check=True,
                timeout=120,
            )
            warmed += 1
    assert warmed == 1
    return environment


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make namespaces and change user")
def test_the_image_of_the_documentation_loads_its_kernel_offline(
    tmp_path: Path, mirror: tuple[Path, str]
) -> None:
    image = tmp_path / "image"
    image.mkdir()
    environment = _build(image, *mirror)
    for parent in (image, *image.parents):
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)

    # The pod: its own network without any interface up, the whole file system read-only, another
    # user. That user may read everything here, because Python itself may lie in root's home.
    may_read = ("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")
    user = ("setpriv", "--reuid", "1001", "--regid", "0", "--clear-groups", *may_read)
    script = "mount --make-rprivate / && mount -o remount,bind,ro / && exec "
    script += shlex.join([*user, sys.executable, "-c", PROGRAM])
    done = subprocess.run(
        ["unshare", "--net", "--mount", "/bin/sh", "-ec", script],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    value, file, network, disk, uid = json.loads(done.stdout.splitlines()[-1])
    assert value == 42
    assert file.startswith(f"{image}/opt/kernels/kgate/sealed/")
    assert (network, disk, uid) == ("OSError", "read-only", 1001)
