"""`kgate bundle export|import|inspect|receipt`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from kgate_cli import exits
from kgate_cli.options import config_option, json_option, now, open_mirror

if TYPE_CHECKING:
    from collections.abc import Callable

    from kgate_cli.output import Output
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.bundle.exporting import Plan
    from kgate_mirror_server.bundle.receipts import Receipt
    from kgate_mirror_server.ports import Publication
    from kgate_signer.keys import KeyProvider

_SIZE: Final = re.compile(r"(\d+)\s*(B|kB|KiB|MB|MiB|GB|GiB)?")
_UNITS: Final = {
    "B": 1,
    "kB": 10**3,
    "KiB": 2**10,
    "MB": 10**6,
    "MiB": 2**20,
    "GB": 10**9,
    "GiB": 2**30,
}
_DEFAULT: Final = "4480MiB"
_PLACES: Final = click.Path(exists=True, path_type=Path)
_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER: Final = click.Path(file_okay=False, path_type=Path)


class _Bytes(click.ParamType[int]):
    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Read `4480MiB`, `700MB` or a number of bytes."""
        found = _SIZE.fullmatch(str(value))
        if found is None:
            self.fail(f"not a size: {value!r}; write 4480MiB, 700MB or bytes", param, ctx)
        return int(found[1]) * _UNITS[found[2] or "B"]


@click.group()
def command() -> None:
    """Carry kernels over an air gap: discs one way, a receipt the other."""


@command.command("export")
@click.option("-o", "--out", "folder", type=_FOLDER, required=True, help="Where the parts go.")
@click.option("--since", type=_FILE, help="Receipt of the receiver: send the difference only.")
@click.option("--receiver-key", type=_FILE, help="Public key that signs the receipts; pinned.")
@click.option("--one-way", is_flag=True, help="Nothing comes back: build on what was last sent.")
@click.option("--part-size", type=_Bytes(), default=_DEFAULT, show_default=True, metavar="SIZE")
@click.option("--only", multiple=True, metavar="REF", help="Only this kernel; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Say exactly what would be written and stop.")
@config_option
@json_option
def export_command(  # noqa: PLR0913, PLR0917  # one argument for each option
    folder: Path,
    since: Path | None,
    receiver_key: Path | None,
    one_way: bool,  # noqa: FBT001  # click passes flags by name
    part_size: int,
    only: tuple[str, ...],
    dry_run: bool,  # noqa: FBT001  # the same
    config_path: Path,
    output: Output,
) -> int:
    """Write what is published into parts of a strict size, signed.

    \b
    Examples:
      kgate bundle export -o /media/disc
      kgate bundle export --since receipt-2026-11-02.json -o out/ --part-size 700MB
      kgate bundle export --one-way -o /mnt/diode
    """
    from kgate_mirror_server.bundle.exporting import Wish, export, plan_bundle

    with open_mirror(config_path, acts=True) as mirror:
        receipt = _base(mirror, since, receiver_key, one_way=one_way)
        wish = Wish(part_size, _wanted(only), receipt)
        plan = plan_bundle(mirror, wish, now(), dry=dry_run)
        if dry_run:
            return _show_plan(output, plan, None)
        with output.progress("export", sum(plan.part_sizes)) as (count, tell):
            done = export(mirror, plan, folder, count, tell)
        _keep_record(mirror, done.record)
    return _show_plan(output, done.plan, folder)


@command.command("again")
@click.argument("bundle_json", type=_FILE)
@click.option("--part", "parts", type=int, multiple=True, required=True, help="Number, from 1.")
@click.option("-o", "--out", "folder", type=_FOLDER, required=True, help="Where the parts go.")
@config_option
@json_option
def again_command(
    bundle_json: Path, parts: tuple[int, ...], folder: Path, config_path: Path, output: Output
) -> int:
    """Write single parts of an earlier bundle again, byte for byte.

    BUNDLE_JSON is the file kgate-bundle-<number>.json that the export left beside its parts.

    \b
    Example:
      kgate bundle again kgate-bundle-12.json --part 2 -o /media/disc
    """
    from kgate_mirror_server.bundle.exporting import write_again

    with open_mirror(config_path, acts=True) as mirror, output.progress("export") as (count, _):
        folder.mkdir(parents=True, exist_ok=True)
        files = list(write_again(mirror, bundle_json.read_bytes(), parts, folder, count))
    output.result("bundle-again", {"files": [str(path) for path in files]})
    for path in files:
        output.say(f"Wrote {path}.")
    return exits.YES


