"""What becomes of a kernel that cannot be had: the caller's own implementation, quickly.

`kernels` falls back for one type of error only, and only if told so; everything else (an unknown
repository, a dead endpoint, a library that does not fit) stops the program. These replacements of
its functions turn all of it into that one type in mode enforce, and in mode strict into one that
nobody takes for a fallback.
"""

# ruff: noqa: ANN401  # the library's own arguments and results pass through, whatever they are
from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any, Final

from kgate_client import versions
from kgate_client.asked import Asked
from kgate_client.blocked import KgateBlocked, KgateRefusal
from kgate_client.process import falls_back, stops

if TYPE_CHECKING:
    from collections.abc import Callable

    Function = Callable[..., Any]


def converting(original: Function) -> Function:
    """Turn every failure to get a kernel into the one that callers take for "fall back"."""

    @functools.wraps(original)
    def get(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        except KgateRefusal:
            raise
        except Exception as exc:  # noqa: BLE001  # raised again as a refusal
            return instead(exc, asked_of(kwargs["kernel"]))

    return get


def resolving(original: Function) -> Function:
    """Do the same where a layer's repository looks up its revision."""

    @functools.wraps(original)
    def select_revision_or_version(*args: Any, **kwargs: Any) -> Any:
        try:
            if kwargs.get("revision") is None and not kwargs.get("local_files_only"):
                refuse_dead_endpoint()
            commit = original(*args, **kwargs)
        except Exception as exc:
            pin = kwargs.get("revision") or f"v{kwargs.get('version')}"
            asked = Asked(str(kwargs["repo_id"] if "repo_id" in kwargs else args[0]), pin)
            pod = falls_back()
            if pod is not None and (earlier := pod.previous_commit(asked)) is not None:
                return earlier
            blocked = convert(exc, asked)
            if blocked is None:
                raise
            raise blocked from exc
        repo = str(kwargs["repo_id"] if "repo_id" in kwargs else args[0])
        if isinstance(number := kwargs.get("version"), int):
            versions.note(repo, number, str(commit))
        return commit

    return select_revision_or_version


def converting_layer(original: Function) -> Function:
    """Do the same for a layer's repository; what the library's own checks say stays as it is."""

    @functools.wraps(original)
    def get_layer(repo: Any, module_class: Any) -> Any:
        try:
            return original(repo, module_class)
        except KgateRefusal:
            raise
        except Exception as exc:
            if _raised_by(exc, "_validate_layer", "_get_kernel_layer", "_get_kernel_func"):
                raise
            blocked = convert(exc, Asked(str(getattr(repo, "_repo_id", repo))))
            if blocked is None:
                raise
            raise blocked from exc

    return get_layer


def falling_back(original: Function) -> Function:
    """Let `use_fallback=True` cover a kernel that cannot be loaded, as its name promises."""

    @functools.wraps(original)
    def kernelize_layer(module: Any, *, use_fallback: Any, **kwargs: Any) -> Any:
        kinds = type(use_fallback)
        flags = use_fallback
        if falls_back() is not None:
            if kinds.DEFAULT in use_fallback:
                flags |= kinds.CANNOT_LOAD
        elif stops() is not None:
            flags &= ~kinds.CANNOT_LOAD  # strict: not even callers who ask for it
        try:
            return original(module, use_fallback=flags, **kwargs)
        except KgateBlocked:
            # The library asks for the repository's name, and so for its revision, before its own
            # `try`: a failure there comes out here.
            library = sys.modules.get("kernels.layer.layer")
            keep_own = getattr(library, "_replace_forward", None)
            if kinds.CANNOT_LOAD not in flags or keep_own is None:
                raise
            return keep_own(module, type(module))

    return kernelize_layer


# The ways in which a load fails, as stable words; matched by name so that nothing is imported.
_REASONS: Final = {
    "RepositoryNotFoundError": "not-found",
    "RevisionNotFoundError": "revision-not-found",
    "GatedRepoError": "gated",
    "DisabledRepoError": "gated",
    "LocalEntryNotFoundError": "not-cached",
    "EntryNotFoundError": "not-found",
    "ImportError": "import-error",
    "FileNotFoundError": "no-build",
    "ConnectError": "unreachable",
    "TimeoutException": "unreachable",
    "TimeoutError": "unreachable",
    "ConnectionError": "unreachable",
    "HfHubHTTPError": "unreachable",
    "OSError": "import-error",
    "ValueError": "not-resolved",
}


def _reason_of(exc: BaseException) -> str:
    text = str(exc)
    if "publisher" in text and "trust" in text:
        return "untrusted-publisher"
    if text.startswith("Version ") and ("not found" in text or "not available" in text):
        return "version-not-found"
    names = (kind.__name__ for kind in type(exc).__mro__)
    return next((_REASONS[name] for name in names if name in _REASONS), "load-error")


def convert(exc: Exception, asked: Asked) -> KgateRefusal | None:
    """Return what to raise instead, None where the error is to be left alone."""
    pod = stops()
    if pod is None:
        return None
    return pod.blocked(str(asked), _reason_of(exc), _first_line(exc), asked=asked)


def instead(exc: Exception, asked: Asked) -> Any:
    """Return the kernel's previous version where one is kept, else raise what callers expect."""
    pod = falls_back()
    if pod is not None:
        kept = pod.previous(asked, _reason_of(exc), _first_line(exc))
        if kept is not None:
            return kept
    blocked = convert(exc, asked)
    raise exc if blocked is None else blocked from exc


def _first_line(exc: Exception) -> str:
    return str(exc).strip().partition("\n")[0] or type(exc).__name__


def refuse_dead_endpoint() -> None:
    """Fail at once where the client would retry a dead endpoint for 23 seconds per request."""
    pod = stops()
    if pod is None:
        return
    if problem := pod.unreachable():
        raise ConnectionError(problem)


def _raised_by(exc: BaseException, *functions: str) -> bool:
    traceback = exc.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_name in functions:
            return True
        traceback = traceback.tb_next
    return False


def asked_of(kernel: Any) -> Asked:
    """Read the library's KernelDependency."""
    version = kernel.version
    number = getattr(version, "version", None)
    pin = getattr(version, "revision", None) if number is None else f"v{number}"
    return Asked(str(kernel.repo_id), pin)
