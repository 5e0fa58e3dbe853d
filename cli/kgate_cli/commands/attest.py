"""`kgate attest`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kgate_cli.options import config_option, json_option, now, open_mirror

if TYPE_CHECKING:
    from kgate_cli.output import Output


@click.command()
@click.argument("reference", metavar="REF")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("keyless"),
    show_default=True,
    help="Folder for the bundles, one for each variant.",
)
@config_option
@json_option
def command(reference: str, out: Path, config_path: Path, output: Output) -> int:
    """Sign published decisions once more with the identity of this CI job or pod, without a key.

    Needs signing.keyless in kgate.yaml. For archives and audits: others check such a bundle with
    Sigstore's own tools, or with `kgate verify --keyless`. Pods do not read it.

    \b
    Example:
      kgate attest kernels-community/activation@v1 --out keyless/
    """
    from kgate_mirror_server.trust.files import replace_file
    from kgate_mirror_server.trust.keyless import attest

    with open_mirror(config_path, acts=True) as mirror:
        made = attest(mirror, reference, now())
    out.mkdir(parents=True, exist_ok=True)
    for item in made:
        replace_file(out / item.file_name, item.bundle)
    files = [str(out / item.file_name) for item in made]
    output.result("attest", {"files": files})
    for name in files:
        output.plain(name)
    output.say(f"Signed {len(files)} decisions.")
    return 0
