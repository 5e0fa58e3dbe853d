"""`kgate add`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kgate_cli import exits
from kgate_cli.options import config_option, json_option, now, open_mirror

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_cli.output import Output
    from kgate_mirror_server.ingest.proposal import Proposal


@click.command()
@click.argument("repo", metavar="REPO")
@click.option("--version", type=click.IntRange(min=0), help="Version; the newest if left out.")
@click.option("--variants", multiple=True, metavar="PATTERN", help="Shell pattern of variants.")
@click.option("--lane", help="Lane to pin it in; the site's if left out.")
@click.option("--write", is_flag=True, help="Add the pin to kgate.yaml.")
@config_option
@json_option
def command(  # one argument for each option
    repo: str,
    version: int | None,
    variants: tuple[str, ...],
    lane: str | None,
    write: bool,  # noqa: FBT001  # click passes flags by name
    config_path: Path,
    output: Output,
) -> int:
    """Propose a pin: fetch and scan a kernel, ask the policy, print a risk card in Markdown.

    The card goes into the merge request. Nothing is published. Exit code 1 means that the policy
    denies one of the variants.

    \b
    Examples:
      kgate add kernels-community/activation
      kgate add kernels-community/activation --variants 'torch213-*-cu130-*' --write > card.md
    """
    from kgate_mirror_server.ingest.proposal import newest_version, propose, with_pin
    from kgate_mirror_server.ingest.sync import new_source
    from kgate_mirror_server.settings.site import Pin
    from kgate_mirror_server.trust.files import replace_file

    with open_mirror(config_path) as mirror, output.progress("add") as (count, tell):
        source = new_source(mirror, count)
        wanted = Pin(repo=repo, version=0, variants=variants or ("*",), lane=lane)
        number = newest_version(source, wanted.ref) if version is None else version
        pin = wanted.model_copy(update={"version": number})
        tell(f"looking into {pin}")
        proposal = propose(mirror, source, pin, now())
    if write:
        text = with_pin(config_path.read_text(encoding="utf-8"), pin)
        replace_file(config_path, text.encode())
    return _render(output, proposal, written=write)


def _render(output: Output, proposal: Proposal, *, written: bool) -> int:
    from kgate_mirror_server.ingest.proposal import pin_text
    from kgate_policy.riskcard import risk_card

    card = risk_card(proposal.asked)
    ok = not card.denied
    output.result(
        "add",
        {
            "pin": proposal.pin.model_dump(mode="json", exclude_none=True),
            "commit": str(proposal.commit),
            "card": card.to_json(),
            "markdown": card.to_markdown(),
            "written": written,
        },
        ok=ok,
    )
    output.plain(card.to_markdown())
    output.plain(f"```yaml\n{pin_text(proposal.pin, 0)}```\n")
    for evidence, decision in proposal.asked:
        for result in decision.denials:
            output.plain(f"* {evidence.kernel.variant}: `{result.rule}`: {result.seen}")
    output.note("Next: `kgate lock`, commit, `kgate sync`." if written else "Nothing was written.")
    return exits.YES if ok else exits.NO
