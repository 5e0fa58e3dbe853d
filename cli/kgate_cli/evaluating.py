"""`kgate policy eval`: ask a policy about the mirror, a lock, or files that were saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kgate_cli import exits
from kgate_cli.clustering import ask_cluster, render_cluster
from kgate_cli.options import config_option, json_option, now, open_mirror

if TYPE_CHECKING:
    from kgate_cli.output import Output
    from kgate_core.evidence import Decision
    from kgate_mirror_server.app import Mirror
    from kgate_policy import Policy
    from kgate_policy.question import Question

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(name="eval")
@click.argument("reference", metavar="[REF]", required=False)
@click.option("--policy", "policy_path", type=_FILE, help="Ask this policy instead.")
@click.option("--lock", "lock_path", type=_FILE, help="Ask about everything in a kgate.lock.")
@click.option(
    "--cluster",
    type=_FILE,
    help="Ask about the workloads in what `kubectl get … -o json` (or yaml) wrote.",
)
@click.option(
    "--evidence",
    type=click.Path(path_type=Path, exists=True),
    help="Ask again what a file, or each file of a folder, that --save wrote says. Needs no site.",
)
@click.option(
    "--save",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write one file for each variant there, with all that decides.",
)
@config_option
@json_option
def command(  # one argument for each option
    reference: str | None,
    policy_path: Path | None,
    lock_path: Path | None,
    cluster: Path | None,
    evidence: Path | None,
    save: Path | None,
    config_path: Path,
    output: Output,
) -> int:
    """Ask a policy about kernels that were synced, from stored evidence; publishes nothing.

    Without REF, about all of them. A saved file gives the same decision years later. A workload
    says in the annotation kgate.dev/kernels (org/name@v1, …), or with a ConfigMap that holds a
    kgate.lock, which kernels it loads.

    \b
    Examples:
      kgate policy eval kernels-community/activation
      kgate policy eval --policy policy/stricter.yaml
      kubectl get pods,deployments,configmaps -A -o json > dump.json
      kgate policy eval --cluster dump.json
      kgate policy eval --save decisions/ && kgate policy eval --evidence decisions/
    """
    from kgate_policy import load_policy

    other = load_policy(policy_path) if policy_path else None
    missing: list[str] = []
    if cluster is not None:
        if reference or lock_path or evidence or save:
            raise click.UsageError("--cluster goes with --policy only")
        with open_mirror(config_path) as mirror:
            return render_cluster(output, *ask_cluster(mirror, cluster, now(), other))
    if evidence is not None:
        if reference or lock_path:
            raise click.UsageError("--evidence brings its own kernels: leave REF and --lock out")
        questions = _read(evidence)
    else:
        with open_mirror(config_path) as mirror:
            questions, missing = _ask(mirror, reference, lock_path)
    if save is not None:
        _save(save, questions, other)
    answers = [(item, item.decide(other)) for item in questions]
    return _render(output, answers, other, missing)


def _ask(
    mirror: Mirror, reference: str | None, lock_path: Path | None
) -> tuple[list[Question], list[str]]:
    """Return a question for each variant, and the locked variants that are not mirrored."""
    from kgate_mirror_server.ingest.resolve import read_lock
    from kgate_mirror_server.ingest.review import inventory_evidence
    from kgate_mirror_server.rulebook import question

    moment = now()
    questions = [question(mirror, item, moment) for item in inventory_evidence(mirror, reference)]
    if lock_path is None:
        return questions, []
    lock = read_lock(lock_path.parent)
    if lock is None:
        raise click.UsageError(f"there is no {lock_path}")
    wanted = {
        variant.manifest: f"{kernel.repo}@{kernel.commit.short} {name}"
        for kernel in lock.kernels
        for name, variant in kernel.variants.items()
    }
    known = {item.evidence.manifest.digest for item in questions}
    missing = [name for digest, name in wanted.items() if digest not in known]
    return [item for item in questions if item.evidence.manifest.digest in wanted], missing


def _read(path: Path) -> list[Question]:
    from kgate_core.errors import NotFound
    from kgate_policy.question import Question

    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise NotFound(f"there is no evidence in {path}", hint="`kgate policy eval --save` writes")
    try:
        return [Question.parse(file.read_bytes()) for file in files]
    except OSError as exc:
        raise NotFound(f"{path} cannot be read ({exc.strerror})") from exc


def _save(folder: Path, questions: list[Question], policy: Policy | None) -> None:
    from dataclasses import replace

    from kgate_mirror_server.trust.files import replace_file

    folder.mkdir(parents=True, exist_ok=True)
    for item in questions:
        kernel = item.evidence.kernel
        name = f"{kernel.repo.org}--{kernel.repo.name}@{kernel.revision.short}--{kernel.variant}"
        data = replace(item, policy=policy or item.policy).to_bytes()
        replace_file(folder / f"{name}--{item.evidence.lane}.json", data)


def _render(
    output: Output,
    answers: list[tuple[Question, Decision]],
    other: Policy | None,
    missing: list[str],
) -> int:
    ok = all(decision.allowed for _, decision in answers) and not missing
    policies = {(other or item.policy).name: (other or item.policy).digest for item, _ in answers}
    output.result(
        "policy-eval",
        {
            "policies": {name: str(digest) for name, digest in policies.items()},
            "not_mirrored": missing,
            "decisions": [
                {"kernel": item.evidence.kernel.purl, "lane": item.evidence.lane, **d.to_json()}
                for item, d in answers
            ],
        },
        ok=ok,
    )
    for item, decision in answers:
        kernel = item.evidence.kernel
        word = "allowed" if decision.allowed else "denied"
        output.say(f"{kernel.repo}@{kernel.revision.short} {kernel.variant}: {word}")
        for result in (*decision.denials, *decision.warnings):
            output.plain(f"  {result.outcome} {result.rule}: {result.seen}")
            if result.hint:
                output.plain(f"    → {result.hint}")
    for name in missing:
        output.plain(f"{name}: not mirrored, so nobody can say")
    return exits.YES if ok else exits.NO
