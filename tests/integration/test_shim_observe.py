"""`observe` does no harm whatever breaks: each fault, with kgate and without, compared.

One program asks in six ways for kernels that are there and that are not; what it prints, what it
writes to stderr and how it ends must be the same. The faults are of every kind: nothing set up, a
file missing, unreadable or nonsense, the mirror dead or talking nonsense, parts of kgate broken.
"""

from __future__ import annotations

import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from kgate_core.trust import Mode
from tests.integration.test_shim_conditions import BEHAVIOUR
from tests.threats.test_shim_trust import _pod_in_lane

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from tests.podkit import Pod

Variables = dict[str, str | None]


class _Nonsense(BaseHTTPRequestHandler):
    """A mirror that answers everything with rubbish."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"\x00\xff not json")

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base's name
        """Keep the test's output quiet."""


@pytest.fixture(scope="module")
def nonsense() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Nonsense)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def _spoil(path: str) -> Callable[[Pod], None]:
    def spoil(pod: Pod) -> None:
        for file in pod.cache.glob(path):
            file.write_bytes(b"\x00 not what it was")

    return spoil


def _fill_sealed(pod: Pod) -> None:
    """Something else has taken the place of the private copies."""
    (pod.cache / "sealed").write_text("a file")


def _unsign(pod: Pod) -> None:
    for file in (pod.cache / "attestations").iterdir():
        file.unlink()


def _break(what: str) -> str:
    """Return a prologue that breaks a part of kgate inside the process."""
    return f"import sys\nsys.modules[{what!r}] = None\n"


FAULTS: dict[str, Variables] = {
    "nothing is set up": {"KGATE_TRUST_ROOT": None},
    "the root is not there": {"KGATE_TRUST_ROOT": "/nowhere"},
    "the root is rubbish": {"KGATE_TRUST_ROOT": "/etc/passwd"},
    "the root is a folder": {"KGATE_TRUST_ROOT": "/etc"},
    "the lane is unknown and no root pinned": {"KGATE_LANE": "nowhere", "KGATE_TRUST_ROOT": None},
    "the cache cannot be written": {"KGATE_CACHE": "/proc/kgate"},
    "there is no home": {"HOME": None, "KGATE_CACHE": None},
    "no temporary directory can be written": {"TMPDIR": "/proc"},
    "the lock is missing": {"KGATE_LOCK": "/nowhere.lock"},
    "the lock is rubbish": {"KGATE_LOCK": "/etc/passwd"},
    "the pool is odd": {"KGATE_LOCK": "/etc/passwd", "KGATE_CANARY": "../../etc"},
    "the choice is rubbish": {"KGATE_ON_DENY": "*=block", "KGATE_WARN": "0"},
    "the report cannot be written": {"KGATE_REPORT": "/proc/x"},
    "the report's disk is full": {"KGATE_REPORT": "/dev/full"},
    "reports reach nobody": {"KGATE_REPORT_URL": "http://127.0.0.1:9/", "HF_HUB_OFFLINE": "1"},
    "the report's address is none": {"KGATE_REPORT_URL": "::::"},
    "the runtime SBOM cannot be written": {"KGATE_RUNTIME_SBOM": "/proc/x"},
    "the certificates are missing": {"SSL_CERT_FILE": "/nowhere.pem"},
    "the token file is a folder": {"HF_TOKEN_PATH": "/etc"},
}
# Further faults of kinds that the tables hold already: these wait for `make test-matrix`.
LATER = {
    "the root is not there",
    "the root is a folder",
    "the lock is missing",
    "the pool is odd",
    "the report cannot be written",
    "the report's address is none",
    "the token file is a folder",
    "one trust document is rubbish",
    "the attestations are rubbish",
    "the names are rubbish",
    "kgate_core",
    "kgate_client.gate",
    "kgate_client.channel",
}
SPOILT: dict[str, Callable[[Pod], None]] = {
    "the trust metadata is rubbish": _spoil("trust/*.json"),
    "one trust document is rubbish": _spoil("trust/snapshot.json"),
    "the attestations are rubbish": _spoil("attestations/*"),
    "there are no attestations": _unsign,
    "the names are rubbish": _spoil("names/*/*/*/*"),
    "the place of private copies is taken": _fill_sealed,
}
BROKEN = {
    part: _break(part)
    for part in (
        "cryptography",
        "kgate_core",
        "kgate_core.verify",
        "kgate_client.pod",
        "kgate_client.gate",
        "kgate_client.report",
        "kgate_client.channel",
    )
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Pod, Variables], tuple[Any, str]]:
    """Return how the program behaves without kgate in the same place."""

    def run(pod: Pod, variables: Variables) -> tuple[Any, str]:
        kept = {k: v for k, v in variables.items() if not k.startswith("KGATE_")}
        done = pod.run_without_shim(BEHAVIOUR, **kept)
        return done.value, done.stderr

    return run


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    """Return a pod whose lane is signed to observe, with a kernel that is not what was signed."""
    pod = _pod_in_lane(tmp_path, mode=Mode.OBSERVE)
    (pod.variant() / "added.py").write_text("")
    return pod


