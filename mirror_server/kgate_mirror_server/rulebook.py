"""Which policies are asked about a kernel: its lane's own or the site's, and the tenants'.

Reads policy files when they are first needed. What a policy answers is `kgate_policy`'s work.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from kgate_core.clock import write_time
from kgate_mirror_server.ingest.statements import read_image_lists
from kgate_policy import builtin_profile, load_policy
from kgate_policy.expressions.tenants import TenantWorker
from kgate_policy.question import Question
from kgate_policy.tenancy import Tenant, load_tenant

if TYPE_CHECKING:
    from datetime import datetime

    from kgate_core.digest import Digest
    from kgate_core.evidence import Evidence, Facts
    from kgate_core.kernel import KernelRef
    from kgate_mirror_server.app import Mirror
    from kgate_mirror_server.settings.site import Config
    from kgate_policy import Policy


@dataclass
class RuleBook:
    """The policies of one site."""

    config: Config
    counted: tuple[tuple[str, int], Facts] = field(default=(("", -1), {}), init=False)
    """The facts about the mirror, with the lane and the catalog's state that they are about."""
    _by_lane: dict[str, Policy] = field(default_factory=dict, init=False)

    @cached_property
    def site(self) -> Policy:
        """The policy of lanes that have none of their own; raises InvalidInput, NotFound."""
        return load_policy(self.config.path(self.config.policy))

    def of(self, lane: str) -> Policy:
        """Return the policy that decides about a lane; raises InvalidInput, NotFound."""
        if lane not in self._by_lane:
            self._by_lane[lane] = self._read(lane)
        return self._by_lane[lane]

    def _read(self, lane: str) -> Policy:
        named = self.config.lanes.get(lane)
        if named is not None and named.profile is not None:
            return builtin_profile(named.profile)
        if named is not None and named.policy is not None:
            return load_policy(self.config.path(named.policy))
        return self.site

    @cached_property
    def image_lists(self) -> dict[str, frozenset[Digest]]:
        """The device code of serving images, by the file that lists it."""
        return read_image_lists(self.config)

    @cached_property
    def _tenants(self) -> tuple[Tenant, ...]:
        return tuple(
            load_tenant(item.name, item.repos, self.config.path(item.policy))
            for item in self.config.tenants
        )

    def tenants(self, repo: KernelRef) -> tuple[Tenant, ...]:
        """Return the tenants whose a repository is; raises InvalidInput, NotFound."""
        return tuple(item for item in self._tenants if item.about(str(repo)))

    @cached_property
    def worker(self) -> TenantWorker:
        """The process in which tenants' expressions run; it starts when it is first asked."""
        return TenantWorker()

    def close(self) -> None:
        """End the worker, if there is one."""
        if "worker" in self.__dict__:
            self.worker.close()


def question(
    mirror: Mirror, evidence: Evidence, now: datetime, policy: Policy | None = None
) -> Question:
    """Return everything that decides about a variant: policy, tenants, exceptions, the mirror."""
    asked = mirror.rules.of(evidence.lane) if policy is None else policy
    repo = evidence.kernel.repo
    tenants = mirror.rules.tenants(repo)
    return Question(
        evidence,
        asked,
        now,
        tuple(item for item in mirror.exceptions(now).granted if item.kernel == repo),
        tenants,
        # Only expressions ask for them.
        surroundings(mirror, evidence.lane, now) if asked.expressions or tenants else {},
    )


def surroundings(mirror: Mirror, lane: str, now: datetime) -> Facts:
    """Return the facts that surround a lane's kernels, as docs/facts.md names them."""
    key = (lane, mirror.catalog.generation())
    if mirror.rules.counted[0] != key:
        mirror.rules.counted = key, _mirror_facts(mirror, lane)
    facts = dict(mirror.rules.counted[1])
    if mirror.feed is not None:
        facts["feedAgeSeconds"] = max(0, int((now - mirror.feed.date).total_seconds()))
    return {"mirror": facts}


def _mirror_facts(mirror: Mirror, lane: str) -> Facts:
    held = mirror.catalog.tally(lane)
    facts: Facts = {
        "site": mirror.config.site,
        "lane": lane,
        "kernels": held.kernels,
        "variants": held.variants,
        "denied": held.denied,
    }
    if held.changed_at is not None:
        facts["changedAt"] = write_time(held.changed_at)
    return facts
