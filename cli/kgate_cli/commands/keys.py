"""`kgate keys generate|add|list|rotate|revoke`."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kgate_cli.options import config_option, json_option, now, open_mirror
from kgate_cli.secrets import choose_passphrase, passphrase_options
from kgate_core.clock import write_time

if TYPE_CHECKING:
    from kgate_cli.output import Output
    from kgate_mirror_server.trust.rolekeys import KnownKey

_ROLES = ("admit", "approve", "ingest", "bundle", "feed")
ROOT = "root"
_WITH_ROOT = click.Choice([*_ROLES, ROOT])


@click.group()
def command() -> None:
    """Make, list, rotate and revoke the keys that sign for this site."""


@command.command()
@click.argument("role", type=_WITH_ROOT)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the key here and register nothing: on the machine of whoever will hold it.",
)
@click.option("--ed25519", is_flag=True, help="Make an Ed25519 key instead of P-256.")
@passphrase_options
@config_option
@json_option
def generate(  # one argument for each option
    role: str,
    out: Path | None,
    ed25519: bool,  # noqa: FBT001  # click passes flags by name
    passphrase_file: Path | None,
    no_passphrase: bool,  # noqa: FBT001  # the same
    config_path: Path,
    output: Output,
) -> int:
    """Make the private key of ROLE and register its public half in the trust metadata.

    Needs the root key. Take an approver's key to where that person works afterwards: the mirror
    never needs it. With --out no site is needed: take the public half to one, for `kgate keys add`.

    \b
    Examples:
      kgate keys generate approve --passphrase-file approve.passphrase
      kgate keys generate root --out bob.pem
    """
    from kgate_core.keys import Algorithm
    from kgate_mirror_server.trust.holders import make_key
    from kgate_mirror_server.trust.rolekeys import generate as generate_key

    passphrase = choose_passphrase(passphrase_file, no_passphrase=no_passphrase)
    algorithm = Algorithm.ED25519 if ed25519 else Algorithm.ECDSA_P256
    if out is not None:
        public = make_key(out, passphrase, algorithm)
        output.result("keys", {"role": role, "file": str(out), "keyid": public.keyid})
        output.say(f"Wrote {out} (mode 0600) and {out.stem}.pub.pem; nobody knows it yet.")
        output.say(f"  → where the site is: kgate keys add {role} {out.stem}.pub.pem")
        return 0
    if role == ROOT:
        raise click.UsageError("a holder of the root makes the key where it stays: give --out FILE")
    with open_mirror(config_path, acts=True) as mirror:
        path = generate_key(mirror, role, passphrase, now(), algorithm=algorithm)
    output.result("keys", {"role": role, "file": str(path)})
    output.say(f"Wrote {path} (mode 0600) and {path.stem}.pub.pem; pods know it by role {role}.")
    if passphrase_file is not None:
        output.say(f"  → kgate.yaml: keys.{role}: file:{path}?passphrase-file={passphrase_file}")
    return 0


@command.command()
@click.argument("role", type=_WITH_ROOT)
@click.argument("public", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--replace", metavar="KEYID", default="", help="Only root: the holder that goes.")
@click.option(
    "--threshold",
    type=click.IntRange(1, 9),
    metavar="N",
    help="Only root: how many holders must sign from now on.",
)
@config_option
@json_option
def add(  # one argument for each option
    role: str,
    public: Path,
    replace: str,
    threshold: int | None,
    config_path: Path,
    output: Output,
) -> int:
    """Register the PUBLIC half (PEM) of a key that somebody else, or a device, holds.

    With `root`, one more person signs changes of trust, or one in the place of another.

    \b
    Examples:
      kgate keys add approve alice.pub.pem
      kgate keys add root bob.pub.pem --threshold 2
      kgate keys add root dora.pub.pem --replace 4f2c1a0b9d8e7f60
    """
    from kgate_core.keys import PublicKey
    from kgate_mirror_server.trust.holders import change_holders
    from kgate_mirror_server.trust.rolekeys import register

    if role != ROOT and (replace or threshold):
        raise click.UsageError("--replace and --threshold are about holders of the root")
    key = PublicKey.from_pem(public.read_bytes())
    with open_mirror(config_path, acts=True) as mirror:
        if role == ROOT:
            change_holders(mirror, key, now(), replaces=replace, threshold=threshold)
        else:
            register(mirror, role, key, now())
    output.result("keys", {"role": role, "keyid": key.keyid})
    output.say(f"Registered {key.keyid[:16]}… for role {role}.")
    return 0


@command.command("list")
@config_option
@json_option
def list_(config_path: Path, output: Output) -> int:
    """List every key that pods know, with its roles and its time.

    \b
    Example:
      kgate keys list
    """
    from kgate_mirror_server.trust.rolekeys import list_keys

    with open_mirror(config_path) as mirror:
        keys = list_keys(mirror, now())
    output.result("keys", {"keys": [_to_json(key) for key in keys]})
    output.table(
        ("KEY", "TYPE", "ROLES", "VALID UNTIL", "STATE"),
        [
            (
                key.public.keyid[:16],
                str(key.public.algorithm),
                ", ".join(key.roles) or "none",
                write_time(key.valid_until) if key.valid_until else "replaced by a new root",
                f"revoked: {key.revoked}" if key.revoked else "believed",
            )
            for key in keys
        ],
    )
    return 0


@command.command()
@click.argument("role", type=click.Choice([*_ROLES, "root", "timestamp"]))
@click.option(
    "--overlap",
    type=click.IntRange(0, 3650),
    default=30,
    show_default=True,
    metavar="DAYS",
    help="How long the old signing key goes on counting.",
)
@click.option("--resign", is_flag=True, help="Attest everything published anew with the new key.")
@config_option
@json_option
def rotate(
    role: str,
    overlap: int,
    resign: bool,  # noqa: FBT001  # click passes flags by name
    config_path: Path,
    output: Output,
) -> int:
    """Put a new key in the place of ROLE's key; kgate.yaml stays as it is.

    Needs the root key. Without --resign, what the old key signed counts until the overlap is over,
    or for longer if a timestamp authority dated it. Pods follow a new root by themselves.

    \b
    Examples:
      kgate keys rotate admit --overlap 30 --resign
      kgate keys rotate timestamp
    """
    from kgate_mirror_server.trust import rolekeys

    if resign and role != "admit":
        raise click.UsageError("--resign goes with `rotate admit`: approvals are given by people")
    with open_mirror(config_path, acts=True) as mirror:
        done = rolekeys.rotate(mirror, role, timedelta(days=overlap), now())
        count = rolekeys.resign(mirror, now()) if resign else 0
    output.result(
        "keys",
        {
            "role": role,
            "old": done.old.keyid,
            "new": done.new.keyid,
            "retired": str(done.retired),
            "resigned": count,
        },
    )
    output.say(f"{role}: {done.old.keyid[:16]}… → {done.new.keyid[:16]}…")
    output.say(f"The old private key is {done.retired}: destroy it when nothing needs it.")
    if resign:
        output.say(f"Signed {count} published variants anew.")
    return 0


@command.command()
@click.argument("keyid")
@click.option("--reason", required=True, help="Why; pods and reports repeat it.")
@config_option
@json_option
def revoke(keyid: str, reason: str, config_path: Path, output: Output) -> int:
    """Believe a signing key no more, from now on and for ever; needs the root key.

    Its signatures count for nothing any more, but for those that a timestamp authority saw before.
    Put another key in its place first (`kgate keys rotate admit --resign`), and nothing is lost.

    \b
    Example:
      kgate keys revoke 4f2c1a0b9d8e7f60 --reason "laptop stolen"
    """
    from kgate_mirror_server.trust.rolekeys import revoke as revoke_key

    with open_mirror(config_path, acts=True) as mirror:
        key = revoke_key(mirror, keyid, reason, now())
    output.result("keys", {"keys": [_to_json(key)]})
    output.say(f"Revoked {key.public.keyid} ({', '.join(key.roles) or 'no role'}): {reason}")
    return 0


def _to_json(key: KnownKey) -> dict[str, object]:
    return {
        "keyid": key.public.keyid,
        "algorithm": str(key.public.algorithm),
        "roles": list(key.roles),
        "valid_from": write_time(key.valid_from) if key.valid_from else None,
        "valid_until": write_time(key.valid_until) if key.valid_until else None,
        "revoked": key.revoked or None,
    }
