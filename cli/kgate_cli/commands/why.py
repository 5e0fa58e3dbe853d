"""`kgate why`."""

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
@click.argument("reference", metavar="REF")
@machine_options
@config_option
@json_option
def command(  # one argument for each option
    reference: str,
    torch: str,
    cuda: str | None,
    rocm: str | None,
    arch: str,
    gpus: tuple[str, ...],
    config_path: Path,
    output: Output,
) -> int:
    """Say which variant of a mirrored kernel would load on a machine, or why none.

    Answers like the stock client's own resolver, and names the rule or the missing variant that
    stands in the way. Exit code 1 means that the caller would run PyTorch.

    \b
    Examples:
      kgate why kernels-community/activation --torch 2.13 --cuda 13.0 --gpus sm_90
      kgate why kernels-community/activation@v1 --torch 2.13
    """
    from kgate_mirror_server.placement import placement

    machines = described_machines(torch, cuda, rocm, arch, gpus)
    with open_mirror(config_path) as mirror:
        answers = [(machine, placement(mirror, reference, machine)) for machine in machines]
    ok = all(answer.loads for _, answer in answers)
    output.result(
        "why",
        {"answers": [{"machine": machine_name(m), **answer.to_json()} for m, answer in answers]},
        ok=ok,
    )
    for machine, answer in answers:
        output.say(f"[bold]{machine_name(machine)}[/bold]: {answer.loads or 'PyTorch'}")
        for obstacle in answer.obstacles:
            output.plain(f"  {obstacle}")
        for denial in answer.denials:
            output.plain(f"  {denial.rule}: {denial.seen}")
            output.plain(f"    → {denial.hint}")
        for item in answer.considered:
            output.plain(f"  {'fits' if item.fits else 'no  '} {item.variant}  {item.reason}")
    return exits.YES if ok else exits.NO
