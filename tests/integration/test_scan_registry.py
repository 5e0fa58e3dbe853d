"""Images in a live registry are scanned layer by layer, with the user's own credentials."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from kgate_cli.main import main
from kgate_core.digest import Digest
from kgate_core.errors import IntegrityError, InvalidInput, NotFound
from kgate_mirror_server.oci.credentials import Access, Place
from kgate_mirror_server.oci.images import ImageReference, RemoteImages
from kgate_mirror_server.oci.registry import Registry
from kgate_scanner.paths import scan_image
from tests.bundlekit import silent
from tests.integration.test_scan_image import LAYER, layer
from tests.ocisim import Faults, simulated
from tests.registrykit import LiveRegistry, live_registry
from tests.scankit import build_library
from tests.sitekit import CONNECTED, REPO, VARIANT, Site, built_kernels

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kgate_mirror_server.oci.registry import Repository

LIBRARY = build_library()
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
HOME = "usr/lib/python3/site-packages"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveRegistry]:
    with live_registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


def stored(repository: Repository, data: bytes, media_type: str) -> dict[str, Any]:
    digest = Digest.of(data)
    repository.push_blob(digest, len(data), lambda offset: iter([data[offset:]]))
    return {"mediaType": media_type, "digest": str(digest), "size": len(data)}


def push_image(
    repository: Repository, arch: str, *stack: bytes, kind: str = MANIFEST
) -> dict[str, Any]:
    """Push an image of gzipped layers; returns its descriptor."""
    config = {"architecture": arch, "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": stored(repository, json.dumps(config).encode(), "config"),
            "layers": [stored(repository, gzip.compress(one), f"{LAYER}+gzip") for one in stack],
        }
    ).encode()
    repository.push_manifest(manifest, kind, Digest.of(manifest))
    return {
        "mediaType": kind,
        "digest": str(Digest.of(manifest)),
        "size": len(manifest),
        "platform": {"os": "linux", "architecture": arch},
    }


def push_index(repository: Repository, *images: dict[str, Any]) -> None:
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": images}
    repository.push_manifest(json.dumps(index).encode(), INDEX, "1.2")


def scan(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    capsys.readouterr()
    assert main(["scan", *arguments, "--json"]) == code, capsys.readouterr()
    return json.loads(capsys.readouterr().out)


def files(found: Any) -> list[str]:
    return sorted(path for report in found["reports"] for path in report["files"])


def test_an_image_is_scanned_by_tag_and_by_digest_for_the_platform_that_is_asked_for(
    registry: LiveRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = Registry(Place(registry.address)).named("ai/vllm")
    lowest = layer({f"{HOME}/vllm/_C.so": LIBRARY, f"{HOME}/vllm/old.py": b"x = 1\n"})
    top = layer({f"{HOME}/vllm/.wh.old.py": b"", f"{HOME}/vllm/ops.py": b"x = 2\n"})
    amd = push_image(repository, "amd64", lowest, top)
    arm = push_image(repository, "arm64", layer({"opt/arm.so": LIBRARY}), kind=DOCKER)
    push_index(repository, amd, arm)
    name = f"{registry.address}/ai/vllm"
    found = scan(capsys, f"{name}:1.2")
    assert files(found) == [f"{HOME}/vllm/_C.so", f"{HOME}/vllm/ops.py"]
    assert found["reports"][0]["complete"] is True
    assert scan(capsys, f"oci://{name}@{amd['digest']}")["reports"] == [
        {**report, "name": f"{name}@{amd['digest'][7:19]}"} for report in found["reports"]
    ]
    assert files(scan(capsys, f"{name}:1.2", "--platform", "linux/arm64")) == ["opt/arm.so"]
    missing = scan(capsys, f"{name}:1.2", "--platform", "linux/s390x", code=1)
    assert "linux/amd64, linux/arm64" in missing["message"]


def test_a_pushed_python_only_kernel_is_scanned_as_the_variant_it_is(
    registry: LiveRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site.found(tmp_path / "site", CONNECTED, kernels=built_kernels(tmp_path / "cache"))
    assert site.sync().approved == 1
    assert site.kgate("oci", "push", registry.url) == 0
    (report,) = scan(capsys, f"{registry.address}/{REPO}:v1")["reports"]
    assert report["variant"] == VARIANT
    (manifest,) = site.manifests()
    assert report["subject"] == str(manifest)


def test_a_changed_layer_is_refused_and_nothing_is_reported(
    registry: LiveRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = Registry(Place(registry.address)).named("ai/changed")
    image = push_image(repository, "amd64", layer({"a.so": LIBRARY}))
    fields = repository.manifest(Digest.parse(image["digest"])).fields
    blob = registry.blob(Digest.parse(fields["layers"][0]["digest"]))
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    said = scan(capsys, f"{registry.address}/ai/changed@{image['digest']}", code=1)
    assert "is not the one that the image names" in said["message"]


def test_the_users_own_credentials_are_used_and_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with live_registry(tmp_path / "registry", password=True) as private:
        login = private.login(tmp_path)
        repository = Registry(Place(private.address), Access(config=login)).named("ai/vllm")
        image = push_image(repository, "amd64", layer({"a.so": LIBRARY}))
        name = f"{private.address}/ai/vllm@{image['digest']}"
        assert "docker login" in scan(capsys, name, code=3)["hint"]
        assert files(scan(capsys, name, "--docker-config", str(login))) == ["a.so"]


def test_a_cut_connection_is_taken_up_where_it_was() -> None:
    with simulated() as simulator:
        repository = Registry(Place(simulator.address)).named("ai/vllm")
        image = push_image(repository, "amd64", layer({"a.so": LIBRARY}))
        reference = ImageReference.parse(f"{simulator.address}/ai/vllm@{image['digest']}")
        seen: list[int] = []
        (found,) = RemoteImages(reference).find("linux/amd64", seen.append)
        simulator.faults.cut_download_after = 200
        (scanned,) = scan_image(found.image)
        assert sorted(scanned.report.files) == ["a.so"]
        assert sum(seen) == found.size
        blobs = [path for method, path, _ in simulator.requests if method == "GET"]
        assert max(map(blobs.count, blobs)) == 2


def test_blobs_that_lie_are_refused_whatever_the_registry_says() -> None:
    with simulated(Faults()) as simulator:
        repository = Registry(Place(simulator.address)).named("ai/vllm")
        image = push_image(repository, "amd64", layer({"a.so": LIBRARY}))
        reference = ImageReference.parse(f"{simulator.address}/ai/vllm@{image['digest']}")
        remote = RemoteImages(reference)
        (found,) = remote.find("linux/amd64", silent)
        assert json.loads(remote.config(found))["architecture"] == "amd64"
        simulator.faults.spoil_blobs = True
        with pytest.raises(IntegrityError):
            scan_image(found.image)
        with pytest.raises(IntegrityError, match="its configuration is not"):
            remote.config(found)
        simulator.faults.spoil_blobs, simulator.faults.endless = False, True
        with pytest.raises(IntegrityError, match="more than its"):
            scan_image(found.image)
        simulator.faults.wrong_header = True
        with pytest.raises(IntegrityError):
            remote.find("linux/amd64", silent)


@pytest.mark.parametrize(
    ("text", "host", "name", "target"),
    [
        ("registry/ai/vllm@sha256:" + "a" * 64, "registry", "ai/vllm", "sha256:" + "a" * 64),
        ("r.example/a:1@sha256:" + "a" * 64, "r.example", "a", "sha256:" + "a" * 64),
        ("r.example:5000/ai/vllm", "r.example:5000", "ai/vllm", "latest"),
        ("oci://registry/vllm:v1.2_x", "registry", "vllm", "v1.2_x"),
        ("[::1]:5000/vllm:1", "[::1]:5000", "vllm", "1"),
    ],
)
def test_references_are_read_as_container_tools_read_them(
    text: str, host: str, name: str, target: str
) -> None:
    found = ImageReference.parse(text)
    assert (found.host, found.name, str(found.target)) == (host, name, target)


@pytest.mark.parametrize(
    "text", ["build/torch-cpu", "./build/x.so", "/tmp/a:b", "sample", "r.example/A:1", "oci://r"]
)
def test_a_path_that_is_not_there_is_not_taken_for_a_reference(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InvalidInput, match="not an image in a registry"):
        ImageReference.parse(text)
    assert main(["scan", text]) == 2
    assert "no file or folder" in capsys.readouterr().err


def test_what_the_registry_does_not_have_is_said(registry: LiveRegistry) -> None:
    reference = ImageReference.parse(f"{registry.address}/ai/none:1")
    with pytest.raises(NotFound):
        RemoteImages(reference).find("linux/amd64", silent)


VERSION = b"__version__ = '2.13.0+cu130'\ncuda: str | None = '13.0'\nhip = None\n"


def test_preflight_reads_the_machine_from_an_image_in_a_registry(
    registry: LiveRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site.found(tmp_path / "site", CONNECTED, kernels=built_kernels(tmp_path / "cache"))
    site.sync()
    assert site.kgate("lock") == 0
    repository = Registry(Place(registry.address)).named("ai/next")
    old = layer({f"{HOME}/torch/version.py": b"__version__ = '1.0'\n"})
    new = layer({f"{HOME}/torch/version.py": VERSION})
    image = push_image(repository, "arm64", old, new)
    push_index(repository, image)
    name = f"{registry.address}/ai/next:1.2"
    capsys.readouterr()
    arguments = ("preflight", name, "--gpus", "sm_90", "--json")
    site.kgate(*arguments, "--platform", "linux/arm64")
    (machine,) = json.loads(capsys.readouterr().out)["machines"]
    for word in ("2.13", "13.0", "aarch64", "sm_90"):
        assert word in machine
    assert site.kgate(*arguments) == 1
    assert "only for linux/arm64" in json.loads(capsys.readouterr().out)["message"]
    without = push_image(repository, "amd64", layer({"a.so": LIBRARY}))
    assert site.kgate("preflight", f"{registry.address}/ai/next@{without['digest']}") == 1
    assert "there is no torch" in capsys.readouterr().err


def test_an_image_in_a_registry_has_an_sbom(
    registry: LiveRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = Registry(Place(registry.address)).named("ai/sbom")
    image = push_image(repository, "amd64", layer({"opt/a.so": LIBRARY}))
    capsys.readouterr()
    assert main(["sbom", f"oci://{registry.address}/ai/sbom@{image['digest']}"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["bomFormat"] == "CycloneDX"
    assert str(Digest.of(LIBRARY)).removeprefix("sha256:") in json.dumps(document)


def test_an_sbom_of_an_image_is_that_of_the_platform_asked_for(
    registry: LiveRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = Registry(Place(registry.address)).named("ai/two-platforms")
    other = build_library("int other(void) { return 2; }\n")
    index = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [
                push_image(repository, "amd64", layer({"opt/a.so": LIBRARY})),
                push_image(repository, "arm64", layer({"opt/a.so": other})),
            ],
        }
    ).encode()
    repository.push_manifest(index, INDEX, Digest.of(index))
    target = f"oci://{registry.address}/ai/two-platforms@{Digest.of(index)}"
    for options, library in (((), LIBRARY), (("--platform", "linux/arm64"), other)):
        assert main(["sbom", target, *options]) == 0
        assert Digest.of(library).hex in capsys.readouterr().out
    assert main(["sbom", target, "--platform", "linux/s390x"]) != 0
    assert "s390x" in capsys.readouterr().err