@command.command("bootstrap")
@click.option("--wheels", type=_PLACES, required=True, help="Folder of wheels, kgate's included.")
@click.option("-o", "--out", "folder", type=_FOLDER, required=True, help="An empty folder.")
@click.option("--unchecked", is_flag=True, help="The wheels are for another kind of machine.")
@config_option
@json_option
def bootstrap_command(
    wheels: Path,
    folder: Path,
    unchecked: bool,  # noqa: FBT001  # click passes flags by name
    config_path: Path,
    output: Output,
) -> int:
    """Write the first disc for a site that has nothing: wheels and the root to pin.

    pip is asked first whether these wheels would install without a network on a machine like this.

    \b
    Example:
      pip download "kgate[all]" -d wheels
      kgate bundle bootstrap --wheels wheels -o /media/disc
    """
    from kgate_mirror_server.bundle.bootstrap import write_bootstrap

    with open_mirror(config_path) as mirror:
        done = write_bootstrap(mirror, wheels, folder, checked=not unchecked)
    files = [str(path) for path in done.files]
    output.result("bundle-bootstrap", {"files": files, "sums": str(done.sums)})
    output.say(f"Wrote {len(files)} files to {folder}; INSTALL.txt says what to do with them.")
    output.say(f"To be compared by two people: SHA256SUMS is {done.sums}")
    return exits.YES


@command.command("import")
@click.argument("places", type=_PLACES, nargs=-1, required=True)
@click.option("--sender-root", type=_FILE, help="Pin this root.json of a sender, once.")
@click.option("--lane", help="Put everything into this lane instead of the sender's.")
@click.option("--receipt-dir", type=_FOLDER, default=Path(), help="Where the receipt goes.")
@config_option
@json_option
def import_command(
    places: tuple[Path, ...],
    sender_root: Path | None,
    lane: str | None,
    receipt_dir: Path,
    config_path: Path,
    output: Output,
) -> int:
    """Take in parts, in any order and as often as needed; publish once all are there.

    Every byte is verified, this site's own policy decides, and its own keys sign. Exit code 1
    means that a part is damaged or missing, that something was denied, or that a revocation waits
    for the root key.

    \b
    Examples:
      kgate bundle import /media/disc --sender-root connected-root.json
      kgate bundle import /media/disc
    """
    from kgate_cli.bundlereport import imported_json, show_imported
    from kgate_mirror_server.bundle.importing import import_bundle
    from kgate_mirror_server.bundle.senders import pin_sender

    with open_mirror(config_path, acts=True) as mirror:
        if sender_root is not None:
            pin_sender(mirror.config.path(mirror.config.trust), sender_root.read_bytes())
        with output.counting("import") as (count, tell, expect):
            done = import_bundle(
                mirror, places, now(), lane=lane, progress=count, tell=tell, expect=expect
            )
        path = None if done.receipt is None else _write_receipt(mirror, done.receipt, receipt_dir)
    errors = [failure.error for failure in done.result.failures]
    incomplete = done.receipt is None or bool(done.refused) or bool(done.result.denied)
    incomplete |= bool(done.revocations.unsigned or done.revocations.still_revoked)
    code = exits.worst(errors, refused=incomplete)
    output.result("bundle-import", imported_json(done, path), ok=code == exits.YES)
    show_imported(output, done, path)
    return code


