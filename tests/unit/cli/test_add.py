"""`kgate add`: a proposal with its card, and a pin more in kgate.yaml."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from kgate_cli.main import main
from kgate_core.errors import InvalidInput
from kgate_mirror_server.examples import default_cache
from kgate_mirror_server.examples.build import build_gelu_and_mul
from kgate_mirror_server.ingest.proposal import pin_text, with_pin
from kgate_mirror_server.settings.site import Pin, load_config
from tests import repos
from tests.ingestkit import make_site

if TYPE_CHECKING:
    from pathlib import Path

    from tests.ingestkit import Site

REPO = "kernels-community/gelu-and-mul"
PIN = Pin(repo="acme/relu", version=2, variants=("torch-*", "*"), lane="canary")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    built = build_gelu_and_mul(default_cache(os.environ), native=False, cuda=False)
    repos.copy_repo(built, tmp_path / "built" / REPO)
    bad = repos.copy_repo(built, tmp_path / "built" / "acme" / "json-kernel")
    needy = repos.copy_repo(built, tmp_path / "built" / "acme" / "needy")
    for variant in repos.variants(bad):
        repos.take_module_name(variant)
    for variant in repos.variants(needy):
        repos.edit_metadata(variant, kernel_depends=[{"repo-id": REPO, "version": 1}])
        repos.redigest(variant)
    return make_site(tmp_path / "site", str(tmp_path / "built"))


def add(site: Site, *words: str) -> int:
    return main(["add", *words, "--config", str(site.config_path)])


def test_a_proposal_is_a_card_and_publishes_and_writes_nothing(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    before = site.config_path.read_bytes()
    assert add(site, REPO) == 0
    out = capsys.readouterr().out
    assert f"### {REPO}" in out
    assert "| publisher | kernels-community |" in out
    assert f"- repo: {REPO}\n  version: 1\n" in out
    assert site.config_path.read_bytes() == before
    with site.mirror() as mirror:
        assert not mirror.catalog.publications()
        assert not mirror.catalog.denials()


def test_what_is_written_can_be_synced(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert add(site, REPO, "--variants", "torch-*", "--write", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["written"], said["card"]["variants"]) == (True, ["torch-cpu"])
    (pin,) = load_config(site.config_path).kernels
    assert (pin.repo, pin.version, pin.variants) == (REPO, 1, ("torch-*",))
    assert site.sync().approved == 1
    assert add(site, REPO, "--version", "1") == 1
    assert "pinned in lane experimental already" in capsys.readouterr().err


def test_a_kernel_that_would_be_denied_says_why(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert add(site, "acme/json-kernel") == 1
    assert "`metadata-id-safe`" in capsys.readouterr().out


def test_a_kernel_whose_dependency_is_not_pinned_says_so(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert add(site, "acme/needy") == 1
    assert f"acme/needy@v1 → {REPO}@v1 is not pinned" in capsys.readouterr().out
    assert add(site, REPO, "--write") == 0
    assert add(site, "acme/needy") == 0


def test_a_version_or_repository_that_is_not_there_is_a_no(site: Site) -> None:
    assert add(site, REPO, "--version", "9") == 1
    assert add(site, "acme/nothing") == 1


HEAD = "apiVersion: kgate.dev/v1\nupstream: ./built\n"
ITEM = pin_text(PIN)
FILES = [
    HEAD,
    HEAD + "kernels:\nsite: https://a.test\n",
    HEAD + "kernels:   # none yet\n",
    HEAD + "kernels: []   # none yet\n# a comment\nsite: https://a.test\n",
    HEAD + "kernels:\n- repo: a/b\n  version: 1   # why\n\n# more\nsite: https://a.test\n",
    HEAD + "kernels:\n    - repo: a/b\n      version: 1\n      variants: ['x', 'y']\n",
    HEAD + "kernels:\n  - {repo: a/b, version: 1}\n  # the end\n",
    HEAD + "kernels: [{repo: a/b, version: 1}]\nsite: https://a.test\n",
    HEAD + "kernels:\n  - repo: a/b\n    version: 1",
]


@pytest.mark.parametrize("text", FILES)
def test_a_pin_is_added_and_nothing_else_changes(text: str, tmp_path: Path) -> None:
    path = tmp_path / "kgate.yaml"
    path.write_text(with_pin(text, PIN), encoding="utf-8")
    config = load_config(path)
    assert config.kernels[-1] == PIN
    assert len(config.kernels) == 1 + text.count("a/b")
    comments = [line.partition("#")[2] for line in text.splitlines() if "#" in line]
    assert all(comment in path.read_text(encoding="utf-8") for comment in comments)


def test_a_list_that_cannot_be_added_to_is_left_alone() -> None:
    text = f"{HEAD}kernels: [{{repo: a/b, version: 1}},]\n"
    with pytest.raises(InvalidInput, match="cannot be added to") as caught:
        with_pin(text, PIN)
    assert caught.value.hint == "add the pin by hand"
