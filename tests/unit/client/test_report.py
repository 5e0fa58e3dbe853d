from __future__ import annotations

import io
import json
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

from kgate_client import report
from kgate_client.answer import Trace
from kgate_client.report import Reporter, host_facts, shorten
from tests.trustkit import NOW, make_trust

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

COMMIT = "5b1c" + "0" * 32 + "9e0d"


def test_one_line_per_decision_says_what_was_asked_and_what_came_of_it(tmp_path: Path) -> None:
    path = tmp_path / "made" / "report.jsonl"
    reporter = Reporter(path, warn=True, endpoint=None)
    trace = Trace("acme/relu@v1", "/cache/v", repo="acme/relu", trusted=make_trust().trusted())
    with trace.timed("copy"):
        pass

    reporter.decision(trace, now=NOW, mode="enforce", outcome="loaded")
    reporter.decision(
        Trace("x", "y"), now=NOW, mode="enforce", outcome="fallback", reason="no-trust", message="m"
    )

    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert first["schema"] == "kgate.dev/load/v1"
    assert (first["asked"], first["outcome"], first["fallback"]) == (
        "acme/relu@v1",
        "loaded",
        False,
    )
    assert first["milliseconds"]["copy"] >= 0
    assert first["trust"]["targets"] == 1
    assert (second["reason"], second["fallback"], second["verdict"]) == ("no-trust", True, None)
    assert reporter.counts == {"loaded": 1, "fallback": 1}


def test_a_report_that_cannot_be_written_fails_nothing(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    for path in (None, tmp_path, blocked / "report.jsonl"):
        Reporter(path, warn=True, endpoint=None).decision(
            Trace("x", "y"), now=NOW, mode="enforce", outcome="loaded"
        )


def test_one_sentence_per_kernel_unless_nobody_wants_to_hear() -> None:
    stream = io.StringIO()
    reporter = Reporter(None, warn=True, endpoint="http://mirror.test", stream=stream)

    for _ in range(2):
        reporter.refused(
            f"acme/relu@{COMMIT}",
            "denied",
            "require-signature",
            consequence="Running the PyTorch fallback.",
        )
    Reporter(None, warn=False, endpoint=None, stream=stream).warn("key", "silent")

    assert stream.getvalue() == (
        "kgate: acme/relu@5b1c…9e0d was not loaded (denied: require-signature)."
        " Running the PyTorch fallback.\n"
        "       details: http://mirror.test/k/acme/relu · silence: KGATE_WARN=0\n"
    )


def test_a_path_or_an_unknown_mirror_has_no_page() -> None:
    stream = io.StringIO()
    Reporter(None, warn=True, endpoint=None, stream=stream).refused("a/b", "r", "m", consequence="")
    Reporter(None, warn=True, endpoint="http://m", stream=stream).refused(
        "/home/kernel", "r", "m", consequence=""
    )

    assert "details" not in stream.getvalue()


def test_a_closed_stderr_fails_nothing() -> None:
    stream = io.StringIO()
    stream.close()

    Reporter(None, warn=True, endpoint=None, stream=stream).warn("key", "lost")


def test_only_commits_are_shortened() -> None:
    assert shorten(f"acme/relu@{COMMIT}") == "acme/relu@5b1c…9e0d"
    assert shorten("acme/relu@v1") == "acme/relu@v1"
    assert shorten("acme/relu") == "acme/relu"
    assert shorten("acme/relu@" + "z" * 40) == "acme/relu@" + "z" * 40


def test_host_facts_are_those_of_what_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    driver = tmp_path / "version"
    driver.write_text("NVRM version: 580.65\nGCC version\n")
    monkeypatch.setattr(report, "_NVIDIA", driver)
    torch = SimpleNamespace(__version__="2.13.0", version=SimpleNamespace(cuda="13.0"))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.delitem(sys.modules, "kernels", raising=False)

    facts = host_facts()

    assert facts["torch"] == "2.13.0"
    assert facts["cuda"] == "13.0"
    assert facts["driver"] == "NVRM version: 580.65"
    assert "kernels" not in facts
