"""What comes in through the real huggingface_hub, from a Hub that behaves and one that does not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
import stamina

from kgate_core.errors import Conflict, InvalidInput, NotFound, TrustError, UpstreamError
from kgate_mirror_server.examples import default_cache
from kgate_mirror_server.examples.build import build_gelu_and_mul
from kgate_mirror_server.hubsim import Corrupt, Endless, HubSimulator, Resized, Short, Slow, Status
from kgate_mirror_server.ingest.resolve import read_lock, require_lock
from tests import repos
from tests.ingestkit import Site, make_site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kgate_mirror_server.hubsim import Fault
    from kgate_mirror_server.ingest.sync import SyncResult

REPO = "kernels-community/gelu-and-mul"
NATIVE = "torch213-cxx11-cpu-x86_64-linux"
PIN = f"repo: {REPO}, version: 1"


@pytest.fixture(scope="module")
def built() -> Path:
    return build_gelu_and_mul(default_cache(os.environ), cuda=False)


@pytest.fixture(scope="module")
def plain() -> Path:
    """The kernel's Python-only variant alone, where a library makes no difference."""
    return build_gelu_and_mul(default_cache(os.environ), native=False, cuda=False)


@pytest.fixture
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as simulator:
        yield simulator


@pytest.fixture(autouse=True)
def _fast_retries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with stamina.set_testing(True, attempts=5, cap=True):  # no waits between attempts
        yield


@pytest.fixture
def site(tmp_path: Path, hub: HubSimulator) -> Site:
    made = make_site(tmp_path / "site", hub.url)
    made.pin(PIN)
    return made


def publish(hub: HubSimulator, folder: Path, repo: str = REPO) -> str:
    return hub.publish(repo, folder)


def spoiled(built: Path, target: Path, name: str) -> Path:
    copy = repos.copy_repo(built, target)
    repos.SPOILED[name](copy)
    return copy


def reasons(result: SyncResult) -> set[str]:
    return {
        reason.rule
        for kernel in result.kernels
        for variant in kernel.variants
        for reason in variant.reasons
    }


def test_a_pinned_kernel_comes_in_whole(site: Site, hub: HubSimulator, built: Path) -> None:
    commit = publish(hub, built)
    result = site.sync()
    assert (result.approved, result.denied, result.failures) == (2, 0, [])
    kernel = result.kernels[0]
    assert (str(kernel.commit), str(kernel.served)) == (commit, commit)
    with site.mirror() as mirror:
        files = {f.path: f for v in mirror.catalog.publications()[0].variants for f in v.files}
        for path, file in files.items():
            with mirror.store.open(file.digest) as stream:
                assert stream.read() == (built / path).read_bytes()


def test_syncing_again_fetches_nothing_and_asks_once_for_each_pin(
    site: Site, hub: HubSimulator, built: Path
) -> None:
    publish(hub, built)
    site.sync()
    hub.forget_requests()
    result = site.sync()
    assert (result.approved, result.fetched_bytes) == (2, 0)
    assert [kernel.fresh for kernel in result.kernels] == [False]
    assert hub.count() <= 1


def test_what_a_killed_run_stored_is_not_fetched_again(
    site: Site, hub: HubSimulator, built: Path
) -> None:
    publish(hub, built)
    site.lock()
    library = next((built / "build" / NATIVE).glob("*.so"))
    hub.inject(Status(500), "*/metadata.json")
    broken = site.sync()
    assert [type(item.error) for item in broken.failures] == [UpstreamError]
    with site.mirror() as mirror:
        assert not mirror.catalog.publications()
    hub.heal()
    site.sync()
    hub.forget_requests()
    shutil.rmtree(site.folder / "kgate-data" / "tmp")
    (site.folder / "kgate-data" / "kgate.db").unlink()
    again = site.sync()
    assert again.approved == 2
    assert hub.count(f"*/{library.name}", method="GET") == 0


