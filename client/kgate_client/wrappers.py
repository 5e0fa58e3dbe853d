"""What stands in the place of the functions of `kernels` on the way to the gate.

Each function here takes one of the library's functions and returns its replacement; where they go
is `hook`'s business, what becomes of a failure that of `fallbacks`. Neither torch nor cryptography
is imported here before a kernel is asked for.
"""

# ruff: noqa: ANN401  # the library's own arguments and results pass through, whatever they are
from __future__ import annotations

import functools
import sys
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kgate_client import versions
from kgate_client.asked import Asked
from kgate_client.fallbacks import asked_of, refuse_dead_endpoint
from kgate_client.process import falls_back, shim, stops
from kgate_client.request import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from types import ModuleType

    Function = Callable[..., Any]

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

        pod = shim()
        if pod is None:
            return ungated()
        # A note about another path is not a note about this one.
        asked = noted.asked if noted is not None and noted.path == path else Asked()
        library = _Kernels(deps, repo_info, ungated)
        return pod.load(Request(asked, path, tuple(deps.values()), library))

    return import_from_path


@dataclass(frozen=True, slots=True)
class _Kernels:
    """The library, as the gate uses it (see `request.Library`)."""

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
        if _asks_the_hub(kwargs["resolver"] if "resolver" in kwargs else args[3], kernel):
            refuse_dead_endpoint()
        node = original(*args, **kwargs)
        asked = asked_of(kernel)
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


def without_empty_versions(original: Function) -> Function:
    """Leave out the versions that a mirror lists only so that stock clients find no build there.

    Without this the client would advise everybody to change to a version that holds nothing.
    """

    @functools.wraps(original)
    def get_available_versions(*args: Any, **kwargs: Any) -> Any:
        found = original(*args, **kwargs)
        real = {n: ref for n, ref in found.items() if ref.target_commit != versions.NOTHING}
        return real or found

    return get_available_versions


def following_lock(original: Function) -> Function:
    """Let a version mean what this pod's lock says, so that replicas run the same."""

    @functools.wraps(original)
    def resolve_version_spec_as_ref(
        repo_id: str, version_spec: Any, *args: Any, **kwargs: Any
    ) -> Any:
        pod = stops()
        if pod is None or pod.config.lock is None:
            return original(repo_id, version_spec, *args, **kwargs)
        name = f"v{version_spec}"
        try:
            found = original(repo_id, version_spec, *args, **kwargs)
        except Exception:
            commit = pod.locked_commit(repo_id, name, "")
            if not commit:
                raise
        else:
            commit = pod.locked_commit(repo_id, name, str(found.target_commit))
            if commit == found.target_commit:
                return found
        kind = sys.modules["huggingface_hub.hf_api"].GitRefInfo
        return kind(name=name, ref=f"refs/heads/{name}", target_commit=commit)

    return resolve_version_spec_as_ref


def refusing_scripts(original: Function) -> Function:
    """Refuse scripts that came with a repository but that nobody signed."""

    @functools.wraps(original)
    def discover(script_path: Path, *args: Any, **kwargs: Any) -> Any:
        pod = stops()
        if pod is None:
            return original(script_path, *args, **kwargs)
        name = str(script_path)
        said = "benchmark scripts of a repository are not signed"
        raise pod.blocked(name, "unsigned-script", said, asked=Asked(name))

    return discover


def repaired(original: Function) -> Function:
    """Take away the empty user agent of kernels 0.17 without telemetry, which HTTP refuses."""

    @functools.wraps(original)
    def get_hf_api(*args: Any, **kwargs: Any) -> Any:
        api = original(*args, **kwargs)
        if getattr(api, "user_agent", None) == "" and falls_back() is not None:
            api.user_agent = None
        return api

    return get_hf_api


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
            if not folder.is_dir() or falls_back() is None:
                raise
            return original(_Snapshot(folder), repo_id, revision=revision, **kwargs)

    return resolve_hub_cache_kernel


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """Answers the one question that the library asks about a cached snapshot: where it is."""

    folder: Path

    def snapshot_download(self, *_args: Any, **_kwargs: Any) -> str:
        return str(self.folder)


def blocking(original: Function, *, because: str) -> Function:
    """Refuse to load anything, for a reason that lies in the library itself."""

    @functools.wraps(original)
    def refuse(*args: Any, **kwargs: Any) -> Any:
        pod = stops()
        if pod is None:
            return original(*args, **kwargs)
        first = args[0] if args else "a kernel"
        named = str(kwargs.get("repo_id") or getattr(first, "_repo_id", first))
        raise pod.blocked(named, "unknown-client", because, asked=Asked(named))

    return refuse


def _asks_the_hub(resolver: object, kernel: Any) -> bool:
    inner = getattr(resolver, "resolvers", None) or [resolver]
    if any(kernel.repo_id in (getattr(item, "local_kernels", None) or ()) for item in inner):
        return False  # it comes from a directory: nobody needs to be reached for it
    return any(type(item).__name__ in {"HubResolver", "LockedHubResolver"} for item in inner)
