"""Fetching, signing and serving by three users: each without what only the others may have."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kgate_core import strictjson
from kgate_core.bundle import Bundle
from kgate_core.evidence import Outcome
from kgate_core.kernel import KernelId
from kgate_core.statement import Statement
from kgate_core.vsa import PREDICATE_TYPE as VSA_TYPE
from kgate_mirror_server.hubsim import HubSimulator
from kgate_mirror_server.models.rules import judge
from kgate_mirror_server.ports import EvidenceKind, IntakeState
from kgate_signer.keys import FileKey
from kgate_signer.predicates import IMPORT_TYPE, SBOM_TYPE
from tests.sitekit import CONNECTED, REPO, UPSTREAM, VARIANT, Site, built_kernels, time_now

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def site(tmp_path: Path, cache: Path) -> Site:
    return Site.found(tmp_path / "site", CONNECTED, kernels=built_kernels(cache))


INGEST, SIGNER, GROUP = 4101, 4102, 4100  # no user of this machine


def share_with_group(site: Site) -> None:
    """Give a site's folders to a group in which both users are, as docs/signing.md says."""
    for path in (site.folder, *site.folder.rglob("*")):
        os.chown(path, 0, GROUP)
        path.chmod(0o2770 if path.is_dir() else 0o660)


@pytest.fixture
def shared(cache: Path) -> Iterator[Site]:
    """A site where other users get to: pytest's own folders are closed to them."""
    with tempfile.TemporaryDirectory(prefix="kgate-users-") as name:
        Path(name).chmod(0o711)
        made = Site.found(Path(name) / "site", CONNECTED, kernels=built_kernels(cache))
        share_with_group(made)
        yield made


def interpreter() -> str:
    """Return a Python of this version that other users of the machine may run too."""
    for found in (sys.executable, f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"):
        try:
            subprocess.run([found, "-c", ""], user=INGEST, group=INGEST, check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return found
    pytest.fail("no Python of this version can be run by other users: install the system's own")


def run_as(user: int, site: Site, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command as another user of the system, in a process of its own."""
    command = [interpreter(), "-c", "from kgate_cli.entry import main; raise SystemExit(main())"]
    command += [*words, "--config", str(site.config)]
    return subprocess.run(
        command,
        user=user,
        group=user,
        extra_groups=[GROUP],
        umask=0o007,
        cwd=site.folder,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(site.folder),
            "PYTHONPATH": os.pathsep.join(
                name for name in sys.path if not name.startswith(sys.base_prefix)
            ),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def lay(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


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


WEIGHTS = {"config.json": b'{"model_type": "tiny"}', "model.safetensors": b"safe" * 5000}
PICKLED = {"config.json": b'{"model_type": "tiny"}', "pytorch_model.bin": b"\x80\x04owned"}


def test_models_wait_for_the_signer_too_who_judges_them_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with HubSimulator() as hub:
        good = hub.publish("acme/tiny", lay(tmp_path / "tiny", WEIGHTS), branch="main")
        made = Site.found(tmp_path / "site", CONNECTED)
        text = made.config.read_text(encoding="utf-8").replace(f"./{UPSTREAM}", hub.url)
        pins = {"mirror": [{"repo": "acme/tiny", "revision": good}]}
        made.config.write_text(f"{text}\nmodels: {json.dumps(pins)}\n", encoding="utf-8")
        assert made.kgate("trust", "update") == 0
        assert made.kgate("lock") == 0
        assert made.kgate("sign") == 1
        assert "what it asks for is not stored" in capsys.readouterr().err
        capsys.readouterr()
        assert as_ingest(made, "sync", "--no-sign") == 0
        said = capsys.readouterr().out
        assert "acme/tiny" in said
        assert "approved, to be signed" in said
        assert "kgate sign" in said
        assert made.publications() == []
    # The hub is gone: whoever signs reaches no upstream.
    assert made.kgate("sign") == 0
    assert "approved, signed" in capsys.readouterr().out
    (publication,) = made.publications()
    assert str(publication.repo) == "acme/tiny"
    assert {file.path for file in publication.variants[0].files} == set(WEIGHTS)
    assert made.kgate("sign") == 0
    assert [item.served for item in made.publications()] == [publication.served]


def test_a_model_that_the_rules_refuse_is_not_signed_whatever_was_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HubSimulator() as hub:
        commit = hub.publish("acme/tiny", lay(tmp_path / "tiny", PICKLED), branch="main")
        made = Site.found(tmp_path / "site", CONNECTED)
        text = made.config.read_text(encoding="utf-8").replace(f"./{UPSTREAM}", hub.url)
        pins = {
            "mirror": [{"repo": "acme/tiny", "revision": commit}],
            "strict_lanes": ["experimental"],
        }
        made.config.write_text(f"{text}\nmodels: {json.dumps(pins)}\n", encoding="utf-8")
        assert made.kgate("trust", "update") == 0
        assert made.kgate("lock") == 0
        # Whoever fetches is taken over: everything that comes in is found harmless.
        with monkeypatch.context() as taken:
            harmless = judge(["model.safetensors"], {}, strict=True)
            taken.setattr("kgate_mirror_server.models.intake.judge", lambda *_, **__: harmless)
            assert as_ingest(made, "sync", "--no-sign") == 0
    assert made.kgate("sign") == 1
    assert made.publications() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become two other users")
def test_two_users_of_the_system_share_a_site_and_neither_has_what_is_the_others(
    shared: Site,
) -> None:
    """Ingest (uid 4101) cannot read a key, the signer (uid 4102) cannot read what is upstream."""
    site = shared
    keys, upstream = site.folder / "keys", site.folder / UPSTREAM
    for path, owner in ((keys, SIGNER), (upstream, INGEST)):
        for each in (path, *path.rglob("*")):
            os.chown(each, owner, owner)
        path.chmod(0o700)
    for key in keys.iterdir():
        key.chmod(0o600)
    fetched = run_as(INGEST, site, "sync", "--no-sign")
    assert fetched.returncode == 0, fetched.stderr
    assert "approved, to be signed" in fetched.stdout
    # Each tries what is the other's.
    assert run_as(INGEST, site, "sign").returncode == 4
    refused = run_as(SIGNER, site, "sync")
    assert refused.returncode in {1, 3, 4}, refused.stderr
    assert site.publications() == []
    signed = run_as(SIGNER, site, "sign")
    assert signed.returncode == 0, signed.stderr
    assert "approved, signed" in signed.stdout
    (publication,) = site.publications()
    assert [item.variant for item in publication.variants] == [VARIANT]
    # And on it goes, in turns: what one writes the other can read and replace.
    site.add_file("more.py", b"MORE = 1\n")
    for path in upstream.rglob("*"):
        os.chown(path, INGEST, INGEST)
    assert run_as(INGEST, site, "lock", "--upgrade", REPO).returncode == 0
    assert run_as(INGEST, site, "sync", "--no-sign").returncode == 0
    assert run_as(SIGNER, site, "sign").returncode == 0
    assert len(site.publications()) == 2
    owners = {path.stat().st_uid for path in (site.folder / "kgate-data").rglob("*")}
    assert {INGEST, SIGNER} <= owners
    for path in keys.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
