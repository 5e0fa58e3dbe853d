"""AMD code objects: targets, kernels, toolchain, damage."""

from __future__ import annotations

import msgpack
import pytest

from kgate_scanner.device.gfx import MACHS, target_id
from kgate_scanner.device.hsaco import read_hsaco
from tests.unit.scanner.device.builders import AMDGPU, ET_REL, NOTE, ElfFile, Sec, hsaco, note


def test_kernels_carry_what_the_metadata_says() -> None:
    code = read_hsaco(memoryview(hsaco(kernels=("scale", "add"))))
    assert code.damage == ()
    assert [kernel.name for kernel in code.kernels] == ["scale", "add"]
    kernel = code.kernels[0]
    assert (kernel.vgpr, kernel.agpr, kernel.sgpr, kernel.shared) == (32, 4, 20, 512)
    assert (kernel.scratch, kernel.params, kernel.max_threads) == (16, 48, 1024)
    assert (kernel.spills, kernel.wavefront, kernel.registers) == (0, 64, None)


def test_the_toolchain_is_read_from_the_comment() -> None:
    code = read_hsaco(memoryview(hsaco()))
    assert code.toolkit == "7.1.1"
    assert code.tools[0].name == "clang"


@pytest.mark.parametrize(
    ("features", "target"),
    [
        (0x000, "gfx90a"),
        (0x500, "gfx90a"),
        (0x700, "gfx90a:xnack+"),
        (0x600, "gfx90a:xnack-"),
        (0xD00, "gfx90a:sramecc+"),
        (0xA00, "gfx90a:sramecc-:xnack-"),
    ],
)
def test_the_target_carries_its_features(features: int, target: str) -> None:
    code = read_hsaco(memoryview(hsaco(features=features, target=target)))
    assert (code.target, code.damage) == (target, ())


def test_old_code_objects_are_named_without_features() -> None:
    assert target_id(1, 0x33F) == "gfx90a"


def test_every_machine_number_has_its_own_name() -> None:
    assert len(set(MACHS.values())) == len(MACHS)


def test_metadata_for_another_target_is_damage() -> None:
    code = read_hsaco(memoryview(hsaco(target="gfx1100")))
    assert "metadata names amdgcn-amd-amdhsa--gfx1100, the header gfx90a" in code.damage


@pytest.mark.parametrize(
    "said", ["amdgcn-amd-amdhsa--gfx942", "amdgpu9.42-amd-amdhsa-unknown-gfx942"]
)
def test_the_processor_stands_behind_any_environment(said: str) -> None:
    # The second is what Triton 3.9 writes.
    content = hsaco(0x4C, target="gfx942", triple=said)
    assert read_hsaco(memoryview(content)).damage == ()


def test_an_unknown_machine_is_damage() -> None:
    assert "unknown AMD machine 0xff" in read_hsaco(memoryview(hsaco(0xFF))).damage


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ([1, 2], "not a map"),
        ({"amdhsa.kernels": 7}, "no list"),
        ({"amdhsa.kernels": [{".vgpr_count": 1}]}, "no name"),
        ({"amdhsa.kernels": [7]}, "no name"),
        ({"amdhsa.kernels": [{".name": "k", ".vgpr_count": -1}]}, "impossible number"),
        ({"amdhsa.kernels": [{".name": "k", ".vgpr_count": True}]}, "impossible number"),
    ],
)
def test_strange_metadata_is_damage(metadata: object, said: str) -> None:
    code = read_hsaco(memoryview(hsaco(metadata=metadata)))
    assert any(said in text for text in code.damage)


def test_metadata_that_is_not_messagepack_is_damage() -> None:
    data = hsaco()
    at = data.index(b"\xaeamdhsa.kernels") if b"\xaeamdhsa.kernels" in data else 0
    assert at
    broken = data[: at - 1] + b"\xc1\xc1" + data[at + 1 :]
    assert "metadata is not MessagePack" in read_hsaco(memoryview(broken)).damage


def test_bytes_that_are_no_elf_are_damage() -> None:
    assert read_hsaco(memoryview(b"no elf")).damage == ("6 bytes are too few for an ELF header",)


def test_a_relocatable_code_object_needs_no_metadata() -> None:
    data = ElfFile(AMDGPU, ET_REL, 0x40, 3, 1, 0x53F, [Sec(".text", b"1234")]).build()
    code = read_hsaco(memoryview(data))
    assert (code.damage, code.relocatable) == ((), True)


def test_other_notes_are_passed_over() -> None:
    notes = note(b"GNU", 3, b"id") + note(b"AMDGPU", 32, msgpack.packb({"amdhsa.kernels": []}))
    data = ElfFile(AMDGPU, 3, 0x40, 3, 1, 0x53F, [Sec(".note", notes, NOTE, align=4)]).build()
    assert read_hsaco(memoryview(data)).damage == ()


def test_a_code_object_without_metadata_is_damage() -> None:
    data = ElfFile(AMDGPU, 3, 0x40, 3, 1, 0x53F, [Sec(".text", b"1234")]).build()
    assert read_hsaco(memoryview(data)).damage == ("no metadata note",)
