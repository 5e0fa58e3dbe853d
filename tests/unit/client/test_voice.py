"""What a process says about a load, in sentences on stderr."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any, cast

from kgate_client.report import Reporter
from kgate_client.voice import Voice
from kgate_core.verify import Verified
from tests.trustkit import NOW
from tests.unit.core.test_breakglass import check, signed


def test_a_load_under_break_glass_is_said_once_with_who_why_and_until_when() -> None:
    verdict = check(signed())
    assert isinstance(verdict, Verified)
    stream = io.StringIO()
    reporter = Reporter(None, warn=True, endpoint=None, stream=stream)
    voice = Voice(reporter, cast("Any", None), lambda: NOW, "production")
    answer = cast(
        "Any", SimpleNamespace(verdict=verdict, trace=SimpleNamespace(kernel="acme/relu"))
    )
    voice.warn_opened(answer)
    voice.warn_opened(answer)
    (line,) = stream.getvalue().splitlines()
    assert line.startswith("kgate: acme/relu loads under break-glass until 2026-11-21T20:00:00Z")
    assert "asked for by carol: Inference is down without it" in line
