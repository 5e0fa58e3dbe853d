"""Exceptions from end to end: granted by one key, believed in sync, and not for a day longer."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from kgate_cli.main import main
from kgate_core.bundle import Bundle
from kgate_core.errors import InvalidInput
from kgate_core.statement import Statement
from kgate_core.trust import SigningKey
from kgate_core.tuf import Role
from kgate_core.vsa import PREDICATE_TYPE, Vsa
from kgate_mirror_server.examples import default_cache
from kgate_mirror_server.examples.build import build_gelu_and_mul
from kgate_mirror_server.ingest.resolve import read_lock
from kgate_mirror_server.ingest.sync import new_source, sync
from kgate_mirror_server.trust.exceptions import read_exceptions
from kgate_mirror_server.trust.files import read_pinned, read_trust, write_trust
from kgate_signer import trustchanges
from kgate_signer.keys import FileKey, write_private_file
from kgate_signer.trustwriter import Offline, refresh_timestamp
from tests import repos
from tests.ingestkit import make_site, now

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from kgate_mirror_server.ingest.sync import SyncResult
    from tests.ingestkit import Site

REPO = "kernels-community/gelu-and-mul"
RULE = "require-upstream-signature"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site whose policy denies its one kernel, because nobody signed it upstream."""
    built = build_gelu_and_mul(default_cache(os.environ), native=False, cuda=False)
    repos.copy_repo(built, tmp_path / "built" / REPO)
    made = make_site(tmp_path / "site", str(tmp_path / "built"))
    policy = made.folder / "policy" / "baseline.yaml"
    text = policy.read_text(encoding="utf-8")
    policy.write_text(text.replace(f"{RULE}: warn", f"{RULE}: deny"), encoding="utf-8")
    assert main(["trust", "update", "--config", str(made.config_path)]) == 0
    made.pin(f"repo: {REPO}, version: 1")
    assert made.sync().denied == 1
    return made


def grant(site: Site, *more: str, days: int = 30) -> int:
    until = f"{now() + timedelta(days=days):%Y-%m-%d}"
    words = ["--rule", RULE, "--until", until, "--reason", "Reviewed by hand last week."]
    people = ["--requested-by", "alice", "--approved-by", "bob"]
    config = ["--config", str(site.config_path)]
    return main(["policy", "except", REPO, *words, *people, *config, *more])


def sync_at(site: Site, moment: datetime) -> SyncResult:
    lock = read_lock(site.folder)
    assert lock is not None
    with site.mirror() as mirror:
        source = new_source(mirror, lambda _count: None)
        return sync(mirror, lock, source, moment, tell=lambda _text: None)


def files(site: Site) -> tuple[Path, Path]:
    folder = site.folder / "policy" / "exceptions"
    (text,) = folder.glob("*.yaml")
    return text, text.with_name(f"{text.stem}.sigstore.json")


def vsa_of(site: Site) -> Vsa:
    with site.mirror() as mirror:
        (publication,) = mirror.catalog.publications()
        bundles = [mirror.room.read(digest) for digest in publication.variants[0].bundles]
    statements = [Statement.parse(Bundle.parse(data).envelope.payload) for data in bundles]
    (found,) = [item for item in statements if item.predicate_type == PREDICATE_TYPE]
    return Vsa.from_predicate(found.predicate)


