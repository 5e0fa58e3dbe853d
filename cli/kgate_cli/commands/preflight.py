"""`kgate preflight`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kgate_cli import exits
from kgate_cli.machines import described_machines, machine_name, machine_options
from kgate_cli.options import config_option, json_option, open_mirror

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_cli.output import Output


@click.command()
@machine_options
@config_option
@json_option
def command(  # one argument for each option
    torch: str,
    cuda: str | None,
    rocm: str | None,
    arch: str,
    gpus: tuple[str, ...],
    config_path: Path,
    output: Output,
) -> int:
    """Say, before an image is upgraded, which locked kernels would lose their variant.

    Exit code 1 means that at least one would fall back to PyTorch there.

    \b
    Example:
      kgate preflight --torch 2.14 --cuda 13.2 --gpus sm_90 --gpus sm_100
    """
    from kgate_mirror_server.ingest.resolve import read_lock, require_lock
    from kgate_mirror_server.placement import lost_kernels

    machines = described_machines(torch, cuda, rocm, arch, gpus)
    with open_mirror(config_path) as mirror:
        lock = require_lock(read_lock(mirror.config.folder), mirror.config)
    lost = lost_kernels(lock, machines)
    output.result(
        "preflight",
        {
            "kernels": len(lock.kernels),
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
