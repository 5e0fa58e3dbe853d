"""T37: an OCI registry that returns corrupted blobs or wrong digests, or lacks the referrers API.

The corruption is done in the storage of a live registry, which serves it without noticing.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from kgate_cli.main import main
from kgate_core.digest import Digest
from kgate_core.errors import IntegrityError
from kgate_mirror_server.oci.credentials import Place
from kgate_mirror_server.oci.pull import find
from kgate_mirror_server.oci.registry import Registry
from kgate_mirror_server.oci.shape import INDEX
from tests.bundlekit import flip
from tests.registrykit import LiveRegistry, live_registry
from tests.sitekit import CONNECTED, REPO, Site, built_kernels

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Site, Path]:
    """Return a site, and the storage of a registry that it pushed to."""
    folder = tmp_path_factory.mktemp("site")
    site = Site.found(folder / "site", CONNECTED, kernels=built_kernels(folder / "cache"))
    assert site.sync().approved == 1
    with live_registry(folder / "registry") as registry:
        assert site.kgate("oci", "push", f"{registry.url}/ns") == 0
    return site, folder / "registry"


@pytest.fixture
def registry(template: tuple[Site, Path], tmp_path: Path) -> Iterator[LiveRegistry]:
    shutil.copytree(template[1], tmp_path / "registry")
    with live_registry(tmp_path / "registry") as found:
        yield found


@pytest.fixture
def site(template: tuple[Site, Path], tmp_path: Path) -> Site:
    shutil.copytree(template[0].folder, tmp_path / "site")
    return Site(tmp_path / "site")


def pull(registry: LiveRegistry, target: Path) -> int:
    return main(["oci", "pull", f"{registry.url}/ns/{REPO}:v1", "-o", str(target)])


def test_a_corrupted_file_is_refused_and_not_left_on_the_disk(
    registry: LiveRegistry, site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (variant,) = site.publications()[0].variants
    bad = next(file for file in variant.files if file.path.endswith("layers.py"))
    flip(registry.blob(bad.digest), 10)
    assert pull(registry, tmp_path / "out") == 1
    assert "sent other bytes than" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("*layers.py*"))


def test_a_corrupted_file_is_not_synced(registry: LiveRegistry, site: Site, tmp_path: Path) -> None:
    (variant,) = site.publications()[0].variants
    bad = next(file for file in variant.files if file.path.endswith("layers.py"))
    flip(registry.blob(bad.digest), 10)
    shutil.rmtree(site.folder / "kgate-data")
    assert site.kgate("rebuild", "--from", f"{registry.url}/ns") == 1
    assert site.publications() == []
    assert not site.mirror().store.has(bad.digest)


@pytest.mark.parametrize("which", ["index", "artifact", "publication"])
def test_a_changed_manifest_or_document_is_refused(
    registry: LiveRegistry, tmp_path: Path, which: str
) -> None:
    repository = Registry(Place.parse(f"{registry.url}/ns")).named(f"ns/{REPO}")
    index = repository.manifest("v1")
    artifact = index.descriptors("manifests")[0].digest
    digests = {
        "index": index.descriptor.digest,
        "artifact": artifact,
        "publication": repository.manifest(artifact).descriptors("layers")[0].digest,
    }
    path = registry.blob(digests[which])
    data = path.read_bytes()
    # Still good JSON of the same length: only the digest tells.
    changed = data.replace(b"kernels-community/gelu-and-mul", b"kernels-community/gelu-and-mvl", 1)
    assert changed != data
    path.write_bytes(changed)
    with pytest.raises(IntegrityError):
        find(repository, "v1")
    assert pull(registry, tmp_path / "out") in {1, 3}


def test_a_tag_that_was_moved_to_another_kernel_does_not_pass_the_lock(
    registry: LiveRegistry, site: Site, tmp_path: Path
) -> None:
    # The attacker may push: valid digests all the way down, other content under the same tag.
    other = Site.found(tmp_path / "attacker", CONNECTED, kernels=built_kernels(tmp_path / "cache"))
    other.add_file("evil.py", b"print('evil')\n")
    other.sync()
    assert other.kgate("oci", "push", f"{registry.url}/ns") == 0
    text = site.config.read_text(encoding="utf-8")
    url = f"{{url: '{registry.url}/ns', origin: 'dir:built'}}"
    site.config.write_text(text.replace("upstream: ./built", f"upstream: {url}"))
    before = site.manifests()
    assert site.kgate("lock") == 0  # keeps what is locked
    site.kgate("sync")
    assert site.manifests() == before
    # And an empty site takes nothing back that it did not sign itself.
    shutil.rmtree(site.folder / "kgate-data")
    assert site.kgate("rebuild", "--from", f"{registry.url}/ns") == 1
    assert not site.manifests() & other.manifests()


def test_without_the_referrers_api_attestations_are_found_by_their_tag(
    registry: LiveRegistry, site: Site
) -> None:
    repository = Registry(Place.parse(f"{registry.url}/ns")).named(f"ns/{REPO}")
    found = find(repository, "v1")
    (image,) = found.images.values()
    referrers = repository.referrers(image)
    tagged = repository.manifest(f"sha256-{image.hex}")
    assert tagged.descriptor.media_type == INDEX
    bundles = set(site.publications()[0].variants[0].bundles)
    assert len(referrers) == len(bundles) + 5
    layers = {
        layer.digest
        for item in referrers
        for layer in repository.manifest(item.digest).descriptors("layers")
    }
    assert bundles <= layers


def test_a_corrupted_referrers_tag_is_refused(registry: LiveRegistry) -> None:
    repository = Registry(Place.parse(f"{registry.url}/ns")).named(f"ns/{REPO}")
    (image,) = find(repository, "v1").images.values()
    tagged = repository.manifest(f"sha256-{image.hex}")
    path = registry.blob(tagged.descriptor.digest)
    path.write_bytes(path.read_bytes().replace(b"vnd.dev", b"vnd.dew"))
    assert Digest.of(path.read_bytes()) != tagged.descriptor.digest
    with pytest.raises(IntegrityError):
        repository.referrers(image)
