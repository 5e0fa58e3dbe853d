"""A kernel that may not be used is let in for hours by three people, by its commands (T47)."""

from __future__ import annotations

import json
import shutil
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from kgate_core.breakglass import PREDICATE_TYPE
from kgate_core.clock import read_time
from kgate_core.trust import load
from kgate_core.verify import Expected, Reason, Rejected, Verdict, Verified, verify
from kgate_mirror_server.catalog.sql import SqlCatalog
from kgate_mirror_server.serve.app import create_app
from kgate_mirror_server.store.disk import DiskStore
from kgate_mirror_server.trust.files import read_trust
from kgate_mirror_server.trust.publicationlog import check_log
from kgate_signer.keys import FileKey, write_private_file
from tests.asgi import ask
from tests.repos import redigest
from tests.sitekit import CONNECTED, REPO, VARIANT, Site, built_kernels, time_now

if TYPE_CHECKING:
    from pathlib import Path

REASON = "Inference is down without it; a fix is in review."
ASK = ("--hours", "8", "--reason", REASON, "--requested-by", "carol")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def approver(site: Site, name: str) -> str:
    """Register an approver's key, which the person keeps somewhere else."""
    key = FileKey.generate()
    path = site.folder / f"{name}.pem"
    write_private_file(path, key.to_pem(None))
    public = site.folder / f"{name}.pub.pem"
    public.write_text(key.public_key().pem, encoding="ascii")
    assert site.kgate("keys", "add", "approve", str(public)) == 0
    return f"file:{path}"


@pytest.fixture
def denied(tmp_path: Path, cache: Path) -> Site:
    """A site whose policy denies its one kernel: it was built from uncommitted changes."""
    made = Site.found(tmp_path / "site", CONNECTED, kernels=built_kernels(cache))
    metadata = made.variant / "metadata.json"
    document = json.loads(metadata.read_text(encoding="utf-8"))
    del document["license"]
    made.add_file("metadata.json", json.dumps(document).encode())
    result = made.sync()
    assert (result.approved, result.denied) == (0, 1)
    return made


def verdict(site: Site, lane: str, hours: float = 0) -> Verdict:
    """Return what a pod would say about the published variant some hours on."""
    mirror = site.mirror()
    try:
        (publication,) = site.publications()
        (item,) = publication.variants
        expected = Expected(VARIANT, lane, publication.repo, publication.served)
        bundles = [mirror.room.read(digest) for digest in item.bundles]
        manifest = mirror.room.manifest(item.evidence)
        trusted = mirror.trusted(time_now())
        later = time_now() + timedelta(hours=hours)
        return verify(expected, manifest, bundles, trusted, now=later)
    finally:
        mirror.close()


def served_variants(site: Site, hours: float = 0) -> list[str]:
    """Return what the mirror shows to clients some hours on."""

    def clock() -> datetime:
        return time_now() + timedelta(hours=hours)

    mirror = site.mirror()
    try:
        settings = mirror.serve_settings()
        app = create_app(
            SqlCatalog(settings.database), DiskStore(settings.store), settings, clock=clock
        )
        app.turn(0.0)
        reply = ask(app, f"/api/models/{REPO}/tree/v1/build")
        return [entry["path"] for entry in reply.json] if reply.status == 200 else []
    finally:
        mirror.close()


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def opened(site: Site) -> None:
    ann, bob = approver(site, "ann"), approver(site, "bob")
    assert site.kgate("break-glass", "ask", REPO, *ASK) == 0
    assert site.kgate("break-glass", "approve", REPO, "--key", ann, "--yes") == 0
    assert site.kgate("break-glass", "approve", REPO, "--key", bob, "--yes") == 0


