"""`kgate oci push|pull|ls`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kgate_cli import exits
from kgate_cli.options import config_option, json_option, now, open_mirror
from kgate_cli.output import size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kgate_cli.output import Output
    from kgate_mirror_server.oci.pull import Found
    from kgate_mirror_server.oci.registry import Registry, Repository

F = TypeVar("F", bound="Callable[..., Any]")
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def registry_options(function: F) -> F:
    """Add how a registry is reached; the command gets an `access` of three options."""
    for option in (
        click.option("--plain-http", is_flag=True, help="The registry has no TLS."),
        click.option("--ca-file", type=_FILE, help="Certificates of a private CA, in PEM."),
        click.option("--docker-config", type=_FILE, help="Credentials besides the user's own."),
    ):
        function = option(function)
    return function


@click.group()
def command() -> None:
    """Push, pull and list kernels, SBOMs and attestations in OCI registries."""


@command.command("push")
@click.argument("registry", metavar="oci://HOST[/NAMESPACE]")
@click.argument("references", metavar="REF", nargs=-1)
@registry_options
@config_option
@json_option
def push_command(
    registry: str,
    references: tuple[str, ...],
    config_path: Path,
    output: Output,
    **access: Any,  # noqa: ANN401  # the options of `registry_options`
) -> int:
    """Push what is published: all of it, or the kernels named.

    Each becomes an index of its files and of one mountable image for each variant; SBOM and
    attestations are attached to both.

    \b
    Examples:
      kgate oci push oci://registry.bank.internal/kernels
      kgate oci push oci://127.0.0.1:5000 kernels-community/activation@v1
    """
    from kgate_mirror_server.bundle.carried import carry
    from kgate_mirror_server.inventory import Reference
    from kgate_mirror_server.oci.push import push

    wanted = [Reference.parse(text) for text in references]
    target = open_registry(registry, access)
    pushed = []
    with open_mirror(config_path, acts=True) as mirror, output.progress("push") as (count, tell):
        for found in mirror.catalog.publications():
            if wanted and not any(reference.matches_publication(found) for reference in wanted):
                continue
            tell(f"pushing {found.repo}@{found.served.short}")
            carried = carry(found, mirror.room, mirror.store)
            pushed.append(push(mirror, target, carried, now(), count))
    output.result(
        "oci-push",
        {
            "pushed": [
                {
                    "repository": item.repository,
                    "index": str(item.index),
                    "tags": list(item.tags),
                    "images": {name: str(digest) for name, digest in item.images.items()},
                    "referrers": item.referrers,
                    "sent_bytes": item.sent_bytes,
                }
                for item in pushed
            ]
        },
        ok=bool(pushed),
    )
    for item in pushed:
        output.say(f"{target.place.host}/{item.repository}:{item.tags[0]}  {item.index}")
        output.say(
            f"  {len(item.images)} images, {item.referrers} attached, {size(item.sent_bytes)} sent"
        )
    if not pushed:
        output.say("Nothing is published under that name: see `kgate ls`.")
    return exits.YES if pushed else exits.NO


@command.command("pull")
@click.argument("reference", metavar="oci://HOST[/NAMESPACE]/ORG/NAME[:TAG|@DIGEST]")
@click.option(
    "-o", "--out", "folder", type=click.Path(file_okay=False, path_type=Path), required=True
)
@registry_options
@json_option
def pull_command(
    reference: str,
    folder: Path,
    output: Output,
    **access: Any,  # noqa: ANN401  # the options of `registry_options`
) -> int:
    """Write a kernel's files as a folder of built kernels, every byte checked by digest.

    Whether the kernel may be used is not asked: a site whose upstream is this folder does that.

    \b
    Examples:
      kgate oci pull oci://registry.bank.internal/kernels/kernels-community/activation:v1 -o built
    """
    from kgate_mirror_server.oci.pull import find, pull_to

    registry, name, tag = _split(reference)
    repository = open_registry(registry, access).named(name)
    found = find(repository, tag)
    with output.progress("pull") as (count, tell):
        tell(f"pulling {name}")
        files = list(pull_to(repository, found, folder, count))
    output.result("oci-pull", _found_json(found) | {"files": [str(path) for path in files]})
    output.say(f"Wrote {len(files)} files of {found.carried.publication.repo} to {folder}.")
    return exits.YES


@command.command("ls")
@click.argument("place", metavar="oci://HOST[/NAMESPACE][/ORG/NAME]")
@registry_options
@json_option
def ls_command(
    place: str,
    output: Output,
    **access: Any,  # noqa: ANN401  # the options of `registry_options`
) -> int:
    """List the kernels in a registry that kgate pushed there.

    \b
    Examples:
      kgate oci ls oci://registry.bank.internal/kernels
    """
    from kgate_mirror_server.oci.pull import find_all

    rows = []
    for repository in _repositories(place, access):
        for found in find_all(repository):
            data = _found_json(found)
            attached = {
                name: len(repository.referrers(digest)) for name, digest in found.images.items()
            }
            rows.append({"repository": repository.name, **data, "attached": attached})
    output.result("oci-ls", {"kernels": rows})
    output.table(
        ("REPOSITORY", "TAG", "COMMIT", "VARIANTS", "ATTACHED", "INDEX"),
        [
            (
                row["repository"],
                row["tag"],
                row["served"][:12],
                " ".join(row["variants"]),
                str(sum(row["attached"].values())),
                row["index"],
            )
            for row in rows
        ],
    )
    return exits.YES


def _repositories(place: str, access: dict[str, Any]) -> Iterator[Repository]:
    from kgate_core.errors import NotFound
    from kgate_mirror_server.oci.pull import publication_tags

    registry = open_registry(place, access)
    if registry.place.namespace.count("/"):
        repository = registry.named(registry.place.namespace)
        try:
            if publication_tags(repository):
                yield repository
                return
        except NotFound:
            pass  # a namespace of two levels
    for name in registry.repositories():
        yield registry.named(name)


def open_registry(text: str, access: dict[str, Any]) -> Registry:
    """Return the registry that options describe; raises InvalidInput."""
    from kgate_mirror_server.oci.credentials import Access, Place
    from kgate_mirror_server.oci.registry import Registry

    return Registry(
        Place.parse(text),
        Access(access["plain_http"], access["ca_file"], access["docker_config"]),
    )


def _split(reference: str) -> tuple[str, str, Any]:
    """Return registry, repository and tag or digest."""
    from kgate_core.digest import Digest
    from kgate_core.errors import InvalidInput
    from kgate_mirror_server.oci.credentials import Place

    head, at, digest = reference.partition("@")
    before, colon, tag = head.rpartition(":")
    if not colon or "/" in tag:
        before, tag = head, ""
    place = Place.parse(before)
    if not place.namespace:
        raise InvalidInput(f"no kernel is named: {reference!r}")
    return f"oci://{place.host}", place.namespace, Digest.parse(digest) if at else tag or "v1"


def _found_json(found: Found) -> dict[str, Any]:
    item = found.carried.publication
    return {
        "repo": str(item.repo),
        "tag": found.tag,
        "index": str(found.index),
        "served": str(item.served),
        "upstream": str(item.upstream),
        "variants": {variant.variant: str(variant.manifest) for variant in item.variants},
        "images": {name: str(digest) for name, digest in found.images.items()},
    }
