"""`kgate policy check|eval|explain|diff|test|except`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kgate_cli import evaluating, excepting, exits
from kgate_cli.options import config_option, json_option, now, open_mirror

if TYPE_CHECKING:
    from kgate_cli.output import Output


@click.group()
def command() -> None:
    """Check, test, explain and compare policies; grant exceptions."""


command.add_command(evaluating.command)
command.add_command(excepting.command)


@command.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--tenant", help="Read it as the policy of a tenant of this name.")
@json_option
def check(file: Path, tenant: str | None, output: Output) -> int:
    """Read a policy file, or a folder of them, and say what it asks, or where it is wrong.

    \b
    Examples:
      kgate policy check policy/baseline.yaml
      kgate policy check policy/tenants/team-a.yaml --tenant team-a
    """
    from kgate_policy import load_policy
    from kgate_policy.document import advice
    from kgate_policy.tenancy import load_tenant

    policy = load_policy(file) if tenant is None else load_tenant(tenant, ["*"], file).policy
    advised = advice(policy)
    output.result(
        "policy-check",
        {
            "name": policy.name,
            "digest": str(policy.digest),
            "rules": {rule: str(lv) for rule, lv in policy.rules.items()},
            "expressions": [item.name for item in policy.expressions],
            "advice": list(advised),
        },
    )
    rows = [(rule, str(level)) for rule, level in policy.rules.items()]
    rows += [(item.name, "expression") for item in policy.expressions]
    output.table(("RULE", "LEVEL"), rows)
    for line in advised:
        output.note(f"note: {line}")
    output.say(f"policy {policy.name}: {policy.digest}")
    return 0


@command.command()
@click.argument("reference", metavar="REF")
@click.option("--rule", help="Explain this rule only.")
@config_option
@json_option
def explain(reference: str, rule: str | None, config_path: Path, output: Output) -> int:
    """Say why a kernel was allowed or denied: rule, what was seen, the facts behind it, the fix.

    \b
    Examples:
      kgate policy explain kernels-community/activation@v1
      kgate policy explain kernels-community/activation --rule require-upstream-signature
    """
    from kgate_mirror_server.ingest.review import inventory_evidence
    from kgate_policy.explain import explain as explain_decision

    with open_mirror(config_path) as mirror:
        explanations = [
            explain_decision(
                item, mirror.rules.of(item.lane), mirror.decide(item, now()), rule=rule
            )
            for item in inventory_evidence(mirror, reference)
        ]
    output.result("policy-explain", {"explanations": [item.to_json() for item in explanations]})
    for item in explanations:
        word = "allowed" if item.allowed else "denied"
        output.say(f"[bold]{item.kernel} {item.variant}[/bold]: {word} by policy {item.policy}")
        for found in item.rules:
            output.plain(f"  {found.outcome:<4} {found.rule} ({found.level}): {found.title}")
            output.plain(f"       seen  {found.seen}")
            for fact in found.facts:
                output.plain(f"       fact  {fact.path} = {fact.value}")
            if found.outcome != "pass":
                if found.why:
                    output.plain(f"       why   {found.why}")
                output.plain(f"       fix   {found.fix}")
    return 0


@command.command()
@click.argument("other", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--before",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Compare with this policy instead of those of the lanes.",
)
@click.option("--lane", help="Only what is pinned in this lane.")
@config_option
@json_option
def diff(
    other: Path, before: Path | None, lane: str | None, config_path: Path, output: Output
) -> int:
    """Say what another policy would decide differently over everything that is mirrored.

    Exit code 1 means that it would deny something that is allowed today.

    \b
    Example:
      kgate policy diff policy/stricter.yaml
      kgate policy diff policy/production.yaml --lane production
    """
    from functools import partial

    from kgate_mirror_server.ingest.review import inventory_evidence
    from kgate_mirror_server.rulebook import surroundings
    from kgate_policy import load_policy
    from kgate_policy.difference import difference

    with open_mirror(config_path) as mirror:
        found = difference(
            load_policy(before) if before else mirror.rules.of,
            load_policy(other),
            (item for item in inventory_evidence(mirror) if lane in {None, item.lane}),
            now=now(),
            exceptions=mirror.exceptions(now()).granted,
            surroundings=partial(surroundings, mirror, now=now()),
        )
    output.result("policy-diff", found.to_json(), ok=not found.newly_denied)
    for change in found.changes:
        word = "lost" if change.newly_denied else "gained" if change.newly_allowed else "changed"
        kernel = change.kernel
        output.say(f"{word:<8} {kernel.repo}@{kernel.revision.short} {kernel.variant}")
        for item in change.rules:
            was = item.before.outcome if item.before else "not asked"
            will = item.after.outcome if item.after else "not asked"
            output.plain(f"         {item.rule}: {was} → {will}")
    output.say(
        f"{found.asked} variants: {len(found.newly_denied)} would be lost,"
        f" {len(found.newly_allowed)} gained, {len(found.changes)} differ in some rule."
    )
    return exits.NO if found.newly_denied else exits.YES


@command.command()
@click.argument("cases", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--policy",
    "policy_path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("policy/baseline.yaml"),
    show_default=True,
    help="The policy to test.",
)
@json_option
def test(cases: Path, policy_path: Path, output: Output) -> int:
    """Run a policy's own tests: documents of kind PolicyTest.

    \b
    Example:
      kgate policy test policy/tests.yaml
    """
    from kgate_policy import load_policy
    from kgate_policy.unittests import load_cases, run_cases

    results = run_cases(load_cases(cases), load_policy(policy_path), now=now())
    failed = [item for item in results if not item.passed]
    output.result(
        "policy-test",
        {
            "cases": [
                {"name": item.case.name, "passed": item.passed, "complaints": list(item.complaints)}
                for item in results
            ]
        },
        ok=not failed,
    )
    for item in results:
        output.say(f"{'ok  ' if item.passed else 'FAIL'} {item.case.name}")
        for complaint in item.complaints:
            output.plain(f"     {item.case.where}: {complaint}")
    output.say(f"{len(results) - len(failed)} passed, {len(failed)} failed")
    return exits.NO if failed else exits.YES
