"""Options that describe a machine: torch, CUDA or ROCm, processor, GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from kgate_policy.why import Machine

F = TypeVar("F", bound="Callable[..., Any]")


def machine_options(function: F) -> F:
    """Add the options; the command gets torch (perhaps empty), cuda, rocm, arch and gpus."""
    for option in (
        click.option(
            "--gpus",
            multiple=True,
            metavar="GPU",
            help="A GPU such as sm_90 or gfx942; may be given several times.",
        ),
        click.option(
            "--arch",
            default="x86_64",
            show_default=True,
            type=click.Choice(["x86_64", "aarch64"]),
            help="The processor.",
        ),
        click.option("--rocm", metavar="V", help="ROCm version, such as 7.1."),
        click.option("--cuda", metavar="V", help="CUDA version, such as 13.0."),
        click.option("--torch", default="", metavar="V", help="torch version, such as 2.13."),
    ):
        function = option(function)
    return function


def described_machines(
    torch: str, cuda: str | None, rocm: str | None, arch: str, gpus: tuple[str, ...]
) -> tuple[Machine, ...]:
    """Return one machine for each GPU; a CPU-only one if neither CUDA nor ROCm is given."""
    from kgate_policy.why import machines

    if not torch:
        raise click.UsageError("say for which machine: --torch V and what else it has")
    if cuda and rocm:
        raise click.UsageError("a machine has CUDA or ROCm, not both")
    backend, version = ("cuda", cuda) if cuda else ("rocm", rocm) if rocm else ("cpu", None)
    return machines(torch=torch, backend=backend, version=version, cpu=arch, gpus=gpus)


def machine_name(machine: Machine) -> str:
    """Return a machine in one short line."""
    from kgate_mirror_server.settings.targets import machine_name as name

    return name(machine)
