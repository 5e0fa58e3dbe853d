"""Bundles as JSON and as text: what would be written, what lies on a disc, what was taken in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kgate_cli.output import size
from kgate_core.clock import write_time
from kgate_mirror_server.bundle.receiving import PartState

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from kgate_cli.output import Output
    from kgate_core.digest import Digest
    from kgate_mirror_server.bundle.carried import Carried
    from kgate_mirror_server.bundle.exporting import Plan
    from kgate_mirror_server.bundle.importing import Imported
    from kgate_mirror_server.bundle.inspecting import Inspected
    from kgate_mirror_server.bundle.revoking import Revocations


def plan_json(plan: Plan, folder: Path | None) -> dict[str, Any]:
    """Return an export as JSON; `folder` is None for a dry run."""
    document = plan.document
    return {
        "site": document.site,
        "sequence": document.sequence,
        "created": write_time(document.created),
        "folder": None if folder is None else str(folder),
        "parts": list(plan.part_sizes),
        "bytes": sum(plan.part_sizes),
        "base": document.base.to_json() if document.base else None,
        "kernels": [_carried_json(item.carried) for item in plan.contents.items],
        "left_out": [{"what": item.what, "reason": item.reason} for item in plan.left_out],
    }


def show_plan(output: Output, plan: Plan, folder: Path | None) -> None:
    """Print what was or would be written."""
    items = plan.contents.items
    variants = sum(len(item.carried.publication.variants) for item in items)
    blobs = plan.document.blobs
    since = f" since bundle {plan.document.base.sequence}" if plan.document.base else ""
    output.say(
        f"{len(items)} kernels, {variants} variants;"
        f" {len(blobs)} blobs, {size(sum(blobs.values()))}{since}"
    )
    for number, count in enumerate(plan.part_sizes, start=1):
        output.say(f"  part {number}  {size(count)} ({count} bytes)")
    for item in plan.left_out:
        output.say(f"  left out: {item.what}: {item.reason}")
    if folder is None:
        output.say("Nothing was written.")
    else:
        output.say(f"Wrote bundle {plan.document.sequence} to {folder}, signed.")


def inspected_json(found: Inspected) -> dict[str, Any]:
    """Return what lies on a disc as JSON."""
    document = found.document
    here = {part.number: part for part in found.parts if part.number is not None}
    return {
        "site": document.site,
        "sequence": document.sequence,
        "created": write_time(document.created),
        "digest": str(found.digest),
        "base": document.base.to_json() if document.base else None,
        "signature": {"counts": not found.trouble, "reason": found.trouble},
        "root": str(found.root),
        "parts": [
            {
                "number": number + 1,
                "bytes": document.part_size(number, found.document_size),
                "file": here[number].path.name if number in here else None,
                "trouble": here[number].trouble if number in here else "",
            }
            for number in range(len(document.parts))
        ],
        "strangers": [
            {"file": part.path.name, "trouble": part.trouble}
            for part in found.parts
            if part.number is None
        ],
        "kernels": [_carried_json(item) for item in found.publications],
        "revoked": {str(digest): item.reason for digest, item in found.revoked.items()},
    }


def show_inspected(output: Output, found: Inspected) -> None:
    """Print what lies on a disc."""
    document = found.document
    output.say(
        f"bundle {document.sequence} of {document.site}, made {write_time(document.created)}"
    )
    output.say(f"  signature  {'counts' if not found.trouble else f'not checked: {found.trouble}'}")
    output.say(f"  its root   {found.root} (compare it with its sender)")
    if document.base is not None:
        output.say(f"  builds on  bundle {document.base.sequence}")
    here = {part.number: part for part in found.parts if part.number is not None}
    for number in range(len(document.parts)):
        part = here.get(number)
        state = "not here" if part is None else part.trouble or "here"
        count = document.part_size(number, found.document_size)
        output.say(f"  part {number + 1} of {len(document.parts)}  {size(count)}  {state}")
    for part in found.parts:
        if part.number is None:
            output.say(f"  {part.path.name}: {part.trouble}")
    for item in found.publications:
        names = ", ".join(variant.variant for variant in item.publication.variants)
        output.say(f"  {item.publication.repo}@{item.publication.served.short}  {names}")
    for digest, said in found.revoked.items():
        output.say(f"  revokes    {digest}: {said.reason}")


def imported_json(done: Imported, receipt: Path | None) -> dict[str, Any]:
    """Return an import as JSON."""
    document = done.opened.document
    return {
        "sender": document.site,
        "sequence": document.sequence,
        "parts": [
            {"number": p.number, "file": p.name, "state": str(p.state), "detail": p.detail}
            for p in done.received.parts
        ],
        "new_bytes": done.received.new_bytes,
        "missing": [str(digest) for digest in (*done.received.missing, *done.missing)],
        "revoked": _texts(done.revocations.revoked),
        "reinstated": _texts(done.revocations.reinstated),
        "revocations_without_signature": _texts(done.revocations.unsigned),
        "still_revoked": _texts(done.revocations.still_revoked),
        "feeds": {
            "taken": list(done.feeds.taken),
            "left": [{"feed": name, "reason": why} for name, why in done.feeds.left],
        },
        "refused": [{"what": item.what, "reason": item.reason} for item in done.refused],
        "published": done.receipt is not None,
        "approved": done.result.approved,
        "denied": done.result.denied,
        "waiting": [item.name for item in done.result.waiting],
        "failures": [
            {"pin": str(item.pin), "message": item.error.message, "hint": item.error.hint}
            for item in done.result.failures
        ],
        "receipt": None if receipt is None else str(receipt),
    }


def show_imported(output: Output, done: Imported, receipt: Path | None) -> None:
    """Print how an import came out, bad parts first."""
    count = len(done.opened.document.parts)
    damaged = [p for p in done.received.parts if p.state is PartState.DAMAGED]
    absent = [p for p in done.received.parts if p.state is PartState.ABSENT]
    taken = [str(p.number) for p in done.received.parts if p.state is PartState.TAKEN]
    _show_revocations(output, done.revocations)
    for part in damaged:
        name = f"part {part.number} of {count}" if part.number else "a file"
        output.say(f"{name} is damaged ({part.name}): {part.detail}")
    for part in absent:
        output.say(f"part {part.number} of {count} is not here")
    if damaged or absent:
        output.say(f"  parts taken: {', '.join(taken) or 'none'}; nothing was published yet.")
        output.say("  → replace or add the parts named above and run this again")
    elif done.missing:
        base = done.opened.document.base
        what = f"builds on bundle {base.sequence}" if base else "is not complete on its own"
        output.say(f"{len(done.missing)} blobs are in neither store nor bundle: this one {what}.")
        output.say("  → import that one first, or ask for a full bundle; nothing was published")
    _show_decisions(output, done)
    if receipt is not None:
        result = done.result
        output.say(
            f"Imported, verified, decided by this site's policy: {result.approved} approved,"
            f" {result.denied} denied. Receipt: {receipt}"
        )


def _show_revocations(output: Output, found: Revocations) -> None:
    if found.revoked:
        output.say(f"{len(found.revoked)} revocations of the sender count here from now on.")
    if found.unsigned:
        output.say(
            f"{len(found.unsigned)} of them are not signed by this site: the mirror serves these"
            " kernels no more, but pods that have a copy do not know yet"
        )
        output.say("  → bring the root key (keys.root) and run kgate trust update")
    if found.reinstated:
        output.say(f"{len(found.reinstated)} revocations were taken back by the sender, and here.")
    if found.still_revoked:
        output.say(
            f"{len(found.still_revoked)} were taken back by the sender; here they still count"
        )
        output.say("  → bring the root key (keys.root) and run this again, or kgate reinstate")


def _texts(digests: Iterable[Digest]) -> list[str]:
    return [str(digest) for digest in digests]


def _show_feeds(output: Output, done: Imported) -> None:
    for name in done.feeds.taken:
        output.plain(f"advisories: feed {name} was taken in")
    for name, why in done.feeds.left:
        output.plain(f"advisories: feed {name} was left out: {why}")


def _show_decisions(output: Output, done: Imported) -> None:
    _show_feeds(output, done)
    for left in done.refused:
        output.say(f"refused: {left.what}: {left.reason}")
    for waits in done.result.waiting:
        output.say(f"{waits.name}: waiting for kgate approve; not served until then")
    for failure in done.result.failures:
        output.say(f"{failure.pin}: {failure.error.message}")
        if failure.error.hint:
            output.say(f"  → {failure.error.hint}")
    for kernel in done.result.kernels:
        for variant in kernel.variants:
            for reason in variant.reasons:
                output.say(f"denied: {kernel.pin} {variant.variant}: {reason.rule}: {reason.seen}")
                if reason.hint:
                    output.say(f"  → {reason.hint}")


def _carried_json(item: Carried) -> dict[str, Any]:
    publication = item.publication
    return {
        "origin": publication.origin,
        "repo": str(publication.repo),
        "version": publication.version,
        "served": str(publication.served),
        "upstream": str(publication.upstream),
        "lane": publication.lane,
        "variants": {v.variant: str(v.manifest) for v in publication.variants},
    }
