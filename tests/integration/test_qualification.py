"""A result on its way into a decision: submitted or accepted, kept, decided with, signed, shown."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from kgate_cli.main import main
from kgate_cli.qualifying import submit
from kgate_core.errors import InvalidInput, NotFound
from kgate_mirror_server.catalog.tokens import SqlTokens
from kgate_mirror_server.examples import default_cache
from kgate_mirror_server.ports import EvidenceKind
from kgate_mirror_server.trust.update import apply_update, plan_update
from tests.ingestkit import make_site, now
from tests.mirrorkit import served
from tests.repos import copy_repo
from tests.sitekit import built_kernels

if TYPE_CHECKING:
    from pathlib import Path

    from tests.ingestkit import Site

REPO = "kernels-community/gelu-and-mul"
STRICT = """\
lanes:
  proven: {policy: policy/proven.yaml}
"""
SMALL = {
    "schema": "kgate.dev/qualification-cases/v1",
    "name": "small",
    "cases": [
        {
            "function": "gelu_and_mul",
            "reference": "gelu_and_mul",
            "call": ["out", "x"],
            "shapes": [{"x": [4, 256], "out": [4, 128]}],
            "dtypes": ["float32"],
        }
    ],
}
PROVEN = """\
apiVersion: kgate.dev/v1
kind: Policy
name: proven
extends: dev
rules: {qualified: deny}
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    copy_repo(built_kernels(default_cache(os.environ)), tmp_path / "built" / REPO)
    made = make_site(tmp_path / "site", str(tmp_path / "built"))
    (made.folder / "policy" / "proven.yaml").write_text(PROVEN, encoding="utf-8")
    text = made.config_path.read_text(encoding="utf-8")
    text = text.replace("\nserve:\n", "\nserve:\n  tokens: true\n")
    made.config_path.write_text(text + STRICT, encoding="utf-8")
    made.pin(f"repo: {REPO}, version: 1, lane: proven")
    with made.mirror() as mirror:
        lanes, _ = plan_update(mirror, now(), only=False)
        apply_update(mirror, lanes, now())
    return made


def result_for(manifest: str, **changes: Any) -> dict[str, Any]:
    return {
        "schema": "kgate.dev/qualification/v1",
        "manifest": manifest,
        "passed": True,
        "finishedAt": "2026-11-21T08:00:00Z",
        "submitter": {"name": "lab@example.org"},
        "gpu": "NVIDIA H200",
        "speedupPpm": 1_500_000,
        **changes,
    }


def denied(site: Site) -> tuple[str, set[str]]:
    """Sync; return the one variant's manifest and the rules that deny it."""
    (variant,) = site.sync().kernels[0].variants
    return str(variant.manifest), {rule.rule for rule in variant.reasons}


