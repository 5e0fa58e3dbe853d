"""`kgate init`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kgate_cli.options import json_option, now
from kgate_cli.secrets import choose_passphrase, passphrase_options

if TYPE_CHECKING:
    from kgate_cli.output import Output


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=Path())
@click.option(
    "--upstream",
    default="https://huggingface.co",
    show_default=True,
    metavar="URL|DIR",
    help="Where kernels come from: a Hub, another kgate, or a folder.",
)
@click.option(
    "--site",
    default="https://kgate.local",
    show_default=True,
    help="Name of this installation in what it signs; it cannot change later.",
)
@click.option(
    "--root-keys",
    type=click.IntRange(1, 9),
    default=1,
    show_default=True,
    metavar="N",
    help="How many people will hold a key of the root.",
)
@click.option(
    "--root-threshold",
    type=click.IntRange(1, 9),
    default=1,
    show_default=True,
    metavar="N",
    help="How many of them must sign each change of trust.",
)
@passphrase_options
@json_option
def command(  # one argument for each option
    folder: Path,
    upstream: str,
    site: str,
    root_keys: int,
    root_threshold: int,
    passphrase_file: Path | None,
    no_passphrase: bool,  # noqa: FBT001  # click passes flags by name
    output: Output,
) -> int:
    """Start a site in FOLDER: configuration, policy, keys and the trust root that pods pin.

    Nothing that exists is overwritten.

    \b
    Examples:
      kgate init
      kgate init site --upstream ./built --no-passphrase
      kgate init --root-keys 3 --root-threshold 2
    """
    from kgate_mirror_server.trust.founding import Founding, found_site

    passphrase = choose_passphrase(passphrase_file, no_passphrase=no_passphrase)
    name = str(passphrase_file.absolute()) if passphrase_file else ""
    choice = Founding(upstream, site, passphrase, name, root_keys, root_threshold)
    paths = found_site(folder, choice, now())
    output.result("init", {"files": [str(path) for path in paths]})
    output.say(
        f"Wrote {paths[0]} (what to mirror), {paths[1]} (what may run), {paths[2].parent}/ "
        f"(signing keys), {paths[-1]} (what pods pin)."
    )
    if root_keys > 1:
        others = ", ".join(path.name for path in paths if path.name.startswith("root-"))
        output.say(f"Give {others} to the other holders of the root and keep no copy here:")
        output.say(f"a change of trust needs {root_threshold} of {root_keys} of you from now on.")
    output.say("Next: edit kgate.yaml, then `kgate lock`, `kgate sync`, `kgate serve`.")
    return 0
