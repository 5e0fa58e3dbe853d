"""Sites on PostgreSQL and an object store, and the processes that work on them at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kgate_mirror_server.hubsim.simulator import HubSimulator
from tests.repos import copy_repo, redigest
from tests.sitekit import CONNECTED, REPO, VARIANT, Site, built_kernels

if TYPE_CHECKING:
    from kgate_mirror_server.serve.settings import ServeSettings
    from tests.objectstores import S3

KGATE = str(Path(sys.executable).with_name("kgate"))
LARGE = 12 * 1024**2  # bytes of a file that is fetched by its sha256 and uploaded in parts


def hub_of(folder: Path, *, large: int = LARGE) -> HubSimulator:
    """Return a Hub, not started, with the example kernel and a large file in its variant."""
    repo = copy_repo(built_kernels(folder / "cache"), folder / "upstream" / REPO)
    variant = repo / "build" / VARIANT
    (variant / "tables.bin").write_bytes(os.urandom(1024) * (large // 1024))
    redigest(variant)
    hub = HubSimulator()
    hub.publish(REPO, repo)
    return hub


def scaled_site(
    folder: Path,
    hub: HubSimulator,
    database: str,
    s3: S3 | None = None,
    *,
    stream: bool = False,
) -> Site:
    """Found a site that takes the example from a Hub, on these servers."""
    site = Site.found(folder, CONNECTED)
    site.pin(REPO, 1)
    text = site.config.read_text(encoding="utf-8")
    text = text.replace("upstream: ./built", f"upstream: {hub.url}")
    text = text.replace("database: sqlite:///kgate-data/kgate.db", f"database: {database}")
    if s3 is not None:
        line = next(line for line in text.splitlines() if line.startswith("store:"))
        text = text.replace(f"{line}\n", s3.settings(folder, stream=stream))
    site.config.write_text(text, encoding="utf-8")
    assert site.kgate("trust", "update") == 0
    return site


def start(site: Site, *words: str) -> subprocess.Popen[str]:
    """Start a command of the command line in a process of its own."""
    return subprocess.Popen(
        [KGATE, *words, "--config", str(site.config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str], seconds: float = 120) -> tuple[int, str, str]:
    """Wait for a process; returns its exit code and what it said."""
    said, errors = process.communicate(timeout=seconds)
    return process.returncode, said, errors


def fetches(hub: HubSimulator) -> Counter[str]:
    """Return how often each file of a variant was fetched from upstream; resuming is no fetch."""
    return Counter(
        item.path
        for item in hub.requests
        if item.method == "GET"
        and "range" not in item.headers
        and fnmatchcase(item.path, "*/resolve/*/build/*")
    )


def printed(text: str) -> Any:
    """Return the JSON object that a command printed."""
    return json.loads(text)


def replica(site: Site, folder: Path) -> ServeSettings:
    """Return the settings of a replica that has nothing but an empty cache of its own."""
    mirror = site.mirror()
    settings = mirror.serve_settings()
    mirror.close()
    assert settings.objects is not None
    return replace(
        settings,
        store=folder,
        objects=replace(settings.objects, cache=folder),
        kept=None,
        poll_seconds=30.0,
    )
