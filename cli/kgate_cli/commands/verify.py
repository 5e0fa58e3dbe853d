"""`kgate verify`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kgate_cli import exits
from kgate_cli.options import config_option, json_option, now, open_mirror
from kgate_core.verify import Expected, Rejected, Verdict, Verified, verify

if TYPE_CHECKING:
    from kgate_cli.output import Output
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.ports import Publication, PublishedVariant
    from kgate_mirror_server.trust.keyless import Said
    from kgate_signer.evidence import Checked


@click.command()
@click.argument("reference", metavar="REF")
@click.option(
    "--root",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Trust root to check a PATH against, instead of KGATE_TRUST_ROOT.",
)
@click.option(
    "--keyless",
    "bundles",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    multiple=True,
    help="Check this bundle of `kgate attest` too, against signing.keyless of kgate.yaml.",
)
@click.option("--identity", metavar="NAME", help="Whose bundle it must be, instead of kgate.yaml.")
@click.option("--issuer", metavar="URL", help="Who vouches for that name.")
@config_option
@json_option
def command(  # one argument for each option
    reference: str,
    root: Path | None,
    bundles: tuple[Path, ...],
    identity: str | None,
    issuer: str | None,
    config_path: Path,
    output: Output,
) -> int:
    """Check a kernel against its signatures, in numbered steps.

    Every stored file is hashed again, the bundles are verified from the root that pods pin, and
    the first step that failed is named; then what was found (import, SBOM and the like) is checked
    for the keys that may say so. REF is org/name, org/name@v1, org/name@<commit> or the
    digest of a manifest; or the path of a variant directory, which is checked as a pod would.

    \b
    Examples:
      kgate verify kernels-community/activation@v1
      kgate verify --json sha256:6cdd…
      kgate verify ./build/torch-cpu --root trust/root.json
      kgate verify kernels-community/activation@v1 --keyless keyless/*.sigstore.json
    """
    if (identity is None) != (issuer is None):
        raise click.UsageError("--identity and --issuer go together")
    if Path(reference).is_dir():
        return _verify_path(Path(reference), root, output)
    from kgate_mirror_server.inventory import find

    with open_mirror(config_path) as mirror:
        found = find(mirror.catalog, reference)
        verdicts = [
            _Checked(
                item,
                variant,
                verdict := _verdict(mirror, item, variant),
                _evidence(mirror, item, variant, verdict),
            )
            for item in found.publications
            for variant in item.variants
        ]
        keyless = _keyless(mirror, reference, bundles, identity, issuer)
    ok = bool(verdicts) and all(one.ok for one in verdicts) and not found.denials
    ok = ok and all(said.ok for _, said in keyless)
    output.result(
        "verify",
        {
            "verdicts": [
                {
                    "repo": str(one.publication.repo),
                    "revision": str(one.publication.served),
                    "variant": one.variant.variant,
                    "manifest": str(one.variant.manifest),
                    **verdict_json(one.verdict),
                    "evidence": [
                        {"type": found.predicate_type, "ok": found.ok, "detail": found.detail}
                        for found in one.evidence
                    ],
                }
                for one in verdicts
            ],
            "keyless": [
                {"file": str(path), "ok": said.ok, "detail": said.detail} for path, said in keyless
            ],
            "denied": [
                f"{item.repo}@{item.upstream.short} {item.variant}" for item in found.denials
            ],
        },
        ok=ok,
    )
    for one in verdicts:
        name = f"{one.publication.repo}@{one.publication.served.short} {one.variant.variant}"
        render_verdict(output, name, one.verdict)
        for found_too in one.evidence:
            word = "ok  " if found_too.ok else "FAIL"
            output.say(f"     {word} {found_too.predicate_type}: {found_too.detail}")
    for path, said in keyless:
        output.say(f"{path}: {'verified' if said.ok else 'REJECTED'}: {said.detail}")
    for denial in found.denials:
        output.say(f"{denial.repo}@{denial.upstream.short} {denial.variant}: denied, not signed")
    return exits.YES if ok else exits.NO


@dataclass(frozen=True, slots=True)
class _Checked:
    """One published variant with all that is said about it."""

    publication: Publication
    variant: PublishedVariant
    verdict: Verdict
    evidence: tuple[Checked, ...]

    @property
    def ok(self) -> bool:
        """True if the decision and everything beside it can be believed."""
        return isinstance(self.verdict, Verified) and all(item.ok for item in self.evidence)


def _evidence(
    mirror: Mirror, item: Publication, variant: PublishedVariant, verdict: Verdict
) -> tuple[Checked, ...]:
    from kgate_signer.evidence import check_evidence

    return check_evidence(
        mirror.room.manifest(variant.evidence),
        [mirror.room.read(digest) for digest in variant.bundles],
        item.lane,
        mirror.trusted(now()),
        verdict.vsa.inputs if isinstance(verdict, Verified) else (),
        now=now(),
    )


def _keyless(
    mirror: Mirror,
    reference: str,
    bundles: tuple[Path, ...],
    identity: str | None,
    issuer: str | None,
) -> list[tuple[Path, Said]]:
    if not bundles:
        return []
    from kgate_mirror_server.trust.keyless import check
    from kgate_signer.keyless import Identity

    named = [Identity(issuer, identity)] if identity and issuer else []
    said = check(mirror, reference, [path.read_bytes() for path in bundles], named)
    return list(zip(bundles, said, strict=True))


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
