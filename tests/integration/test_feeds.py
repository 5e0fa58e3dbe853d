"""Advisories from the file to the decision: imported, compared, decided, attested, shown."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from kgate_cli.main import main
from kgate_core.bundle import Bundle
from kgate_core.digest import Digest
from kgate_core.statement import Statement
from kgate_core.vsa import PREDICATE_TYPE as VSA_TYPE
from kgate_core.vsa import Vsa
from kgate_mirror_server.app import Mirror
from kgate_mirror_server.ports import EvidenceKind
from kgate_mirror_server.rulebook import surroundings
from kgate_mirror_server.upkeep.references import find_references
from kgate_signer.predicates import VULNS_TYPE
from tests.feedkit import openvex, osv, own, write_folder
from tests.sitekit import REPO, VARIANT, Site, built_kernels, time_now

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_mirror_server.ports import PublishedVariant

NAME = "KGATE-2026-0001"


@pytest.fixture
def site(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site whose one kernel is published, without any feed."""
    kernels = built_kernels(tmp_path_factory.getbasetemp() / "kernels")
    made = Site.found(tmp_path / "site", "https://feeds.test", kernels=kernels)
    assert made.kgate("lock") == 0
    assert made.kgate("sync") == 0
    return made


def published(site: Site) -> PublishedVariant:
    """Return the one published variant."""
    (publication,) = site.publications()
    (variant,) = publication.variants
    return variant


def statements(site: Site) -> dict[str, Any]:
    """Return the predicates of all attestations about the variant, by type."""
    mirror = site.mirror()
    found = [
        Statement.parse(Bundle.parse(mirror.room.read(digest)).envelope.payload)
        for digest in published(site).bundles
    ]
    mirror.close()
    return {item.predicate_type: item.predicate for item in found}


def take(site: Site, *documents: dict[str, Any], name: str = "ours") -> int:
    """Import documents that nobody signed, with a reason."""
    folder = site.folder / "import" / name
    write_folder(folder, {f"{n}.json": item for n, item in enumerate(documents)})
    arguments = ("feed", "import", str(folder), "--name", name, "--accept-unsigned", "a test")
    return site.kgate(*arguments)


def record(severity: str, name: str = NAME, repo: str = REPO) -> dict[str, Any]:
    affected = {
        "package": {"ecosystem": "kgate", "name": repo},
        "ranges": [{"type": "GIT", "events": [{"introduced": "0"}]}],
    }
    return osv(name, affected=[affected], database_specific={"severity": severity})


