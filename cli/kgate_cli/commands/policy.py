"""`kgate policy check|eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kgate_cli import exits
from kgate_cli.options import config_option, json_option, now, open_mirror

if TYPE_CHECKING:
    from kgate_cli.output import Output


@click.group()
def command() -> None:
    """Check a policy file, and ask it about mirrored kernels."""


@command.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@json_option
def check(file: Path, output: Output) -> int:
    """Read a policy file and say what it asks, or where it is wrong.

    \b
    Example:
      kgate policy check policy/baseline.yaml
    """
    from kgate_policy import load_policy

    policy = load_policy(file)
    output.result(
        "policy-check",
        {
            "name": policy.name,
            "digest": str(policy.digest),
            "rules": {rule: str(lv) for rule, lv in policy.rules.items()},
        },
    )
    output.table(("RULE", "LEVEL"), [(rule, str(level)) for rule, level in policy.rules.items()])
    output.say(f"policy {policy.name}: {policy.digest}")
    return 0


@command.command(name="eval")
@click.argument("reference", metavar="REF")
@click.option(
    "--policy",
    "policy_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Ask this policy instead of the site's.",
)
@config_option
@json_option
def eval_(reference: str, policy_path: Path | None, config_path: Path, output: Output) -> int:
    """Ask a policy about kernels that were synced, from stored evidence; publishes nothing.

    \b
    Examples:
      kgate policy eval kernels-community/activation
      kgate policy eval kernels-community/activation --policy policy/stricter.yaml
    """
    from kgate_mirror_server.review import review
    from kgate_policy import load_policy

    with open_mirror(config_path) as mirror:
        policy = load_policy(policy_path) if policy_path else mirror.policy
        reviews = review(mirror, reference, policy, now())
    ok = all(decision.allowed for _, decision in reviews)
    output.result(
        "policy-eval",
        {
            "policy": policy.name,
            "policy_digest": str(policy.digest),
            "decisions": [{"kernel": kernel.purl, **d.to_json()} for kernel, d in reviews],
        },
        ok=ok,
    )
    for kernel, decision in reviews:
        word = "allowed" if decision.allowed else "denied"
        output.say(f"{kernel.repo}@{kernel.revision.short} {kernel.variant}: {word}")
        for result in (*decision.denials, *decision.warnings):
            output.say(f"  {result.outcome} {result.rule}: {result.seen}")
            if result.hint:
                output.say(f"    → {result.hint}")
    return exits.YES if ok else exits.NO
