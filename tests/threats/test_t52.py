"""T52: a forged or stale advisory feed, and VEX by somebody who may not say so."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from kgate_core.clock import write_time
from kgate_core.errors import Conflict, InvalidInput, KgateError, TrustError
from kgate_mirror_server.feeds.publishing import publish_own
from kgate_mirror_server.feeds.storage import read_snapshot
from kgate_mirror_server.feeds.taking import Taken, take_feed
from kgate_mirror_server.trust.rolekeys import generate, list_keys, revoke
from kgate_scanner.advisories.collecting import collect
from tests.feedkit import COMMIT, csaf, osv, own, write_folder
from tests.sitekit import Site, time_now

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kgate_mirror_server.feeds.own import OwnFeed

NAME = "kernel-advisories"


@dataclass
class Desk:
    """Where feeds are made and taken in: one site that holds the key of the role `feed`."""

    site: Site
    folder: Path

    def publish(
        self, documents: Mapping[str, Mapping[str, Any]], sequence: int | None = None
    ) -> Path:
        """Sign documents and return the feed's file."""
        count = len(list(self.folder.iterdir()))
        place = write_folder(self.folder / str(count), documents)
        target = self.folder / "feed.json"
        mirror = self.site.mirror()
        try:
            made: OwnFeed = publish_own(mirror, collect(place), target, NAME, sequence, time_now())
        finally:
            mirror.close()
        kept = self.folder / f"feed-{made.sequence}-{count}.json"
        kept.write_bytes(target.read_bytes())
        return kept

    def take(self, path: Path, name: str = "", reason: str = "") -> Taken:
        """Take a feed in."""
        mirror = self.site.mirror()
        try:
            return take_feed(mirror, collect(path), time_now(), name=name, reason=reason)
        finally:
            mirror.close()

    def unsigned(self, documents: Mapping[str, Mapping[str, Any]], reason: str = "a test") -> Taken:
        """Take documents in that nobody signed."""
        count = len(list(self.folder.iterdir()))
        return self.take(write_folder(self.folder / str(count), documents), "vendor", reason)

    def names(self) -> list[str]:
        """Return the feeds that are there."""
        mirror = self.site.mirror()
        snapshot = read_snapshot(mirror.config.path(mirror.config.feeds.snapshot))
        mirror.close()
        return [item.name for item in snapshot.sources]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    site = Site.found(tmp_path / "site", "https://desk.test")
    mirror = site.mirror()
    generate(mirror, "feed", None, time_now())
    mirror.close()
    (tmp_path / "feeds").mkdir()
    return Desk(site, tmp_path / "feeds")


def record(name: str = "KGATE-2026-0001", **more: Any) -> dict[str, Any]:
    return osv(name, affected=[own(commits=[COMMIT])], **more)


def test_t52_a_signed_feed_is_taken_in_and_bears_its_number(desk: Desk) -> None:
    taken = desk.take(desk.publish({"a.json": record()}))

    assert (taken.source.name, taken.source.sequence, taken.advisories) == (NAME, 1, 1)
    assert desk.take(desk.folder / "feed.json").is_new is False


@pytest.mark.parametrize("field", ["records", "sequence", "name", "issued"])
def test_t52_a_feed_that_was_changed_after_signing_is_refused(desk: Desk, field: str) -> None:
    path = desk.publish({"a.json": record()})
    document = json.loads(path.read_bytes())
    forged = {"records": [], "sequence": 99, "name": "other", "issued": "2027-01-01T00:00:00Z"}
    document[field] = forged[field]
    path.write_text(json.dumps(document))

    with pytest.raises(TrustError, match="not the one that was signed"):
        desk.take(path)
    assert desk.names() == []


def test_t52_a_feed_by_a_key_of_another_role_is_refused(desk: Desk) -> None:
    mirror = desk.site.mirror()
    admit = mirror.config.model_copy(
        update={"keys": mirror.config.keys.model_copy(update={"feed": mirror.config.keys.admit})}
    )
    mirror.config = admit
    place = write_folder(desk.folder / "x", {"a.json": record()})
    with pytest.raises(TrustError, match="not registered for the role"):
        publish_own(mirror, collect(place), desk.folder / "f.json", NAME, None, time_now())
    mirror.close()