def test_a_lane_that_asks_for_a_result_denies_until_one_is_accepted(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, rules = denied(site)
    assert rules == {"qualified"}
    file = tmp_path / "result.json"
    file.write_text(json.dumps(result_for(manifest)), encoding="utf-8")
    assert main(["qualify", "accept", str(file), "--config", str(site.config_path)]) == 0
    assert "lab@example.org" in capsys.readouterr().out

    assert denied(site) == (manifest, set())
    with site.mirror() as mirror:
        (publication,) = mirror.catalog.publications()
        (variant,) = publication.variants
        kept = json.loads(mirror.room.read(variant.evidence[EvidenceKind.QUALIFICATION]))
    assert kept["submitter"]["name"] == "lab@example.org"
    assert "@" in kept["submitter"]["acceptedBy"]
    assert not site.sync().kernels[0].fresh, "nothing is new the second time"

    config = ["--config", str(site.config_path)]
    assert main(["verify", f"{REPO}@v1", *config]) == 0
    assert "ok   https://kgate.dev/qualification/v1" in capsys.readouterr().out
    assert main(["show", f"{REPO}@v1", *config]) == 0
    shown = capsys.readouterr().out
    assert "numbers equal, 150 % of the fallback's speed on NVIDIA H200" in shown
    assert "says lab@example.org" in shown


@pytest.mark.parametrize(
    "change", [{"passed": False}, {"speedupPpm": 900_000}], ids=["wrong", "slow"]
)
def test_a_newer_result_that_says_no_takes_the_permission_away(
    site: Site, tmp_path: Path, change: dict[str, Any]
) -> None:
    manifest, _ = denied(site)
    file = tmp_path / "result.json"
    file.write_text(json.dumps(result_for(manifest, **change)), encoding="utf-8")
    assert main(["qualify", "accept", str(file), "--config", str(site.config_path)]) == 0
    assert denied(site) == (manifest, {"qualified"})


MISTAKES: tuple[dict[str, Any], ...] = (
    {"manifest": "sha256:" + "0" * 64},
    {"schema": "other"},
    {"submitter": {"name": " "}},
    {"passed": "yes"},
    {"speedupPpm": "fast"},
    {"finishedAt": "yesterday"},
)


def test_what_is_no_result_or_about_unknown_bytes_is_not_taken(site: Site, tmp_path: Path) -> None:
    manifest, _ = denied(site)
    file = tmp_path / "result.json"
    for change in MISTAKES:
        file.write_text(json.dumps(result_for(manifest) | change), encoding="utf-8")
        assert main(["qualify", "accept", str(file), "--config", str(site.config_path)]) in {1, 4}
    assert denied(site) == (manifest, {"qualified"})


def test_a_token_that_may_submits_and_its_name_is_what_counts(site: Site) -> None:
    manifest, _ = denied(site)
    with site.mirror() as mirror:
        tokens = SqlTokens(mirror.catalog.engine)
        made = {
            name: tokens.create(name, repos, (), now=now(), expires_at=None, may=may)[0]
            for name, repos, may in (
                ("gpu-lab", ["*/*"], ["qualify"]),
                ("reader", ["*/*"], []),
                ("others", ["acme/*"], ["qualify"]),
            )
        }
        settings = mirror.serve_settings()
    result = result_for(manifest, submitter={"name": "somebody else"})
    with served(settings) as url:
        for name in ("reader", None):
            with pytest.raises(InvalidInput, match="may qualify"):
                submit(url, made[name] if name else None, result, None)
        with pytest.raises(NotFound, match="manifest"):
            submit(url, made["others"], result, None)
        with pytest.raises(InvalidInput, match="body"):
            submit(url, made["gpu-lab"], result | {"note": "x" * 2**20}, None)
        assert submit(url, made["gpu-lab"], result, None) == "gpu-lab"
    assert denied(site) == (manifest, set())
    with site.mirror() as mirror:
        (publication,) = mirror.catalog.publications()
        digest = publication.variants[0].evidence[EvidenceKind.QUALIFICATION]
        kept = json.loads(mirror.room.read(digest))
    assert kept["submitter"] == {"name": "gpu-lab", "said": "somebody else"}


def test_a_pods_machine_tries_what_the_gate_let_through_and_submits_it(
    site: Site,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    site.pin(f"repo: {REPO}, version: 1")  # into a lane that does not ask
    assert denied(site)[1] == set()
    with site.mirror() as mirror:
        tokens = SqlTokens(mirror.catalog.engine)
        token, _ = tokens.create("lab", ["*/*"], (), now=now(), expires_at=None, may=["qualify"])
        settings = mirror.serve_settings()
    file = tmp_path / "cases.json"
    file.write_text(json.dumps(SMALL), encoding="utf-8")
    with served(settings) as url:
        for name, value in {
            "HF_ENDPOINT": url,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_TOKEN": token,
            "KGATE_TRUST_ROOT": str(site.folder / "trust" / "root.json"),
        }.items():
            monkeypatch.setenv(name, value)
        words = ["qualify", f"{REPO}@v1", "--cases", str(file), "--no-speed", "--submit", url]
        code = main([*words, "--json"])
        shown = json.loads(capsys.readouterr().out)
    assert code == 0, shown
    assert shown["submittedAs"] == "lab"
    kernel = shown["result"]["kernel"]
    assert (kernel["repo"], kernel["variant"], kernel["verified"]) == (REPO, "torch-cpu", True)
    site.sync()
    with site.mirror() as mirror:
        (publication,) = mirror.catalog.publications()
        digest = publication.variants[0].evidence[EvidenceKind.QUALIFICATION]
        kept = json.loads(mirror.room.read(digest))
    assert kept["host"] == shown["result"]["host"]
