"""Old and new clients against the mirror, each in an environment of its own that shares torch.

`make test-matrix` runs all of them and writes docs/compatibility.md; the environments are kept in
`.cache/clients`. Each call prints one JSON value, and what is expected is the same for all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.mirrorkit import COMMIT, FILES, VARIANT, make_mirror, publish_model, served

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.matrix

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / ".cache" / "clients"
PAGE = ROOT / "docs" / "compatibility.md"
TIMEOUT = 180  # seconds for one call


@dataclass(frozen=True)
class Client:
    """Versions of the two packages that ask a mirror."""

    kernels: str
    hub: str

    @property
    def name(self) -> str:
        return f"kernels {self.kernels}, huggingface_hub {self.hub}"

    @property
    def home(self) -> Path:
        return CLIENTS / f"kernels-{self.kernels}-hub-{self.hub}"


MATRIX = [
    Client("0.11.7", "0.36.2"),
    Client("0.12.3", "1.10.2"),
    Client("0.13.0", "1.10.2"),
    Client("0.14.1", "1.20.1"),
    Client("0.15.2", "1.33.0"),
    Client("0.16.2", "1.33.0"),
    Client("0.17.2", "1.10.2"),
    Client("0.17.2", "1.33.0"),
    Client("0.17.2", "2.4.0"),
]

NEW = "0.14"  # from here on kernels have repositories of their own, and versions
CALLS = {
    "get_kernel": """
import kernels
asked = {} if OLD else {"version": 1}
print(json.dumps(kernels.get_kernel("acme/relu", **asked).ANSWER))
""",
    "get_kernel by commit": """
import kernels
print(json.dumps(kernels.get_kernel("acme/relu", revision=COMMIT).ANSWER))
""",
    "refused kernel": """
import kernels
asked = {"revision": "v1"} if OLD else {"version": 1}
try:
    kernels.get_kernel("acme/evil", **asked)
    print(json.dumps("loaded"))
except Exception as exc:
    fine = isinstance(exc, FileNotFoundError) or "NotFound" in type(exc).__name__
    print(json.dumps("refused" if fine else repr(exc)))
""",
    "snapshot_download": """
from huggingface_hub import snapshot_download
kind = {} if OLD else {"repo_type": "kernel"}
folder = snapshot_download("acme/relu", revision="v1", **kind)
from pathlib import Path
print(json.dumps(len([p for p in Path(folder).rglob("*") if p.is_file()])))
""",
    "model": """
from huggingface_hub import snapshot_download
from pathlib import Path
folder = Path(snapshot_download("acme/model"))
print(json.dumps({p.name: p.stat().st_size for p in folder.rglob("*") if p.is_file()}))
""",
    "hf download": """
import subprocess, sys
from huggingface_hub import constants
kind = ["--repo-type", "kernel"] if hasattr(constants, "REPO_TYPE_KERNEL") else []
main = "huggingface_hub.cli.hf"
command = ["download", "acme/relu", *kind, "--revision", "v1"]
program = f"import sys; from {main} import main; sys.argv = ['hf', *{command!r}]; main()"
done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
offered = "Invalid value" not in done.stderr
said = done.stderr[-200:] if offered else "not offered"
print(json.dumps("downloaded" if done.returncode == 0 else said))
""",
    "hf cache verify": """
import subprocess, sys
from huggingface_hub import HfApi, constants
if not hasattr(HfApi, "verify_repo_checksums") or not hasattr(constants, "REPO_TYPE_KERNEL"):
    print(json.dumps("not offered"))
else:
    def hf(*words):
        program = "import sys; from huggingface_hub.cli.hf import main; sys.argv = %r; main()"
        arguments = ["hf", *words, "acme/relu", "--repo-type", "kernel", "--revision", COMMIT]
        return subprocess.run([sys.executable, "-c", program % arguments],
                              capture_output=True, text=True)
    hf("download")
    done = hf("cache", "verify")
    offered = "Invalid value" not in done.stderr
    said = done.stderr[-200:] if offered else "not offered"
    print(json.dumps("verified" if done.returncode == 0 else said))
""",
    "lock, download, load offline": """
import os, subprocess, sys
from pathlib import Path
if OLD:
    print(json.dumps("not offered"))
else:
    Path("pyproject.toml").write_text('[project]\\nname = "x"\\nversion = "1"\\n'
                                      '[tool.kernels.dependencies]\\n"acme/relu" = 1\\n')
    run = "import sys; from kernels.cli import main; sys.argv = ['kernels', %r, '.']; main()"
    load = ("import json, kernels; from pathlib import Path; "
            "print(kernels.load_kernel('acme/relu', lockfile=Path('kernels.lock')).ANSWER)")
    for command in ("lock", "download"):
        subprocess.run([sys.executable, "-c", run % command], check=True, capture_output=True)
    done = subprocess.run([sys.executable, "-c", load], capture_output=True, text=True,
                          env={**os.environ, "HF_HUB_OFFLINE": "1"})
    fault = "client fault: asks the Hub although it is offline"
    said = fault if "offline mode is enabled" in done.stderr else done.stderr[-200:]
    print(json.dumps(int(done.stdout) if done.returncode == 0 else said))
