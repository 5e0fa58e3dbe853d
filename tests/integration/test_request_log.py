"""Each request is one JSON line where a site wants it, and no credential is ever in one."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.mirrorkit import VARIANT, make_mirror, served

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

PLACE = f"/kernels/acme/relu/resolve/v1/build/{VARIANT}/layers.py"


def ask(address: str, path: str) -> int:
    headers = {"Authorization": "Bearer kg_secret", "User-Agent": "tester/1"}
    request = urllib.request.Request(address + path, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as exc:
        return exc.code


def test_a_line_says_who_asked_for_what_and_what_came_of_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    kit = make_mirror(tmp_path)
    kit.publish()
    with served(replace(kit.settings, request_log=True)) as address:
        assert [ask(address, PLACE), ask(address, PLACE)] == [200, 200]
        assert ask(address, "/api/datasets/a/b?token=hf_secret") == 404
    said = capfd.readouterr().err
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    asked = [line for line in lines if line.get("userAgent") == "tester/1"]
    assert [(line["path"], line["status"], line["part"]) for line in asked] == [
        (PLACE, 200, "file"),
        (PLACE, 200, "file"),
        ("/api/datasets/a/b", 404, "hub"),
    ]
    assert {line["client"] for line in asked} == {"127.0.0.1"}
    assert all(line["event"] == "request" and line["milliseconds"] >= 0 for line in asked)
    assert "secret" not in said


def test_nothing_is_written_unless_it_is_asked_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    kit = make_mirror(tmp_path)
    kit.publish()
    with served(kit.settings) as address:
        assert ask(address, PLACE) == 200
    assert '"event": "request"' not in capfd.readouterr().err
