"""Locks from the stock client's files and back, pins by digest, targets, what upgrades bring."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
import stamina

from kgate_cli.main import main
from kgate_core.errors import Conflict, InvalidInput, NotFound
from kgate_mirror_server.examples import default_cache
from kgate_mirror_server.examples.build import build_gelu_and_mul
from kgate_mirror_server.hubsim import HubSimulator
from kgate_mirror_server.ingest.kernelslock import read_asked
from kgate_mirror_server.ingest.resolve import read_lock, require_lock
from kgate_mirror_server.settings.site import load_config
from tests import repos
from tests.ingestkit import Site, make_site
from tests.mirrorkit import served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REPO = "kernels-community/gelu-and-mul"
NATIVE = "torch213-cxx11-cpu-x86_64-linux"
PIN = f"repo: {REPO}, version: 1"


@pytest.fixture(scope="module")
def built() -> Path:
    return build_gelu_and_mul(default_cache(os.environ), cuda=False)


@pytest.fixture
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as simulator:
        yield simulator


@pytest.fixture
def site(tmp_path: Path, hub: HubSimulator) -> Site:
    return make_site(tmp_path / "site", hub.url)


def kgate(site: Site, *arguments: str) -> int:
    return main([*arguments, "--config", str(site.config_path)])


def add(site: Site, text: str) -> None:
    with site.config_path.open("a", encoding="utf-8") as file:
        file.write(text)


def old_hash(variant: Path) -> str:
    """Hash a variant as kernels up to 0.16 did: sorted paths, each with its object id."""
    state = hashlib.sha256()
    for path in sorted(p for p in variant.rglob("*") if p.is_file()):
        data = path.read_bytes()
        state.update(path.relative_to(variant).as_posix().encode())
        if path.suffix == ".so":
            state.update(hashlib.sha256(data).digest())
        else:
            state.update(hashlib.sha1(b"blob %d\0" % len(data) + data).digest())
    return f"sha256-{state.hexdigest()}"


def test_a_new_kernels_lock_becomes_pins_at_its_commits(
    site: Site, hub: HubSimulator, built: Path, tmp_path: Path
) -> None:
    first = hub.publish(REPO, built)
    changed = repos.copy_repo(built, tmp_path / "changed")
    (changed / "README.md").write_text("rebuilt", encoding="utf-8")
    assert hub.publish(REPO, changed) != first
    entry = {"dependency": {"repo-id": REPO, "version": 1}, "lock": {"commit": first}}
    file = tmp_path / "kernels.lock"
    file.write_text(json.dumps([entry]), encoding="utf-8")
    assert kgate(site, "lock", "--from", str(file)) == 0
    assert [str(pin) for pin in load_config(site.config_path).kernels] == [f"{REPO}@v1"]
    lock = read_lock(site.folder)
    assert lock is not None
    assert [str(kernel.commit) for kernel in lock.kernels] == [first]
    text = site.config_path.read_text(encoding="utf-8")
    assert kgate(site, "lock", "--from", str(file)) == 0
    assert site.config_path.read_text(encoding="utf-8") == text


def test_an_old_kernels_lock_is_held_against_what_upstream_lists(
    site: Site, hub: HubSimulator, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit = hub.publish(REPO, built)
    with site.mirror() as mirror:
        from kgate_core.kernel import KernelRef, Revision

        files = mirror.upstream.files(KernelRef.parse(REPO), Revision(commit))
    state = hashlib.sha256()
    inside = sorted(
        (file.path.removeprefix("build/torch-cpu/").encode(), file.lfs_sha256 or file.oid)
        for file in files
        if file.path.startswith("build/torch-cpu/")
    )
    for name, oid in inside:
        state.update(name + bytes.fromhex(oid))
    lock = {"hash": f"sha256-{state.hexdigest()}", "hash_type": "git_lfs_concat"}
    entry = {"repo_id": REPO, "sha": commit, "variants": {"torch-cpu": lock}}
    assert lock["hash"] == old_hash(built / "build" / "torch-cpu")
    file = tmp_path / "kernels.lock"
    file.write_text(json.dumps([entry]), encoding="utf-8")
    assert kgate(site, "lock", "--from", str(file)) == 0
    (site.folder / "kgate.lock").unlink()
    lock["hash"] = f"sha256-{'0' * 64}"
    file.write_text(json.dumps([entry]), encoding="utf-8")
    assert kgate(site, "lock", "--from", str(file)) == 1
    assert "torch-cpu is not what kernels.lock promises" in capsys.readouterr().err


def test_a_project_names_its_kernels_in_pyproject(
    site: Site, hub: HubSimulator, built: Path, tmp_path: Path
) -> None:
    commit = hub.publish(REPO, built)
    file = tmp_path / "pyproject.toml"
    file.write_text(f'[tool.kernels.dependencies]\n"{REPO}" = 1\n', encoding="utf-8")
    assert kgate(site, "lock", "--from", str(file)) == 0
    lock = read_lock(site.folder)
    assert lock is not None
    assert [(k.pin, str(k.commit)) for k in lock.kernels] == [("v1", commit)]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("pyproject.toml", "[tool.other]\n", r"no table \[tool.kernels.dependencies\]"),
        ("pyproject.toml", '[tool.kernels.dependencies]\n"a/b" = ">=1"\n', "not the number"),
        ("pyproject.toml", "[tool", "pyproject.toml: "),
        ("kernels.lock", "{}", "not a list"),
        ("kernels.lock", "[]", "names no kernels"),
        ("kernels.lock", '[{"dependency": {"repo-id": "a/b"}}]', "entry 1"),
        ("kernels.lock", '[{"repo_id": "a/b", "sha": "main"}]', "not a commit"),
        (
            "kernels.lock",
            json.dumps([{"repo_id": "a/b", "sha": "0" * 40, "variants": {}}] * 2),
            "stands twice",
        ),
        (
            "kernels.lock",
            json.dumps(
                [
                    {
                        "repo_id": "a/b",
                        "sha": "0" * 40,
                        "variants": {"torch-cpu": {"hash": "md5-0", "hash_type": "md5"}},
                    }
                ]
            ),
            "unknown kind of hash",
        ),
    ],
)
def test_a_file_that_is_neither_is_refused_and_says_why(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInput, match=said):
        read_asked(file)
    with pytest.raises(NotFound, match="there is no"):
        read_asked(tmp_path / "absent.lock")


def test_the_stock_client_downloads_and_loads_what_was_exported(
    site: Site, hub: HubSimulator, built: Path, tmp_path: Path
) -> None:
    hub.publish(REPO, built)
    site.pin(PIN)
    assert site.sync().approved == 2
    project = tmp_path / "project"
    project.mkdir()
    assert kgate(site, "lock", "--export", str(project / "kernels.lock")) == 0
    with site.mirror() as mirror:
        settings = mirror.serve_settings()
    code = (
        "from pathlib import Path; from kernels import get_locked_kernel;"
        f"k = get_locked_kernel({REPO!r}, lockfile=Path('kernels.lock')); print(k.__name__)"
    )
    with served(settings) as address:
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("HF_", "KGATE_"))},
            "HF_ENDPOINT": address,
            "HF_HOME": str(tmp_path / "hf"),
            "KERNELS_CACHE": str(tmp_path / "kernels"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "KGATE_MODE": "observe",
        }
        for command in (
            [sys.executable, "-c", "from kernels.cli import main; main()", "download", "."],
            [sys.executable, "-c", code],
        ):
            done = subprocess.run(
                command, cwd=project, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
    assert "gelu" in done.stdout


def test_a_digest_is_a_pin_by_itself_and_takes_one_variant(
    site: Site, hub: HubSimulator, built: Path, tmp_path: Path
) -> None:
    first = hub.publish(REPO, built)
    site.pin(PIN)
    digest = site.lock().kernels[0].variants["torch-cpu"].manifest
    other = repos.copy_repo(built, tmp_path / "other")
    source = other / "build" / "torch-cpu" / "layers.py"
    source.write_text(f"{source.read_text(encoding='utf-8')}# 2\n", encoding="utf-8")
    repos.redigest(source.parent)
    hub.publish(REPO, other, branch="v2")
    site.pin(f"repo: {REPO}, digest: '{digest}'")
    kernel = site.lock().kernels[0]
    assert (str(kernel.commit), list(kernel.variants), kernel.pin) == (
        first,
        ["torch-cpu"],
        str(digest),
    )
    result = site.sync()
    assert (result.approved, result.failures) == (1, [])
    site.pin(f"repo: {REPO}, version: 2, digest: '{digest}'")
    with pytest.raises(NotFound, match="no variant has the manifest digest"):
        site.lock()
    site.pin(f"repo: {REPO}, digest: 'sha256:{'0' * 64}'")
    with pytest.raises(NotFound, match="looked at v1, v2"):
        site.lock()


def test_the_lock_says_which_variant_serves_each_target(
    site: Site, hub: HubSimulator, built: Path
) -> None:
    hub.publish(REPO, built)
    site.pin(PIN)
    site.lock()
    add(site, "targets: [{torch: '2.13'}, {torch: '2.12'}]\n")
    with site.mirror() as mirror, pytest.raises(Conflict, match="has other targets"):
        require_lock(read_lock(site.folder), mirror.config)
    assert site.lock().kernels[0].targets == {
        "torch 2.13, cpu, x86_64": NATIVE,
        "torch 2.12, cpu, x86_64": "torch-cpu",
    }
    with site.mirror() as mirror:
        require_lock(read_lock(site.folder), mirror.config)


def test_a_target_that_no_variant_serves_is_named(
    site: Site, hub: HubSimulator, built: Path
) -> None:
    hub.publish(REPO, built)
    site.pin(PIN)
    add(site, "targets: [{torch: '2.13', cuda: '13.0', gpus: [sm_90]}]\n")
    with pytest.raises(Conflict, match=r"target torch 2\.13, cuda 13\.0, x86_64, sm_90"):
        site.lock()
    site.pin(f"{PIN}, on_missing: fallback")
    assert site.lock().kernels[0].targets == {"torch 2.13, cuda 13.0, x86_64, sm_90": None}


def test_an_upgrade_says_what_it_brings(
    site: Site,
    hub: HubSimulator,
    built: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hub.publish(REPO, built)
    site.pin(PIN)
    site.sync()
    newer = repos.copy_repo(built, tmp_path / "newer")
    source = newer / "build" / "torch-cpu" / "layers.py"
    source.write_text(f"import socket\n{source.read_text(encoding='utf-8')}", encoding="utf-8")
    repos.redigest(source.parent)
    hub.publish(REPO, newer)
    stored, before = site.stored(), (site.folder / "kgate.lock").read_bytes()
    capsys.readouterr()
    assert kgate(site, "lock", "--upgrade", REPO, "--json") == 0
    (change,) = json.loads(capsys.readouterr().out)["changes"]
    (variant,) = change["variants"]
    assert variant["variant"] == "torch-cpu"
    assert variant["facts"]["imports"] == {"gone": [], "new": ["socket"]}
    assert variant["sizeAfter"] - variant["sizeBefore"] >= len("import socket\n")
    assert stored < site.stored()
    with site.mirror() as mirror:
        assert len({item.upstream for item in mirror.catalog.publications()}) == 1
    (site.folder / "kgate.lock").write_bytes(before)
    assert kgate(site, "lock", "--upgrade", "all") == 0
    shown = capsys.readouterr().out
    assert "+ imports: socket" in shown


def test_a_dry_run_says_what_would_happen_and_does_nothing(
    site: Site,
    hub: HubSimulator,
    built: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hub.publish(REPO, built)
    site.pin(PIN)
    with site.mirror() as mirror:
        _ = mirror.catalog, mirror.store

    def rehearsed() -> dict[str, Any]:
        capsys.readouterr()
        before = content(site)
        kgate(site, "sync", "--dry-run", "--json")
        assert content(site) == before
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    first = rehearsed()
    assert [step["does"] for step in first["steps"]] == ["lock"]
    files = [path for path in (built / "build").rglob("*") if path.is_file()]
    assert first["bytes"] == sum(path.stat().st_size for path in files)
    assert not hub.count("*/resolve/*")
    site.lock()
    assert [step["does"] for step in rehearsed()["steps"]] == ["fetch"]
    site.sync()
    assert [(step["does"], step["bytes"]) for step in rehearsed()["steps"]] == [("unchanged", 0)]
    newer = repos.copy_repo(built, tmp_path / "newer")
    (newer / "README.md").write_text("rebuilt", encoding="utf-8")
    commit = hub.publish(REPO, newer)
    assert [step["moved"] for step in rehearsed()["steps"]] == [commit]
    hub.stop()
    with stamina.set_testing(True, attempts=1):
        assert [step["does"] for step in rehearsed()["steps"]] == ["fail"]
        assert kgate(site, "sync", "--dry-run") == 3
    assert "nothing was done" in capsys.readouterr().out


def content(site: Site) -> dict[str, bytes]:
    """Return every file of a site but SQLite's own journals."""
    return {
        str(path.relative_to(site.folder)): path.read_bytes()
        for path in site.folder.rglob("*")
        if path.is_file() and not path.name.endswith(("-shm", "-wal"))
    }


