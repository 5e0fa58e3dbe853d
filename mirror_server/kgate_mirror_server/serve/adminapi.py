"""The administration API below `/api/kgate/v1/admin/`: what is served, what was denied, how it is.

Read-only, off the hot path, and there only for callers who see everything anyway. It is FastAPI's:
the answers are typed, and `/api/kgate/v1/admin/openapi.json` describes them. FastAPI is imported
with the first request, so that a worker starts without it. What changes a mirror is the command
line's.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003  # pydantic reads it when the models are built
from typing import TYPE_CHECKING, Any, Final, Protocol

from pydantic import BaseModel

from kgate_mirror_server.serve.wire import error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgate_mirror_server.serve.router import Asked
    from kgate_mirror_server.serve.snapshot import Snapshot, State
    from kgate_mirror_server.serve.view import LaneView
    from kgate_mirror_server.serve.wire import Answer, Receive, Scope, Send

BASE: Final = "/api/kgate/v1/admin"
MAX_PAGE: Final = 1000  # items in one answer


class Variant(BaseModel):
    """A variant that is served and proven."""

    lane: str
    type: str
    repo: str
    served: str
    upstream: str
    versions: list[str]
    variant: str
    manifest: str
    files: int
    size: int
    publishedAt: datetime  # noqa: N815  # JSON's spelling
    validUntil: datetime  # noqa: N815


class Denied(BaseModel):
    """A variant that may not be used, and why."""

    lane: str
    type: str
    repo: str
    upstream: str
    version: str | None
    variant: str
    deniedAt: datetime  # noqa: N815
    reasons: list[dict[str, Any]]


class Inventory(BaseModel):
    """One page of what is served."""

    generation: int
    total: int
    items: list[Variant]


class Denials(BaseModel):
    """One page of what was denied."""

    generation: int
    total: int
    items: list[Denied]


class Lane(BaseModel):
    """One lane in numbers."""

    name: str
    repositories: int
    variants: int
    denied: int


class Status(BaseModel):
    """How the replica that answers is doing."""

    generation: int
    catalog: str
    fromKept: bool  # noqa: N815
    trusted: bool
    trustAgeSeconds: float | None  # noqa: N815
    firstDecisionEnds: datetime | None  # noqa: N815
    refusedVariants: int  # noqa: N815
    badBlobs: int  # noqa: N815
    lanes: list[Lane]


class Source(Protocol):
    """Where the current snapshot is."""

    current: Snapshot

    def state(self) -> State:
        """Return how the parts behind it are doing."""
        ...


class AdminApi:
    """Answers administrators; built when the first one asks."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._app: Any = None  # FastAPI's own type would cost its import

    async def answer(self, asked: Asked, send: Send) -> Answer | None:
        """Answer a request, or return the answer that there is nothing for this caller."""
        if not asked.caller.sees_everything:
            return error(404, "there is nothing at this address")
        if self._app is None:
            self._app = build(self._source)
        path = "/" + "/".join(asked.parts)
        scope: Scope = {
            **asked.request.scope,
            "path": path,
            "raw_path": path.encode(),
            "client": None,
        }
        await _run(self._app, scope, asked.request.receive, send)
        return None


async def _run(app: Any, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ANN401  # ASGI
    await app(scope, receive, send)


def build(source: Source) -> Any:  # noqa: ANN401  # as above
    """Return the FastAPI application."""
    from fastapi import FastAPI, Query  # noqa: PLC0415  # slow to import, and seldom needed

    app = FastAPI(
        title="kgate administration",
        version="1",
        description="What a mirror serves and denies, and how it is doing.",
        openapi_url=f"{BASE}/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    skipped = Query(0, ge=0, le=10_000_000, description="Items to leave out.")
    taken = Query(MAX_PAGE, ge=1, le=MAX_PAGE, description="Items to list at most.")
    narrowed = Query(None, max_length=32, description="One lane only.")

    async def status() -> Status:
        """How this replica is doing."""
        return status_of(source)

    async def inventory(
        lane: str | None = narrowed, skip: int = skipped, take: int = taken
    ) -> Inventory:
        """Every variant that is served, sorted by lane and repository."""
        snapshot = source.current
        found = list(served(snapshot, lane))
        return Inventory(
            generation=snapshot.generation, total=len(found), items=found[skip : skip + take]
        )

    async def denials(
        lane: str | None = narrowed, skip: int = skipped, take: int = taken
    ) -> Denials:
        """Every variant that was denied, with the rules that said no."""
        snapshot = source.current
        found = list(denied(snapshot, lane))
        return Denials(
            generation=snapshot.generation, total=len(found), items=found[skip : skip + take]
        )

    app.get(f"{BASE}/status", response_model=Status)(status)
    app.get(f"{BASE}/inventory", response_model=Inventory)(inventory)
    app.get(f"{BASE}/denials", response_model=Denials)(denials)
    return app


def status_of(source: Source) -> Status:
    """Return how a replica is doing."""
    snapshot, state = source.current, source.state()
    return Status(
        generation=snapshot.generation,
        catalog="up" if state.catalog_up else "down",
        fromKept=state.from_kept,
        trusted=snapshot.trusted,
        trustAgeSeconds=(
            None if state.trust is None else state.trust.age(state.now).total_seconds()
        ),
        firstDecisionEnds=snapshot.valid_until,
        refusedVariants=state.refused,
        badBlobs=state.bad_blobs,
        lanes=[
            Lane(
                name=name,
                repositories=len(lane.repos),
                variants=sum(1 for _ in _variants(name, lane)),
                denied=sum(map(len, lane.denials.values())),
            )
            for name, lane in sorted(snapshot.lanes.items())
        ],
    )


def served(snapshot: Snapshot, lane: str | None) -> Iterator[Variant]:
    """Yield every served variant of one lane, or of all."""
    for name, view in sorted(snapshot.lanes.items()):
        if lane is None or lane == name:
            yield from _variants(name, view)


def _variants(name: str, lane: LaneView) -> Iterator[Variant]:
    for (repo_type, repo), view in sorted(lane.repos.items()):
        for revision in view.revisions.values():
            versions = [f"v{n}" for n, what in view.branches.items() if what == revision.served]
            for variant in revision.variants.values():
                yield Variant(
                    lane=name,
                    type=str(repo_type),
                    repo=repo,
                    served=str(revision.served),
                    upstream=str(revision.upstream),
                    versions=versions,
                    variant=variant.item.variant,
                    manifest=str(variant.item.manifest),
                    files=len(variant.item.files),
                    size=sum(file.size for file in variant.item.files),
                    publishedAt=revision.published_at,
                    validUntil=variant.proof.valid_until,
                )


def denied(snapshot: Snapshot, lane: str | None) -> Iterator[Denied]:
    """Yield every denied variant of one lane, or of all."""
    for name, view in sorted(snapshot.lanes.items()):
        if lane is not None and lane != name:
            continue
        for repo, denials in sorted(view.denials.items()):
            for item in denials:
                yield Denied(
                    lane=name,
                    type=str(item.repo_type),
                    repo=repo,
                    upstream=str(item.upstream),
                    version=None if item.version is None else f"v{item.version}",
                    variant=item.variant,
                    deniedAt=item.denied_at,
                    reasons=list(item.reasons),
                )
