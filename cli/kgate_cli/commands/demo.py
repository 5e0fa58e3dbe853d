"""`kgate demo`."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kgate_cli import exits
from kgate_cli.options import json_option, now

if TYPE_CHECKING:
    from kgate_cli.output import Output


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo-out"),
    show_default=True,
    help="Folder to leave everything in; an earlier demo is replaced.",
)
@json_option
def command(out: Path, output: Output) -> int:
    """Tell the whole story on this machine: real kernel, real mirror, stock clients, attacks.

    Needs the package registries once (a compiler for CUDA comes from PyPI), no other network.

    \b
    Example:
      kgate demo --out demo-out
    """
    from kgate_cli.demo.story import tell_story
    from kgate_cli.scantable import matrix_rows
    from kgate_mirror_server.examples import default_cache, fetch_bitsandbytes
    from kgate_scanner.paths import scan_path

    cache = default_cache(os.environ)
    result, lines = tell_story(out.absolute(), cache, now, output.note)
    output.note("9. Second scene: what is in the GPU libraries that a wheel brings along?")
    libraries = fetch_bitsandbytes(cache, progress=lambda text: output.note(f"   {text}"))
    scanned = scan_path(libraries)
    output.result("demo", {**asdict(result), "out": str(out)}, ok=result.as_told)
    output.say()
    output.table(
        ("BITSANDBYTES 0.50.2", "LIBRARIES", "DEVICE CODE", "IMAGES", "KERNELS", "FINDINGS"),
        matrix_rows(scanned),
    )
    output.say()
    output.table(
        ("A POD ASKS FOR A KERNEL THAT IS", "OUTCOME", "WHY"),
        [(line.what, line.outcome, line.why) for line in lines],
    )
    output.say()
    output.say(
        f"Everything is in {out}/: kgate.yaml, result.json, evidence/ (SBOM, bundles), "
        "pods/*/report.jsonl."
    )
    output.say(
        f"Try: cd {out} && kgate show kernels-community/gelu-and-mul && kgate verify "
        "kernels-community/gelu-and-mul"
    )
    return exits.YES if result.as_told else exits.NO
