"""The spoiled repositories are what they say: upstream's own client falls for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lief
import pytest
from kernels._rust import Digest, DigestAlgorithm, DigestValidationError, Metadata

from kgate_mirror_server.examples import build_gelu_and_mul
from tests import repos
from tests.clients import run_ungated

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return build_gelu_and_mul(tmp_path / "cache", native=False, cuda=False)


@pytest.fixture
def repo(good: Path, tmp_path: Path) -> Path:
    return repos.copy_repo(good, tmp_path / "repo")


def only(repo: Path) -> Path:
    (variant,) = repos.variants(repo)
    return variant


def passes_upstreams_digest(variant: Path) -> bool:
    recorded = Metadata.read_from_file(variant / "metadata.json").digest
    try:
        recorded.validate(Digest.hash_variant(DigestAlgorithm.SHA256, variant))
    except DigestValidationError:
        return False
    return True


def content(repo: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(repo).as_posix(): path.read_bytes() if path.is_file() else None
        for path in repo.rglob("*")
    }


@pytest.mark.parametrize("way", sorted(repos.SPOILED))
def test_each_way_of_spoiling_changes_the_copy_only(way: str, good: Path, repo: Path) -> None:
    before = content(good)
    assert content(repo) == before
    repos.SPOILED[way](repo)
    assert content(repo) != before
    assert content(good) == before


def test_upstreams_digest_finds_a_changed_source(repo: Path) -> None:
    assert passes_upstreams_digest(only(repo))
    repos.tamper(only(repo) / "layers.py")
    assert not passes_upstreams_digest(only(repo))


LOAD = """
import json, os, sys
from pathlib import Path
genuine = sys.modules["json"]
from kernels import get_local_kernel
kernel = get_local_kernel(Path(os.environ["REPOSITORY"]))
print(genuine.dumps([sys.modules["json"] is genuine, kernel.__name__, os.environ.get("RAN")]))
"""


def test_planted_bytecode_runs_and_upstreams_digest_does_not_see_it(
    repo: Path, tmp_path: Path
) -> None:
    repos.plant_bytecode(only(repo), "import os; os.environ['RAN'] = 'bytecode'")
    assert passes_upstreams_digest(only(repo))
    _, _, ran = run_ungated(LOAD, tmp_path, REPOSITORY=str(repo))
    assert ran == "bytecode"


def test_a_sourceless_module_can_be_imported_and_upstreams_digest_does_not_see_it(
    repo: Path, tmp_path: Path
) -> None:
    variant = only(repo)
    (variant / "layers.py").write_text("from . import extra\n")
    repos.redigest(variant)
    repos.plant_sourceless(variant, "import os; os.environ['RAN'] = 'sourceless'")
    assert passes_upstreams_digest(variant)
    _, _, ran = run_ungated(LOAD, tmp_path, REPOSITORY=str(repo))
    assert ran == "sourceless"


def test_a_stolen_module_name_replaces_the_module(repo: Path, tmp_path: Path) -> None:
    repos.take_module_name(only(repo))
    assert passes_upstreams_digest(only(repo))
    kept, name, _ = run_ungated(LOAD, tmp_path, REPOSITORY=str(repo))
    assert name == "json"
    assert not kept


def test_the_kernel_module_is_a_relocatable_elf_for_linux(repo: Path) -> None:
    path = repos.add_kernel_module(only(repo))
    assert passes_upstreams_digest(only(repo))
    binary = lief.parse(str(path))
    assert isinstance(binary, lief.ELF.Binary)
    assert binary.header.file_type == lief.ELF.Header.FILE_TYPE.REL
    names = {str(section.name) for section in binary.sections}
    assert {".modinfo", ".gnu.linkonce.this_module"} <= names
    assert b"license=GPL\0" in path.read_bytes()


def test_the_remaining_changes_are_in_place(repo: Path) -> None:
    variant = only(repo)
    repos.depend_on(variant, "kernels-test/other", 2)
    (dependency,) = Metadata.read_from_file(variant / "metadata.json").kernel_depends
    assert (dependency.repo_id, dependency.version.version) == ("kernels-test/other", 2)
    link = repos.add_symlink(variant, "passwd", "/etc/passwd")
    assert link.is_symlink()
    assert link.resolve().is_absolute()
    assert (
        'destination = "kernels-test/other"'
        in repos.redirect(repo, "kernels-test/other").read_text()
    )
    file = variant / "fake.so"
    file.write_bytes(b"\x7fELF" * 100)
    repos.truncate(file, 10)
    assert file.stat().st_size == 10
    assert repos.library(variant) == file
    link.unlink()
    repos.redigest(variant)
    assert passes_upstreams_digest(variant)
