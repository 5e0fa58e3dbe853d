"""What stands in the place of the functions of `kernels`: adapters between its world and the gate.

Each function here takes one of the library's functions and returns its replacement; where they go
is `hook`'s business. Neither torch nor cryptography is imported here before a kernel is asked for.
"""

# ruff: noqa: ANN401  # the library's own arguments and results pass through, whatever they are
from __future__ import annotations

import functools
import logging
import os
import sys
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kgate_client import versions
from kgate_client.blocked import KgateBlocked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from types import ModuleType

    from kgate_client.asked import Asked
    from kgate_client.pod import Pod

    Function = Callable[..., Any]

_log = logging.getLogger(__name__)
_NOTE: Final = "_kgate_asked"


@dataclass(frozen=True, slots=True)
class _Noted:
    """What was asked for the variant at this path."""

    path: Path
    asked: Asked


_noted: ContextVar[_Noted | None] = ContextVar("kgate_noted", default=None)


def gated(original: Function) -> Function:
    """Ask the gate where the library would execute a variant."""

    @functools.wraps(original)
    def import_from_path(
        variant_path: Path,
        deps: Mapping[str, ModuleType],
        repo_info: object = None,
    ) -> ModuleType:
        path = Path(variant_path)
        noted = _noted.get()

        def ungated() -> ModuleType:
            module: ModuleType = original(variant_path, deps=deps, repo_info=repo_info)
            return module

        pod = _pod()
        if pod is None:
            return ungated()
        from kgate_client.asked import Asked
        from kgate_client.pod import Request

        # A note about another path is not a note about this one.
        asked = noted.asked if noted is not None and noted.path == path else Asked()
        library = _Kernels(deps, repo_info, ungated)
        return pod.load(Request(asked, path, tuple(deps.values()), library))

    return import_from_path


@dataclass(frozen=True, slots=True)
class _Kernels:
    """The library, as the gate uses it (see `pod.Library`)."""

    deps: Mapping[str, ModuleType]
    repo_info: object
    load_ungated: Callable[[], ModuleType]

    def find(self, path: Path) -> ModuleType | None:
        importer = sys.modules["kernels.importer"]
        loaded = importer._loaded_kernels.get(path)  # noqa: SLF001  # its registry
        return None if loaded is None else loaded.module

    def register(self, path: Path, module: ModuleType, sealed: Path) -> None:
        importer = sys.modules["kernels.importer"]
        importer._loaded_kernels[path] = importer.LoadedKernel(  # noqa: SLF001  # its registry
            metadata=importer.Metadata.read_from_file(sealed / "metadata.json"),
            module=module,
            repo_info=self.repo_info,
        )

    def context(self) -> AbstractContextManager[object]:
        use_kernel_deps = sys.modules["kernels.deps"].use_kernel_deps
        context: AbstractContextManager[object] = use_kernel_deps(dict(self.deps))
        return context


def noting(original: Function) -> Function:
    """Note on the resolved location what was asked for; the location travels to the load."""

    @functools.wraps(original)
    def resolve_kernel_tree(*args: Any, **kwargs: Any) -> Any:
        kernel = kwargs["kernel"] if "kernel" in kwargs else args[1]
        if _asks_the_hub(kwargs["resolver"] if "resolver" in kwargs else args[3]):
            _refuse_dead_endpoint()
        node = original(*args, **kwargs)
        asked = _asked_of(kernel)
        if asked.version is not None and (commit := getattr(node.location, "revision", None)):
            versions.note(str(asked.repo), asked.version, str(commit))
        # The location is a frozen dataclass: noted past its own protection, on this object only.
        object.__setattr__(node.location, _NOTE, asked)
        return node

    return resolve_kernel_tree


def carrying(original: Function) -> Function:
    """Carry the note from the location to the load point, through dependencies and threads."""

    @functools.wraps(original)
    def load(self: Any) -> Any:
        location = self.location
        asked = getattr(location, _NOTE, None) or getattr(
            getattr(location, "origin", None), _NOTE, None
        )
        path = getattr(location, "variant_path", None)
        noted = None if asked is None or path is None else _Noted(Path(path), asked)
        token = _noted.set(noted)
        try:
            return original(self)
        finally:
            _noted.reset(token)

    return load


