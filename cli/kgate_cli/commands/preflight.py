"""`kgate preflight`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kgate_cli import exits
from kgate_cli.machines import described_machines, machine_name, machine_options
from kgate_cli.options import config_option, json_option, open_mirror
from kgate_cli.scanning import image_options, is_reference, open_images
from kgate_core.errors import InvalidInput

if TYPE_CHECKING:
    from kgate_cli.output import Output
    from kgate_policy.why import Machine


@click.command()
@click.argument("image", required=False)
@machine_options
@image_options
@config_option
@json_option
def command(  # one argument for each option
    image: str | None,
    torch: str,
    cuda: str | None,
    rocm: str | None,
    arch: str,
    gpus: tuple[str, ...],
    config_path: Path,
    output: Output,
    **access: Any,  # noqa: ANN401  # the options of `image_options`
) -> int:
    """Say, before an image is upgraded, which locked kernels would lose their variant.

    IMAGE is one in a registry, an OCI layout (PATH or PATH@sha256:… of one image in it) or an
    unpacked image; torch, CUDA or ROCm and the processor are read from it. Exit code 1 means that
    at least one kernel would fall back to PyTorch there.

    \b
    Examples:
      kgate preflight registry.example/ai/vllm:1.3 --gpus sm_90
      kgate preflight ./vllm-next --gpus sm_90
      kgate preflight --torch 2.14 --cuda 13.2 --gpus sm_90 --gpus sm_100
    """
    from kgate_mirror_server.ingest.resolve import read_lock, require_lock
    from kgate_mirror_server.placement import lost_kernels

    if image is not None and torch:
        raise click.UsageError("give IMAGE or --torch V, not both")
    machines = (
        described_machines(torch, cuda, rocm, arch, gpus)
        if image is None
        else _machines_of(image, gpus, access, output)
    )
    with open_mirror(config_path) as mirror:
        lock = require_lock(read_lock(mirror.config.folder), mirror.config)
    lost = lost_kernels(lock, machines)
    output.result(
        "preflight",
        {
            "kernels": len(lock.kernels),
            "machines": [machine_name(item) for item in machines],
            "lost": [{"kernel": i.kernel, "machine": machine_name(i.machine)} for i in lost],
        },
        ok=not lost,
    )
    for item in lost:
        output.say(f"lost  {item.kernel}  has no variant for {machine_name(item.machine)}")
        output.plain(
            f"    → kgate lock --upgrade {item.kernel.partition('@')[0]}, or keep the image"
        )
    output.say(f"{len(lock.kernels)} kernels, {len(machines)} machines, {len(lost)} lost.")
    return exits.NO if lost else exits.YES


def _machines_of(
    image: str, gpus: tuple[str, ...], access: dict[str, Any], output: Output
) -> tuple[Machine, ...]:
    from kgate_mirror_server.settings.imagetarget import read_image, read_streamed

    if Path(image.partition("@")[0]).is_dir() or not is_reference(image):
        return read_image(image, gpus).machines()
    with output.progress(image) as (count, _):
        remote, found = open_images(image, access, count)
        if len(found) != 1:
            raise InvalidInput(f"{image} names {len(found)} images", hint="name one by its digest")
        return read_streamed(found[0].image, remote.config(found[0]), gpus).machines()