def test_t34_a_sync_that_is_killed_in_the_middle_is_taken_up_by_the_next(
    site: Site, hub: HubSimulator, built: Path
) -> None:
    publish(hub, built)
    site.lock()
    hub.inject(Slow(30), "*.so", method="GET")
    program = "import sys; from kgate_cli.main import main; sys.exit(main())"
    victim = subprocess.Popen(
        [sys.executable, "-c", program, "sync", "--locked", "--config", str(site.config_path)]
    )
    until = time.monotonic() + 60
    while not hub.count("*.so", method="GET") and time.monotonic() < until:
        time.sleep(0.05)
    assert victim.poll() is None, "it ended before it could be killed"
    victim.kill()
    victim.wait(20)
    hub.heal()
    with site.mirror() as mirror:
        published = {v.variant for p in mirror.catalog.publications() for v in p.variants}
    assert NATIVE not in published
    assert (site.sync().approved, site.sync().fetched_bytes) == (2, 0)


def test_t12_a_moved_branch_is_reported_and_the_pinned_commit_stays(
    site: Site, hub: HubSimulator, plain: Path, tmp_path: Path
) -> None:
    first = publish(hub, plain)
    site.sync()
    changed = repos.copy_repo(plain, tmp_path / "changed")
    (changed / "README.md").write_text("rebuilt", encoding="utf-8")
    second = publish(hub, changed)
    result = site.sync()
    assert [(str(m.locked), str(m.now)) for m in result.moved] == [(first, second)]
    assert str(result.kernels[0].served) == first
    assert str(site.lock(upgrade=True).kernels[0].commit) == second


@pytest.mark.parametrize("fault", [Corrupt(), Resized(64), Resized(-64), Short(64), Endless()])
@pytest.mark.parametrize("path", ["*.so", "*/layers.py"])
def test_t13_bytes_that_were_not_promised_are_never_stored(
    site: Site, hub: HubSimulator, built: Path, fault: Fault, path: str
) -> None:
    publish(hub, built)
    if path == "*.so":
        site.lock()
    hub.inject(fault, path, method="GET")
    before = site.stored()
    try:
        result = site.sync()
    except Exception as exc:  # noqa: BLE001  # locking reads small files too: any KgateError will do
        assert type(exc).__module__ == "kgate_core.errors"  # noqa: PT017
    else:
        assert result.failures or "bytes-as-promised" in reasons(result)
    promised = {
        sha256(file.read_bytes()).hexdigest() for file in built.rglob(path.removeprefix("*/"))
    }
    assert not promised & (site.stored() - before)
    with site.mirror() as mirror:
        assert NATIVE not in {
            variant.variant for item in mirror.catalog.publications() for variant in item.variants
        }


def test_a_cut_body_is_resumed(site: Site, hub: HubSimulator, built: Path) -> None:
    publish(hub, built)
    site.lock()
    hub.inject(Short(1000), "*.so", method="GET", times=1)
    assert site.sync().approved == 2
    assert any("range" in {k.lower() for k in r.headers} for r in hub.requests)


def test_an_upstream_that_recovers_is_asked_again(
    site: Site, hub: HubSimulator, plain: Path
) -> None:
    publish(hub, plain)
    hub.inject(Status(503), times=2)
    assert site.sync().approved == 1


def test_an_upstream_that_is_down_leaves_nothing_half_written(
    site: Site, hub: HubSimulator, built: Path
) -> None:
    publish(hub, built)
    site.lock()
    hub.stop()
    before = site.stored()
    result = site.sync()
    assert [item.error.code for item in result.failures] == ["upstream"]
    assert "did not answer" in result.failures[0].error.message
    assert site.stored() == before


def test_an_unknown_repository_is_named(site: Site, hub: HubSimulator) -> None:
    with pytest.raises(NotFound, match="no such kernel repository"):
        site.lock()


def test_a_version_that_does_not_exist_lists_those_that_do(
    site: Site, hub: HubSimulator, built: Path
) -> None:
    publish(hub, built)
    site.pin(f"repo: {REPO}, version: 7")
    with pytest.raises(NotFound) as caught:
        site.lock()
    assert caught.value.hint == "there is v1"


