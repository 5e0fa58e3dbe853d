"""`kgate attest` and `kgate verify --keyless` against a private Sigstore on loopback."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from kgate_core.bundle import Bundle
from tests.sigstoreservers import ACCOUNT, PROVIDER, Services
from tests.sitekit import CONNECTED, REPO, Site, built_kernels
from tests.tsakit import LocalAuthority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with Services(LocalAuthority(tmp_path_factory.mktemp("tsa"))).served() as served:
        yield served


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Site:
    kernels = built_kernels(tmp_path_factory.mktemp("cache"))
    site = Site.found(tmp_path_factory.mktemp("sites") / "site", CONNECTED, kernels=kernels)
    site.sync()
    return site


@pytest.fixture
def site(built: Site, services: Services, tmp_path: Path) -> Site:
    """A synced site that names the private Sigstore and believes its own service account."""
    copy = Site(tmp_path / "site")
    shutil.copytree(built.folder, copy.folder)
    (copy.folder / "sigstore.json").write_bytes(services.trust_config(2))
    configure(copy, f"identities: [{{issuer: '{PROVIDER}', name: '{ACCOUNT}'}}]")
    return copy


def configure(site: Site, *fields: str) -> None:
    text = site.config.read_text(encoding="utf-8").partition("\nsigning:")[0]
    lines = "".join(f"    {field}\n" for field in ("trust_config: sigstore.json", *fields))
    site.config.write_text(f"{text}\nsigning:\n  keyless:\n{lines}", encoding="utf-8")


@pytest.fixture
def job(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a CI job whose runner hands out identity tokens."""
    for name, value in services.job.items():
        monkeypatch.setenv(name, value)


def attested(site: Site, folder: Path) -> Path:
    assert site.kgate("attest", REPO, "--out", str(folder)) == 0
    (path,) = folder.iterdir()
    return path


@pytest.mark.usefixtures("job")
def test_a_ci_job_signs_the_decision_and_anybody_checks_it_offline(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = attested(site, tmp_path / "keyless")
    assert "--torch-cpu--experimental.sigstore.json" in path.name
    assert site.kgate("verify", REPO, "--keyless", str(path)) == 0
    assert f"by {ACCOUNT} of {PROVIDER}" in capsys.readouterr().out
    # The exact bytes that the site's own key signed, with a certificate instead of a hint.
    document = json.loads(path.read_bytes())
    assert "certificate" in document["verificationMaterial"]
    mirror = site.mirror()
    try:
        (publication,) = mirror.catalog.publications()
        keyed = Bundle.parse(mirror.room.read(publication.variants[0].bundles[0]))
    finally:
        mirror.close()
    assert document["dsseEnvelope"]["payload"] in keyed.to_bytes().decode()


@pytest.mark.usefixtures("job")
def test_an_identity_that_nobody_named_is_not_believed(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = attested(site, tmp_path / "keyless")
    asked = ("verify", REPO, "--keyless", str(path))
    assert site.kgate(*asked, "--identity", "somebody", "--issuer", PROVIDER) == 1
    assert "REJECTED" in capsys.readouterr().out
    assert site.kgate(*asked, "--identity", ACCOUNT, "--issuer", PROVIDER) == 0
    assert site.kgate(*asked, "--identity", ACCOUNT) == 2
    configure(site)
    assert site.kgate(*asked) == 4
    assert "signing.keyless.identities" in capsys.readouterr().err


@pytest.mark.usefixtures("job")
def test_a_bundle_over_another_decision_is_rejected(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = attested(site, tmp_path / "keyless")
    site.add_file("more.py", b"MORE = 1\n")
    site.sync()
    (tmp_path / "new").mkdir()
    capsys.readouterr()
    assert site.kgate("verify", f"{REPO}@v1", "--keyless", str(path), "--json") == 1
    (said,) = json.loads(capsys.readouterr().out)["keyless"]
    assert said["detail"] == "it signs another decision than the one published here"


def test_a_service_account_signs_with_the_token_that_the_cluster_projects(
    site: Site, services: Services, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token = tmp_path / "token"
    configure(
        site,
        f"token: file:{token}",
        f"identities: [{{issuer: '{PROVIDER}', name: '{ACCOUNT}'}}]",
    )
    assert site.kgate("attest", REPO, "--out", str(tmp_path / "none")) == 4
    assert "project a service account token" in capsys.readouterr().err
    token.write_text(" \n", encoding="ascii")
    assert site.kgate("attest", REPO, "--out", str(tmp_path / "none")) == 4
    token.write_text(services.token() + "\n", encoding="ascii")
    path = attested(site, tmp_path / "keyless")
    assert site.kgate("verify", REPO, "--keyless", str(path)) == 0


@pytest.mark.parametrize("variable", ["SIGSTORE_ID_TOKEN"])
def test_a_gitlab_job_signs_with_the_token_in_its_environment(
    site: Site,
    services: Services,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.setenv("GITLAB_CI", "true")
    monkeypatch.setenv(variable, services.token())
    path = attested(site, tmp_path / "keyless")
    assert site.kgate("verify", REPO, "--keyless", str(path)) == 0


def test_what_is_missing_is_said(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GITHUB_ACTIONS", "GITLAB_CI", "CIRCLECI", "BUILDKITE"):
        monkeypatch.delenv(name, raising=False)
    out = str(tmp_path / "keyless")
    assert site.kgate("attest", REPO, "--out", out) == 4
    assert "vouches for an identity" in capsys.readouterr().err
    assert site.kgate("attest", "acme/none", "--out", out) == 1
    configure(site, "token: eyJhbGciOi")
    assert site.kgate("attest", REPO, "--out", out) == 4
    said = capsys.readouterr().err
    assert "never the token itself" in said
    assert "eyJhbGciOi" not in said
    configure(site)
    (site.folder / "sigstore.json").unlink()
    assert site.kgate("attest", REPO, "--out", out) == 4
    assert "sigstore.json cannot be read" in capsys.readouterr().err
    site.config.write_text(
        site.config.read_text(encoding="utf-8").partition("\nsigning:")[0] + "\n", encoding="utf-8"
    )
    assert site.kgate("attest", REPO, "--out", out) == 4
    assert "names no Sigstore" in capsys.readouterr().err
