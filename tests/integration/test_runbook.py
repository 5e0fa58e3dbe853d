"""The runbook's commands about keys and approvals, carried out in the order in which they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from kgate_core.trust import load
from kgate_mirror_server.trust.files import read_trust
from kgate_signer.keys import FileKey
from tests.sitekit import CONNECTED, REPO, Site, built_kernels, time_now

if TYPE_CHECKING:
    from collections.abc import Sequence

RUNBOOK: Final = Path(__file__).parents[2] / "docs" / "runbook.md"
_WRITTEN_ID: Final = "4f2c1a0b9d8e7f60"  # stands in the page for the id of a stolen key
_WRITTEN_KERNEL: Final = "kernels-community/activation"


def commands(section: str) -> list[list[str]]:
    """Return the commands of one section, without the comments behind them."""
    text = RUNBOOK.read_text(encoding="utf-8")
    found = re.search(rf"^## {section}\n(.*?)(?=^## )", text, re.MULTILINE | re.DOTALL)
    assert found is not None, section
    blocks = re.findall(r"^```console\n(.*?)^```", found[1], re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).splitlines()
    return [shlex.split(line.removeprefix("kgate "), comments=True) for line in lines]


def public_half(path: Path) -> None:
    path.write_text(FileKey.generate().public_key().pem, encoding="ascii")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    made = Site.found(tmp_path / "site", CONNECTED, kernels=built_kernels(tmp_path / "cache"))
    monkeypatch.chdir(made.folder)
    return made


def carry_out(site: Site, section: str, words: dict[str, str]) -> Sequence[str]:
    done = []
    for command in commands(section):
        replaced = [words.get(word.partition("@")[0], word) for word in command]
        if replaced[0] == "approve":
            replaced.append("--yes")
        assert site.kgate(*replaced) == 0, replaced
        done.append(" ".join(replaced[:3]))
    return done


def test_keys_are_rotated_and_a_stolen_one_revoked_as_written(site: Site) -> None:
    site.sync()
    pinned = site.root.read_bytes()
    public_half(site.folder / "admit-2.pub.pem")
    assert carry_out(site, "Rotate a key", {}) == [
        "keys rotate admit",
        "keys rotate timestamp",
        "keys add admit",
    ]
    stolen = FileKey.from_pem((site.folder / "keys/admit.pem").read_bytes(), None)
    keyid = stolen.public_key().keyid
    carry_out(site, "A key was stolen", {_WRITTEN_ID: keyid[:16]})
    trusted = load(pinned, read_trust(site.root.parent).since(1), now=time_now())
    assert trusted.versions.root == 2
    assert set(trusted.revoked_keys) == {keyid}
    assert site.kgate("verify", REPO) == 0


def test_a_kernel_comes_into_production_as_written(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    text = site.config.read_text(encoding="utf-8")
    text = text.replace("version: 1}", "version: 1, lane: production}")
    secret = site.folder / "approve.passphrase"
    secret.write_bytes(b"correct horse\n")
    secret.chmod(0o600)
    approver = "keys:\n  approve: file:keys/approve.pem?passphrase-file=approve.passphrase"
    site.config.write_text(text.replace("keys:", approver, 1), encoding="utf-8")
    carry_out(site, "Approvals", {_WRITTEN_KERNEL: REPO})
    said = capsys.readouterr().out
    assert "waiting for kgate approve; not served until then" in said
    assert "Approved 1 variants" in said
    assert site.kgate("verify", REPO) == 0