def shown(site: Site, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert site.kgate("show", REPO, "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_feed_that_concerns_nothing_leaves_decisions_attested_with_its_digest(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert VULNS_TYPE not in statements(site)
    assert take(site, record("HIGH", repo="acme/other")) == 0
    assert site.kgate("sync") == 0

    found = statements(site)
    assert found[VULNS_TYPE]["scanner"]["result"] == []
    snapshot = Digest.of((site.folder / "kgate-data" / "feeds" / "snapshot.json").read_bytes())
    assert found[VULNS_TYPE]["scanner"]["db"]["version"] == str(snapshot)
    assert Vsa.from_predicate(found[VSA_TYPE]).feed == snapshot
    assert site.kgate("verify", REPO) == 0
    (item,) = shown(site, capsys)["published"]
    assert item["variants"][VARIANT]["vulnerabilities"]["found"] == []


def test_a_newer_feed_decides_anew_only_what_it_concerns_and_scans_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(site, record("HIGH", "A-1", "acme/other"))
    assert site.kgate("sync") == 0
    before = published(site)

    def refuse(*_: object) -> None:
        raise AssertionError("nothing is scanned twice")

    monkeypatch.setattr(Mirror, "scan", refuse)
    take(site, record("HIGH", "A-1", "acme/other"), record("LOW", "A-2", "acme/more"))
    assert site.kgate("sync") == 0
    assert published(site) == before

    take(
        site,
        record("HIGH", "A-1", "acme/other"),
        record("LOW", "A-2", "acme/more"),
        record("LOW", "A-3"),
    )
    assert site.kgate("sync") == 0
    after = published(site)
    assert after.evidence[EvidenceKind.SCAN] == before.evidence[EvidenceKind.SCAN]
    assert (
        after.evidence[EvidenceKind.VULNERABILITIES]
        != before.evidence[EvidenceKind.VULNERABILITIES]
    )
    assert [found["id"] for found in statements(site)[VULNS_TYPE]["scanner"]["result"]] == ["A-3"]


def test_a_bad_vulnerability_denies_and_an_authorised_statement_lets_it_in_again(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert take(site, record("CRITICAL")) == 0
    assert site.kgate("sync") == 1
    said = capsys.readouterr()
    assert "no-known-vulnerability" in said.out + said.err
    assert NAME in said.out + said.err

    assert take(site, openvex(NAME, f"pkg:huggingface/{REPO}"), name="vex") == 0
    assert site.kgate("sync") == 1  # nobody named its author

    with site.config.open("a") as stream:
        stream.write("\nfeeds:\n  vex_authors: [security@example.com]\n")
    assert site.kgate("sync") == 0
    (item,) = shown(site, capsys)["published"]
    (entry,) = item["variants"][VARIANT]["vulnerabilities"]["found"]
    assert (entry["status"], entry["author"]) == ("not_affected", "security@example.com")


def test_expressions_may_ask_how_old_the_feed_is(site: Site) -> None:
    take(site, record("HIGH", repo="acme/other"))
    mirror = site.mirror()
    found = surroundings(mirror, "experimental", time_now())["mirror"]
    mirror.close()

    written = datetime(2026, 10, 1, tzinfo=UTC)  # of the newest record
    age = int((time_now() - written).total_seconds())
    assert abs(found["feedAgeSeconds"] - age) <= 5


def test_feeds_are_listed_with_age_and_who_vouches(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert site.kgate("feed", "show") == 0
    assert "No feed was taken in yet" in capsys.readouterr().out
    take(site, record("LOW"), own_record())
    capsys.readouterr()

    assert site.kgate("feed", "show") == 0
    text = capsys.readouterr().out
    assert "accepted unsigned: a test" in text
    assert site.kgate("feed", "show", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert next(iter(document)) == "schema"
    assert document["sources"][0]["advisories"] == 2


def own_record() -> dict[str, Any]:
    return osv("B-1", affected=[own(files=[str(Digest.of(b"x"))])])


def test_a_feed_signed_on_one_site_is_taken_in_on_another(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder(tmp_path / "advisories", {"a.json": record("LOW")})
    feed = tmp_path / "feed.json"
    assert site.kgate("keys", "generate", "feed", "--no-passphrase") == 0
    assert site.kgate("feed", "sign", str(folder), str(feed), "--name", "ours") == 0
    other = Site.found(tmp_path / "other", "https://other.test")
    assert other.kgate("feed", "import", str(feed)) == 4
    assert "keys add feed" in capsys.readouterr().err

    key = site.folder / "keys" / "feed.pub.pem"
    assert other.kgate("keys", "add", "feed", str(key)) == 0
    assert other.kgate("feed", "import", str(feed)) == 0
    assert "number 1" in capsys.readouterr().out


def test_the_advisories_of_today_and_of_every_decision_are_kept(site: Site) -> None:
    snapshot = site.folder / "kgate-data" / "feeds" / "snapshot.json"
    take(site, record("HIGH", "A-1", "acme/other"))
    assert site.kgate("sync") == 0
    decided = Digest.of(snapshot.read_bytes())
    take(site, record("HIGH", "A-1", "acme/other"), record("LOW", "A-2", "acme/more"))
    present = Digest.of(snapshot.read_bytes())

    mirror = site.mirror()
    needed = find_references(mirror, mirror.catalog.publications(), None).by_blob
    mirror.close()
    assert decided != present
    assert {decided, present} <= needed.keys()


def test_an_sbom_can_be_had_with_what_advisories_said(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert site.kgate("sbom", REPO, "--vulnerabilities") == 1
    assert "kgate feed import" in capsys.readouterr().err
    take(site, record("LOW"))
    assert site.kgate("sync") == 0
    capsys.readouterr()

    assert site.kgate("sbom", REPO, "--vulnerabilities") == 0
    document = json.loads(capsys.readouterr().out)
    assert [item["id"] for item in document["vulnerabilities"]] == [NAME]
    assert site.kgate("sbom", REPO) == 0
    assert "vulnerabilities" not in json.loads(capsys.readouterr().out)


def test_a_scan_can_be_compared_with_advisories_without_a_site(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = site.variant / "__init__.py"
    affected = own(files=[str(Digest.of(source.read_bytes()))])
    folder = write_folder(tmp_path / "feed", {"a.json": osv(affected=[affected])})
    vex = openvex(product=str(Digest.of(source.read_bytes())))
    write_folder(folder, {"vex.json": vex})
    capsys.readouterr()

    command = ["scan", str(site.variant), "--feed", str(folder), "--fail-on", "high"]
    assert main(command) == 1
    assert NAME in capsys.readouterr().out
    assert main([*command, "--vex-author", "security@example.com", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (entry,) = document["advisories"]["."]["found"]
    assert entry["status"] == "not_affected"


def test_a_scan_against_a_sites_own_snapshot_says_the_same(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    affected = own(files=[str(Digest.of((site.variant / "__init__.py").read_bytes()))])
    take(site, osv(affected=[affected], database_specific={"severity": "LOW"}))
    capsys.readouterr()
    snapshot = site.folder / "kgate-data" / "feeds" / "snapshot.json"

    assert main(["scan", str(site.variant), "--feed", str(snapshot)]) == 0
    assert "1 advisories count, 0 were set aside" in capsys.readouterr().out
