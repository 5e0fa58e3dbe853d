"""What a new pin would bring in, before anybody pins it: fetched, scanned, decided, not published.

The bytes go into the site's store, where nothing refers to them until they are synced. Nothing is
locked, signed, recorded or served.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from kgate_core.errors import Conflict, InvalidInput, NotFound
from kgate_core.kernel import KernelId, RepoType
from kgate_mirror_server.admit import Dependencies, asked_of, gather, stored_evidence
from kgate_mirror_server.ingest.fetch import fetch_large
from kgate_mirror_server.ingest.resolve import needs_of
from kgate_mirror_server.settings import marks
from kgate_mirror_server.settings.site import FILE_NAME, Pin

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from kgate_core.evidence import Decision, Evidence
    from kgate_core.kernel import KernelRef, Revision
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.ingest.fetch import DescribedVariant
    from kgate_mirror_server.ingest.resolve import Source


@dataclass(frozen=True, slots=True)
class Proposal:
    """A pin with what the policy says about each of its variants today."""

    pin: Pin
    commit: Revision
    asked: tuple[tuple[Evidence, Decision], ...]


def newest_version(source: Source, repo: KernelRef) -> int:
    """Return the number of the newest version branch; raises NotFound if there is none."""
    versions = source.versions(repo)
    if not versions:
        raise NotFound(f"{repo} has no version branches", hint="pin a commit in kgate.yaml")
    return max(versions)


def propose(mirror: Mirror, source: Source, pin: Pin, now: datetime) -> Proposal:
    """Fetch, scan and decide what a pin means now.

    Raises Conflict if it is pinned already, and as `admit` does where upstream does not keep its
    promises.
    """
    lane = mirror.config.lane_of(pin)
    if any(
        (item.repo, item.wanted, mirror.config.lane_of(item)) == (pin.repo, pin.wanted, lane)
        for item in mirror.config.kernels
    ):
        raise Conflict(f"{pin} is pinned in lane {lane} already")
    if refusal := mirror.config.upstream_of(pin).refusal(pin.repo):
        raise Conflict(refusal, hint=f"change the upstream's lists in {FILE_NAME} first")
    commit = source.commit(pin)
    asked = []
    variants = source.describe(pin, commit)
    wanted = asked_of(mirror, pin, {n: source.metadata(item) for n, item in variants.items()})
    for name, described in variants.items():
        source.fetched_bytes += fetch_large(
            source.upstream, mirror.store, pin.ref, commit, described, source.progress
        )
        kernel = KernelId(source.upstream.origin, RepoType.KERNEL, pin.ref, commit, name)
        needs = _dependencies(mirror, source, pin, described)
        found = gather(mirror, source, pin, kernel, lane, described, needs, now)
        evidence = stored_evidence(mirror, kernel, lane, found, wanted)
        asked.append((evidence, mirror.decide(evidence, now)))
    return Proposal(pin, commit, tuple(asked))


def _dependencies(
    mirror: Mirror, source: Source, pin: Pin, described: DescribedVariant
) -> Dependencies:
    """Say which kernels it loads are pinned, at the commits that their versions mean now."""
    lane = mirror.config.lane_of(pin)
    pinned = {
        (item.ref, item.version)
        for item in mirror.config.kernels
        if mirror.config.lane_of(item) == lane
    }
    met, unmet = [], []
    for need in needs_of(source.metadata(described)):
        if (need.repo, need.version) in pinned:
            met.append(f"{need.repo}@{source.versions(need.repo)[need.version]}")
        else:
            unmet.append(f"{pin} → {need} is not pinned in {FILE_NAME}")
    return Dependencies(tuple(met), (), tuple(unmet))


def pin_text(pin: Pin, indent: int = 2) -> str:
    """Return a pin as an item of `kernels:` in YAML."""
    lines = [f"repo: {pin.repo}"]
    lines.append(f"version: {pin.version}" if pin.revision is None else f"revision: {pin.revision}")
    if pin.variants != ("*",):
        lines.append(f"variants: {_flow(pin.variants)}")
    if pin.lane is not None:
        lines.append(f"lane: {pin.lane}")
    space = " " * indent
    return f"{space}- " + f"\n{space}  ".join(lines) + "\n"


def with_pin(text: str, pin: Pin) -> str:
    """Return kgate.yaml with a pin more, everything else as it stands, comments included.

    Raises InvalidInput where the list is written in a way that cannot be added to.
    """
    before = marks.read(text.encode(), name=FILE_NAME).value
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    added = _added(text, root, pin)
    item = yaml.safe_load(pin_text(pin))
    wanted = {**before, "kernels": [*(before.get("kernels") or []), *item]}
    try:
        after = marks.read(added.encode(), name=FILE_NAME).value
    except InvalidInput:
        after = None
    if after != wanted:
        raise InvalidInput(
            f"{FILE_NAME}: the list under kernels: cannot be added to as it is written",
            hint="add the pin by hand",
        )
    return added


def _added(text: str, root: yaml.Node | None, pin: Pin) -> str:
    if not isinstance(root, yaml.MappingNode):
        raise InvalidInput(f"{FILE_NAME}: expected fields such as 'upstream:'")
    found = next((pair for pair in root.value if pair[0].value == "kernels"), None)
    if found is None:
        return f"{text.rstrip()}\n\nkernels:\n{pin_text(pin)}"
    key, value = found
    if not isinstance(value, yaml.SequenceNode) or not value.value:
        # `kernels:` or `kernels: []`: the item goes onto the next line.
        start = key.end_mark.index + 1
        end = max(value.end_mark.index, start)
        rest, _, after = text[end:].partition("\n")
        return f"{text[:start]}{rest}\n{pin_text(pin)}{after}"
    if value.flow_style:
        end = value.end_mark.index - 1
        (item,) = yaml.safe_load(pin_text(pin))
        flow = yaml.safe_dump(item, default_flow_style=True, sort_keys=False, width=10_000)
        return f"{text[:end].rstrip()}, {flow.strip()}{text[end:]}"
    head, _, after = text[_end_of(value) :].partition("\n")
    before = text[: _end_of(value)]
    return f"{before}{head}\n{pin_text(pin, value.start_mark.column)}{after}"


def _end_of(node: yaml.Node) -> int:
    """Return where a node's last word ends: block nodes themselves end after later comments."""
    while isinstance(node, yaml.CollectionNode) and not node.flow_style:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    return int(node.end_mark.index)


def _flow(values: Sequence[str]) -> str:
    dumped: str = yaml.safe_dump(list(values), default_flow_style=True, width=10_000)
    return dumped.strip()
