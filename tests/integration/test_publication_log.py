"""The publication log of a site, from `kgate sync` to what a pod reports."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from kgate_core.errors import IntegrityError
from kgate_core.trust import load
from kgate_mirror_server.ingest.sync import refresh_trust
from kgate_mirror_server.trust.files import read_trust
from kgate_mirror_server.trust.publicationlog import check_log, record
from tests.sitekit import CONNECTED, REPO, VARIANT, Site, built_kernels, time_now

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_signer.publog import Entry


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def site(tmp_path: Path, cache: Path) -> Site:
    made = Site.found(tmp_path / "site", CONNECTED, kernels=built_kernels(cache))
    made.sync()
    return made


def entries(site: Site) -> tuple[Entry, ...]:
    mirror = site.mirror()
    try:
        return check_log(mirror, mirror.trusted(time_now()))
    finally:
        mirror.close()


def head_seen_by_a_pod(site: Site) -> str:
    """Return what a pod reports that pinned the root and fetched the rest."""
    trust = read_trust(site.root.parent)
    return load(site.root.read_bytes(), trust.since(1), now=time_now()).log_head


def test_a_publication_is_an_entry_whose_head_reaches_pods(site: Site) -> None:
    (entry,) = entries(site)
    (publication,) = site.publications()
    said = entry.published
    assert (str(said.repo), said.version, said.lane) == (REPO, 1, publication.lane)
    assert (said.served, said.upstream) == (publication.served, publication.upstream)
    assert dict(said.variants) == {VARIANT: publication.variants[0].manifest}
    assert head_seen_by_a_pod(site).startswith("sha256:")


def test_what_is_published_already_is_not_logged_again(site: Site) -> None:
    head = head_seen_by_a_pod(site)
    site.sync()
    assert head_seen_by_a_pod(site) == head
    site.add_file("more.py", b"MORE = 1\n")
    site.sync()
    first, second = entries(site)
    assert second.previous == head
    assert second.published.served != first.published.served
    # The old publication stays reachable by its commit: that is no news.
    site.sync()
    assert len(entries(site)) == 2


def test_a_crash_between_publication_and_entry_heals_at_the_next_sync(
    site: Site, tmp_path: Path
) -> None:
    copy = shutil.copytree(site.root.parent, tmp_path / "before")
    site.add_file("more.py", b"MORE = 1\n")
    site.sync()
    # The power went after the catalog had the publication and before anything else had.
    shutil.copytree(copy, site.root.parent, dirs_exist_ok=True)
    assert len(entries(site)) == 1
    site.sync()
    published = {item.served for item in site.publications()}
    assert {entry.published.served for entry in entries(site)} == published


def test_an_unfinished_line_is_replaced_by_the_next_entry(site: Site) -> None:
    log = site.root.parent / "publications.jsonl"
    with log.open("ab") as stream:
        stream.write(b'{"mediaType":"appli')
    site.add_file("more.py", b"MORE = 1\n")
    site.sync()
    assert len(entries(site)) == 2


def test_t46_a_cut_log_is_neither_continued_nor_vouched_for(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    head = head_seen_by_a_pod(site)
    (site.root.parent / "publications.jsonl").unlink()
    mirror = site.mirror()
    try:
        refresh_trust(mirror, time_now())
        with pytest.raises(IntegrityError, match="does not reach"):
            record(mirror, time_now())
    finally:
        mirror.close()
    assert head_seen_by_a_pod(site) == head
    assert site.kgate("trust", "show") != 0
    assert "does not reach the head" in capsys.readouterr().err


def test_a_swapped_entry_is_named(site: Site) -> None:
    log = site.root.parent / "publications.jsonl"
    document = json.loads(log.read_bytes())
    signature = document["dsseEnvelope"]["signatures"][0]["sig"]
    document["dsseEnvelope"]["signatures"][0]["sig"] = signature[:-8] + "AAAAAAA="
    log.write_bytes(json.dumps(document, separators=(",", ":")).encode() + b"\n")
    with pytest.raises(IntegrityError, match="entry 1 of the publication log is not signed"):
        entries(site)


def test_trust_show_prints_head_and_length(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.kgate("trust", "show") == 0
    said = capsys.readouterr().out
    assert f"log      1 publications, head {head_seen_by_a_pod(site)}" in said
    assert site.kgate("trust", "show", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["publications"] == 1
    assert document["log_head"] == head_seen_by_a_pod(site)