@command.command("inspect")
@click.argument("places", type=_PLACES, nargs=-1, required=True)
@click.option("--root", type=_FILE, help="The sender's root.json, to check the signature with.")
@config_option
@json_option
def inspect_command(
    places: tuple[Path, ...], root: Path | None, config_path: Path, output: Output
) -> int:
    """Say what lies on a disc and take nothing in.

    Exit code 1 means that the signature does not count here or that a part is damaged.

    \b
    Examples:
      kgate bundle inspect /media/disc
      kgate bundle inspect /media/disc --root connected-root.json --json
    """
    from kgate_cli.bundlereport import inspected_json, show_inspected
    from kgate_mirror_server.bundle.inspecting import inspect_bundle
    from kgate_mirror_server.bundle.senders import Sender, senders

    if root is not None:
        known = [Sender(root.parent, root.read_bytes())]
    elif config_path.exists():
        with open_mirror(config_path) as mirror:
            known = senders(mirror.config.path(mirror.config.trust))
    else:
        known = []
    found = inspect_bundle(places, known, now())
    bad = bool(found.trouble) or any(part.trouble for part in found.parts)
    output.result("bundle-inspect", inspected_json(found), ok=not bad)
    show_inspected(output, found)
    return exits.NO if bad else exits.YES


@command.command("receipt")
@click.option("--sender", default="", help="Site whose bundles it is about, if there are several.")
@click.option("-o", "--out", "folder", type=_FOLDER, default=Path(), help="Where it goes.")
@click.option("--key", "show_key", is_flag=True, help="Also write the public key that signs it.")
@config_option
@json_option
def receipt_command(
    sender: str,
    folder: Path,
    show_key: bool,  # noqa: FBT001  # click passes flags by name
    config_path: Path,
    output: Output,
) -> int:
    """Write a receipt of what is held now, for the next `export --since`.

    It names digests and nothing else. Its sender pins the public key once.

    \b
    Examples:
      kgate bundle receipt -o /media/back
      kgate bundle receipt --key -o /media/back
    """
    from kgate_mirror_server.bundle.importing import receipt_of

    with open_mirror(config_path, acts=True) as mirror:
        receipt = receipt_of(mirror, sender, now())
        files = [_write_receipt(mirror, receipt, folder)]
        if show_key:
            files.append(folder / "receipt-key.pem")
            files[-1].write_text(_receipt_key(mirror).public_key().pem, encoding="ascii")
    output.result("bundle-receipt", {"files": [str(path) for path in files], **receipt.to_json()})
    for path in files:
        output.say(f"Wrote {path}.")
    return exits.YES


def _wanted(only: tuple[str, ...]) -> Callable[[Publication], bool]:
    from kgate_mirror_server.inventory import Reference

    references = [Reference.parse(text) for text in only]
    return lambda item: not references or any(r.matches_publication(item) for r in references)


def _base(
    mirror: Mirror, since: Path | None, receiver_key: Path | None, *, one_way: bool
) -> Receipt | None:
    """Return the receipt to build on, verified; None for a full bundle."""
    from kgate_mirror_server.bundle.receipts import check_receipt
    from kgate_mirror_server.bundle.senders import pin_receiver

    trust = mirror.config.path(mirror.config.trust)
    if receiver_key is not None:
        pin_receiver(trust, receiver_key.read_bytes())
    if since is None and one_way:
        records = sorted(_records(mirror).glob("sent-*.json"))
        since = records[-1] if records else None
    if since is None:
        return None
    return check_receipt(since.read_bytes(), mirror, now())


def _records(mirror: Mirror) -> Path:
    folder: Path = mirror.config.path("sent")
    return folder


def _keep_record(mirror: Mirror, record: Receipt) -> None:
    from kgate_mirror_server.trust.files import replace_file

    folder = _records(mirror)
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / f"sent-{record.sequence:010}.json", record.seal(_receipt_key(mirror)))


def _receipt_key(mirror: Mirror) -> KeyProvider:
    from kgate_mirror_server.bundle.exporting import bundle_key

    moment = now()
    return bundle_key(mirror, mirror.trusted(moment), moment)


def _write_receipt(mirror: Mirror, receipt: Receipt, folder: Path) -> Path:
    from kgate_mirror_server.trust.files import replace_file

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"receipt-{receipt.written:%Y-%m-%d}-{receipt.sequence}.json"
    replace_file(path, receipt.seal(_receipt_key(mirror)))
    return path


def _show_plan(output: Output, plan: Plan, folder: Path | None) -> int:
    from kgate_cli.bundlereport import plan_json, show_plan

    output.result("bundle-export", plan_json(plan, folder))
    show_plan(output, plan, folder)
    return exits.YES
