"""From the experimental lane to production: the lane's own rules, two keys, the log (T47)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from kgate_core.verify import Expected, Reason, Rejected, Verdict, Verified, verify
from kgate_mirror_server.trust.publicationlog import check_log
from tests.sitekit import CONNECTED, REPO, VARIANT, Site, built_kernels, time_now

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def site(tmp_path: Path, cache: Path) -> Site:
    """A site that serves one kernel in the lane experimental and knows a lane production."""
    made = Site.found(tmp_path / "site", CONNECTED, kernels=built_kernels(cache))
    with made.config.open("a", encoding="utf-8") as stream:
        stream.write("\nlanes:\n  production: {}\n")
    assert made.kgate("keys", "generate", "approve", "--no-passphrase") == 0
    assert made.kgate("trust", "update") == 0
    made.sync()
    return made


def verdict(site: Site, lane: str) -> Verdict:
    mirror = site.mirror()
    try:
        (publication,) = (item for item in site.publications() if item.lane == lane)
        (item,) = publication.variants
        expected = Expected(VARIANT, lane, publication.repo, publication.served)
        bundles = [mirror.room.read(digest) for digest in item.bundles]
        manifest = mirror.room.manifest(item.evidence)
        return verify(expected, manifest, bundles, mirror.trusted(time_now()), now=time_now())
    finally:
        mirror.close()


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_what_is_promoted_waits_for_a_human_and_then_loads_in_both_lanes(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert site.kgate("promote", f"{REPO}@v1", "--to", "production", "--json") == 0
    said = printed(capsys)
    assert said["schema"] == "kgate.dev/promote/v1"
    assert len(said["waiting"]) == 1
    waits = verdict(site, "production")
    assert isinstance(waits, Rejected)
    assert waits.reason is Reason.MISSING_ROLE
    assert site.kgate("approve", REPO, "--yes") == 0
    assert isinstance(verdict(site, "production"), Verified)
    assert isinstance(verdict(site, "experimental"), Verified)


def test_a_promotion_stands_in_the_publication_log_and_in_the_audit_log(site: Site) -> None:
    assert site.kgate("promote", REPO, "--to", "production") == 0
    mirror = site.mirror()
    try:
        entries = check_log(mirror, mirror.trusted(time_now()))
        assert [entry.published.lane for entry in entries] == ["experimental", "production"]
        actions = [json.loads(data)["action"] for data, _ in mirror.audit.entries()]
        assert actions[-2:] == ["publish", "promote"]
    finally:
        mirror.close()


def test_the_target_lanes_own_rules_decide_anew(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    strict = "apiVersion: kgate.dev/v1\nkind: Policy\nname: strict\nextends: dev\n"
    strict += "repositories: {deny: ['kernels-community/*']}\n"
    (site.folder / "policy" / "strict.yaml").write_text(strict, encoding="utf-8")
    text = site.config.read_text(encoding="utf-8")
    text = text.replace("production: {}", "production: {policy: policy/strict.yaml}")
    site.config.write_text(text, encoding="utf-8")
    assert site.kgate("trust", "update") == 0
    assert site.kgate("promote", REPO, "--to", "production") == 1
    assert "denied" in capsys.readouterr().out
    assert [item.lane for item in site.publications()] == ["experimental"]


def test_t47_the_key_that_promotes_cannot_approve(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert site.kgate("promote", REPO, "--to", "production") == 0
    text = site.config.read_text(encoding="utf-8")
    approver = "keys:\n  approve: file:keys/admit.pem"
    site.config.write_text(text.replace("keys:", approver, 1), encoding="utf-8")
    assert site.kgate("approve", REPO, "--yes") == 4
    assert "holds no role in lane production that approves" in capsys.readouterr().err
    assert isinstance(verdict(site, "production"), Rejected)


def test_promoting_twice_changes_nothing(site: Site) -> None:
    assert site.kgate("promote", REPO, "--to", "production") == 0
    assert site.kgate("approve", REPO, "--yes") == 0
    before = [(item.lane, item.served) for item in site.publications()]
    assert site.kgate("promote", REPO, "--to", "production") == 0
    assert [(item.lane, item.served) for item in site.publications()] == before
    assert isinstance(verdict(site, "production"), Verified)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((REPO, "--to", "experimental"), 1, "published in another lane"),
        (("acme/unknown", "--to", "production"), 1, "not in the catalog"),
        ((REPO, "--to", "nowhere"), 4, "knows no lane"),
    ],
)
def test_what_cannot_be_promoted_is_refused_with_the_reason(
    site: Site,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    assert site.kgate("promote", *arguments) == code
    assert said in capsys.readouterr().err