def test_t52_a_feed_by_a_strangers_or_a_revoked_key_is_refused(desk: Desk, tmp_path: Path) -> None:
    path = desk.publish({"a.json": record()})
    stranger = Desk(Site.found(tmp_path / "other", "https://other.test"), desk.folder)
    with pytest.raises(TrustError, match="knows no key"):
        stranger.take(path)

    mirror = desk.site.mirror()
    (keyid,) = [key.public.keyid for key in list_keys(mirror, time_now()) if "feed" in key.roles]
    revoke(mirror, keyid, "stolen", time_now())
    mirror.close()
    with pytest.raises(TrustError):
        desk.take(path)


def test_t52_an_older_feed_and_a_second_one_of_the_same_number_are_refused(desk: Desk) -> None:
    first = desk.publish({"a.json": record()})
    second = desk.publish({"a.json": record("KGATE-2026-0002")})
    (desk.folder / "feed.json").unlink()
    twin = desk.publish({"a.json": record("KGATE-2026-0003")}, sequence=2)
    desk.take(second)

    with pytest.raises(Conflict, match=r"number 2 of .* was taken before"):
        desk.take(first)
    with pytest.raises(Conflict, match="two feeds"):
        desk.take(twin)
    assert desk.names() == [NAME]


def test_t52_a_feed_that_nobody_vouches_for_is_refused_with_its_digest(desk: Desk) -> None:
    folder = write_folder(desk.folder / "v", {"a.json": csaf()})
    with pytest.raises(TrustError, match="nothing vouches") as caught:
        desk.take(folder, "vendor")
    pin = f"feeds.pins.vendor: {collect(folder).digest}"
    assert pin in caught.value.hint

    with desk.site.config.open("a") as stream:
        stream.write(f"\nfeeds:\n  pins:\n    vendor: {collect(folder).digest}\n")
    assert desk.take(folder, "vendor").source.means == "pinned"
    (folder / "b.json").write_text(json.dumps(csaf(cve="CVE-2026-0002")))
    with pytest.raises(TrustError, match="pins"):
        desk.take(folder, "vendor", "never mind")


def test_t52_an_unsigned_feed_keeps_the_reason_for_which_it_counts(desk: Desk) -> None:
    taken = desk.unsigned({"a.json": csaf()}, "compared with the vendor's page")

    assert (taken.source.means, taken.source.detail) == (
        "accepted",
        "compared with the vendor's page",
    )


@pytest.mark.parametrize(
    ("later", "said"),
    [
        ({"a.json": csaf(modified="2026-09-01T00:00:00Z")}, "was taken before"),
        ({"b.json": csaf(cve="CVE-2026-0009")}, "has lost CVE-2026-0001"),
        (
            {
                "a.json": csaf(modified="2026-09-01T00:00:00Z"),
                "b.json": csaf(cve="CVE-2026-0009", modified="2026-10-09T00:00:00Z"),
            },
            "older CVE-2026-0001",
        ),
    ],
)
def test_t52_an_unsigned_feed_that_went_back_is_refused(
    desk: Desk, later: dict[str, Any], said: str
) -> None:
    desk.unsigned({"a.json": csaf()})

    with pytest.raises(Conflict, match=said):
        desk.unsigned(later)
    desk.unsigned({"a.json": csaf(), "b.json": csaf(cve="CVE-2026-0009")})


def test_t52_a_feed_from_the_future_is_refused_because_nothing_could_replace_it(desk: Desk) -> None:
    later = write_time(time_now() + timedelta(days=400))

    with pytest.raises(TrustError, match="in the future"):
        desk.unsigned({"a.json": csaf(modified=later)})


def test_t52_a_signed_feed_is_not_replaced_by_an_unsigned_one(desk: Desk) -> None:
    desk.take(desk.publish({"a.json": record()}))
    folder = write_folder(desk.folder / "v", {"a.json": record()})

    with pytest.raises(Conflict, match="was signed before"):
        desk.take(folder, NAME, "trust me")


@pytest.mark.parametrize("junk", [{}, {"dataType": "CVE_RECORD"}, {"bomFormat": "CycloneDX"}])
def test_t52_documents_of_which_none_is_known_are_no_feed(desk: Desk, junk: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="none of its"):
        desk.unsigned({"a.json": junk})


def test_t52_one_malformed_document_refuses_the_whole_feed(desk: Desk) -> None:
    with pytest.raises(KgateError):
        desk.unsigned({"a.json": csaf(), "b.json": {"id": "X", "modified": "never"}})
    assert desk.names() == []
