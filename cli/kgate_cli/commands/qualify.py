"""`kgate qualify`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kgate_cli import exits
from kgate_cli.options import config_option, json_option, now, open_mirror

if TYPE_CHECKING:
    from kgate_cli.output import Output

_PERCENT = 10_000  # millionths
_ALL_LAYERS = {"users", "processes", "network", "no-new-privileges", "files"}


@click.command()
@click.argument("words", metavar="REF|PATH | accept FILE...", nargs=-1, required=True)
@click.option(
    "--cases",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="What to try, instead of what ships with kgate for this kernel.",
)
@click.option("--device", default="cpu", show_default=True, help="Such as cpu, cuda or cuda:1.")
@click.option("--variant", help="The build variant; by default the one that would load here.")
@click.option("--min-speedup", default=100, show_default=True, help="Percent of the fallback's.")
@click.option("--no-speed", is_flag=True, help="Compare numbers only.")
@click.option("--timeout", default=60.0, show_default=True, help="Seconds that one batch may take.")
@click.option("--as", "submitter", help="Who submits it; user and host by default.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the result.")
@click.option("--submit", "url", metavar="URL", help="Send the result to this mirror (HF_TOKEN).")
@config_option
@json_option
def command(  # noqa: PLR0913, PLR0917  # one argument for each option
    words: tuple[str, ...],
    cases: Path | None,
    device: str,
    variant: str | None,
    min_speedup: int,
    no_speed: bool,  # noqa: FBT001  # click passes flags by name
    timeout: float,
    submitter: str | None,
    out: Path | None,
    url: str | None,
    config_path: Path,
    output: Output,
) -> int:
    """Try a kernel against its PyTorch fallback on this machine: numbers, speed, memory.

    REF is org/name@v1 from the mirror that HF_ENDPOINT names, checked by the gate; PATH a build
    variant or a kernel's repository. The kernel runs confined in a process of its own and is judged
    from another. Exit code 0 means equal numbers and fast enough. `accept FILE` takes results in
    where the mirror's kgate.yaml is; the next sync signs them with who submitted them.

    \b
    Examples:
      kgate qualify kernels-community/gelu-and-mul@v1 --device cuda --submit https://mirror.internal
      kgate qualify ./gelu-and-mul --cases cases.json --out result.json
      kgate qualify accept result.json
    """
    if words[0] == "accept":
        return _accept([Path(name) for name in words[1:]], config_path, output)
    if len(words) > 1:
        raise click.UsageError("one kernel at a time")
    from kgate_cli import qualifying
    from kgate_client.qualify.run import Wanted, qualify

    subject = qualifying.find_subject(words[0], variant, device, os.environ)
    file = qualifying.find_cases(cases, subject)
    who = submitter or qualifying.default_name()
    output.note(f"trying {subject.repo or words[0]} {subject.variant} with {file.name} on {device}")
    wanted = Wanted(file, device, who, not no_speed, timeout)
    result = qualify(subject, wanted, os.environ, qualifying.this_second)
    if out is not None:
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    fast = no_speed or result.get("speedupPpm", 0) >= min_speedup * _PERCENT
    ok = result["passed"] and fast
    sent = None
    if url is not None:
        token, bundle = os.environ.get("HF_TOKEN"), os.environ.get("SSL_CERT_FILE")
        sent = qualifying.submit(url, token, result, bundle)
    output.result("qualify", {"result": result, "fastEnough": fast, "submittedAs": sent}, ok=ok)
    _show(output, result, fast=fast, sent=sent, speed=not no_speed)
    return exits.YES if ok else exits.NO


def _show(
    output: Output, result: dict[str, Any], *, fast: bool, sent: str | None, speed: bool
) -> None:
    from kgate_cli import qualifying

    qualifying.show_tried(output, result)
    qualifying.show_timed(output, result)
    output.plain(f"manifest  {result['manifest']}")
    output.plain(f"machine   {result['gpu']}")
    if missing := sorted(_ALL_LAYERS - set(result["confined"])):
        output.note(f"this system did not confine the kernel in: {', '.join(missing)}")
    if result["problem"]:
        output.plain(f"problem   {result['problem']}")
    output.plain(f"numbers   {'equal' if result['passed'] else 'NOT EQUAL'}")
    if speed and "speedupPpm" in result:
        percent = result["speedupPpm"] // _PERCENT
        output.plain(f"speed     {percent} % of the fallback's{'' if fast else ': TOO SLOW'}")
    if sent is not None:
        output.plain(f"submitted as {sent}; the mirror's next sync signs it")


def _accept(files: list[Path], config_path: Path, output: Output) -> int:
    from kgate_cli.actor import who_runs
    from kgate_core.errors import InvalidInput
    from kgate_mirror_server.catalog.qualifications import SqlQualifications
    from kgate_mirror_server.ingest.qualification import MAX_RESULT, take_in

    if not files:
        raise click.UsageError("name the files to accept")
    me = who_runs(os.environ)
    accepted = []
    with open_mirror(config_path, acts=True) as mirror:
        known = SqlQualifications(mirror.catalog.engine)
        for path in files:
            try:
                with path.open("rb") as stream:
                    data = stream.read(MAX_RESULT + 1)
            except OSError as exc:
                raise InvalidInput(f"{path} cannot be read ({exc.strerror})") from exc
            accepted.append(take_in(known, data, now(), accepted_by=f"{me['user']}@{me['host']}"))
    listed = [{"manifest": str(one.manifest), "submitter": one.submitter} for one in accepted]
    output.result("qualify-accept", {"accepted": listed})
    for one in accepted:
        output.plain(f"accepted  {one.manifest}  submitted by {one.submitter}")
    output.note("`kgate sync` decides with it and signs it")
    return exits.YES
