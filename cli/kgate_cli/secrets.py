"""How a person gives the passphrase for a new private key: by a file, at a prompt, or not at all.

Never by value on the command line: shells keep a history.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from kgate_signer.keys import KeyProvider

F = TypeVar("F", bound="Callable[..., Any]")


def passphrase_options(function: F) -> F:
    """Add --passphrase-file and --no-passphrase."""
    function = click.option(
        "--no-passphrase", is_flag=True, help="Leave the private keys unencrypted."
    )(function)
    return click.option(
        "--passphrase-file",
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        help="File with the passphrase for the private keys; later commands read it too.",
    )(function)


def open_key(uri: str) -> KeyProvider:
    """Open a private key where no site is; a file that is encrypted is asked for at the terminal.

    Names of files are relative to the working folder. Raises InvalidInput, TrustError.
    """
    from kgate_signer.keys import FileKey, from_uri, read_private_file

    name = uri.removeprefix("file:")
    if name != uri and "?" not in name and b"ENCRYPTED" in (pem := read_private_file(name)):
        passphrase = ask_passphrase(name)
        if passphrase is not None:
            return FileKey.from_pem(pem, passphrase, what=name)
    return from_uri(uri)


def ask_passphrase(name: str) -> bytes | None:
    """Ask a person for the passphrase of an existing key; None where nobody is at a terminal."""
    # Only a person at a terminal can be asked; a CI job must fail with a clear sentence instead.
    if not sys.stdin.isatty():
        return None
    return str(click.prompt(f"Passphrase of {name}", hide_input=True, err=True)).encode()


def choose_passphrase(file: Path | None, *, no_passphrase: bool) -> bytes | None:
    """Return the passphrase that a person chose, or None for none."""
    if file is not None:
        from kgate_signer.keys import read_private_file

        return read_private_file(str(file)).removesuffix(b"\n")
    if no_passphrase:
        return None
    if not sys.stdin.isatty():
        raise click.UsageError(
            "nobody is there to ask for a passphrase: "
            "give --passphrase-file FILE or --no-passphrase"
        )
    text: str = click.prompt(
        "Passphrase for the signing keys (empty: none)",
        default="",
        hide_input=True,
        confirmation_prompt=True,
        show_default=False,
        err=True,
    )
    return text.encode() or None
