"""What a sync brought, as JSON, as a table and as files. It changes nothing."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from kgate_cli.commands.ls import contested_in, say_contested
from kgate_cli.output import size
from kgate_core.clock import write_time
from kgate_core.evidence import Severity
from kgate_core.kernel import KernelId, RepoType
from kgate_mirror_server.ports import EvidenceKind

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from kgate_cli.output import Output
    from kgate_core.evidence import Facts, ScanReport
    from kgate_mirror_server.admit import KernelResult, VariantResult
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.ingest.sync import SyncResult
    from kgate_mirror_server.models.intake import ModelResult
    from kgate_mirror_server.trust.breakglass import Request
    from kgate_policy.reports import Entry


def to_json(mirror: Mirror, result: SyncResult, now: datetime) -> dict[str, Any]:
    """Return the result as the JSON object of `kgate sync --json`."""
    return {
        "approved": result.approved,
        "denied": result.denied,
        "fetched_bytes": result.fetched_bytes,
        "kernels": [_kernel(mirror, kernel) for kernel in result.kernels],
        "models": [_model(model) for model in result.models.models],
        "failures": [
            {
                "pin": str(item.pin),
                "code": item.error.code,
                "message": item.error.message,
                "hint": item.error.hint,
            }
            for item in result.failed
        ],
        "waiting": [
            {
                "repo": str(item.publication.repo),
                "revision": str(item.publication.served),
                "variant": item.item.variant,
                "lane": item.publication.lane,
            }
            for item in result.waiting
        ],
        "breakGlass": [_glass_json(item) for item in result.glass],
        "breakGlassClosed": [_glass_json(item) for item in result.closed],
        "moved": [
            {
                "repo": str(item.repo),
                "version": item.version,
                "locked": str(item.locked),
                "now": str(item.now),
            }
            for item in result.moved
        ],
        "exceptions": {
            "lasting": [
                {**item.to_json(), "daysLeft": item.days_left(now)}
                for item in result.exceptions.lasting(now)
            ],
            "refused": [
                {"name": item.exception.name, "reason": item.reason}
                for item in result.exceptions.refused
            ],
        },
    }


def _kernel(mirror: Mirror, kernel: KernelResult) -> dict[str, Any]:
    return {
        "repo": kernel.pin.repo,
        "pin": kernel.pin.wanted,
        "lane": kernel.lane,
        "commit": str(kernel.commit),
        "served": str(kernel.served) if kernel.served else None,
        "fresh": kernel.fresh,
        "variants": [
            {
                "variant": item.variant,
                "manifest": str(item.manifest) if item.manifest else None,
                "allowed": item.allowed,
                "reasons": [reason.to_json() for reason in item.reasons],
                "warnings": [w.to_json() for w in item.decision.warnings] if item.decision else [],
                "findings": _findings(mirror, item),
            }
            for item in kernel.variants
        ],
    }


def _model(model: ModelResult) -> dict[str, Any]:
    return {
        "repo": model.pin.repo,
        "revision": model.pin.revision,
        "lane": model.lane,
        "served": str(model.served) if model.served else None,
        "fresh": model.fresh,
        "manifest": str(model.manifest),
        "allowed": model.decision.allowed,
        "reasons": [reason.to_json() for reason in model.decision.denials],
        "warnings": [reason.to_json() for reason in model.decision.warnings],
    }


def _glass_json(item: Request) -> dict[str, object]:
    return {
        "repo": str(item.glass.kernel.repo),
        "revision": str(item.glass.kernel.revision),
        "variant": item.glass.kernel.variant,
        "lane": item.glass.lane,
        "reason": item.glass.reason,
        "requestedBy": item.glass.requested_by,
        "until": write_time(item.glass.until),
    }


def _render_models(output: Output, result: SyncResult) -> None:
    for model in result.models.models:
        word = "denied"
        if model.decision.allowed:
            word = "approved, signed" if model.served else "approved, to be signed"
        output.say(f"model {model.pin} in lane {model.lane}: {word}")
        for reason in (*model.decision.denials, *model.decision.warnings):
            output.say(f"  {reason.outcome}: {reason.rule}: {reason.seen}")
            if reason.hint:
                output.say(f"  → {reason.hint}")


def render(output: Output, mirror: Mirror, result: SyncResult, now: datetime) -> None:
    """Print the table, the refusals with what to do, and one closing line."""
    output.table(
        ("KERNEL", "VARIANT", "DEVICE CODE", "FINDINGS", "DECISION"),
        [
            (
                str(kernel.pin),
                item.variant,
                _device(_seen(mirror, item)),
                _worst_words(_findings(mirror, item)),
                _decided(kernel, item),
            )
            for kernel in result.kernels
            for item in kernel.variants
        ],
    )
    for kernel in result.kernels:
        for item in kernel.variants:
            for reason in item.reasons:
                output.say(f"{kernel.pin} {item.variant}: {reason.rule}: {reason.seen}")
                if reason.hint:
                    output.say(f"  → {reason.hint}")
    _render_models(output, result)
    for moved in result.moved:
        output.say(
            f"{moved.repo}: upstream moved v{moved.version} from {moved.locked.short} to "
            f"{moved.now.short}; the pinned commit stays"
        )
        output.say(f"  → to take the new one: kgate lock --upgrade {moved.repo}")
    _render_exceptions(output, result, now)
    _render_glass(output, result)
    for waits in result.waiting:
        output.say(f"{waits.name}: waiting for kgate approve; not served until then")
    for failure in result.failed:
        output.note(f"error: {failure.pin}: {failure.error.message}")
        if failure.error.hint:
            output.note(f"  → {failure.error.hint}")
    output.say(
        f"{result.approved} approved, {result.denied} denied, {len(result.failed)} without an "
        f"answer; {size(result.fetched_bytes)} fetched."
    )
    _render_unsigned(output, result)
    _render_contested(output, mirror, result)


def _render_glass(output: Output, result: SyncResult) -> None:
    for opened in result.glass:
        glass = opened.glass
        output.say(
            f"[bold]break-glass[/bold]: {opened.about} is let in until {write_time(glass.until)}"
            f" for {glass.requested_by}: {glass.reason}"
        )
    for gone in result.closed:
        output.note(f"break-glass: {gone.about} is not let in any more: its evidence has changed")
        output.note("  → look at it again, and ask anew: kgate break-glass ask")


def _render_contested(output: Output, mirror: Mirror, result: SyncResult) -> None:
    doubted = {
        (kernel.pin.ref, kernel.lane)
        for kernel in result.kernels
        if not all(item.allowed for item in kernel.variants)
    }
    if doubted:
        denials = mirror.catalog.denials()
        for ref, lane in sorted(doubted, key=str):
            published = mirror.catalog.publications_of(ref, lane)
            say_contested(output, contested_in(mirror, published, denials))


def _render_unsigned(output: Output, result: SyncResult) -> None:
    unsigned = [kernel for kernel in result.kernels if not kernel.served]
    models = [model for model in result.models.models if not model.served]
    if any(item.allowed for kernel in unsigned for item in kernel.variants) or any(
        model.decision.allowed for model in models
    ):
        output.say("  → publish what was approved where the keys are: kgate sign")


def _render_exceptions(output: Output, result: SyncResult, now: datetime) -> None:
    from kgate_policy.exceptions import ending_soon

    soon = ending_soon(result.exceptions.granted, now)
    for item in result.exceptions.lasting(now):
        left = item.days_left(now)
        word = f"[bold]ends in {left} days[/bold]" if item in soon else f"{left} days left"
        output.say(f"exception {item.name} ({item.kernel}, {', '.join(item.rules)}): {word}")
    for refused in result.exceptions.refused:
        output.plain(f"exception {refused.exception.name} counts for nothing: it {refused.reason}")


def write_reports(folder: Path, mirror: Mirror, result: SyncResult, now: datetime) -> None:
    """Write the result in every format that CI systems and clusters read, and the SBOMs."""
    from kgate_policy import reports

    sboms = folder / "sbom"
    sboms.mkdir(parents=True, exist_ok=True)
    document = {"schema": "kgate.dev/sync/v1", **to_json(mirror, result, now)}
    entries = [
        _entry(mirror, kernel, item) for kernel in result.kernels for item in kernel.variants
    ]
    texts = {
        "report.json": json.dumps(document, indent=2, ensure_ascii=False) + "\n",
        "report.md": reports.markdown(entries),
        "report.sarif": reports.sarif(entries, version=version("kgate")),
        "junit.xml": reports.junit(entries),
        "openreports.yaml": reports.openreports(entries, now=now),
        "gl-code-quality.json": reports.gitlab_quality(tuple(reports.notes(entries))),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    for kernel in result.kernels:
        for item in kernel.variants:
            if EvidenceKind.SBOM in item.evidence:
                name = f"{kernel.pin.repo.replace('/', '--')}@{kernel.commit.short}"
                data = mirror.room.read(item.evidence[EvidenceKind.SBOM])
                (sboms / f"{name}--{item.variant}.cdx.json").write_bytes(data)


def _entry(mirror: Mirror, kernel: KernelResult, item: VariantResult) -> Entry:
    from kgate_mirror_server.ingest.standing import whole_decision
    from kgate_policy.reports import Entry

    scan = _scan(mirror, item)
    return Entry(
        KernelId(
            mirror.config.upstream_of(kernel.pin).identity,
            RepoType.KERNEL,
            kernel.pin.ref,
            kernel.commit,
            item.variant,
        ),
        kernel.lane,
        mirror.rules.of(kernel.lane).name,
        tuple(whole_decision(mirror, item)),
        scan.findings if scan else (),
        item.manifest,
        kernel.pin.wanted,
    )


def _scan(mirror: Mirror, item: VariantResult) -> ScanReport | None:
    return mirror.room.scan(item.evidence) if EvidenceKind.SCAN in item.evidence else None


def _seen(mirror: Mirror, item: VariantResult) -> Facts | None:
    """Return the summary of a variant's scan; without reading it, if nothing has changed."""
    if item.seen is not None:
        return item.seen
    scan = _scan(mirror, item)
    return None if scan is None else scan.summary


def _decided(kernel: KernelResult, item: VariantResult) -> str:
    if not item.allowed:
        return "denied"
    return "approved, signed" if kernel.served else "approved, to be signed"


def _device(summary: Facts | None) -> str:
    if summary is None:
        return "not scanned"
    device = summary.get("device", {})
    archs = " ".join(sorted(a for group in device.get("archs", {}).values() for a in group))
    kernels = device.get("kernels", 0)
    return f"{archs} · {kernels} kernels" if archs else "none"


def _findings(mirror: Mirror, item: VariantResult) -> dict[str, int]:
    counts = (_seen(mirror, item) or {}).get("findings", {})
    return {level.label: counts.get(level.label, 0) for level in reversed(Severity)}


def _worst_words(counts: Mapping[str, int]) -> str:
    words = [f"{count} {label}" for label, count in counts.items() if count]
    return " ".join(words[:3]) or "none"
