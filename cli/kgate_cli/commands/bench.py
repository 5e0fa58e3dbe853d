"""`kgate bench`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kgate_cli import exits
from kgate_cli.options import json_option

if TYPE_CHECKING:
    from kgate_cli.output import Output


@click.command()
@click.argument("reference", metavar="REF|PATH")
@click.option(
    "--cases",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="What to time, instead of what ships with kgate for this kernel.",
)
@click.option("--device", default="cpu", show_default=True, help="Such as cpu, cuda or cuda:1.")
@click.option("--variant", help="The build variant; by default the one that would load here.")
@click.option("--timeout", default=60.0, show_default=True, help="Seconds that one batch may take.")
@json_option
def command(
    reference: str,
    cases: Path | None,
    device: str,
    variant: str | None,
    timeout: float,
    output: Output,
) -> int:
    """Time a kernel beside its PyTorch fallback on this machine.

    For each shape and dtype: the time of one call, the ratio, and the memory needed besides the
    tensors. Answers are checked all the same: exit code 1 means that there is nothing to time.

    \b
    Examples:
      kgate bench kernels-community/gelu-and-mul@v1 --device cuda
      kgate bench ./gelu-and-mul/build/torch-cpu --json
    """
    from kgate_cli import qualifying
    from kgate_client.qualify.run import Wanted, qualify

    subject = qualifying.find_subject(reference, variant, device, os.environ)
    file = qualifying.find_cases(cases, subject)
    output.note(f"timing {subject.repo or reference} {subject.variant} on {device}")
    wanted = Wanted(file, device, qualifying.default_name(), timeout=timeout)
    result = qualify(subject, wanted, os.environ, qualifying.this_second)
    ok = bool(result["passed"] and result["timed"])
    shown = ("manifest", "kernel", "device", "gpu", "cases", "timed", "host", "problem")
    output.result("bench", {name: result[name] for name in shown}, ok=ok)
    if not ok:
        qualifying.show_tried(output, result)
        wrong = "its numbers are not the fallback's"
        output.plain(f"problem  {result['problem'] or wrong}")
        return exits.NO
    qualifying.show_timed(output, result)
    output.plain(f"machine  {result['gpu']}")
    return exits.YES
