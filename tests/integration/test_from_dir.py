"""A folder that kernel-builder left behind, brought in once, without a word in kgate.yaml."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from kgate_cli.main import main
from kgate_mirror_server.examples.metadata import digest_of
from tests.ingestkit import Site, make_site

if TYPE_CHECKING:
    from pathlib import Path

OTHERS = "https://hub.test"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path / "site", OTHERS)


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """Return a folder with two kernels."""
    for name in ("gelu", "relu"):
        variant = tmp_path / "built" / "acme" / name / "build" / "torch-cpu"
        variant.mkdir(parents=True)
        (variant / "__init__.py").write_text("ANSWER = 42\n", encoding="utf-8")
        document: dict[str, object] = {"name": name, "id": f"_{name}_abc1234", "version": 3}
        document |= {"license": "MIT", "python-depends": [], "backend": {"type": "cpu"}}
        path = variant / "metadata.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        path.write_text(json.dumps({**document, "digest": digest_of(variant)}), encoding="utf-8")
    return tmp_path / "built"


def kgate(site: Site, *arguments: str) -> int:
    return main([*arguments, "--config", str(site.config_path)])


def test_t49_kernels_of_a_folder_come_in_under_its_own_origin(
    site: Site, built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = site.config_path.read_bytes()
    # 1. Nobody allowed that origin yet: pods would refuse what was signed.
    assert kgate(site, "sync", "--from-dir", str(built)) == 4
    assert "allows no kernels from dir:built" in capsys.readouterr().err
    assert kgate(site, "trust", "update", "--from-dir", str(built)) == 0
    # 2. Then they come in, and the lock lies beside them.
    assert kgate(site, "lock", "--from-dir", str(built)) == 0
    assert kgate(site, "sync", "--from-dir", str(built), "--locked") == 0
    assert (built / "kgate.lock").exists()
    assert not (site.folder / "kgate.lock").exists()
    assert site.config_path.read_bytes() == before
    with site.mirror() as mirror:
        found = {
            str(item.repo): (item.origin, item.version) for item in mirror.catalog.publications()
        }
    assert found == {"acme/gelu": ("dir:built", 3), "acme/relu": ("dir:built", 3)}
    # 3. Doing it again is nothing new; later trust updates do not forget the origin.
    capsys.readouterr()
    assert kgate(site, "sync", "--from-dir", str(built), "--dry-run", "--json") == 0
    steps = json.loads(capsys.readouterr().out)["steps"]
    assert [step["does"] for step in steps] == ["unchanged", "unchanged"]
    assert kgate(site, "trust", "update") == 0
    with site.mirror() as mirror:
        from tests.ingestkit import now

        assert "dir:built" in mirror.trusted(now()).lanes["experimental"].origins


def test_t49_a_name_that_is_pinned_from_elsewhere_does_not_come_from_a_folder(
    site: Site, built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.pin("repo: acme/gelu, version: 1")
    assert kgate(site, "lock", "--from-dir", str(built)) != 0
    assert f"acme/gelu is pinned from {OTHERS} and from dir:built" in capsys.readouterr().err


def test_a_folder_without_kernels_and_contradicting_options_are_named(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    (empty / "acme" / "gelu").mkdir(parents=True)
    assert kgate(site, "sync", "--from-dir", str(empty)) != 0
    assert "no built kernels" in capsys.readouterr().err
    assert kgate(site, "lock", "--from-dir", str(empty), "--from", "kernels.lock") == 2
    assert kgate(site, "sync", "--from-dir", str(empty), "--enqueue") == 2
