"""What can be measured about the current snapshot, as Prometheus gauges."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kgate_mirror_server.serve.metrics import Sample
    from kgate_mirror_server.serve.snapshot import Snapshot, State


def gauges_of(snapshot: Snapshot, state: State) -> list[Sample]:
    """Return all gauges: what is published and denied, and how old what it rests on is."""
    lanes = sorted(snapshot.lanes.items())
    samples: list[Sample] = []
    for name, lane in lanes:
        views = [view for repo in lane.repos.values() for view in repo.revisions.values()]
        number = sum(len(view.variants) for view in views)
        samples.append(("kgate_published_variants", (("lane", name),), float(number)))
    for name, lane in lanes:
        number = sum(len(denials) for denials in lane.denials.values())
        samples.append(("kgate_denied_variants", (("lane", name),), float(number)))
    samples += [
        ("kgate_catalog_generation", (), float(snapshot.generation)),
        ("kgate_catalog_up", (), float(state.catalog_up)),
        ("kgate_serving_from_kept", (), float(state.from_kept)),
        ("kgate_trust_up", (), float(state.trust is not None)),
        ("kgate_refused_variants", (), float(state.refused)),
        ("kgate_bad_blobs", (), float(state.bad_blobs)),
    ]
    if state.trust is not None:
        age = state.trust.age(state.now).total_seconds()
        samples.append(("kgate_trust_age_seconds", (), age))
    if snapshot.valid_until is not None:
        left = (snapshot.valid_until - state.now).total_seconds()
        samples.append(("kgate_first_decision_ends_seconds", (), left))
    return samples