def test_a_commit_with_other_bytes_than_the_lock_promises_is_refused(
    site: Site, hub: HubSimulator, built: Path
) -> None:
    publish(hub, built)
    site.lock()
    path = site.folder / "kgate.lock"
    lock = read_lock(site.folder)
    assert lock is not None
    promised = lock.kernels[0].variants["torch-cpu"].manifest
    text = path.read_text(encoding="utf-8").replace(str(promised), f"sha256:{'0' * 64}")
    path.write_text(text, encoding="utf-8")
    result = site.sync()
    assert reasons(result) == {"bytes-as-promised"}
    assert result.approved == 1


def denied_for(site: Site, hub: HubSimulator, built: Path, target: Path, what: str) -> set[str]:
    publish(hub, spoiled(built, target, what))
    result = site.sync()
    assert result.approved == 0
    with site.mirror() as mirror:
        assert not mirror.catalog.publications()
    return reasons(result)


@pytest.mark.parametrize("what", ["planted-bytecode", "sourceless-bytecode"])
def test_t03_bytecode_never_comes_in(
    site: Site, hub: HubSimulator, plain: Path, tmp_path: Path, what: str
) -> None:
    assert "no-bytecode" in denied_for(site, hub, plain, tmp_path / "spoiled", what)


def test_t08_a_kernel_that_takes_the_name_of_another_module_is_denied(
    site: Site, hub: HubSimulator, plain: Path, tmp_path: Path
) -> None:
    rules = denied_for(site, hub, plain, tmp_path / "spoiled", "stolen-module-name")
    assert "metadata-id-safe" in rules


def test_t10_a_repository_that_redirects_elsewhere_is_denied(
    site: Site, hub: HubSimulator, plain: Path, tmp_path: Path
) -> None:
    assert "no-redirect" in denied_for(site, hub, plain, tmp_path / "spoiled", "redirect")


@pytest.mark.parametrize(
    ("what", "rule"),
    [
        ("kernel-module", "no-os-kernel-module"),
        ("truncated-metadata", "metadata-well-formed"),
        ("tampered-source", "publisher-digests"),
        ("unpinned-dependency", "dependencies-pinned"),
    ],
)
def test_a_spoiled_repository_is_denied_by_its_rule(
    site: Site, hub: HubSimulator, plain: Path, tmp_path: Path, what: str, rule: str
) -> None:
    assert rule in denied_for(site, hub, plain, tmp_path / "spoiled", what)


def test_a_symbolic_link_out_of_the_variant_comes_in_as_what_git_says_it_is(
    site: Site, hub: HubSimulator, plain: Path, tmp_path: Path
) -> None:
    # Over the Hub's API a link is a small file with the target's name; nothing is followed.
    rules = denied_for(site, hub, plain, tmp_path / "spoiled", "symlink-outside")
    assert rules


def test_a_truncated_library_is_denied(
    site: Site, hub: HubSimulator, built: Path, tmp_path: Path
) -> None:
    copy = repos.copy_repo(built, tmp_path / "short")
    repos.truncate(repos.library(copy / "build" / NATIVE), 3000)
    publish(hub, copy)
    result = site.sync()
    assert result.approved == 1  # the Python-only variant has no library
    assert "elf-well-formed" in reasons(result)


def test_a_wider_set_of_variants_gets_a_revision_of_its_own(
    site: Site, hub: HubSimulator, built: Path
) -> None:
    commit = publish(hub, built)
    site.pin(f"{PIN}, variants: [torch-cpu]")
    assert str(site.sync().kernels[0].served) == commit
    site.pin(PIN)
    with site.mirror() as mirror, pytest.raises(Conflict, match="out of date"):
        require_lock(read_lock(site.folder), mirror.config)
    site.lock()
    wider = site.sync().kernels[0]
    assert str(wider.commit) == commit
    assert str(wider.served) != commit
    with site.mirror() as mirror:
        shown = {str(p.served): len(p.variants) for p in mirror.catalog.publications()}
    assert shown == {commit: 1, str(wider.served): 2}
    assert site.sync().kernels[0].served == wider.served


