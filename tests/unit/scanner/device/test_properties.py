"""What must hold for all files: everything that was put in comes out; nothing raises."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kgate_core.digest import Digest
from kgate_scanner.device import Compression
from kgate_scanner.filekind import FileKind, identify
from tests.unit.scanner.device.builders import (
    Kernel,
    ccob,
    cubin,
    entry,
    fatbin,
    hip_bundle,
    host,
    hsaco,
    ptx,
)
from tests.unit.scanner.device.scanning import scan

BOUNDED = settings(max_examples=25, deadline=None, derandomize=True)
NAMES = st.lists(st.from_regex(r"\A[a-z_][a-z0-9_]{0,30}\Z"), min_size=0, max_size=4, unique=True)
COMPRESSIONS = st.sampled_from(["none", "lz4", "zstd"])
HEADERS = st.sampled_from([64, 72, 80, 96, 104, 112, 120, 144, 160])


@st.composite
def _cuda_images(draw: st.DrawFn) -> tuple[bytes, str, dict[str, Any]]:
    names = draw(NAMES)
    if draw(st.booleans()):
        kernels = tuple(Kernel(name) for name in names)
        sm, abi = draw(st.sampled_from([(70, 7), (90, 7), (90, 8), (100, 8), (120, 8)]))
        return cubin(sm, kernels, abi=abi), f"sm_{sm}", {"kind": 2, "arch": sm}
    text = ptx("sm_80", tuple(names))
    # Stored text without compression includes its padding: nothing says where it ends.
    return text + bytes(-len(text) % 8), "compute_80", {"kind": 1, "arch": 80}


@BOUNDED
@given(
    st.lists(
        st.lists(st.tuples(_cuda_images(), COMPRESSIONS, HEADERS), max_size=3),
        min_size=1,
        max_size=3,
    ),
    st.booleans(),
)
def test_every_cuda_image_that_was_put_in_comes_out(
    containers: list[list[tuple[tuple[bytes, str, dict[str, Any]], str, int]]], relocated: Any
) -> None:
    built = [
        fatbin(*(entry(i[0], compression=c, header_size=h, **i[2]) for i, c, h in container))
        for container in containers
    ]
    found = scan(host(*built, relocated=relocated))
    expected = [
        (number, place, target, Digest.of(content), Compression(compression))
        for number, container in enumerate(containers)
        for place, ((content, target, _), compression, _) in enumerate(container)
    ]
    assert [(i.container, i.entry, i.target, i.digest, i.compression) for i in found.images] == (
        expected
    )
    assert found.unexplained_bytes == 0
    assert {finding.rule for finding in found.findings} <= {"KG-DEV-009"}


@BOUNDED
@given(
    st.lists(st.tuples(NAMES, st.sampled_from([None, 1, 2, 3])), min_size=1, max_size=3),
    st.sampled_from(["zstd", "zlib"]),
)
def test_every_amd_image_that_was_put_in_comes_out(
    bundles: list[tuple[list[str], int | None]], method: str
) -> None:
    images = [hsaco(kernels=tuple(names)) for names, _ in bundles]
    plain = [hip_bundle(("gfx90a", image)) for image in images]
    built = [
        content if version is None else ccob(content, version=version, method=method)
        for content, (_, version) in zip(plain, bundles, strict=True)
    ]
    found = scan(host(*built, section=".hip_fatbin"))
    assert [image.digest for image in found.images] == [Digest.of(image) for image in images]
    assert [[k.name for k in i.kernels] for i in found.images] == [names for names, _ in bundles]
    assert found.findings == ()


@BOUNDED
@given(st.binary(max_size=300))
def test_arbitrary_bytes_never_raise(data: bytes) -> None:
    assert identify(data) in FileKind
    assert scan(data).images == scan(data).images


@BOUNDED
@given(st.integers(0, 5000), st.integers(1, 255))
def test_a_changed_byte_of_an_image_changes_its_digest_or_is_a_finding(at: int, by: int) -> None:
    original = host(fatbin(entry(cubin(90), compression="lz4"), entry(cubin(90))))
    before = scan(original)
    image = before.images[1]
    changed = bytearray(original)
    place = image.offset + at % image.stored_size
    changed[place] ^= by
    after = scan(bytes(changed))
    assert after.images[0].digest == before.images[0].digest
    assert after.images[1].digest != image.digest