def _observe(pod: Pod, variables: Variables, prologue: str = "") -> tuple[Any, str]:
    settings: Variables = {"KGATE_MODE": "observe", "KGATE_LANE": "own", **variables}
    done = pod.run(prologue + BEHAVIOUR, **settings)
    return done.value, done.stderr


WHEN = pytest.mark.parametrize(
    "later", [False, pytest.param(True, marks=pytest.mark.matrix)], ids=["now", "matrix"]
)


def _chosen(names: Iterable[str], *, later: bool) -> list[str]:
    return [name for name in names if (name in LATER) is later]


def test_what_waits_for_the_matrix_is_in_the_tables() -> None:
    assert {*FAULTS, *SPOILT, *BROKEN} >= LATER


@WHEN
def test_every_setting_that_can_be_wrong(
    pod: Pod, plain: Callable[[Pod, Variables], tuple[Any, str]], *, later: bool
) -> None:
    expected = plain(pod, {})
    for fault in _chosen(FAULTS, later=later):
        variables = FAULTS[fault]
        own = {name for name in variables if not name.startswith("KGATE_")}
        assert _observe(pod, variables) == (plain(pod, variables) if own else expected), fault


@WHEN
def test_every_document_that_can_be_spoilt(
    tmp_path: Path, plain: Callable[[Pod, Variables], tuple[Any, str]], *, later: bool
) -> None:
    for number, fault in enumerate(_chosen(SPOILT, later=later)):
        pod = _pod_in_lane(tmp_path / str(number), mode=Mode.OBSERVE)
        SPOILT[fault](pod)
        assert _observe(pod, {}) == plain(pod, {}), fault


@WHEN
def test_every_part_of_kgate_that_can_break(
    pod: Pod, plain: Callable[[Pod, Variables], tuple[Any, str]], *, later: bool
) -> None:
    expected = plain(pod, {})
    for part in _chosen(BROKEN, later=later):
        assert _observe(pod, {"KGATE_TRUST_ROOT": None}, BROKEN[part])[0] == expected[0], part


def test_stale_expired_and_revoked_are_observed_only(
    tmp_path: Path, plain: Callable[[Pod, Variables], tuple[Any, str]]
) -> None:
    stale = _pod_in_lane(
        tmp_path / "stale",
        mode=Mode.OBSERVE,
        age=timedelta(minutes=30),
        soft_staleness=timedelta(minutes=1),
        hard_staleness=timedelta(minutes=2),
    )
    expired = _pod_in_lane(tmp_path / "expired", mode=Mode.OBSERVE, age=timedelta(days=4000))
    for pod in (stale, expired):
        assert _observe(pod, {}) == plain(pod, {})


def test_a_mirror_that_talks_nonsense_or_nothing(
    pod: Pod, nonsense: str, plain: Callable[[Pod, Variables], tuple[Any, str]]
) -> None:
    """The client itself stays offline; kgate asks the mirror for trust and posts to it."""
    local = f"""
import json
from pathlib import Path
from kernels import get_local_kernel
module = get_local_kernel(Path({str(pod.variant())!r}))
print(json.dumps([module.__file__, module.double(2)]))
"""
    without = pod.run_without_shim(local)
    for endpoint in (nonsense, "http://127.0.0.1:9", "no address"):
        observed = pod.run(
            local,
            HF_HUB_OFFLINE=None,
            HF_ENDPOINT=endpoint,
            KGATE_CACHE=str(pod.home / "empty"),
            KGATE_MODE="observe",
            KGATE_LANE="own",
            KGATE_REPORT_URL="mirror",
        )
        assert (observed.value, observed.stderr) == (without.value, without.stderr), endpoint
