"""The commands over a small site: what they print, and which code they end with."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from kgate_cli.main import main
from kgate_mirror_server.examples import default_cache
from kgate_mirror_server.examples.build import build_gelu_and_mul
from tests import repos
from tests.ingestkit import make_site

if TYPE_CHECKING:
    from pathlib import Path

    from tests.ingestkit import Site

REPO = "kernels-community/gelu-and-mul"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site with one admitted kernel and one that is denied for its module name."""
    folder = tmp_path_factory.mktemp("cli")
    built = build_gelu_and_mul(default_cache(os.environ), native=False, cuda=False)
    repos.copy_repo(built, folder / "built" / REPO)
    bad = repos.copy_repo(built, folder / "built" / "acme" / "json-kernel")
    for variant in repos.variants(bad):
        repos.take_module_name(variant)
    made = make_site(folder / "site", str(folder / "built"))
    made.pin(f"repo: {REPO}, version: 1", "repo: acme/json-kernel, version: 1")
    made.sync()
    return made


def run(site: Site, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main([*arguments, "--config", str(site.config_path)])
    said = capsys.readouterr()
    return code, said.out, said.err


def run_json(site: Site, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    code, out, _ = run(site, capsys, *words, "--json")
    document = json.loads(out)
    assert next(iter(document)) == "schema"
    assert document["schema"].startswith("kgate.dev/")
    return code, document


def test_init_refuses_to_overwrite(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(site.folder), "--no-passphrase"]) == 1
    assert "overwrites nothing" in capsys.readouterr().err


def test_init_without_a_terminal_wants_to_know_about_the_passphrase(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", str(tmp_path / "new")]) == 2
    assert "--passphrase-file" in capsys.readouterr().err


def test_init_with_a_passphrase_file_encrypts_the_keys_and_later_commands_find_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("correct horse\n")
    secret.chmod(0o600)
    folder = tmp_path / "new"
    assert main(["init", str(folder), "--passphrase-file", str(secret)]) == 0
    assert b"ENCRYPTED" in (folder / "keys" / "admit.pem").read_bytes()
    assert b"ENCRYPTED" not in (folder / "keys" / "timestamp.pem").read_bytes()
    assert main(["trust", "update", "--config", str(folder / "kgate.yaml")]) == 0
    assert "correct horse" not in capsys.readouterr().out


def test_sync_denies_with_the_rule_the_value_and_the_way_out(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(site, capsys, "sync", "--locked")
    assert code == 1
    assert "acme/json-kernel@v1 torch-cpu:" in out
    assert "'json'" in out or "json" in out
    assert "→" in out
    assert "1 approved, 1 denied" in out


def test_sync_says_the_same_as_json(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = run_json(site, capsys, "sync", "--locked")
    assert (code, said["ok"], said["approved"], said["denied"]) == (1, False, 1, 1)
    assert said["fetched_bytes"] == 0


def test_sync_writes_reports(
    site: Site, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run(site, capsys, "sync", "--report-dir", str(tmp_path / "out"))
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["denied"] == 1
    assert len(list((tmp_path / "out" / "sbom").glob("*.cdx.json"))) == 2
    sarif = json.loads((tmp_path / "out" / "report.sarif").read_text(encoding="utf-8"))
    assert "metadata-id-safe" in {result["ruleId"] for result in sarif["runs"][0]["results"]}
    assert "<failure" in (tmp_path / "out" / "junit.xml").read_text(encoding="utf-8")
    assert "acme/json-kernel" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    text = (tmp_path / "out" / "openreports.yaml").read_text(encoding="utf-8")
    assert "openreports.io/v1alpha1" in text


def test_ls_lists_what_is_published_and_what_was_denied(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = run_json(site, capsys, "ls")
    assert code == 0
    assert [item["repo"] for item in said["published"]] == [REPO]
    assert [item["repo"] for item in said["denied"]] == ["acme/json-kernel"]
    assert "published" in run(site, capsys, "ls")[1]


def test_show_tells_everything_about_a_kernel(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = run_json(site, capsys, "show", REPO)
    assert code == 0
    variant = said["published"][0]["variants"]["torch-cpu"]
    assert variant["decision"]["allowed"] is True
    assert {"scan", "findings", "import", "manifest"} <= variant.keys()
    assert variant["manifest"] in run(site, capsys, "show", variant["manifest"])[1]
    assert "denied" in run(site, capsys, "show", "acme/json-kernel")[1]


@pytest.mark.parametrize("command", ["show", "verify", "sbom"])
def test_an_unknown_kernel_is_a_no_with_what_to_do(
    site: Site, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    code, _, err = run(site, capsys, command, "acme/unknown")
    assert code == 1
    assert "kgate ls" in err


@pytest.mark.parametrize("reference", ["relu", "acme/relu@main", "sha256:beef"])
def test_a_malformed_reference_is_refused(
    site: Site, capsys: pytest.CaptureFixture[str], reference: str
) -> None:
    assert run(site, capsys, "show", reference)[0] == 4


def test_sbom_prints_the_stored_bytes(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(site, capsys, "sbom", f"{REPO}@v1")
    assert code == 0
    assert json.loads(out)["bomFormat"] == "CycloneDX"
    assert run_json(site, capsys, "sbom", f"{REPO}@v1")[1]["sbom"] == json.loads(out)


def test_verify_shows_numbered_steps(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = run_json(site, capsys, "verify", f"{REPO}@v1")
    assert code == 0
    steps = said["verdicts"][0]["steps"]
    assert [step["number"] for step in steps] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert all(step["ok"] for step in steps)
    assert "8. ok   roles: admit:" in run(site, capsys, "verify", REPO)[1]
    assert run(site, capsys, "verify", "acme/json-kernel")[0] == 1


def test_verify_notices_a_changed_blob(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    _, said = run_json(site, capsys, "show", REPO)
    files = said["published"][0]["variants"]["torch-cpu"]["import"]["files"]
    hexed = files[0]["digest"].removeprefix("sha256:")
    blob = site.folder / "kgate-data" / "blobs" / "sha256" / hexed[:2] / hexed
    right = blob.read_bytes()
    blob.chmod(0o644)
    try:
        blob.write_bytes(right[:-1] + b"!")
        code, out, _ = run(site, capsys, "verify", REPO)
    finally:
        blob.write_bytes(right)
    assert code == 1
    assert "FAIL bytes" in out


def test_verify_checks_a_directory_as_a_pod_would(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("KGATE_CACHE", str(tmp_path / "cache"))
    variant = site.folder.parent / "built" / REPO / "build" / "torch-cpu"
    root = str(site.folder / "trust" / "root.json")
    assert main(["verify", str(variant), "--root", root, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_lint_finds_an_unpinned_kernel_and_pins_it_from_the_lock(
    site: Site, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    app = tmp_path / "app.py"
    app.write_text(f"from kernels import get_kernel\nk = get_kernel({REPO!r}, revision='main')\n")
    lock = str(site.folder / "kgate.lock")
    assert main(["lint", str(app), "--lock", lock]) == 1
    said = capsys.readouterr().out
    assert f"{app}:2:" in said
    assert main(["lint", str(app), "--lock", lock, "--fix"]) == 0
    assert "main" not in app.read_text(encoding="utf-8")
    assert main(["lint", str(app), "--github"]) == 0


def test_policy_check_and_eval(
    site: Site, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    policy = site.folder / "policy" / "baseline.yaml"
    assert main(["policy", "check", str(policy), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rules"]["pinned-commit"] == "deny"
    assert run_json(site, capsys, "policy", "eval", REPO)[0] == 0
    strict = tmp_path / "strict.yaml"
    text = policy.read_text(encoding="utf-8")
    strict.write_text(
        text.replace("require-upstream-signature: warn", "require-upstream-signature: deny"),
        "utf-8",
    )
    code, out, _ = run(site, capsys, "policy", "eval", REPO, "--policy", str(strict))
    assert code == 1
    assert "deny require-upstream-signature" in out
    code, out, _ = run(site, capsys, "policy", "diff", str(strict))
    assert code == 1
    assert "require-upstream-signature: warn → deny" in out
    code, out, _ = run(site, capsys, "policy", "explain", "acme/json-kernel")
    assert code == 0
    assert "deny metadata-id-safe" in out


def test_trust_shows_lanes_and_refreshes(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    _, before = run_json(site, capsys, "trust", "show")
    assert before["lanes"]["experimental"]["roles"] == {"admit": 1}
    _, after = run_json(site, capsys, "trust", "refresh")
    assert after["versions"]["timestamp"] == before["versions"]["timestamp"] + 1
    assert "1 admit" in run(site, capsys, "trust", "show")[1]


def test_trust_update_names_each_change_and_can_take_it_back(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    text = site.config_path.read_text(encoding="utf-8")
    site.config_path.write_text(text.replace("upstream: ", "upstream: /elsewhere #"), "utf-8")
    try:
        assert "Not signed." in run(site, capsys, "trust", "update", "--dry-run")[1]
        assert "allows kernels from dir:elsewhere" in run(site, capsys, "trust", "update")[1]
    finally:
        site.config_path.write_text(text, encoding="utf-8")
    assert "refuses kernels from dir:elsewhere" in run(site, capsys, "trust", "update", "--only")[1]
    assert "Nothing to change." in run(site, capsys, "trust", "update")[1]


def test_scan_looks_into_a_folder_and_fails_from_a_severity_on(
    site: Site, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    built = site.folder.parent / "built" / REPO
    assert main(["scan", str(built), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert "torch-cpu" in {report["variant"] for report in said["reports"]}
    sarif = tmp_path / "out.sarif"
    assert main(["scan", str(built), "--fail-on", "info", "--sarif", str(sarif)]) == 1
    assert json.loads(sarif.read_text(encoding="utf-8"))["version"] == "2.1.0"
    assert "KERNELS" in capsys.readouterr().out


def test_revoke_and_reinstate(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = run_json(site, capsys, "revoke", f"{REPO}@v1", "--reason", "CVE-2026-31337")
    assert (code, len(said["revoked"])) == (0, 1)
    assert run(site, capsys, "verify", REPO)[0] == 1
    assert "CVE-2026-31337" in run(site, capsys, "verify", REPO)[1]
    assert run(site, capsys, "revoke", REPO, "--reason", "again")[0] == 1
    assert run(site, capsys, "reinstate", REPO)[0] == 0
    assert run(site, capsys, "verify", REPO)[0] == 0
    assert run(site, capsys, "reinstate", REPO)[0] == 1


def test_a_digest_can_be_revoked_before_it_ever_comes_in(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = f"sha256:{'ab' * 32}"
    assert run(site, capsys, "revoke", digest, "--reason", "advisory")[0] == 0
    assert digest in run_json(site, capsys, "trust", "show")[1]["revoked"]["digests"]


def test_without_the_root_key_nothing_is_revoked(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    key = site.folder / "keys" / "root.pem"
    away = key.rename(key.with_suffix(".offline"))
    try:
        code, _, err = run(site, capsys, "revoke", REPO, "--reason", "x")
    finally:
        away.rename(key)
    assert code == 4
    assert "root.pem" in err
    assert run(site, capsys, "verify", REPO)[0] == 0


def test_why_names_the_variant_or_the_rule_in_the_way(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = run_json(site, capsys, "why", REPO, "--torch", "2.13")
    assert (code, said["answers"][0]["loads"]) == (0, "torch-cpu")
    code, out, _ = run(site, capsys, "why", "acme/json-kernel", "--torch", "2.13")
    assert code == 1
    assert "metadata-id-safe" in out
    assert run(site, capsys, "why", REPO, "--torch", "2.13", "--cuda", "13.0")[0] == 1


def test_preflight_names_what_an_upgrade_would_lose(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(site, capsys, "preflight", "--torch", "2.14")[0] == 0
    code, said = run_json(site, capsys, "preflight", "--torch", "2.14", "--cuda", "13.2")
    assert code == 1
    assert {item["kernel"] for item in said["lost"]} == {f"{REPO}@v1", "acme/json-kernel@v1"}


def test_a_machine_with_cuda_and_rocm_is_a_usage_error(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("preflight", "--torch", "2.13", "--cuda", "13.0", "--rocm", "7.1")
    assert run(site, capsys, *words)[0] == 2
