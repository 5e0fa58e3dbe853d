"""References to repositories as files write them, and what the lock knows about them.

A reference is pinned if it names a commit. A version `N` is pinned enough where the mirror
resolves it: the lock fixed its commit.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from kgate_core.errors import InvalidInput
from kgate_core.kernel import KernelRef

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgate_core.lock import Lock, LockedKernel

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_VERSION: Final = re.compile(r"v([1-9][0-9]*)")
# transformers reads "org/repo", optionally "@revision", optionally ":function".
_ATTENTION: Final = re.compile(
    r"(?:paged\|)?(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<pin>[^/:@]+))?(?::[\w.-]+)?"
)
_HF: Final = re.compile(
    r"hf://(?:(?:models|kernels)/)?(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)"
    r"(?:[:@](?P<pin>[\w./-]+))?"
)
_ADDRESS: Final = re.compile(r"hf://[^\s\"'`<>)\],;]{1,300}")


def is_commit(text: object) -> bool:
    """Return whether a text is a commit."""
    return isinstance(text, str) and _COMMIT.fullmatch(text) is not None


def locked(lock: Lock | None, repo: str) -> LockedKernel | None:
    """Return the lock's entry for a repository, if there is exactly one commit for it."""
    if lock is None:
        return None
    entries = [kernel for kernel in lock.kernels if str(kernel.repo) == repo]
    if len({(str(kernel.commit), kernel.pin) for kernel in entries}) != 1:
        return None
    return entries[0]


def pin_argument(kernel: LockedKernel) -> str:
    """Return the keyword argument that pins a kernel: `version=1` or `revision="…"`."""
    if version := _VERSION.fullmatch(kernel.pin):
        return f"version={version[1]}"
    return f'revision="{kernel.commit}"'


def attention_kernel(text: str) -> tuple[str, str | None] | None:
    """Return repository and pin of an attention implementation that names a kernel."""
    match = _ATTENTION.fullmatch(text)
    if match is None:
        return None
    try:
        return str(KernelRef.parse(match["repo"])), match["pin"]
    except InvalidInput:
        return None


def hf_addresses(text: str) -> Iterator[tuple[int, str, str | None]]:
    """Yield offset, address and pin of every hf:// address of a repository in a text."""
    for match in _ADDRESS.finditer(text):
        address = _HF.match(match.group())
        # Addresses with variables in them are filled in elsewhere.
        if address is not None and "$" not in match.group() and "{" not in match.group():
            yield match.start(), address.group(), address["pin"]