def test_a_denied_kernel_is_served_and_loads_until_the_end(
    denied: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    ann, bob = approver(denied, "ann"), approver(denied, "bob")
    assert denied.kgate("break-glass", "ask", f"{REPO}@v1", *ASK) == 0
    assert "Two holders of the role approve sign" in capsys.readouterr().out
    assert denied.publications() == []
    assert denied.kgate("break-glass", "approve", REPO, "--key", ann, "--yes") == 0
    assert "one more approver is needed" in capsys.readouterr().out
    assert denied.publications() == []
    assert denied.kgate("break-glass", "approve", REPO, "--key", bob, "--yes") == 0
    assert "is let in until" in capsys.readouterr().out
    found = verdict(denied, "experimental")
    assert isinstance(found, Verified)
    assert found.break_glass is not None
    assert found.break_glass.requested_by == "carol"
    assert served_variants(denied) == [f"build/{VARIANT}"]
    # It ends by itself, in the mirror and in pods.
    assert served_variants(denied, hours=8) == []
    assert isinstance(verdict(denied, "experimental", hours=8), Rejected)


def test_while_it_lasts_everything_reports_it_and_the_denial_stands(
    denied: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    opened(denied)
    capsys.readouterr()
    assert denied.kgate("sync", "--json") == 1
    report = printed(capsys)
    (glass,) = report["breakGlass"]
    assert (glass["requestedBy"], glass["reason"]) == ("carol", REASON)
    assert denied.kgate("sync") == 1
    assert "break-glass: kernels-community/gelu-and-mul@" in capsys.readouterr().out
    assert denied.kgate("break-glass", "list", "--json") == 0
    (listed,) = printed(capsys)["requests"]
    assert listed["letsIn"]
    assert len(listed["signers"]) == 3
    until = read_time(listed["until"], what="until") - read_time(listed["granted"], what="granted")
    assert until == timedelta(hours=8)
    assert denied.kgate("verify", REPO) == 1
    said = capsys.readouterr().out
    assert "9. ok   break-glass: until" in said
    assert "denied, not signed" in said
    # Syncing again and signing everything anew take nothing away and add nothing.
    assert denied.kgate("keys", "rotate", "admit", "--resign") == 0
    assert isinstance(verdict(denied, "experimental"), Verified)


def test_the_missing_approval_of_the_production_lane_is_stood_in_for(
    tmp_path: Path, cache: Path
) -> None:
    site = Site.found(tmp_path / "site", CONNECTED, kernels=built_kernels(cache))
    text = site.config.read_text(encoding="utf-8")
    text = text.replace("version: 1}", "version: 1, lane: production}")
    site.config.write_text(text, encoding="utf-8")
    ann, bob = approver(site, "ann"), approver(site, "bob")
    # The lane wants a third person, who is away.
    away = FileKey.generate()
    public = site.folder / "away.pub.pem"
    public.write_text(away.public_key().pem, encoding="ascii")
    assert site.kgate("keys", "add", "approve", str(public)) == 0
    assert site.kgate("trust", "update") == 0
    site.sync()
    assert isinstance(verdict(site, "production"), Rejected)
    assert site.kgate("break-glass", "ask", REPO, *ASK) == 0
    for key in (ann, bob):
        assert site.kgate("break-glass", "approve", REPO, "--key", key, "--yes") == 0
    found = verdict(site, "production")
    assert isinstance(found, Verified)
    assert found.break_glass is not None
    assert found.break_glass.overrules == ("approve",)
    # The pipeline's renewal keeps it; its end takes it away.
    assert site.kgate("keys", "rotate", "admit", "--resign") == 0
    assert isinstance(verdict(site, "production"), Verified)
    assert isinstance(verdict(site, "production", hours=8), Rejected)


def test_one_person_cannot_do_it(denied: Site, capsys: pytest.CaptureFixture[str]) -> None:
    ann = approver(denied, "ann")
    assert denied.kgate("break-glass", "ask", REPO, *ASK, "--key", ann) == 0
    assert denied.kgate("break-glass", "approve", REPO, "--key", ann, "--yes") == 1
    assert "has signed" in capsys.readouterr().err
    admit = f"file:{denied.folder}/keys/admit.pem"
    assert denied.kgate("break-glass", "approve", REPO, "--key", admit, "--yes") == 4
    assert "approves nothing in lane experimental" in capsys.readouterr().err
    assert denied.publications() == []


def test_what_is_revoked_is_not_asked_for_and_not_let_in(
    denied: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    opened(denied)
    (digest,) = denied.manifests()
    assert denied.kgate("revoke", str(digest), "--reason", "CVE-1") == 0
    assert served_variants(denied) == []
    found = verdict(denied, "experimental")
    assert isinstance(found, Rejected)
    assert found.reason is Reason.REVOKED
    shutil.rmtree(denied.folder / "policy" / "break-glass")
    capsys.readouterr()
    assert denied.kgate("break-glass", "ask", REPO, *ASK) == 1
    assert "no break-glass statement overrules this" in capsys.readouterr().err


def test_a_request_that_somebody_wrote_into_is_not_signed(
    denied: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    from dataclasses import replace

    from kgate_core.statement import Statement
    from kgate_mirror_server.trust import breakglass
    from kgate_signer.sign import sign_statement

    ann = approver(denied, "ann")
    assert denied.kgate("break-glass", "ask", REPO, *ASK) == 0
    mirror = denied.mirror()
    try:
        (request,) = breakglass.requests(mirror, time_now())
        forged = replace(
            request.glass, overrules=("licence-known",), depends=(request.glass.manifest,)
        )
        statement = Statement.of(request.statement.subjects, PREDICATE_TYPE, forged.to_predicate())
        signed = sign_statement(statement, mirror.key(mirror.config.keys.admit))
    finally:
        mirror.close()
    request.path.write_bytes(signed + b"\n")
    assert denied.kgate("break-glass", "approve", REPO, "--key", ann, "--yes") == 1
    assert "says something else than the stored evidence" in capsys.readouterr().err
    request.path.write_bytes(request.bundles[0] + b"\n" + signed + b"\n")
    assert denied.kgate("break-glass", "list") == 4
    assert "are not over one statement" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("ask", "acme/none", *ASK), 1, "is not in the catalog"),
        (("approve", REPO, "--yes"), 1, "nobody asked to break the glass"),
        (("approve", REPO), 1, "nobody asked to break the glass"),
        (("ask", REPO, "--hours", "73", *ASK[2:]), 2, "73 is not in the range"),
        (("ask", REPO, "--hours", "8", "--reason", "now", *ASK[4:]), 4, "at least 12 characters"),
        (("ask", REPO, *ASK, "--key", "file:stranger.pem"), 4, "is none of this site's"),
    ],
)
def test_what_is_wrong_is_said(
    denied: Site,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    write_private_file(denied.folder / "stranger.pem", FileKey.generate().to_pem(None))
    assert denied.kgate("break-glass", *words) == code
    assert said in capsys.readouterr().err


OTHER = "torch-cuda"


def test_a_decision_that_changes_meanwhile_does_not_take_the_opened_variant_away(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One variant is allowed, the other denied and let in; then everything is decided anew."""
    site = Site.found(tmp_path / "site", CONNECTED, kernels=built_kernels(cache))
    other = site.variant.with_name(OTHER)
    shutil.copytree(site.variant, other)
    document = json.loads((other / "metadata.json").read_text(encoding="utf-8"))
    del document["license"]
    (other / "metadata.json").write_text(json.dumps(document), encoding="utf-8")
    redigest(other)
    result = site.sync()
    assert (result.approved, result.denied) == (1, 1)
    opened(site)
    both = sorted([f"build/{VARIANT}", f"build/{OTHER}"])
    assert sorted(served_variants(site)) == both
    # The same rules under another name are another policy: everything is decided and signed anew.
    policy = site.folder / "policy" / "baseline.yaml"
    policy.write_text(policy.read_text(encoding="utf-8") + "# reviewed\n", encoding="utf-8")
    assert site.kgate("trust", "update") == 0
    capsys.readouterr()
    result = site.sync()
    assert (result.approved, result.denied, len(result.glass)) == (1, 1, 1)
    assert result.closed == []
    assert sorted(served_variants(site)) == both
    assert served_variants(site, hours=8) == [f"build/{VARIANT}"]


def test_the_publication_log_has_what_was_let_in_at_once(denied: Site) -> None:
    pinned = denied.root.read_bytes()
    opened(denied)
    mirror = denied.mirror()
    try:
        trusted = mirror.trusted(time_now())
        entries = check_log(mirror, trusted)
    finally:
        mirror.close()
    (digest,) = denied.manifests()
    assert [tuple(entry.published.variants.values()) for entry in entries] == [(digest,)]
    seen = load(pinned, read_trust(denied.root.parent).since(1), now=time_now())
    assert seen.log_head == trusted.log_head


def test_without_the_key_of_the_log_the_entry_waits_for_the_next_sync(
    denied: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    ann, bob = approver(denied, "ann"), approver(denied, "bob")
    assert denied.kgate("break-glass", "ask", REPO, *ASK) == 0
    assert denied.kgate("break-glass", "approve", REPO, "--key", ann, "--yes") == 0
    admit = denied.folder / "keys" / "admit.pem"
    away = admit.rename(admit.with_suffix(".away"))
    assert denied.kgate("break-glass", "approve", REPO, "--key", bob, "--yes") == 0
    assert "gets its entry at the next `kgate sync`" in capsys.readouterr().err
    away.rename(admit)
    denied.sync()
    mirror = denied.mirror()
    try:
        assert len(check_log(mirror, mirror.trusted(time_now()))) == 1
    finally:
        mirror.close()
