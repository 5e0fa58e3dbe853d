"""The example kernels: built here, read by upstream's own code, run by the stock client."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
from typing import TYPE_CHECKING

import lief
import pytest
from kernels._rust import Digest, DigestAlgorithm, Metadata
from kernels.variants import parse_variant

from kgate_core.kernel import Variant
from kgate_mirror_server.examples import build_gelu_and_mul, default_cache, fetch_bitsandbytes
from kgate_mirror_server.hubsim import HubSimulator
from tests.clients import run_ungated
from tests.repos import copy_repo, library, variants

if TYPE_CHECKING:
    from pathlib import Path

PYTHON = "torch-cpu"
CPU = "torch213-cxx11-cpu-x86_64-linux"
CUDA = "torch213-cxx11-cu130-x86_64-linux"


@pytest.fixture(scope="module")
def gelu() -> Path:
    """The whole example, from the cache that `make demo` uses too."""
    return build_gelu_and_mul(default_cache(os.environ))


def check_metadata(variant: Path) -> Metadata:
    metadata = Metadata.read_from_file(variant / "metadata.json")
    metadata.digest.validate(Digest.hash_variant(DigestAlgorithm.SHA256, variant))
    assert Variant.parse(variant.name).name == parse_variant(variant.name).variant_str
    return metadata


def test_every_variant_has_metadata_that_upstreams_code_accepts(gelu: Path) -> None:
    found = {variant.name: check_metadata(variant) for variant in variants(gelu)}
    assert found.keys() == {PYTHON, CPU, CUDA}
    assert len({metadata.id for metadata in found.values()}) == 3
    for name, metadata in found.items():
        assert str(metadata.name) == "gelu-and-mul"
        assert metadata.version == 1
        assert metadata.license == "apache-2.0"
        assert str(metadata.backend.backend_type).lower().endswith(Variant.parse(name).backend)
    assert found[CUDA].backend.archs == ["8.0", "9.0+PTX"]
    assert (gelu / "README.md").read_text().startswith("---\nlicense: apache-2.0\n")


def test_the_libraries_are_extension_modules_that_name_what_they_need(gelu: Path) -> None:
    for name, extra in ((CPU, set()), (CUDA, {"libcudart.so.13"})):
        path = library(gelu / "build" / name)
        binary = lief.parse(str(path))
        assert isinstance(binary, lief.ELF.Binary)
        assert {"libtorch_cpu.so", "libc.so.6"} | extra <= set(binary.libraries)
        assert binary.has(lief.ELF.DynamicEntry.TAG.BIND_NOW) or binary.has(
            lief.ELF.DynamicEntry.TAG.FLAGS
        )
        assert not binary.has(lief.ELF.DynamicEntry.TAG.RUNPATH)
        assert not binary.has(lief.ELF.DynamicEntry.TAG.RPATH)
        exported = {str(symbol.name) for symbol in binary.exported_functions}
        assert f"PyInit_{path.name.partition('.')[0]}" in exported
        assert str(default_cache(os.environ)).encode() not in path.read_bytes()


def device_images(data: bytes) -> list[tuple[str, int]]:
    """Read kind and architecture of each image in the fatbins of an ELF file."""
    images = []
    start = data.find(b"\x50\xed\x55\xba\x01\x00")
    while start >= 0:
        head, size = struct.unpack_from("<HQ", data, start + 6)
        at = start + head
        while at < start + head + size:
            kind, _, length, body = struct.unpack_from("<HHIQ", data, at)
            (sm,) = struct.unpack_from("<I", data, at + 28)
            images.append(({1: "ptx", 2: "elf"}[kind], sm))
            at += length + body
        start = data.find(b"\x50\xed\x55\xba\x01\x00", at)
    return images


def test_the_cuda_library_carries_device_code_for_what_it_declares(gelu: Path) -> None:
    data = library(gelu / "build" / CUDA).read_bytes()
    assert sorted(device_images(data)) == [("elf", 80), ("elf", 90), ("ptx", 90)]
    for element in (b"If", b"I6__half", b"I13__nv_bfloat16"):
        assert b"gelu_and_mul_kernel" + element in data


def test_building_again_elsewhere_gives_the_same_bytes(gelu: Path, tmp_path: Path) -> None:
    again = build_gelu_and_mul(tmp_path / "another" / "cache", cuda=False)
    for name in (PYTHON, CPU):
        for path in sorted((gelu / "build" / name).iterdir()):
            assert (again / "build" / name / path.name).read_bytes() == path.read_bytes()


PROGRAM = """
import json, sys
import torch
from torch import nn
from torch.nn.functional import gelu
from kernels import (
    LayerRepository, Mode, get_kernel, get_local_kernel, get_loaded_kernels, kernelize,
    use_kernel_forward_from_hub, use_kernel_mapping,
)

