"""This process's shim: made from the environment at first use, put together here only.

What is read here and nowhere below: the environment, the clock, the directory for private copies.
"""

from __future__ import annotations

import atexit
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kgate_client.blocked import KgateBlocked, KgateStopped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kgate_client.channel import Channel
    from kgate_client.config import PodConfig
    from kgate_client.pod import Pod
    from kgate_client.post import Poster
    from kgate_client.seal import SealedStore

ENFORCE: Final = 2  # Mode.ENFORCE.strictness, known without importing the core
_made: list[Pod] = []
_making = threading.Lock()


def shim() -> Pod | None:
    """Return this process's shim; None if it is broken and may not matter (observe).

    Raises KgateRefusal if it is broken and matters.
    """
    try:
        return current()
    except Exception as exc:
        if os.environ.get("KGATE_MODE", "").lower() == "observe":
            import logging

            logging.getLogger(__name__).debug("kgate only observes, and is broken", exc_info=True)
            return None
        strict = os.environ.get("KGATE_MODE", "").lower() == "strict"
        kind = KgateStopped if strict else KgateBlocked
        raise kind("a kernel", "gate-broken", f"kgate does not work here ({exc})") from exc


def stops() -> Pod | None:
    """Return the shim if its mode refuses kernels (enforce, strict), else None."""
    pod = shim()
    return pod if pod is not None and pod.mode().strictness >= ENFORCE else None


def falls_back() -> Pod | None:
    """Return the shim if its mode turns failures into fallbacks (enforce), else None."""
    pod = shim()
    return pod if pod is not None and pod.mode().strictness == ENFORCE else None


def current() -> Pod:
    """Return this process's shim, made now if it is the first time."""
    with _making:
        if not _made:
            _made.append(build(os.environ))
        return _made[0]


def build(environ: Mapping[str, str]) -> Pod:
    """Return a shim for this environment."""
    from kgate_client.config import PodConfig
    from kgate_client.pod import Pod
    from kgate_client.report import Reporter

    config = PodConfig.from_env(environ)
    channel: Channel | None = None
    if not config.offline and config.endpoint is not None:
        from kgate_client.channel import Channel as Http

        channel = Http.of(config)
    reporter = Reporter(
        config.report, warn=config.warn, endpoint=config.endpoint, poster=_poster(config, channel)
    )
    for problem in config.problems:
        reporter.warn(problem, f"kgate: {problem}.")
    if config.disable and config.trust_root is not None:
        reporter.warn("disable", "kgate: KGATE_DISABLE is ignored where a trust root is pinned.")
    return Pod(
        config,
        pinned=_read_optional(config.trust_root),
        sealed=_sealed_store(config.cache),
        channel=channel,
        reporter=reporter,
        now=lambda: datetime.now(UTC),
    )


def _poster(config: PodConfig, channel: Channel | None) -> Poster | None:
    if config.report_url is None:
        return None
    from kgate_client.post import Address, Poster

    address = Address.of(config, None if channel is None else channel.token())
    return None if address is None else Poster(address)


def _after_fork() -> None:
    # A thread of the parent may have held a lock; in the child that thread does not exist.
    global _making  # noqa: PLW0603  # a lock cannot be reset in place
    _making = threading.Lock()
    for pod in _made:
        pod.renew_locks()


os.register_at_fork(after_in_child=_after_fork)


def _read_optional(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError:
        return None


def _sealed_store(cache: Path | None) -> SealedStore:
    """Return where copies go: the cache if it is ours alone, or a private directory."""
    from kgate_client.seal import SealedStore, is_private

    if cache is None:
        return SealedStore(_private_directory())
    root = cache / "sealed"
    if _can_make(root) and is_private(root):
        return SealedStore(root, spare=_private_directory)
    return SealedStore(_private_directory(), shared=root)


def _can_make(directory: Path) -> bool:
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    return directory.is_dir() and os.access(directory, os.W_OK | os.X_OK)


def _private_directory() -> Path:
    """Choose a directory of this process that nobody can guess; it is made when it is needed."""
    import tempfile

    from kgate_client.seal import discard

    try:
        parent = tempfile.gettempdir()
    except FileNotFoundError:
        parent = "/dev/shm"  # noqa: S108  # the last writable place of a read-only container
    directory = Path(parent) / f"kgate-{os.urandom(16).hex()}"
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:
            discard(directory)

    atexit.register(remove)
    return directory