def test_t14_a_signature_that_does_not_count_is_denied_and_an_unknown_publisher_is_said(
    site: Site, hub: HubSimulator, plain: Path, tmp_path: Path
) -> None:
    signed = repos.copy_repo(plain, tmp_path / "signed")
    for variant in repos.variants(signed):
        (variant / "metadata.json.sigstore").write_text('{"mediaType": "forged"}')
    publish(hub, signed)
    publish(hub, signed, "acme/gelu")
    site.pin(PIN, "repo: acme/gelu, version: 1")
    result = site.sync()
    known, unknown = result.kernels
    assert "upstream-signature-valid" in {r.rule for v in known.variants for r in v.reasons}
    assert unknown.variants[0].allowed
    with site.mirror() as mirror:
        imported = mirror.room.imported(unknown.variants[0].evidence).signature
    assert imported["status"] == "not-checked"
    assert "nobody said whose signatures count for acme" in imported["detail"]


def test_t09_a_kernel_that_needs_an_unpinned_one_is_refused_with_the_path(
    site: Site, hub: HubSimulator, plain: Path, tmp_path: Path
) -> None:
    middle = repos.copy_repo(plain, tmp_path / "middle")
    for variant in repos.variants(middle):
        repos.depend_on(variant, "acme/deep", 3)
    top = repos.copy_repo(plain, tmp_path / "top")
    for variant in repos.variants(top):
        repos.depend_on(variant, "acme/middle", 1)
    publish(hub, top)
    publish(hub, middle, "acme/middle")
    site.pin(PIN, "repo: acme/middle, version: 1")
    result = site.sync()
    assert result.approved == 0
    seen = " ".join(r.seen for k in result.kernels for v in k.variants for r in v.reasons)
    assert f"{REPO}@v1 → acme/middle@v1 → acme/deep@v3" in seen


def test_a_kernel_whose_needs_are_pinned_comes_in_after_them(
    site: Site, hub: HubSimulator, plain: Path, tmp_path: Path
) -> None:
    top = repos.copy_repo(plain, tmp_path / "top")
    for variant in repos.variants(top):
        repos.depend_on(variant, "acme/base", 1)
    publish(hub, top)
    publish(hub, plain, "acme/base")
    site.pin(PIN, "repo: acme/base, version: 1")
    result = site.sync()
    assert (result.approved, result.denied) == (2, 0)
    assert [str(kernel.pin) for kernel in result.kernels] == ["acme/base@v1", f"{REPO}@v1"]


def test_a_policy_that_pods_do_not_know_yet_is_not_signed_with(
    site: Site, hub: HubSimulator, plain: Path
) -> None:
    publish(hub, plain)
    policy = site.folder / "policy" / "baseline.yaml"
    policy.write_text(policy.read_text(encoding="utf-8").replace("staging", "dev"), "utf-8")
    with pytest.raises(TrustError) as caught:
        site.sync()
    assert "kgate trust update" in caught.value.hint


def test_a_key_of_somebody_else_publishes_nothing_that_pods_believe(
    site: Site, hub: HubSimulator, plain: Path, tmp_path: Path
) -> None:
    publish(hub, plain)
    other = make_site(tmp_path / "other", hub.url)
    key = site.folder / "keys" / "timestamp.pem"
    key.unlink()
    shutil.copy(other.folder / "keys" / "timestamp.pem", key)
    with pytest.raises(TrustError):
        site.sync()


def test_a_lock_that_misses_a_pin_is_out_of_date(
    site: Site, hub: HubSimulator, built: Path
) -> None:
    publish(hub, built)
    site.lock()
    site.pin(PIN, "repo: acme/new, version: 1")
    with site.mirror() as mirror, pytest.raises(Conflict, match="acme/new@v1 is not in it"):
        require_lock(read_lock(site.folder), mirror.config)


def test_a_broken_lock_names_its_line(site: Site, hub: HubSimulator, built: Path) -> None:
    publish(hub, built)
    site.lock()
    path = site.folder / "kgate.lock"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"commit": "', '"commit": "main'), encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"kgate\.lock, line 4: lock: kernels\[0\]"):
        read_lock(site.folder)
