"""A folder of built kernels brought in once: everything in it is a pin, and nothing else is.

The folder is laid out as kernel-builder leaves it behind: `<org>/<name>/[vN/]build/<variant>/`. Its
origin, `dir:` and the folder's name, is part of what each kernel is; kgate.yaml stays as it is,
and the lock lies in the folder. Nothing is fetched here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kgate_core.errors import InvalidInput, NotFound
from kgate_core.kernel import KernelRef
from kgate_mirror_server.settings.site import Pin
from kgate_mirror_server.settings.upstreams import Upstream, check_routes
from kgate_mirror_server.upstream.folder import FolderUpstream

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_mirror_server.settings.site import Config

NAME: Final = "from-dir"
"""Under which the folder stands among the upstreams meanwhile."""


def with_folder(config: Config, folder: Path) -> Config:
    """Return the configuration with the kernels of a folder as its only pins.

    Raises NotFound if there are none, and InvalidInput if one has the name of a kernel that is
    pinned from elsewhere in the same lane: a name means one origin there.
    """
    place = folder.absolute()
    upstream = Upstream(url=str(place))
    source = FolderUpstream(place, origin=upstream.identity)
    pins = [
        Pin(repo=str(repo), version=version, upstream=NAME)
        for repo in _repositories(place)
        for version in sorted(source.versions(repo))
    ]
    if not pins:
        raise NotFound(
            f"there are no built kernels in {folder}",
            hint=f"expected {folder}/<org>/<name>/build/<variant>/metadata.json",
        )
    changed = config.model_copy(
        update={
            "upstreams": {**config.upstreams, NAME: upstream},
            "kernels": tuple(pins),
            "models": None,
        }
    )
    own = [(p.repo, config.lane_of(p), config.upstream_of(p).identity) for p in config.kernels]
    coming = [(p.repo, config.lane, upstream.identity) for p in pins]
    try:
        check_routes([*own, *coming])
    except ValueError as exc:
        raise InvalidInput(
            str(exc), hint="build it under the name of another organisation"
        ) from exc
    return changed


def _repositories(folder: Path) -> list[KernelRef]:
    if not folder.is_dir():
        raise NotFound(f"{folder} is not a folder")
    return [
        KernelRef(org.name, home.name)
        for org in sorted(folder.iterdir())
        if org.is_dir() and not org.name.startswith(".")
        for home in sorted(org.iterdir())
        if (home / "build").is_dir() or any(home.glob("v[0-9]*/build"))
    ]
