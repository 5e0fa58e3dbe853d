"""The vendors' own tools, asked about trusted files: NVIDIA's cuobjdump and LLVM's bundler.

Both are downloaded (PyPI, Debian) and unpacked into a cache folder; nothing is installed. They are
never run on files from anywhere else: cuobjdump has a history of parser faults.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

CUOBJDUMP = "nvidia-cuda-cuobjdump==13.5.37"
NVDISASM = "nvidia-cuda-nvdisasm==13.5.37"
LLVM = ("clang-tools-22", "llvm-22", "libclang-cpp22", "libllvm22")
HOME = Path(__file__).parents[2] / ".cache" / "oracles"
_FILE = re.compile(r"(ELF|PTX) file\s+\d+: .*\.(sm_\w+)\.(?:cubin|ptx)$", re.MULTILINE)
# Kernels have a bank of constants for their arguments; device functions are listed without one.
_KERNEL = re.compile(r"^ Function (\S+):\n.*CONSTANT\[0\]", re.MULTILINE)
_CCOB_HEADER = {"ccob-v1": 20, "ccob-v2": 24, "ccob-v3": 32}  # bytes before the frame


def cuobjdump() -> Path:
    """Return the program, downloading it and the disassembler it calls if they are not there."""
    folder = HOME / "cuda"
    if not folder.is_dir():
        with tempfile.TemporaryDirectory() as wheels:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            subprocess.run([*command, "--dest", wheels, CUOBJDUMP, NVDISASM], check=True)
            for wheel in Path(wheels).glob("*.whl"):
                with zipfile.ZipFile(wheel) as archive:
                    archive.extractall(folder)
    (program,) = folder.rglob("cuobjdump")
    for tool in program.parent.iterdir():
        tool.chmod(0o755)
    return program


def bundler() -> tuple[Path, dict[str, str]]:
    """Return clang-offload-bundler and the environment it needs, downloading it if need be."""
    folder = HOME / "llvm"
    if not folder.is_dir():
        folder.mkdir(parents=True)
        with tempfile.TemporaryDirectory() as place:
            subprocess.run(["apt-get", "download", "-qq", *LLVM], cwd=place, check=True)
            for package in Path(place).glob("*.deb"):
                subprocess.run(["dpkg", "-x", package, folder], check=True)
    (program,) = folder.glob("usr/lib/llvm-*/bin/clang-offload-bundler")
    libraries = [folder / "usr/lib/x86_64-linux-gnu", program.parents[1] / "lib"]
    return program, {
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
        "PATH": str(program.parent),
    }


def agrees(path: Path, images: Iterable[dict[str, Any]]) -> bool:
    """Return whether the vendor's tool sees the same images, architectures and kernels."""
    found = list(images)
    if any(image["kind"] == "hsaco" for image in found):
        return _agrees_amd(path, found)
    return _agrees_cuda(path, found)


def _agrees_cuda(path: Path, images: list[dict[str, Any]]) -> bool:
    ours = Counter(
        # The tool's list leaves the `f` of a family out, and writes PTX as sm_N.
        (image["kind"], image["target"].replace("compute_", "sm_").removesuffix("f"))
        for image in images
    )
    kernels = {kernel["name"] for image in images for kernel in image.get("kernels", ())}
    said = _run([cuobjdump(), "-all", "-lelf", "-lptx", path])
    kinds = {"ELF": "cubin", "PTX": "ptx"}
    theirs = Counter((kinds[kind], arch.removesuffix("f")) for kind, arch in _FILE.findall(said))
    listed = set(_KERNEL.findall(_run([cuobjdump(), "-all", "-res-usage", path])))
    return ours == theirs and kernels == listed


def _agrees_amd(path: Path, images: list[dict[str, Any]]) -> bool:
    program, environment = bundler()
    data = path.read_bytes()
    for container in sorted({image["container"] for image in images}):
        members = [image for image in images if image["container"] == container]
        at = members[0]["offset"] - _CCOB_HEADER[members[0]["containerFormat"]]
        end = members[0]["offset"] + members[0]["storedSize"]
        with tempfile.NamedTemporaryFile(suffix=".o") as file:
            file.write(data[at:end])
            file.flush()
            said = _run([program, "--list", "--type=o", f"--input={file.name}"], environment)
        theirs = Counter(line.rpartition("--")[2] for line in said.splitlines() if "amdgcn" in line)
        if theirs != Counter(image["target"] for image in members):
            return False
    return True


def _run(command: list[Path | str], environment: dict[str, str] | None = None) -> str:
    return subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
