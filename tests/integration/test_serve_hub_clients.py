"""The stock clients against the real server: what works, what falls back, what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.clients import run_ungated
from tests.mirrorkit import COMMIT, MirrorKit, commit_of, make_mirror, served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> MirrorKit:
    kit = make_mirror(tmp_path_factory.mktemp("mirror"))
    kit.publish()
    kit.deny()
    return kit


@pytest.fixture(scope="module")
def address(kit: MirrorKit) -> Iterator[str]:
    with served(kit.settings) as address:
        yield address


LOAD = """
import json, kernels
module = kernels.get_kernel("acme/relu", version=1)
print(json.dumps({"answer": module.ANSWER}))
"""


def test_get_kernel_loads_cold_warm_and_then_offline(address: str, tmp_path: Path) -> None:
    assert run_ungated(LOAD, tmp_path, endpoint=address) == {"answer": 42}
    assert run_ungated(LOAD, tmp_path, endpoint=address) == {"answer": 42}
    by_commit = LOAD.replace("version=1", f"revision='{COMMIT}'")
    assert run_ungated(by_commit, tmp_path, HF_HUB_OFFLINE="1") == {"answer": 42}


@pytest.mark.parametrize(
    "asked",
    [
        "'acme/unknown', version=1",
        "'acme/unknown', version=16",
        "'acme/evil', version=1",
        "'acme/relu', version=2",
        f"'acme/relu', revision='{'b' * 40}'",
        "'acme/relu', revision='main'",
        "'nobody/nothing', revision='main'",
    ],
)
def test_what_is_not_published_is_a_kernel_without_builds(
    asked: str, address: str, tmp_path: Path
) -> None:
    program = f"""
import json, kernels
found = kernels.has_kernel({asked})
try:
    kernels.get_kernel({asked})
except Exception as exc:
    raised = type(exc)
print(json.dumps([found, issubclass(raised, FileNotFoundError), raised.__name__]))
"""
    assert run_ungated(program, tmp_path, endpoint=address)[:2] == [False, True]


def test_the_hub_client_reads_the_whole_repository_and_finds_it_intact(
    address: str, tmp_path: Path
) -> None:
    program = f"""
import json
from pathlib import Path
from huggingface_hub import HfApi, snapshot_download
api = HfApi()
many = dict(repo_id="acme/relu", repo_type="kernel")
folder = Path(snapshot_download(**many, revision="v1"))
files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
verified = api.verify_repo_checksums("acme/relu", repo_type="kernel", revision="{COMMIT}")
tree = list(api.list_repo_tree(**many, recursive=True, revision="refs/heads/v1", expand=True))
paths = api.get_paths_info("acme/relu", ["build/torch-cpu/layers.py", "no"], repo_type="kernel",
                           revision="v1", expand=True)
refs = api.list_repo_refs(**many, include_pull_requests=True)
print(json.dumps({{
    "files": files,
    "checked": verified.checked_count, "mismatches": len(verified.mismatches),
    "tree": len(tree), "lfs": [f.path for f in tree if getattr(f, "lfs", None)],
    "paths": [p.path for p in paths], "last": paths[0].last_commit.oid,
    "info": api.kernel_info("acme/relu").sha,
    "commits": [c.commit_id for c in api.list_repo_commits(**many, revision="v1")],
    "v1": [b.target_commit for b in refs.branches if b.name == "v1"],
    "exists": api.file_exists("acme/relu", "build/torch-cpu/layers.py", repo_type="kernel",
                              revision="v1"),
    "not": api.file_exists("acme/relu", "README.md", repo_type="kernel", revision="v1"),
    "revision": api.revision_exists("acme/relu", "v1", repo_type="kernel"),
    "main": api.revision_exists("acme/relu", "main", repo_type="kernel"),
    "none": api.revision_exists("acme/relu", "nothing", repo_type="kernel"),
}}))
"""
    said = run_ungated(program, tmp_path, endpoint=address)
    files = [f"build/torch-cpu/{name}" for name in
             ("__init__.py", "_relu.abi3.so", "layers.py", "metadata.json")]  # fmt: skip
    assert said == {
        "files": files,
        "checked": 4,
        "mismatches": 0,
        "tree": 6,
        "lfs": ["build/torch-cpu/_relu.abi3.so"],
        "paths": ["build/torch-cpu/layers.py"],
        "last": str(COMMIT),
        "info": str(COMMIT),
        "commits": [str(COMMIT)],
        "v1": [str(COMMIT)],
        "exists": True,
        "not": False,
        "revision": True,
        "main": True,  # there, and empty: kernels 0.14 to 0.16 ask for it while they lock
        "none": False,
    }


def test_a_client_without_kernel_repositories_finds_the_kernel_as_a_model(
    address: str, tmp_path: Path
) -> None:
    program = """
