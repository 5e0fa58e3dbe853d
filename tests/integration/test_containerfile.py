"""deploy/Containerfile: what its stages may do; its RUN lines without an engine (matrix)."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from tests.containerfile import FILE, lineage, read_stages

if TYPE_CHECKING:
    from pathlib import Path

ROOT: Final = FILE.parents[1]
SHIPPED: Final = ("mirror", "pod")
images = pytest.mark.parametrize("image", SHIPPED)


def environment(image: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for stage in lineage(read_stages(), image):
        for line in stage.all("ENV"):
            found |= dict(re.findall(r"(\w+)=(\S+)", line))
    return found


@images
def test_who_builds_names_the_base_and_by_digest(image: str) -> None:
    stages = read_stages()
    assert lineage(stages, image)[0].base == "${BASE}"
    assert {s.base for s in stages.values()} - set(stages) == {"${BASE}"}
    text = FILE.read_text("utf-8")
    assert "\nARG BASE\n" in text, "a default would be a tag, and tags move"
    assert "BASE=registry.example/python:3.13-slim@sha256:" in text


@images
def test_it_runs_as_a_number_that_may_be_any_other(image: str) -> None:
    stages = lineage(read_stages(), image)
    assert [user for stage in stages for user in stage.all("USER")] == ["10001:0"]
    assert [line for stage in stages for line in stage.all("ENTRYPOINT")] == ['["kgate"]']
    (owned,) = [line for stage in stages for line in stage.all("COPY") if "--chown" in line]
    assert owned == "--from=build --chown=10001:0 /rootfs/ /"
    assert environment(image)["HOME"] == "/tmp"
    assert environment(image)["PYTHONDONTWRITEBYTECODE"] == "1"
    # Probes are the manifests' affair, and a volume of its own would hide a missing one.
    assert not any(s.all(word) for s in stages for word in ("HEALTHCHECK", "VOLUME", "ADD"))


@images
def test_it_says_what_it_is(image: str) -> None:
    (labels,) = read_stages()[image].all("LABEL")
    for name in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{name}=" in labels


def test_everything_installed_is_locked_by_hash_and_nothing_is_compiled() -> None:
    installs = [
        command
        for stage in read_stages().values()
        for line in stage.all("RUN")
        for command in line.split(" && ")
        if " install " in command
    ]
    assert len(installs) == 5
    for command in installs:
        locked = "--only-binary :all: --require-hashes -r requirements/" in command
        own = command.endswith("--no-deps --no-index /wheel/*.whl")
        assert locked != own, command
    for lock in re.findall(r"-r (\S+)", " ".join(installs)):
        assert (ROOT / lock).read_text("utf-8").count("--hash=sha256:") > 3


@images
def test_no_tool_that_installs_or_compiles_is_shipped(image: str) -> None:
    stages = lineage(read_stages(), image)
    (removed,) = [line for stage in stages for line in stage.all("RUN")]
    assert removed.startswith("find / -xdev")
    for tool in ("-packages/pip*", "-packages/setuptools*", "ensurepip", "bin/pip*"):
        assert tool in removed
    copied = [line for stage in stages for line in stage.all("COPY")]
    assert f"--from=build-{image} /opt/kgate/ /opt/kgate/" in copied
    assert not [line for line in copied if "/opt/build" in line]


def test_the_build_sees_the_source_and_no_secret() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    seen = {line[1:] for line in rules if line.startswith("!")}
    parts = {path.parent.parent.name for path in ROOT.glob("*/kgate_*/__init__.py")}
    assert parts <= seen
    assert all((ROOT / name).exists() for name in seen)
    locks = {
        name
        for stage in read_stages().values()
        for line in stage.all("RUN")
        for name in re.findall(r"-r (\S+)", line)
    }
    assert locks <= seen
    for private in (".git", "demo-out", "tests", "deploy", "keys/admit.pem", ".venv"):
        assert not any(fnmatch.fnmatch(private, name) for name in seen)


@pytest.mark.matrix
@images
def test_the_steps_of_the_build_make_a_program(image: str, tmp_path: Path) -> None:
    stages = read_stages()
    for name in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        if name.startswith("!"):
            source, target = ROOT / name[1:], tmp_path / "src" / name[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    for stage in lineage(stages, f"build-{image}"):
        for line in stage.all("RUN"):
            script = re.sub(r"(?<=[ =])/(opt|wheel|rootfs|src)\b", rf"{tmp_path}/\1", f" {line}")
            script = script.replace(" python3 ", f" {sys.executable} ")
            subprocess.run(["/bin/sh", "-ec", script], cwd=tmp_path / "src", check=True)
    assert (tmp_path / "rootfs/data").stat().st_mode & 0o7777 == 0o2770
    kgate = tmp_path / "opt/kgate/bin/kgate"
    assert not list((tmp_path / "opt/kgate").glob("lib/python*/site-packages/pip"))
    done = subprocess.run(
        [kgate, "--version"], env={**environment(image), "HOME": str(tmp_path)}, cwd=tmp_path,
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert "0.1.0" in done.stdout
    if image == "mirror":
        site = subprocess.run(
            [kgate, "init", "site", "--no-passphrase", "--json"],
            env=dict(os.environ), cwd=tmp_path,
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        assert json.loads(site.stdout)["schema"] == "kgate.dev/init/v1"