def layout_of(folder: Path, version: str, cuda: str | None, *more: dict[str, bytes]) -> Path:
    """Write an OCI layout of one image with torch's version.py in its first layer."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes) -> dict[str, Any]:
        name = hashlib.sha256(data).hexdigest()
        (blobs / name).write_bytes(data)
        return {"digest": f"sha256:{name}", "size": len(data)}

    def layer(files: dict[str, bytes]) -> dict[str, Any]:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for name, data in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        media = "application/vnd.oci.image.layer.v1.tar+gzip"
        return {"mediaType": media, **put(packed.getvalue())}

    text = (
        f"from typing import Optional\n__version__ = {version!r}\ncuda: Optional[str] = {cuda!r}\n"
    )
    first = layer({"usr/lib/python3/site-packages/torch/version.py": text.encode()})
    config = put(b'{"architecture": "amd64", "os": "linux"}')
    manifest = {"schemaVersion": 2, "config": config, "layers": [first, *map(layer, more)]}
    index = {"schemaVersion": 2, "manifests": [put(json.dumps(manifest).encode())]}
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}', encoding="utf-8")
    return folder


def test_preflight_reads_the_machine_from_an_image(
    site: Site,
    hub: HubSimulator,
    built: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hub.publish(REPO, built)
    site.pin(PIN)
    site.lock()
    assert kgate(site, "preflight", str(layout_of(tmp_path / "cpu", "2.14.0+cpu", None))) == 0
    capsys.readouterr()
    cuda = layout_of(tmp_path / "cuda", "2.13.0+cu130", "13.0")
    assert kgate(site, "preflight", str(cuda), "--gpus", "sm_90", "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert document["machines"] == ["torch 2.13, cuda 13.0, x86_64, sm_90"]
    assert [item["kernel"] for item in document["lost"]] == [f"{REPO}@v1"]
    (digest,) = [
        item["digest"] for item in json.loads((cuda / "index.json").read_bytes())["manifests"]
    ]
    assert kgate(site, "preflight", f"{cuda}@{digest}", "--gpus", "sm_90") == 1
    assert kgate(site, "preflight", f"{cuda}@sha256:{'0' * 64}") == 4
    gone = {"usr/lib/python3/site-packages/.wh.torch": b""}
    assert kgate(site, "preflight", str(layout_of(tmp_path / "gone", "2.13", None, gone))) == 1
    assert "there is no torch in the image" in capsys.readouterr().err
    assert kgate(site, "preflight", str(tmp_path / "absent")) == 1
    assert kgate(site, "preflight", str(cuda), "--torch", "2.13") == 2
    assert kgate(site, "preflight") == 2


def test_targets_are_read_from_an_unpacked_image(
    site: Site, hub: HubSimulator, built: Path
) -> None:
    hub.publish(REPO, built)
    site.pin(PIN)
    torch = site.folder / "image" / "usr" / "lib" / "python3" / "dist-packages" / "torch"
    torch.mkdir(parents=True)
    (torch / "version.py").write_text("__version__ = '2.13.1'\ncuda = None\n", encoding="utf-8")
    add(site, "targets: [{image: ./image}]\n")
    with pytest.raises(InvalidInput, match="no library that tells the processor"):
        load_config(site.config_path)
    (torch / "_C.so").write_bytes(b"\x7fELF" + bytes(14) + b"\x3e\x00")
    assert site.lock().kernels[0].targets == {"torch 2.13, cpu, x86_64": NATIVE}
