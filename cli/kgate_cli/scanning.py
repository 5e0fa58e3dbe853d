"""What `kgate scan` and its kin are pointed at: a path, or an image in a registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kgate_cli.commands.oci import registry_options
from kgate_cli.output import size
from kgate_core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from kgate_cli.output import Output
    from kgate_mirror_server.oci.images import RemoteImage, RemoteImages
    from kgate_scanner.paths import Scanned
    from kgate_scanner.resultcache import ResultCache

F = TypeVar("F", bound="Callable[..., Any]")


def image_options(function: F) -> F:
    """Add how an image in a registry is found; the command gets an `access` of four options."""
    platform = click.option(
        "--platform",
        default="linux/amd64",
        show_default=True,
        metavar="OS/CPU",
        help="Which images of an index in a registry.",
    )
    return platform(registry_options(function))


def scan_target(
    target: str, access: dict[str, Any], output: Output, results: ResultCache | None = None
) -> tuple[Scanned, ...]:
    """Scan a path, or the images of a reference layer by layer; raises KgateError, UsageError."""
    from kgate_scanner.paths import scan_image, scan_path

    if Path(target).exists():
        with output.progress(f"scanning {target}"):
            return scan_path(Path(target), results=results)
    with output.progress(target) as (count, tell):
        _, images = open_images(target, access, count)
        scanned: list[Scanned] = []
        for item in images:
            layers = len(item.image.layers)
            if layers:
                tell(f"{item.image.name}: {layers} layers, {size(item.size)}")
                scanned += scan_image(item.image, results=results)
    if not scanned:
        raise InvalidInput(f"there is no file to scan in {target}")
    return tuple(scanned)


def open_results(folder: Path | None) -> ResultCache | None:
    """Return the cache of results in a folder; raises TrustError if others may write to it."""
    if folder is None:
        return None
    from kgate_scanner.resultcache import ResultCache
    from kgate_scanner.scan import DEFAULT_LIMITS, VERSION

    return ResultCache(folder, VERSION, DEFAULT_LIMITS)


def is_reference(target: str) -> bool:
    """Return whether a text can name an image in a registry."""
    from kgate_mirror_server.oci.images import ImageReference

    try:
        ImageReference.parse(target)
    except InvalidInput:
        return False
    return True


def open_images(
    target: str, access: dict[str, Any], count: Callable[[int], None]
) -> tuple[RemoteImages, list[RemoteImage]]:
    """Return the images that a reference names; raises UsageError if it is none."""
    from kgate_mirror_server.oci.credentials import Access
    from kgate_mirror_server.oci.images import ImageReference, RemoteImages

    try:
        reference = ImageReference.parse(target)
    except InvalidInput as exc:
        raise click.UsageError(f"there is no file or folder {target}; {exc.message}") from exc
    remote = RemoteImages(
        reference, Access(access["plain_http"], access["ca_file"], access["docker_config"])
    )
    return remote, remote.find(access["platform"], count)
