"""Fetching, signing and serving by three users: each without what only the others may have."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kgate_core import strictjson
from kgate_core.bundle import Bundle
from kgate_core.evidence import Outcome
from kgate_core.kernel import KernelId
from kgate_core.statement import Statement
from kgate_core.vsa import PREDICATE_TYPE as VSA_TYPE
from kgate_mirror_server.ports import EvidenceKind, IntakeState
from kgate_signer.keys import FileKey
from kgate_signer.predicates import IMPORT_TYPE, SBOM_TYPE
from tests.sitekit import CONNECTED, REPO, UPSTREAM, VARIANT, Site, built_kernels, time_now

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def site(tmp_path: Path, cache: Path) -> Site:
    return Site.found(tmp_path / "site", CONNECTED, kernels=built_kernels(cache))


def as_ingest(site: Site, *words: str) -> int:
    """Run a command where no key can be read."""
    keys = site.folder / "keys"
    away = keys.rename(site.folder / "keys.away")
    try:
        return site.kgate(*words)
    finally:
        away.rename(keys)


def as_signer(site: Site, *words: str) -> int:
    """Run a command where upstream cannot be reached."""
    upstream = site.folder / UPSTREAM
    away = upstream.rename(site.folder / "away")
    try:
        return site.kgate(*words)
    finally:
        away.rename(upstream)


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_who_fetches_has_no_key_and_who_signs_reaches_no_upstream(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert as_ingest(site, "sync", "--no-sign") == 0
    said = capsys.readouterr().out
    assert "approved, to be signed" in said
    assert "kgate sign" in said
    assert site.publications() == []
    assert as_signer(site, "sign") == 0
    assert "approved, signed" in capsys.readouterr().out
    (publication,) = site.publications()
    assert [item.variant for item in publication.variants] == [VARIANT]
    assert site.kgate("verify", REPO) == 0
    # Nothing is left to do for either, and an ordinary sync agrees.
    before = site.publications()
    assert as_signer(site, "sign") == 0
    assert as_ingest(site, "sync", "--no-sign") == 0
    assert site.kgate("sync", "--locked") == 0
    assert site.publications() == before


def test_the_signer_asks_the_policy_itself_whatever_was_written_down(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    metadata = json.loads((site.variant / "metadata.json").read_text(encoding="utf-8"))
    del metadata["license"]
    site.add_file("metadata.json", json.dumps(metadata).encode())
    assert as_ingest(site, "sync", "--no-sign") == 1
    # Whoever fetches is taken over, and writes a yes where the policy said no.
    mirror = site.mirror()
    try:
        (denial,) = mirror.catalog.denials()
        assert denial.manifest is not None
        kernel = KernelId(
            denial.origin, denial.repo_type, denial.repo, denial.upstream, denial.variant
        )
        said = mirror.room.decision(denial.evidence)
        yes = replace(said, results=tuple(r for r in said.results if r.outcome is Outcome.PASS))
        assert yes.allowed
        forged = {
            **denial.evidence,
            EvidenceKind.DECISION: mirror.room.keep(strictjson.dumps(yes.to_json())),
        }
        mirror.room.remember(
            kernel, denial.lane, denial.manifest, forged, IntakeState.DECIDED, time_now()
        )
    finally:
        mirror.close()
    capsys.readouterr()
    assert as_signer(site, "sign") == 1
    assert "licence" in capsys.readouterr().out
    assert site.publications() == []


def test_what_was_not_brought_in_is_not_signed(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert as_signer(site, "sign") == 1
    assert "there is no kgate.lock" in capsys.readouterr().err
    assert as_ingest(site, "lock") == 0
    assert as_signer(site, "sign") == 1
    assert "kgate sync --no-sign" in capsys.readouterr().err
    assert site.publications() == []


def test_what_was_found_bears_the_ingest_key_and_the_decision_the_admit_key(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert site.kgate("keys", "generate", "ingest", "--no-passphrase") == 0
    text = site.config.read_text(encoding="utf-8")
    text = text.replace("keys:\n", "keys:\n  ingest: file:keys/ingest.pem\n", 1)
    site.config.write_text(text, encoding="utf-8")
    assert site.kgate("sync") == 0
    mirror = site.mirror()
    try:
        (publication,) = mirror.catalog.publications()
        read = [Bundle.parse(mirror.room.read(d)) for d in publication.variants[0].bundles]
    finally:
        mirror.close()
    hints = {
        name: FileKey.from_pem((site.folder / "keys" / f"{name}.pem").read_bytes(), None)
        .public_key()
        .hint
        for name in ("admit", "ingest")
    }
    signed = {Statement.parse(b.envelope.payload).predicate_type: b.hint for b in read}
    assert signed[VSA_TYPE] == hints["admit"]
    assert signed[IMPORT_TYPE] == signed[SBOM_TYPE] == hints["ingest"]
    capsys.readouterr()
    assert site.kgate("verify", REPO, "--json") == 0
    (verdict,) = printed(capsys)["verdicts"]
    by = {item["type"]: item["detail"] for item in verdict["evidence"]}
    assert f"by ingest:{hints['ingest']}" in by[IMPORT_TYPE]
    # An SBOM whose signer is not believed any more and that no decision names is not believed.
    assert all(item["ok"] for item in verdict["evidence"])


@pytest.mark.parametrize(("words", "code"), [(("--no-refresh",), 0), ((), 4)])
def test_who_serves_needs_no_key_if_somebody_else_refreshes(
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    code: int,
) -> None:
    assert site.kgate("sync") == 0
    started: list[object] = []

    def run(_settings: object, *, refresh: object, **_others: object) -> None:
        started.append(refresh)

    monkeypatch.setattr("kgate_mirror_server.serve.server.run", run)
    assert as_ingest(site, "serve", *words) == code
    assert started == ([None] if code == 0 else [])
