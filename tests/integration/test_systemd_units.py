"""deploy/systemd: what systemd says about the units, and which identity may do what.

The units are checked and rated, not started: there is no systemd to start them here.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.commandlines import check_command
from tests.services import find_program

FOLDER: Final = Path(__file__).parents[2] / "deploy" / "systemd"
UNITS: Final = tuple(sorted(path.name for path in FOLDER.iterdir() if path.suffix != ".conf"))
SERVICES: Final = tuple(name for name in UNITS if name.endswith(".service"))
# As `systemd-analyze security` counts: 10 is a service without any restriction.
MOST_EXPOSED: Final = 2.0


@pytest.fixture(scope="module")
def analyze() -> str:
    return find_program("systemd-analyze", "systemd")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a root with our units, those of systemd, and a program where they expect it."""
    root = tmp_path_factory.mktemp("root")
    shutil.copytree("/usr/lib/systemd/system", root / "usr/lib/systemd/system", symlinks=True)
    shutil.copytree(FOLDER, root / "etc/systemd/system")
    program = root / "opt/kgate/bin/kgate"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return root


def settings(unit: str) -> dict[str, list[str]]:
    """Return every setting of a unit with all its values."""
    found: dict[str, list[str]] = {}
    for line in (FOLDER / unit).read_text("utf-8").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def verify(analyze: str, root: Path, unit: str) -> str:
    done = subprocess.run(
        [analyze, "verify", "--man=no", f"--root={root}", unit.replace("@.", "@1.")],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.stdout + done.stderr + (f"rc {done.returncode}" if done.returncode else "")


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_finds_nothing_wrong(analyze: str, root: Path, unit: str) -> None:
    assert verify(analyze, root, unit) == ""


def test_a_setting_that_systemd_does_not_know_would_be_found(analyze: str, root: Path) -> None:
    text = (FOLDER / "kgate-serve.service").read_text("utf-8")
    broken = root / "etc/systemd/system/kgate-broken.service"
    broken.write_text(text.replace("ProtectSystem=strict", "ProtectSystems=strict"))
    assert "ProtectSystems" in verify(analyze, root, broken.name)


@pytest.mark.parametrize("unit", SERVICES)
def test_each_service_gives_up_what_it_does_not_need(analyze: str, unit: str) -> None:
    done = subprocess.run(
        [analyze, "security", "--offline=yes", "--no-pager", f"./{unit}"],
        cwd=FOLDER, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found is not None
    assert float(found[1]) <= MOST_EXPOSED
    said = settings(unit)
    for name, value in (
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("CapabilityBoundingSet", ""),
        ("MemoryDenyWriteExecute", "yes"),
        ("Group", "kgate"),
        ("ReadWritePaths", "/var/lib/kgate"),
    ):
        assert said[name] == [value], name
    assert said["SystemCallFilter"][0].startswith("@system-service")


@pytest.mark.parametrize("unit", SERVICES)
def test_every_command_in_the_units_is_one_of_kgates(unit: str) -> None:
    for line in settings(unit)["ExecStart"]:
        program, *words = line.split()
        assert program == "/opt/kgate/bin/kgate"
        check_command(words)


def test_three_users_with_what_each_may_reach() -> None:
    users = {unit: settings(unit)["User"][0] for unit in SERVICES}
    assert set(users.values()) == {"kgate-ingest", "kgate-signer", "kgate-serve"}
    made = (FOLDER / "kgate.sysusers.conf").read_text("utf-8")
    for user in users.values():
        assert f"\nu {user} - " in made
        assert f"\nm {user} kgate" in made
    for unit, user in users.items():
        said = settings(unit)
        assert ("LoadCredential" in said) <= (user == "kgate-signer"), unit
        if user == "kgate-ingest":
            assert said["InaccessiblePaths"] == ["-/etc/kgate/keys -/etc/kgate/passphrases"]
        else:
            assert said["IPAddressDeny"] == ["any"], unit
    for unit in ("kgate-sign.service", "kgate-refresh.service"):
        assert settings(unit)["PrivateNetwork"] == ["yes"]
    assert "--no-refresh" in settings("kgate-serve.service")["ExecStart"][0]
    assert "--no-sign" in settings("kgate-sync.service")["ExecStart"][0]
    keys = re.search(
        r"(?m)^d /etc/kgate/keys +0700 kgate-signer ", (FOLDER / "kgate.tmpfiles.conf").read_text()
    )
    assert keys is not None
    made = (FOLDER / "kgate.tmpfiles.conf").read_text("utf-8")
    # SQLite would make it for one of the three alone.
    assert re.search(r"(?m)^f /var/lib/kgate/kgate.db +0660 root +kgate ", made) is not None