def converting(original: Function) -> Function:
    """Turn every failure to get a kernel into the one that callers take for "fall back"."""

    @functools.wraps(original)
    def get(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        except KgateBlocked:
            raise
        except Exception as exc:
            blocked = _conversion(exc, _asked_of(kwargs["kernel"]))
            if blocked is None:
                raise
            raise blocked from exc

    return get


def resolving(original: Function) -> Function:
    """Do the same where a layer's repository looks up its revision."""

    @functools.wraps(original)
    def select_revision_or_version(*args: Any, **kwargs: Any) -> Any:
        try:
            if kwargs.get("revision") is None and not kwargs.get("local_files_only"):
                _refuse_dead_endpoint()
            commit = original(*args, **kwargs)
        except Exception as exc:
            from kgate_client.asked import Asked

            pin = kwargs.get("revision") or f"v{kwargs.get('version')}"
            asked = Asked(str(kwargs["repo_id"] if "repo_id" in kwargs else args[0]), pin)
            blocked = _conversion(exc, asked)
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
        except KgateBlocked:
            raise
        except Exception as exc:
            if _raised_by(exc, "_validate_layer", "_get_kernel_layer", "_get_kernel_func"):
                raise
            from kgate_client.asked import Asked

            blocked = _conversion(exc, Asked(str(getattr(repo, "_repo_id", repo))))
            if blocked is None:
                raise
            raise blocked from exc

    return get_layer


def falling_back(original: Function) -> Function:
    """Let `use_fallback=True` cover a kernel that cannot be loaded, as its name promises."""

    @functools.wraps(original)
    def kernelize_layer(module: Any, *, use_fallback: Any, **kwargs: Any) -> Any:
        kinds = type(use_fallback)
        wanted = kinds.DEFAULT in use_fallback and _enforcing()
        flags = use_fallback | kinds.CANNOT_LOAD if wanted else use_fallback
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


def reusing(original: Function) -> Function:
    """Find a variant in the cache offline although its repository has others that are not there.

    huggingface_hub calls a snapshot without the other variants incomplete and refuses it. The gate
    checks every file of the variant all the same, so a missing one is not overlooked.
    """

    @functools.wraps(original)
    def resolve_hub_cache_kernel(api: Any, repo_id: str, *, revision: str, **kwargs: Any) -> Any:
        try:
            return original(api, repo_id, revision=revision, **kwargs)
        except FileNotFoundError:
            own = sys.modules["kernels.hf_hub"].CACHE_DIR
            cache = Path(own or sys.modules["huggingface_hub.constants"].HF_HUB_CACHE)
            folder = cache / f"kernels--{repo_id.replace('/', '--')}" / "snapshots" / revision
            if not folder.is_dir() or not _enforcing():
                raise
            return original(_Snapshot(folder), repo_id, revision=revision, **kwargs)

    return resolve_hub_cache_kernel


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """Answers the one question that the library asks about a cached snapshot: where it is."""

    folder: Path

    def snapshot_download(self, *_args: Any, **_kwargs: Any) -> str:
        return str(self.folder)


def refusing_scripts(original: Function) -> Function:
    """Refuse scripts that came with a repository but that nobody signed."""

    @functools.wraps(original)
    def discover(script_path: Path, *args: Any, **kwargs: Any) -> Any:
        pod = _pod()
        if pod is None or pod.mode().strictness < _ENFORCE:
            return original(script_path, *args, **kwargs)
        from kgate_client.asked import Asked

        name = str(script_path)
        said = "benchmark scripts of a repository are not signed"
        raise pod.blocked(name, "unsigned-script", said, asked=Asked(name))

    return discover


def repaired(original: Function) -> Function:
    """Take away the empty user agent of kernels 0.17 without telemetry, which HTTP refuses."""

    @functools.wraps(original)
    def get_hf_api(*args: Any, **kwargs: Any) -> Any:
        api = original(*args, **kwargs)
        if getattr(api, "user_agent", None) == "" and _enforcing():
            api.user_agent = None
        return api

    return get_hf_api


def blocking(original: Function, *, because: str) -> Function:
    """Refuse to load anything, for a reason that lies in the library itself."""

    @functools.wraps(original)
    def refuse(*args: Any, **kwargs: Any) -> Any:
        pod = _pod()
        if pod is None or pod.mode().strictness < _ENFORCE:
            return original(*args, **kwargs)
        from kgate_client.asked import Asked

        first = args[0] if args else "a kernel"
        named = str(kwargs.get("repo_id") or getattr(first, "_repo_id", first))
        raise pod.blocked(named, "unknown-client", because, asked=Asked(named))

    return refuse


_ENFORCE: Final = 2  # Mode.ENFORCE.strictness, known without importing the core

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


def _conversion(exc: Exception, asked: Asked) -> KgateBlocked | None:
    """Return what to raise instead, None where the error is to be left alone."""
    pod = _pod()
    if pod is None or not _enforcing():
        return None
    text = str(exc).strip().partition("\n")[0] or type(exc).__name__
    return pod.blocked(str(asked), _reason_of(exc), text, asked=asked)


def _refuse_dead_endpoint() -> None:
    """Fail at once where the client would retry a dead endpoint for 23 seconds per request."""
    pod = _pod()
    if pod is None or not _enforcing():
        return
    if problem := pod.unreachable():
        raise ConnectionError(problem)


def _asks_the_hub(resolver: object) -> bool:
    inner = getattr(resolver, "resolvers", None) or [resolver]
    return any(type(item).__name__ in {"HubResolver", "LockedHubResolver"} for item in inner)


def _raised_by(exc: BaseException, *functions: str) -> bool:
    traceback = exc.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_name in functions:
            return True
        traceback = traceback.tb_next
    return False


def _asked_of(kernel: Any) -> Asked:
    """Read the library's KernelDependency."""
    from kgate_client.asked import Asked

    version = kernel.version
    number = getattr(version, "version", None)
    pin = getattr(version, "revision", None) if number is None else f"v{number}"
    return Asked(str(kernel.repo_id), pin)


def _pod() -> Pod | None:
    """Return this process's shim; None if it is broken and may not matter (observe)."""
    try:
        from kgate_client import pod

        return pod.current()
    except Exception as exc:
        if os.environ.get("KGATE_MODE", "").lower() == "observe":
            _log.debug("kgate is broken and only observes", exc_info=True)
            return None
        raise KgateBlocked("a kernel", "gate-broken", f"kgate does not work here ({exc})") from exc


def _enforcing() -> bool:
    pod = _pod()
    return pod is not None and pod.mode().strictness == _ENFORCE
