"""Container images in an OCI layout: their binaries are found as the layers leave them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
import zstandard

from kgate_core.errors import IntegrityError, InvalidInput
from kgate_scanner import layers
from kgate_scanner.layers import collect_image, read_images
from kgate_scanner.paths import scan_path
from tests.scankit import build_library
from tests.unit.scanner.device import builders

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LIBRARY = build_library()
OTHER = build_library("int g(void) { return 2; }")
GPU = builders.host(builders.fatbin(builders.entry(builders.ptx(), kind=1)))
LAYER = "application/vnd.oci.image.layer.v1.tar"


def layer(
    files: Mapping[str, bytes], links: Mapping[str, tuple[bytes, str]] | None = None
) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, (kind, target) in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    return data.getvalue()


def blob(layout: Path, data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    place = layout / "blobs/sha256"
    place.mkdir(parents=True, exist_ok=True)
    (place / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data), **more}


def write_layout(layout: Path, *stack: tuple[bytes, str], name: str = "vllm:1") -> Path:
    entries = [blob(layout, data, media_type) for data, media_type in stack]
    manifest = blob(layout, json.dumps({"layers": entries}).encode(), "manifest")
    manifest["annotations"] = {"org.opencontainers.image.ref.name": name}
    (layout / "index.json").write_text(json.dumps({"manifests": [manifest]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return layout


def collected(layout: Path, into: Path) -> dict[str, bytes]:
    into.mkdir()
    (image,) = read_images(layout)
    return {
        name if variant is None else f"{variant.name}:{name}": place.read_bytes()
        for variant, found in collect_image(image, into)
        for name, place in found.files.items()
    }


def test_an_image_is_scanned_for_its_gpu_libraries(tmp_path: Path) -> None:
    files = {"./usr/lib/libgpu.so": GPU, "/opt/lib.so": LIBRARY, "etc/passwd": b"root:x:0\n"}
    (scanned,) = scan_path(write_layout(tmp_path, (layer(files), LAYER)))
    assert scanned.name == "vllm:1"
    assert sorted(scanned.report.files) == ["opt/lib.so", "usr/lib/libgpu.so"]
    assert scanned.report.summary["device"]["images"] == 1
    assert scanned.report.complete


def test_layers_are_put_on_top_of_each_other_whatever_packs_them(tmp_path: Path) -> None:
    lowest = layer({"a.so": LIBRARY, "b.so": LIBRARY, "dir/c.so": LIBRARY, "gone/d.so": LIBRARY})
    middle = layer({"a.so": OTHER, ".wh.b.so": b"", "dir/.wh..wh..opq": b"", "dir/e.so": OTHER})
    top = layer({".wh.gone": b"", "a.txt": b""}, {"f.so": (tarfile.LNKTYPE, "dir/e.so")})
    layout = write_layout(
        tmp_path / "layout",
        (lowest, LAYER),
        (gzip.compress(middle), LAYER + "+gzip"),
        (zstandard.compress(top), LAYER + "+zstd"),
    )
    found = collected(layout, tmp_path / "into")
    assert found == {"a.so": OTHER, "dir/e.so": OTHER, "f.so": OTHER}


def test_what_takes_the_place_of_a_file_hides_it(tmp_path: Path) -> None:
    lowest = layer({"a.so": LIBRARY, "b.so": LIBRARY})
    top = layer({"b.so": b"a text"}, {"a.so": (tarfile.SYMTYPE, "/etc/passwd")})
    layout = write_layout(tmp_path / "layout", (lowest, LAYER), (top, LAYER))
    assert collected(layout, tmp_path / "into") == {}


def test_nothing_is_written_under_a_name_from_inside(tmp_path: Path) -> None:
    hostile = layer({"../../escape.so": LIBRARY, "/../x.so": LIBRARY, "fine.so": LIBRARY})
    (scanned,) = scan_path(write_layout(tmp_path / "layout", (hostile, LAYER)))
    assert sorted(scanned.report.files) == ["fine.so"]
    assert {item.rule for item in scanned.report.findings} == {"KG-FILE-015"}
    assert not scanned.report.complete
    assert [path.name for path in tmp_path.iterdir()] == ["layout"]


def test_an_index_of_indexes_is_followed_to_each_platform(tmp_path: Path) -> None:
    write_layout(tmp_path, (layer({"a.so": LIBRARY}), LAYER))
    inner = json.loads((tmp_path / "index.json").read_text())
    del inner["manifests"][0]["annotations"]
    inner["manifests"][0]["platform"] = {"architecture": "amd64", "os": "linux"}
    outer = blob(tmp_path, json.dumps(inner).encode(), "index")
    (tmp_path / "index.json").write_text(json.dumps({"manifests": [outer]}))
    assert [image.name for image in read_images(tmp_path)] == ["amd64"]


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("{}", "manifests"),
        ("[]", "not an object"),
        ('{"manifests": [{"digest": "sha256:../../etc/passwd"}]}', "not a sha256"),
        ('{"manifests": [{"digest": "md5:abc"}]}', "not a digest"),
        (json.dumps({"manifests": [{"digest": "sha256:" + "0" * 64}]}), "not in the layout"),
    ],
)
def test_a_layout_that_makes_no_sense_is_refused(tmp_path: Path, index: str, said: str) -> None:
    write_layout(tmp_path, (layer({}), LAYER))
    (tmp_path / "index.json").write_text(index)
    with pytest.raises(InvalidInput, match=said):
        read_images(tmp_path)


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (b"no tar at all" * 100, LAYER),
        (b"no gzip at all", LAYER + "+gzip"),
        (b"no zstd at all", LAYER + "+zstd"),
        (gzip.compress(layer({"a.so": LIBRARY}))[:-200], LAYER + "+gzip"),
    ],
)
def test_a_broken_layer_is_refused(tmp_path: Path, data: bytes, media_type: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        scan_path(write_layout(tmp_path, (data, media_type)))


def test_an_image_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = write_layout(tmp_path, (layer({"a.so": LIBRARY, "b.so": LIBRARY}), LAYER))
    monkeypatch.setattr(layers, "_MAX_UNPACKED", len(LIBRARY) + 10)
    with pytest.raises(InvalidInput, match=r"b\.so: the image unpacks to more than it may"):
        scan_path(layout)
    monkeypatch.setattr(layers, "_MAX_MEMBERS", 1)
    with pytest.raises(InvalidInput, match="more than 1 entries"):
        scan_path(layout)


def test_a_python_only_kernel_in_an_image_is_scanned_as_the_variant_it_is(tmp_path: Path) -> None:
    files = {
        "build/torch-cpu/metadata.json": b'{"name": "sample", "version": 1}',
        "build/torch-cpu/sample/__init__.py": b"import os\nos.system('true')\n",
        "build/torch-cpu/README": b"a text\n",
    }
    (scanned,) = scan_path(write_layout(tmp_path, (layer(files), LAYER)))
    assert (scanned.name, scanned.variant) == ("vllm:1/build/torch-cpu", "torch-cpu")
    assert sorted(scanned.report.files) == ["README", "metadata.json", "sample/__init__.py"]
    assert "KG-PY-003" in {item.rule for item in scanned.report.findings}


def test_python_is_read_where_machine_code_lies_and_everywhere_if_there_is_none(
    tmp_path: Path,
) -> None:
    home = "usr/lib/python3/site-packages"
    sources = {
        f"{home}/gpu/ops/call.py": b"x = 1\n",
        f"{home}/web/server.py": b"y = 2\n",
        "usr/lib/python3/os.py": b"z = 3\n",
    }
    mixed = {f"{home}/gpu/_C.so": LIBRARY, **sources}
    layout = write_layout(tmp_path / "mixed", (layer(mixed), LAYER))
    assert sorted(collected(layout, tmp_path / "a")) == [
        f"{home}/gpu/_C.so",
        f"{home}/gpu/ops/call.py",
    ]
    layout = write_layout(tmp_path / "python", (layer(sources), LAYER))
    assert sorted(collected(layout, tmp_path / "b")) == sorted(sources)


def test_python_that_a_layer_above_takes_away_is_not_scanned(tmp_path: Path) -> None:
    lowest = layer({"app/a.py": b"x = 1\n", "app/b.py": b"x = 2\n"})
    top = layer({"app/.wh.a.py": b"", "app/b.py": b"x = 3\n"})
    layout = write_layout(tmp_path / "layout", (lowest, LAYER), (top, LAYER))
    assert collected(layout, tmp_path / "into") == {"app/b.py": b"x = 3\n"}


@pytest.mark.parametrize("packed", ["", "+gzip", "+zstd"])
@pytest.mark.parametrize("how", ["changed", "longer", "shorter"])
def test_a_layer_that_is_not_the_one_that_the_image_names_is_refused(
    tmp_path: Path, packed: str, how: str
) -> None:
    plain = layer({"a.so": LIBRARY})
    squeezed = {"": plain, "+gzip": gzip.compress(plain), "+zstd": zstandard.compress(plain)}
    data = squeezed[packed]
    layout = write_layout(tmp_path / "layout", (data, LAYER + packed))
    place = layout / "blobs/sha256" / hashlib.sha256(data).hexdigest()
    middle = len(data) // 2
    changed = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    place.write_bytes({"changed": changed, "longer": data + b"\0" * 9, "shorter": data[:-9]}[how])
    with pytest.raises(IntegrityError, match=r"not the one that the image names|more than its"):
        scan_path(layout)


def test_a_manifest_under_a_digest_that_is_not_its_own_is_refused(tmp_path: Path) -> None:
    layout = write_layout(tmp_path, (layer({"a.so": LIBRARY}), LAYER))
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    place = layout / "blobs/sha256" / entry["digest"].removeprefix("sha256:")
    place.write_bytes(place.read_bytes() + b" ")
    with pytest.raises(IntegrityError, match="other bytes"):
        read_images(layout)