import json
from pathlib import Path
from huggingface_hub import HfApi, snapshot_download
folder = Path(snapshot_download("acme/relu", allow_patterns="build/torch-cpu/*"))
print(json.dumps([HfApi().model_info("acme/relu").sha, len(list(folder.rglob("*.py")))]))
"""
    assert run_ungated(program, tmp_path, endpoint=address) == [str(COMMIT), 2]


def test_writing_is_refused_with_a_readable_message(address: str, tmp_path: Path) -> None:
    program = """
import json
from huggingface_hub import HfApi
api, said = HfApi(token="hf_x"), []
for call in (
    lambda: api.create_repo("acme/new", repo_type="kernel"),
    lambda: api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id="acme/relu",
                            repo_type="kernel"),
    lambda: api.create_branch("acme/relu", branch="v9", repo_type="kernel"),
    lambda: api.delete_repo("acme/relu", repo_type="kernel"),
):
    try:
        call()
    except Exception as exc:
        said.append([exc.response.status_code, "kgate mirror is read-only" in str(exc)])
print(json.dumps(said))
"""
    assert run_ungated(program, tmp_path, endpoint=address) == [[403, True]] * 4


def test_style_error_makes_what_is_not_published_not_found(kit: MirrorKit, tmp_path: Path) -> None:
    program = """
import json, kernels
said = []
for repo in ("acme/evil", "acme/unknown", "nobody/nothing"):
    try:
        kernels.get_kernel(repo, version=1)
    except Exception as exc:
        said.append(type(exc).__name__)
print(json.dumps(said))
"""
    from kgate_mirror_server.serve.settings import DenyStyle

    with served(replace(kit.settings, deny_style=DenyStyle.ERROR)) as address:
        assert run_ungated(program, tmp_path, endpoint=address) == [
            "RepositoryNotFoundError",
            "RepositoryNotFoundError",
            "ValueError",
        ]
        assert run_ungated(LOAD, tmp_path, endpoint=address) == {"answer": 42}


def test_a_client_that_saw_a_narrow_set_gets_the_wider_one(tmp_path: Path) -> None:
    """Clients keep a commit's file list for ever: a wider set must be another revision."""
    mirror = make_mirror(tmp_path / "mirror")
    narrow = mirror.variant(variant="torch-cuda")
    mirror.publish(narrow)
    home = tmp_path / "home"
    home.mkdir()
    fill = f"""
import json
from huggingface_hub import HfApi, snapshot_download
snapshot_download("acme/relu", repo_type="kernel", revision="{COMMIT}")
api = HfApi()
print(json.dumps([b.target_commit for b in api.list_repo_refs("acme/relu", repo_type="kernel")
                  .branches if b.name == "v1"]))
"""
    with served(mirror.settings) as address:
        assert run_ungated(fill, home, endpoint=address) == [str(COMMIT)]
        minted = commit_of("upstream commit with both variants")
        wide = [mirror.variant(variant=name, served=minted, upstream_revision=COMMIT)
                for name in ("torch-cuda", "torch-cpu")]  # fmt: skip
        mirror.publish(*wide, served=minted)
        wait = f"""
import json, time
from huggingface_hub import HfApi
for _ in range(100):
    refs = HfApi().list_repo_refs("acme/relu", repo_type="kernel").branches
    if [b.target_commit for b in refs if b.name == "v1"] == ["{minted}"]:
        break
    time.sleep(0.1)
print(json.dumps("seen"))
"""
        assert run_ungated(wait, home, endpoint=address) == "seen"
        assert run_ungated(LOAD, home, endpoint=address) == {"answer": 42}
        # Who pinned the upstream commit sees what was there from the beginning, and no more.
        old = f"""
import json, kernels
from huggingface_hub import HfApi
tree = HfApi().list_repo_tree("acme/relu", "build", repo_type="kernel", revision="{COMMIT}")
print(json.dumps([[entry.path for entry in tree],
                  kernels.has_kernel("acme/relu", revision="{COMMIT}")]))
"""
        assert run_ungated(old, home, endpoint=address) == [["build/torch-cuda"], False]


def test_upstreams_way_lock_download_and_load_works_offline_afterwards(
    address: str, tmp_path: Path
) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "x"\nversion = "1"\n[tool.kernels.dependencies]\n"acme/relu" = 1\n'
    )
    fill = """
import json, subprocess, sys
for command in ("lock", "download"):
    program = "import sys; from kernels.cli import main; sys.argv = ['kernels', %r, '.']; main()"
    subprocess.run([sys.executable, "-c", program % command], check=True)
print(json.dumps("filled"))
"""
    assert run_ungated(fill, tmp_path, endpoint=address) == "filled"
    load = """
import json, kernels
from pathlib import Path
print(json.dumps(kernels.load_kernel("acme/relu", lockfile=Path("kernels.lock")).ANSWER))
"""
    assert run_ungated(load, tmp_path, HF_HUB_OFFLINE="1") == 42
