"""The child process and what becomes of its misdeeds, with real processes."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from kgate_scanner import isolate, scan
from kgate_scanner.isolate import Inspected, ParserProcess, ScanLimits, open_descriptor
from tests.scankit import build_library, rules_of, scan_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMITS = ScanLimits(file_seconds=20)
HELLO = json.dumps({"layers": ["seccomp"]}).encode()
# A parser process that greets, takes the first request and then does as it is told.
MISBEHAVE = """
import os, socket, struct, sys, time
channel = socket.socket(fileno=int(sys.argv[1]))
def answer(data):
    channel.sendall(struct.pack(">Q", len(data)) + data)
answer({hello!r})
channel.recv(1)
{deed}
time.sleep(60)  # stay until the parent has seen it and ends this process
"""


@pytest.fixture
def descriptor() -> Iterator[int]:
    number = open_descriptor(memoryview(b"x = 1\n"))
    yield number
    os.close(number)


def ask(descriptor: int, limits: ScanLimits = LIMITS) -> Inspected:
    with ParserProcess(limits, 100) as process:
        return process.inspect(descriptor, "a.py")


def deed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(isolate, "_BOOT", MISBEHAVE.format(hello=HELLO, deed=text))


def test_a_file_is_read_in_another_process_that_answers(descriptor: int) -> None:
    with ParserProcess(LIMITS, 100) as process:
        found = process.inspect(descriptor, "a.py")
        first = process.pid
        again = process.inspect(descriptor, "a.py")
        assert process.pid == first != os.getpid()
    assert found == again
    assert (found.complete, found.facts["kind"]) == (True, "python")
    assert process.pid is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("os.kill(os.getpid(), 11)", "the parser stopped by signal 11"),
        ("os._exit(3)", "the parser stopped with status 3"),
        ("answer(b'not json')", "gave an answer that cannot be used"),
        ("answer(b'{}')", "gave an answer that cannot be used"),
        ('answer(b\'{"facts":{},"findings":[{"rule":1}],"complete":true}\')', "cannot be used"),
        ("answer(b'[' * 100000)", "gave an answer that cannot be used"),
        ("channel.sendall(struct.pack('>Q', 1 << 60))", "bytes are more than"),
        ("channel.sendall(struct.pack('>Q', 100)); os._exit(0)", "stopped with status 0"),
    ],
)
def test_whatever_the_child_does_is_a_finding_and_never_an_exception(
    monkeypatch: pytest.MonkeyPatch, descriptor: int, text: str, said: str
) -> None:
    deed(monkeypatch, text)
    found = ask(descriptor)
    assert not found.complete
    assert [finding.rule for finding in found.findings] == ["KG-SCAN-001"]
    assert said in found.findings[0].seen


def test_an_endless_parser_is_ended(monkeypatch: pytest.MonkeyPatch, descriptor: int) -> None:
    deed(monkeypatch, "while True: time.sleep(1)")
    with ParserProcess(ScanLimits(file_seconds=0.5), 100) as process:
        found = process.inspect(descriptor, "a.py")
        assert process.pid is None
    assert found.findings[0].seen == "the parser took longer than 0.5 seconds"


def test_an_answer_that_trickles_does_not_stretch_the_time(
    monkeypatch: pytest.MonkeyPatch, descriptor: int
) -> None:
    deed(
        monkeypatch,
        "channel.sendall(struct.pack('>Q', 10000))\n"
        "while True: channel.sendall(b'x'); time.sleep(0.05)",
    )
    found = ask(descriptor, ScanLimits(file_seconds=0.5))
    assert "took longer" in found.findings[0].seen


def test_a_child_cannot_speak_about_another_file(
    monkeypatch: pytest.MonkeyPatch, descriptor: int
) -> None:
    answer = {
        "facts": {},
        "complete": True,
        "findings": [{"rule": "KG-X-1", "severity": "low", "path": "b.py", "seen": "x"}],
    }
    deed(monkeypatch, f"answer({json.dumps(answer).encode()!r})")
    assert "speaks about another file" in ask(descriptor).findings[0].seen


def test_a_flood_of_findings_is_cut_to_the_worst(
    monkeypatch: pytest.MonkeyPatch, descriptor: int
) -> None:
    flood = [
        {"rule": "KG-X-1", "severity": severity, "path": "a.py", "seen": str(number)}
        for number in range(50)
        for severity in ("info", "high")
    ]
    answer = {"facts": {}, "complete": True, "findings": flood}
    deed(monkeypatch, f"answer({json.dumps(answer).encode()!r})")
    found = ask(descriptor, ScanLimits(findings=50))
    assert {finding.severity.label for finding in found.findings[:50]} == {"high"}
    assert found.findings[50].rule == "KG-SCAN-004"
    assert found.findings[50].seen == "100 findings, 50 are kept"


def test_a_child_that_never_starts_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, descriptor: int
) -> None:
    monkeypatch.setattr(isolate, "_BOOT", "raise SystemExit(9)")
    assert "stopped with status 9" in ask(descriptor).findings[0].seen


def test_after_a_crash_the_next_file_gets_a_new_child(descriptor: int) -> None:
    with ParserProcess(LIMITS, 100) as process:
        process.inspect(descriptor, "a.py")
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        assert "stopped by signal 9" in process.inspect(descriptor, "a.py").findings[0].seen
        assert process.inspect(descriptor, "a.py").complete


def test_memory_is_bounded() -> None:
    # Source whose tree needs far more memory than the child may have.
    source = b"x = [" + b"a.b(c)," * 900_000 + b"]\n"
    report = scan_bytes({"a.py": source}, limits=ScanLimits(memory_bytes=400 * 1024**2))
    assert not report.complete
    assert rules_of(report) & {"KG-SCAN-001", "KG-PY-015"}


def test_processor_time_is_bounded() -> None:
    source = b"x = [" + b"a.b(c)," * 900_000 + b"]\n"
    report = scan_bytes({"a.py": source}, limits=ScanLimits(cpu_seconds=1))
    assert rules_of(report) == {"KG-SCAN-001"}


def test_a_library_behind_any_name_is_read() -> None:
    # No name promises one, so the child first starts without the parser of host code.
    report = scan_bytes({"a.py": b"x = 1\n", "notes.txt": build_library()})
    assert report.files["notes.txt"]["host"]["machine"] == "x86_64"
    assert report.complete


def test_large_scans_are_shared_by_two_children_and_report_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = {f"{number}.py": b"x = eval('1')\n" * (number + 1) for number in range(6)}
    alone = scan_bytes(files)
    started: list[int] = []
    enter = ParserProcess.__enter__

    def counted(process: ParserProcess) -> ParserProcess:
        started.append(1)
        return enter(process)

    monkeypatch.setattr(ParserProcess, "__enter__", counted)
    monkeypatch.setattr(scan, "_WORTH_TWO", 0)
    monkeypatch.setattr(scan, "_processors", lambda: 2)
    assert scan_bytes(files).to_bytes() == alone.to_bytes()
    assert len(started) == 2
    monkeypatch.setattr(scan, "_processors", lambda: 1)
    assert scan_bytes(files).to_bytes() == alone.to_bytes()
    assert len(started) == 3
