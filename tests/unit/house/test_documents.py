from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.unit.house.source import PARTS, ROOT, every_module, imports, name

_PIN: Final = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)", re.MULTILINE)
_HASH: Final = "--hash=sha256:"


def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def test_generated_pages_are_what_the_code_says_and_no_link_is_broken() -> None:
    result = subprocess.run(
        [sys.executable, "scripts/docs.py", "--check"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert result.returncode == 0, f"run `make docs`:\n{result.stdout}{result.stderr}"


def test_every_decision_is_in_the_index_and_short() -> None:
    index = text("docs/adr/README.md")
    files = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))
    assert [path.name for path in files if f"({path.name})" not in index] == []
    assert [path.name[:4] for path in files] == [f"{number:04}" for number in range(len(files))]
    for path in files:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith(f"# {path.name[:4]}: ")
        assert lines[2].startswith("Status: ")
        assert len(lines) <= 60, path.name


def test_the_readme_names_the_two_commands_and_makefile_has_them() -> None:
    for command in ("make demo", "make test"):
        assert command in text("README.md")
    targets = set(re.findall(r"^([a-z-]+):", text("Makefile"), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", text("README.md") + text("CONTRIBUTING.md")))
    assert named <= targets


def test_locked_dependencies_name_no_registry_and_no_torch() -> None:
    for file in ("requirements/dev.lock", "requirements/runtime.lock"):
        lock = text(file)
        pins = _PIN.findall(lock)
        assert len(pins) > 20
        assert "://" not in lock
        assert not {package for package, _ in pins} & {"torch", "triton"}
        assert lock.count(_HASH) >= len(pins)


def test_the_lock_file_satisfies_what_the_project_asks_for() -> None:
    project = tomllib.loads(text("pyproject.toml"))
    asked = [*project["project"]["dependencies"]]
    for extra in project["project"]["optional-dependencies"].values():
        asked += extra
    for group in project["dependency-groups"].values():
        asked += group
    locked: dict[str, set[str]] = {}
    locks = text("requirements/dev.lock") + text("requirements/fuzz.lock")
    for package, version in _PIN.findall(locks):
        locked.setdefault(package, set()).add(version)
    unmet = [
        line
        for line in asked
        if (requirement := Requirement(line)).name != "kgate"
        if not any(
            requirement.specifier.contains(version)
            for version in locked.get(canonicalize_name(requirement.name), ())
        )
    ]
    assert unmet == [], "run `make lock`"


def test_every_import_is_a_declared_dependency() -> None:
    project = tomllib.loads(text("pyproject.toml"))["project"]
    extras = [line for extra in project["optional-dependencies"].values() for line in extra]
    declared = {
        canonicalize_name(Requirement(line).name) for line in [*project["dependencies"], *extras]
    }
    # What the shim guards and the demo plays with is the pod's own affair.
    known = sys.stdlib_module_names | set(PARTS.values()) | {"kernels", "torch"}
    providers = packages_distributions()
    undeclared = {
        f"{name(path)}: {root}"
        for path in every_module()
        for root in {full.split(".")[0] for full in imports(path)} - known
        if not {canonicalize_name(item) for item in providers.get(root, ())} & declared
    }
    assert undeclared == set()


def test_what_runs_in_production_is_what_was_tested() -> None:
    tested = set(_PIN.findall(text("requirements/dev.lock")))
    assert set(_PIN.findall(text("requirements/runtime.lock"))) <= tested