""",
    "telemetry switched off": """
import os
os.environ["HF_HUB_DISABLE_TELEMETRY"] = os.environ["DO_NOT_TRACK"] = "1"
import kernels
asked = {} if OLD else {"version": 1}
try:
    print(json.dumps(kernels.get_kernel("acme/relu", **asked).ANSWER))
except Exception as exc:
    text, cause = "", exc
    while cause is not None:
        text, cause = f"{text} {cause}", cause.__cause__ or cause.__context__
    known = "Illegal header value" in text
    print(json.dumps("client fault: its user agent is malformed" if known else text[:200]))
""",
}
ALSO_FINE = {
    "not offered",
    "client fault: its user agent is malformed",
    "client fault: asks the Hub although it is offline",
}
"""What the client itself does not do; the page says so."""
MODEL = {"config.json": b'{"model_type": "tiny"}', "model.safetensors": b"weights" * 1000}
EXPECTED = {
    "get_kernel": 42,
    "get_kernel by commit": 42,
    "refused kernel": "refused",
    "snapshot_download": len(FILES),
    "model": {name: len(data) for name, data in MODEL.items()},
    "hf download": "downloaded",
    "hf cache verify": "verified",
    "lock, download, load offline": 42,
    "telemetry switched off": 42,
}


def python_of(client: Client) -> Path:
    """Return the client's interpreter, making its environment if it is not there."""
    python = client.home / "bin" / "python"
    if not (client.home / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(client.home)], check=True)
        pip = [str(python), "-m", "pip", "install", "-q", "--no-deps"]
        packages = [f"kernels=={client.kernels}", f"huggingface_hub=={client.hub}"]
        if client.kernels.startswith(("0.14", "0.15", "0.16")):
            packages.append("kernels-data")  # a package of its own in those versions only
        subprocess.run([*pip, *packages], check=True, stdout=sys.stderr)
        needs = [str(python), "-m", "pip", "install", "-q", f"huggingface_hub=={client.hub}"]
        subprocess.run(needs, check=True, stdout=sys.stderr)
        # After its own packages come ours: torch above all, which is too large to have twice.
        site = client.home / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
        (site / "zz-shared.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        (client.home / "complete").touch()
    return python


def call(client: Client, program: str, home: Path, address: str) -> Any:
    home.mkdir(exist_ok=True)
    old = tuple(map(int, client.kernels.split("."))) < tuple(map(int, NEW.split(".")))
    head = f"import json\nOLD, COMMIT = {old!r}, {str(COMMIT)!r}\n"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "HF_HOME": str(home / "hf"),
        "HF_ENDPOINT": address,
        "NO_PROXY": "127.0.0.1",
        "KGATE_DISABLE": "1",
    }
    done = subprocess.run(
        [str(python_of(client)), "-c", head + program],
        env=environment, cwd=home, capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    if done.returncode:
        return f"failed: {done.stderr.strip().splitlines()[-1][:200]}"
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    kit = make_mirror(tmp_path_factory.mktemp("mirror"))
    kit.publish()
    kit.deny()
    publish_model(kit, MODEL)
    with served(kit.settings) as address:
        yield address


@pytest.fixture(scope="module")
def table() -> Iterator[dict[tuple[str, str], Any]]:
    """Gather what came out, and write the page when every pair has been tried."""
    found: dict[tuple[str, str], Any] = {}
    yield found
    if len(found) == len(MATRIX) * len(CALLS):
        PAGE.write_text(page(found), encoding="utf-8")


def page(found: dict[tuple[str, str], Any]) -> str:
    about = (
        "Written by `make test-matrix`: stock clients against a mirror, with the variant"
        f" `{VARIANT}` published. Clients before kernels 0.14 ask for models and know no versions;"
        " they get the newest version as `main`. What transformers does with kernels (attention by"
        " name, `kernelize`, lazy loading) is tried by `tests/conformance/test_transformers.py`,"
        " KServe and a fetch by manifest by `tests/conformance/test_model_clients.py`."
    )
    heads = ["| client | " + " | ".join(CALLS) + " |", "|---|" + "---|" * len(CALLS)]
    lines = ["# Clients and calls", "", about, "", *heads]
    for client in MATRIX:
        cells = ["yes" if found[client.name, name] == EXPECTED[name]
                 else str(found[client.name, name]) for name in CALLS]  # fmt: skip
        lines.append(f"| {client.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("client", MATRIX, ids=lambda client: client.name)
def test_the_client_is_answered(
    client: Client, name: str, address: str, tmp_path: Path, table: dict[tuple[str, str], Any]
) -> None:
    table[client.name, name] = call(client, CALLS[name], tmp_path / "home", address)
    assert table[client.name, name] == EXPECTED[name] or table[client.name, name] in ALSO_FINE