def fallback(x):
    gate, up = x.chunk(2, dim=-1)
    return gelu(gate) * up

def distance(kernel):
    worst = 0.0
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for shape in ((8,), (3, 2), (0, 6), (5, 0), (2, 3, 514), (64, 4096)):
            x = torch.randn(shape, generator=torch.Generator().manual_seed(7)).to(dtype)
            out = x.new_empty((*shape[:-1], shape[-1] // 2))
            assert kernel.gelu_and_mul(out, x) is out
            right = fallback(x.float())
            scale = right.abs().clamp(min=1)
            error = ((out.float() - right).abs() / scale).max().item() if out.numel() else 0.0
            # Half precision rounds the result once, by at most half of its last digit.
            rounding = 0 if dtype == torch.float32 else torch.finfo(dtype).eps / 2
            worst = max(worst, error - rounding)
    return worst

@use_kernel_forward_from_hub("GeluAndMul")
class GeluAndMul(nn.Module):
    def forward(self, x):
        return fallback(x)

def replaced(repo):
    layer = LayerRepository(repo, layer_name="GeluAndMul", version=1)
    x = torch.randn(4, 64)
    with use_kernel_mapping({"GeluAndMul": {"cpu": layer}}):
        model = kernelize(nn.Sequential(GeluAndMul()), mode=Mode.INFERENCE | Mode.TORCH_COMPILE,
                          device="cpu", use_fallback=False)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        assert torch.allclose(compiled(x), fallback(x), atol=1e-6)
        assert torch.allclose(model(x), fallback(x), atol=1e-6)
    return model[0].forward.__func__.__module__

def refused(kernel, out, x):
    try:
        kernel.gelu_and_mul(out, x)
    except RuntimeError as error:
        return str(error).splitlines()[0]

results = {}
for repo in ("kernels-community/gelu-and-mul", "kernels-test/gelu-python"):
    kernel = get_kernel(repo, version=1)
    results[repo] = [kernel.__file__, distance(kernel), replaced(repo)]
native = get_kernel("kernels-community/gelu-and-mul", version=1)
results["refused"] = [
    refused(native, torch.empty(3), torch.empty(8)),
    refused(native, torch.empty(4, dtype=torch.float64), torch.empty(8, dtype=torch.float64)),
    refused(native, torch.empty(4, 2).t(), torch.empty(2, 8)),
]
results["loaded"] = sorted(str(kernel.metadata.id) for kernel in get_loaded_kernels())
print(json.dumps(results))
"""

LOCAL_PROGRAM = """
import json, os
from pathlib import Path
import torch
from kernels import get_kernel, get_local_kernel
kernel = get_local_kernel(Path(os.environ["REPOSITORY"]))
x = torch.randn(4, 64)
out = kernel.gelu_and_mul(torch.empty(4, 32), x)
again = get_kernel("kernels-community/gelu-and-mul", version=1)
print(json.dumps([kernel.__file__, kernel is again, kernel.layers.GeluAndMul()(x).equal(out)]))
"""


def test_the_stock_client_fetches_and_runs_both_cpu_variants(gelu: Path, tmp_path: Path) -> None:
    plain = copy_repo(gelu, tmp_path / "plain")
    for variant in variants(plain):
        if variant.name != PYTHON:
            shutil.rmtree(variant)
    with HubSimulator() as hub:
        commit = hub.publish("kernels-community/gelu-and-mul", gelu)
        hub.publish("kernels-test/gelu-python", plain)
        results = run_ungated(PROGRAM, tmp_path, endpoint=hub.url)
        assert hub.count(f"*/resolve/*/build/{CUDA}/*") == 0
        assert (
            hub.count(
                blob=hashlib.sha256(library(gelu / "build" / CPU).read_bytes()).hexdigest(),
                method="GET",
            )
            == 1
        )
    for repo, name in (
        ("kernels-community/gelu-and-mul", CPU),
        ("kernels-test/gelu-python", PYTHON),
    ):
        file, error, module = results[repo]
        assert f"/build/{name}/" in file
        assert error < 1e-6
        assert module.endswith(".layers")
    assert commit in results["kernels-community/gelu-and-mul"][0]
    ids = [check_metadata(gelu / "build" / name).id for name in (CPU, PYTHON)]
    assert results["loaded"] == sorted(ids)
    width, element, contiguous = results["refused"]
    assert "must be twice that of out" in width
    assert "float32, float16 or bfloat16" in element
    assert "must be contiguous" in contiguous


def test_the_stock_client_runs_a_local_build(gelu: Path, tmp_path: Path) -> None:
    local = copy_repo(gelu, tmp_path / "local")
    file, same, equal = run_ungated(
        LOCAL_PROGRAM,
        tmp_path,
        REPOSITORY=str(local),
        LOCAL_KERNELS=f"kernels-community/gelu-and-mul={local}",
    )
    assert file == str(local / "build" / CPU / "__init__.py")
    assert same
    assert equal


# sha256 of each library, as found in the wheel of bitsandbytes 0.50.2 on PyPI
LIBRARIES = {
    "cuda118": "9c15c4993aebff7af121116f4a60c24693465ebc00750d4e8ad5ee611198ee7f",
    "cuda121": "7b05eb392fe0ccc4f7a09d98718e9329e46ead393738e14cfbf7af283ed54ee6",
    "cuda124": "b40b079fb2727be268b77ff9c8e79b976f240688ac0089f2f2aa1bc1d67ed86c",
    "cuda126": "06591d798fae702dd4ec814824dfddb402f1f099cdf1ad0dafa767f48b35dcec",
    "cuda128": "d6dd06a7bf8b2ecc43dd7d7dc5b558dc70884fd193252a8597ee065a9c8b0f4e",
    "cuda130": "00901675cb2acb8b1d6015cfe2c2571050bf59c7ce1972e6b6717ffc99b2a285",
    "cuda132": "92305e26350bf3f8e1d14150ce581018d1e4a5ba17c55cf73423fbed31158691",
    "rocm64": "e511b5c561b6069d465af5087ee8fa33d1501e4fc7fdad1a7dbcc5f4b04849f7",
    "rocm70": "a030a185f801d6f221cf0a8c74b5e3203578c09572e9582a1bb0ed90920efafd",
    "rocm71": "ad248eaf636314c357e8bc909fef4f239179a3ee270299459b0f60d5fafc5ac9",
    "rocm714": "46a9cbfae758b2806711792f7157bb60e671dbc3759744c6dbff1c1ef0e7360f",
    "rocm715": "df79cb8fd5a19f27ba17d65b0923a4c05dab7afdc19541d00c637e4d524ba6d7",
    "rocm72": "738eb632e25f6231570807f326edffa6711e20df8d960ea78c9ce2e9a2e45d39",
    "xpu2025": "8d92324d5bf4cd682ae1dc48d462a54cf1f046866bff162f99ef7493d8f44a4b",
    "xpu2026": "99f9d4adf046d9530b3483a0bbfd07eadd2a198760f839cb9c6f7913099e5838",
}


@pytest.mark.corpus
def test_bitsandbytes_is_laid_out_byte_for_byte_in_fifteen_variants() -> None:
    repo = fetch_bitsandbytes(default_cache(os.environ))
    found = {}
    for variant in variants(repo):
        metadata = check_metadata(variant)
        assert str(metadata.name) == "bitsandbytes"
        assert metadata.upstream == "https://github.com/bitsandbytes-foundation/bitsandbytes"
        path = library(variant)
        platform = path.stem.removeprefix("libbitsandbytes_")
        found[platform] = hashlib.sha256(path.read_bytes()).hexdigest()
        compile((variant / "__init__.py").read_text(), str(variant), "exec")
    assert found == LIBRARIES
    assert "MIT" in (repo / "LICENSE").read_text()


@pytest.mark.corpus
def test_bitsandbytes_declares_the_cuda_architectures_it_carries() -> None:
    repo = fetch_bitsandbytes(default_cache(os.environ))
    for variant in variants(repo):
        metadata = Metadata.read_from_file(variant / "metadata.json")
        if Variant.parse(variant.name).backend != "cuda":
            continue
        images = set(device_images(library(variant).read_bytes()))
        native = {f"{sm // 10}.{sm % 10}" for kind, sm in images if kind == "elf"}
        portable = {f"{sm // 10}.{sm % 10}+PTX" for kind, sm in images if kind == "ptx"}
        declared = {arch.removesuffix("+PTX") for arch in metadata.backend.archs}
        assert declared == native, variant.name
        assert portable == {arch for arch in metadata.backend.archs if arch.endswith("+PTX")}
