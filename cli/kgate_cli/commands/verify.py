"""`kgate verify`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kgate_cli import exits
from kgate_cli.options import config_option, json_option, now, open_mirror
from kgate_core.verify import Expected, Rejected, Verdict, verify

if TYPE_CHECKING:
    from kgate_cli.output import Output
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.ports import Publication, PublishedVariant


@click.command()
@click.argument("reference", metavar="REF")
@click.option(
    "--root",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Trust root to check a PATH against, instead of KGATE_TRUST_ROOT.",
)
@config_option
@json_option
def command(reference: str, root: Path | None, config_path: Path, output: Output) -> int:
    """Check a kernel against its signatures, in numbered steps.

    Every stored file is hashed again, the bundles are verified from the root that pods pin, and
    the first step that failed is named. REF is org/name, org/name@v1, org/name@<commit> or the
    digest of a manifest; or the path of a variant directory, which is checked as a pod would.

    \b
    Examples:
      kgate verify kernels-community/activation@v1
      kgate verify --json sha256:6cdd…
      kgate verify ./build/torch-cpu --root trust/root.json
    """
    if Path(reference).is_dir():
        return _verify_path(Path(reference), root, output)
    from kgate_mirror_server.inventory import find

    with open_mirror(config_path) as mirror:
        found = find(mirror.catalog, reference)
        verdicts = [
            (item, variant, _verdict(mirror, item, variant))
            for item in found.publications
            for variant in item.variants
        ]
    bad = [verdict for _, _, verdict in verdicts if isinstance(verdict, Rejected)]
    ok = bool(verdicts) and not bad and not found.denials
    output.result(
        "verify",
        {
            "verdicts": [
                {
                    "repo": str(item.repo),
                    "revision": str(item.served),
                    "variant": variant.variant,
                    "manifest": str(variant.manifest),
                    **verdict_json(verdict),
                }
                for item, variant, verdict in verdicts
            ],
            "denied": [
                f"{item.repo}@{item.upstream.short} {item.variant}" for item in found.denials
            ],
        },
        ok=ok,
    )
    for item, variant, verdict in verdicts:
        render_verdict(output, f"{item.repo}@{item.served.short} {variant.variant}", verdict)
    for denial in found.denials:
        output.say(f"{denial.repo}@{denial.upstream.short} {denial.variant}: denied, not signed")
    return exits.YES if ok else exits.NO


def _verify_path(path: Path, root: Path | None, output: Output) -> int:
    from kgate_client.verification import verify_path

    environ = dict(os.environ) | ({"KGATE_TRUST_ROOT": str(root)} if root else {})
    report = verify_path(path, environ)
    output.result("verify", report.to_json(), ok=report.ok)
    for line in report.lines():
        output.plain(line)
    return exits.YES if report.ok else exits.NO


def verdict_json(verdict: Verdict) -> dict[str, object]:
    """Return a verdict with its steps as JSON."""
    steps = [
        {"number": step.number, "name": step.name, "ok": step.ok, "detail": step.detail}
        for step in verdict.steps
    ]
    if isinstance(verdict, Rejected):
        reason = {"reason": str(verdict.reason), "message": verdict.message}
        return {"verified": False, **reason, "steps": steps}
    return {"verified": True, "signers": list(verdict.signers), "steps": steps}


def render_verdict(output: Output, name: str, verdict: Verdict) -> None:
    """Print a verdict with its steps for people."""
    rejected = isinstance(verdict, Rejected)
    output.say(f"{name}: {'REJECTED' if rejected else 'verified'}")
    for step in verdict.steps:
        output.say(f"  {step.number}. {'ok  ' if step.ok else 'FAIL'} {step.name}: {step.detail}")
    if isinstance(verdict, Rejected):
        output.say(f"  → {verdict.reason}: {verdict.message}")


def _verdict(mirror: Mirror, item: Publication, variant: PublishedVariant) -> Verdict:
    from kgate_mirror_server.ingest.integrity import check_stored

    trusted = mirror.trusted(now())
    manifest = mirror.room.manifest(variant.evidence)
    if damage := check_stored(mirror.store, manifest):
        return damage
    return verify(
        Expected(variant.variant, item.lane, item.repo, item.served, item.repo_type),
        manifest,
        [mirror.room.read(digest) for digest in variant.bundles],
        trusted,
        now=now(),
    )
