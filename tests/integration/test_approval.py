"""The production lane from `kgate sync` to a served kernel: two keys, two people (T45, T47)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from kgate_core.verify import Expected, Reason, Rejected, Verdict, Verified, verify
from kgate_mirror_server.catalog.sql import SqlCatalog
from kgate_mirror_server.serve.app import create_app
from kgate_mirror_server.store.disk import DiskStore
from tests.asgi import ask
from tests.sitekit import CONNECTED, REPO, VARIANT, Site, built_kernels, time_now

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def production(folder: Path, cache: Path) -> Site:
    """Found a site whose one pin goes to the lane production; no approver's key yet."""
    site = Site.found(folder, CONNECTED, kernels=built_kernels(cache))
    text = site.config.read_text(encoding="utf-8")
    text = text.replace("version: 1}", "version: 1, lane: production}")
    site.config.write_text(text, encoding="utf-8")
    return site


@pytest.fixture
def site(tmp_path: Path, cache: Path) -> Site:
    """A site with a production lane and one kernel in it that nobody has approved."""
    made = production(tmp_path / "site", cache)
    assert made.kgate("keys", "generate", "approve", "--no-passphrase") == 0
    assert made.kgate("trust", "update") == 0
    made.sync()
    return made


def verdict(site: Site) -> Verdict:
    """Return what a pod of the production lane would say about the published variant."""
    mirror = site.mirror()
    try:
        (publication,) = site.publications()
        (item,) = publication.variants
        expected = Expected(VARIANT, "production", publication.repo, publication.served)
        bundles = [mirror.room.read(digest) for digest in item.bundles]
        manifest = mirror.room.manifest(item.evidence)
        trusted = mirror.trusted(time_now())
        return verify(expected, manifest, bundles, trusted, now=time_now())
    finally:
        mirror.close()


def served_variants(site: Site) -> list[str]:
    """Return what the mirror shows to clients of the production lane."""
    mirror = site.mirror()
    try:
        settings = mirror.serve_settings()
        app = create_app(
            SqlCatalog(settings.database), DiskStore(settings.store), settings, clock=time_now
        )
        app.turn(0.0)
        reply = ask(app, f"/l/production/api/models/{REPO}/tree/v1/build")
        return [entry["path"] for entry in reply.json] if reply.status == 200 else []
    finally:
        mirror.close()


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_the_lane_cannot_be_made_before_an_approver_has_a_key(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = production(tmp_path / "site", cache)
    assert made.kgate("trust", "update") == 4
    assert "kgate keys generate approve" in capsys.readouterr().err


def test_what_nobody_approved_is_neither_served_nor_loaded(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    found = verdict(site)
    assert isinstance(found, Rejected)
    assert found.reason is Reason.MISSING_ROLE
    assert served_variants(site) == []
    capsys.readouterr()
    assert site.kgate("sync") == 0
    assert "waiting for kgate approve; not served until then" in capsys.readouterr().out
    assert site.kgate("sync", "--json") == 0
    assert [item["variant"] for item in printed(capsys)["waiting"]] == [VARIANT]
    assert site.kgate("verify", REPO) == 1
    assert "missing-role" in capsys.readouterr().out


def test_with_both_signatures_it_is_served_and_loads(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert site.kgate("approve", f"{REPO}@v1", "--yes") == 0
    assert "Approved 1 variants" in capsys.readouterr().out
    found = verdict(site)
    assert isinstance(found, Verified)
    assert [signer.partition(":")[0] for signer in found.signers] == ["admit", "approve"]
    assert served_variants(site) == [f"build/{VARIANT}"]
    assert site.kgate("verify", REPO) == 0
    assert site.kgate("approve", REPO, "--yes") == 1
    assert "waits for an approval" in capsys.readouterr().err


def test_an_approval_outlives_a_renewal_of_the_same_claims(site: Site) -> None:
    assert site.kgate("approve", REPO, "--yes") == 0
    assert site.kgate("keys", "rotate", "admit", "--resign", "--overlap", "0") == 0
    assert isinstance(verdict(site), Verified)
    site.sync()
    assert isinstance(verdict(site), Verified)


def test_new_bytes_wait_again(site: Site) -> None:
    assert site.kgate("approve", REPO, "--yes") == 0
    site.add_file("more.py", b"MORE = 1\n")
    result = site.sync()
    assert len(result.waiting) == 1


def test_t47_the_pipelines_own_key_approves_nothing(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    text = site.config.read_text(encoding="utf-8")
    approver = "keys:\n  approve: file:keys/admit.pem"
    site.config.write_text(text.replace("keys:", approver, 1), encoding="utf-8")
    assert site.kgate("approve", REPO, "--yes") == 4
    assert "holds no role in lane production that approves" in capsys.readouterr().err
    assert served_variants(site) == []


def test_t47_one_key_cannot_be_registered_for_both_roles(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror = site.mirror()
    public = mirror.key(mirror.config.keys.admit).public_key()
    mirror.close()
    path = tmp_path / "admit.pub.pem"
    path.write_text(public.pem, encoding="ascii")
    assert site.kgate("keys", "add", "approve", str(path)) == 1
    assert "is known already" in capsys.readouterr().err


def test_t45_whoever_stole_the_hosts_keys_cannot_approve(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    # The approver's key was taken to another machine; what is left here is all a thief gets.
    (site.folder / "keys" / "approve.pem").unlink()
    assert site.kgate("approve", REPO, "--yes") == 4
    assert "approve.pem cannot be read" in capsys.readouterr().err
    assert isinstance(verdict(site), Rejected)


def test_a_script_must_say_yes(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.kgate("approve", REPO) == 2
    assert "a person approves" in capsys.readouterr().err