def test_an_exception_lets_the_bytes_through_while_it_lasts_and_no_signature_outlives_it(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert grant(site) == 0
    assert "run `kgate sync`" in capsys.readouterr().out
    result = sync_at(site, now())
    assert (result.approved, result.denied) == (1, 0)
    (exception,) = result.exceptions.granted
    decision = result.kernels[0].variants[0].decision
    assert decision is not None
    assert any("excepted until" in item.seen for item in decision.warnings)
    assert vsa_of(site).valid_until == exception.until
    assert not sync_at(site, now()).kernels[0].fresh
    after = sync_at(site, exception.until)
    assert (after.approved, after.denied) == (0, 1)
    assert vsa_of(site).valid_until == exception.until


def test_sync_reports_exceptions_and_warns_before_they_end(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert grant(site, days=5) == 0
    capsys.readouterr()
    config = ["--config", str(site.config_path)]
    assert main(["sync", *config]) == 0
    assert "ends in 4 days" in capsys.readouterr().out
    assert main(["sync", "--json", *config]) == 0
    (lasting,) = json.loads(capsys.readouterr().out)["exceptions"]["lasting"]
    assert (lasting["rules"], lasting["daysLeft"]) == ([RULE], 4)


def test_eval_explain_and_diff_know_exceptions(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ["--config", str(site.config_path)]
    assert main(["policy", "eval", REPO, *config]) == 1
    assert grant(site) == 0
    capsys.readouterr()
    assert main(["policy", "eval", REPO, *config]) == 0
    assert "excepted until" in capsys.readouterr().out
    assert main(["policy", "explain", REPO, *config]) == 0
    assert "excepted until" in capsys.readouterr().out
    policy = str(site.folder / "policy" / "baseline.yaml")
    assert main(["policy", "diff", policy, *config]) == 0
    assert grant(site, days=40) == 1  # nothing denies it any more
    assert "is not denied by" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["admit", "timestamp"])
def test_t47_the_pipelines_own_keys_cannot_grant_exceptions(
    site: Site, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert grant(site, "--key", f"file:keys/{name}.pem") == 4
    assert "may not grant exceptions" in capsys.readouterr().err
    assert not list((site.folder / "policy" / "exceptions").glob("*"))


def resign(site: Site, key: FileKey) -> None:
    """Replace the signature by one of another key over the same statement."""
    from kgate_signer.sign import sign_statement

    _, signed = files(site)
    statement = Statement.parse(Bundle.parse(signed.read_bytes()).envelope.payload)
    signed.write_bytes(sign_statement(statement, key))


def test_t47_an_exception_that_the_admit_key_signed_counts_for_nothing(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    grant(site)
    with site.mirror() as mirror:
        admit = mirror.key(mirror.config.keys.admit)
    assert isinstance(admit, FileKey)
    resign(site, admit)
    result = sync_at(site, now())
    assert (result.approved, result.denied) == (0, 1)
    (refused,) = result.exceptions.refused
    assert "may not grant exceptions" in refused.reason
    capsys.readouterr()
    assert main(["sync", "--config", str(site.config_path)]) == 1
    assert "counts for nothing" in capsys.readouterr().out


def test_an_exception_of_an_unknown_key_without_signature_or_changed_afterwards_is_refused(
    site: Site,
) -> None:
    grant(site)
    text, signed = files(site)
    right, good = text.read_text(encoding="utf-8"), signed.read_bytes()

    def refusal() -> str:
        result = sync_at(site, now())
        assert result.approved == 0
        return result.exceptions.refused[0].reason

    resign(site, FileKey.generate())
    assert "may not grant" in refusal()
    signed.write_bytes(b"{}")
    assert "nothing that can be read" in refusal()
    signed.unlink()
    assert refusal() == "is not signed"
    signed.write_bytes(good)
    text.write_text(right.replace("last week", "today"), encoding="utf-8")
    assert refusal() == "says something else than what was signed"
    text.write_text(right, encoding="utf-8")
    assert sync_at(site, now()).approved == 1


def test_t27_a_signed_exception_for_other_bytes_is_ignored_and_reported(site: Site) -> None:
    grant(site)
    built = site.folder.parent / "built" / REPO
    for variant in repos.variants(built):
        (variant / "notes.py").write_text("# one more file\n", encoding="utf-8")
        repos.redigest(variant)
    site.lock(upgrade=True)
    result = sync_at(site, now())
    assert (result.approved, result.denied) == (0, 1)
    decision = result.kernels[0].variants[0].decision
    assert decision is not None
    assert any("is for other bytes" in item.seen for item in decision.warnings)


def test_a_file_that_does_not_bear_its_exceptions_name_is_an_error(site: Site) -> None:
    grant(site)
    text, _ = files(site)
    text.rename(text.with_name("other.yaml"))
    with site.mirror() as mirror, pytest.raises(InvalidInput, match="named 'other'"):
        read_exceptions(mirror, now())


def test_the_same_exception_is_not_granted_twice(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    grant(site)
    _, signed = files(site)
    signed.unlink()
    assert grant(site) == 1
    assert "exists" in capsys.readouterr().err


def test_a_new_key_that_no_document_names_cannot_grant(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    write_private_file(site.folder / "keys" / "mine.pem", FileKey.generate().to_pem(None))
    assert grant(site, "--key", "file:keys/mine.pem") == 4
    assert "may not grant exceptions" in capsys.readouterr().err


def test_the_key_of_a_lanes_human_held_role_may_grant_until_it_is_revoked(site: Site) -> None:
    approve = FileKey.generate()
    write_private_file(site.folder / "keys" / "second.pem", approve.to_pem(None))
    public, folder, moment = approve.public_key(), site.folder / "trust", now()
    validity = SigningKey(public, moment - timedelta(days=1), moment + timedelta(days=90))
    with site.mirror() as mirror:
        offline = Offline(read_pinned(folder), (mirror.key(mirror.config.keys.root),))
        online = mirror.key(mirror.config.keys.timestamp)
        lane = mirror.trusted(moment).lanes["experimental"]
    roles = {**lane.roles, "approve": Role(frozenset({public.keyid}), 1)}
    trust = trustchanges.add_key(read_trust(folder), validity, offline, now=moment)
    trust = trustchanges.set_lane(trust, replace(lane, roles=roles), offline, now=moment)
    write_trust(folder, refresh_timestamp(trust, online, now=moment))

    assert grant(site, "--key", "file:keys/second.pem") == 0
    assert sync_at(site, now()).approved == 1
    trust = trustchanges.revoke_key(read_trust(folder), public.keyid, "lost", offline, now=moment)
    write_trust(folder, refresh_timestamp(trust, online, now=moment))
    result = sync_at(site, now())
    assert result.approved == 0
    assert "may not grant exceptions" in result.exceptions.refused[0].reason
