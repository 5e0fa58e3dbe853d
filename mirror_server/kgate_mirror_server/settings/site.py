"""`kgate.yaml`: what to mirror, from where, under which rules, kept where.

Reads and checks the file once; the rest of the program gets plain values. It opens nothing and
resolves no pin. Paths are relative to the file's own folder.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput, KgateError
from kgate_core.kernel import KernelRef, Revision
from kgate_core.ondeny import OnDeny  # pydantic reads it at run time
from kgate_mirror_server.events import Events
from kgate_mirror_server.settings import marks
from kgate_mirror_server.settings.feeds import Feeds
from kgate_mirror_server.settings.floors import Floors
from kgate_mirror_server.settings.keeping import Quotas, Retention
from kgate_mirror_server.settings.models import ModelPin, Models
from kgate_mirror_server.settings.serving import Serve
from kgate_mirror_server.settings.signing import Signing, TimestampAuthority
from kgate_mirror_server.settings.storing import ObjectStorage, Schedule, StorePlace
from kgate_mirror_server.settings.targets import Target
from kgate_mirror_server.settings.tenants import Tenants
from kgate_mirror_server.settings.upstreams import (
    Publisher,
    Upstream,
    check_distinct,
    check_routes,
    written_short,
)

if TYPE_CHECKING:
    from collections.abc import Callable

API_VERSION: Final = "kgate.dev/v1"
FILE_NAME: Final = "kgate.yaml"
LOCK_NAME: Final = "kgate.lock"
_LANE: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")


def _checked(check: Callable[[str], object]) -> AfterValidator:
    """Turn a core check into a pydantic one: its sentence and hint become the error."""

    def run(text: str) -> str:
        try:
            check(text)
        except KgateError as exc:
            raise ValueError(f"{exc.message}{f' ({exc.hint})' if exc.hint else ''}") from exc
        return text

    return AfterValidator(run)


def _check_lane(text: str) -> None:
    if _LANE.fullmatch(text) is None:
        raise InvalidInput(f"not a lane name: {text!r}", hint="use lower-case letters and '-'")


Lane = Annotated[str, _checked(_check_lane)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Pin(_Model):
    """What a person asked for: one repository at one version or commit."""

    repo: Annotated[str, _checked(KernelRef.parse)]
    version: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """N of the version branch `vN`; resolved to a commit by `kgate lock`."""
    revision: Annotated[str, _checked(Revision)] | None = None
    digest: Annotated[str, _checked(Digest.parse)] | None = None
    """Manifest digest of one variant: alone a pin by itself, else the only variant taken."""
    variants: tuple[str, ...] = ("*",)
    """Shell patterns over build variant names."""
    lane: Lane | None = None
    upstream: str | None = None
    """Name of an upstream under `upstreams:`; the one under `upstream:` unless given."""
    on_missing: Literal["refuse", "fallback"] = "refuse"
    """What `kgate lock` does if no variant serves one of `targets:`: an error, or a note."""
    on_deny: Annotated[OnDeny | None, Field(alias="onDeny")] = None
    """What a pod with the lock does when the kernel is refused."""

    @model_validator(mode="after")
    def _one_of(self) -> Pin:
        named = [item for item in (self.version, self.revision) if item is not None]
        if len(named) > 1 or not (named or self.digest):
            raise ValueError(
                "give either version: N (of branch vN) or revision: a 40-hex commit, "
                "or the digest: of a variant; branches and tags move and cannot be pinned"
            )
        if not self.variants:
            raise ValueError("variants: at least one pattern, such as '*'")
        return self

    @property
    def ref(self) -> KernelRef:
        """The repository."""
        return KernelRef.parse(self.repo)

    @property
    def wanted(self) -> str:
        """The pin as the lock writes it: `vN`, a commit, or a digest."""
        if self.version is not None:
            return f"v{self.version}"
        return str(self.digest if self.revision is None else self.revision)

    def __str__(self) -> str:
        return f"{self.repo}@{self.wanted}"


class Keys(_Model):
    """Where private keys are: URIs, never values."""

    admit: str = "file:keys/admit.pem"
    timestamp: str = "file:keys/timestamp.pem"
    root: str = "file:keys/root.pem"
    """Signs trust metadata; take it offline after `kgate init` where you can."""
    approve: str = "file:keys/approve.pem"
    """Signs approvals, where a person runs `kgate approve`; never needed by sync or serve."""
    ingest: str | None = None
    """Signs what was found (import, SBOM, scan results); the admit key unless given."""
    bundle: str | None = None
    """Signs bundles and receipts; the admit key unless given."""
    feed: str | None = None
    """Signs advisory feeds, where a person publishes them; never needed by sync or serve."""


class Config(_Model):
    """The whole of `kgate.yaml`."""

    api_version: Annotated[Literal["kgate.dev/v1"], Field(alias="apiVersion")]
    upstream: Upstream
    upstreams: dict[str, Upstream] = {}
    """More upstreams by name; a pin says which one it comes from."""
    kernels: tuple[Pin, ...] = ()
    site: str = "https://kgate.local"
    """This installation's name in what it signs; pods compare it."""
    lane: Lane = "experimental"
    """Lane of pins that name none, and what the mirror's root address serves."""
    policy: Path = Path("policy/baseline.yaml")
    exceptions: Path = Path("policy/exceptions")
    """Folder of signed exceptions, as `kgate policy except` writes them."""
    break_glass: Path = Path("policy/break-glass")
    """Folder of break-glass statements, as `kgate break-glass` writes them."""
    store: StorePlace = "./kgate-data"
    """A folder, or an object store: `s3://bucket/prefix`, `gs://…`, `az://…`."""
    object_store: ObjectStorage = ObjectStorage()
    sync: Schedule = Schedule()
    database: str = "sqlite:///kgate-data/kgate.db"
    trust: Path = Path("trust")
    keys: Keys = Keys()
    approved_algorithms: bool = False
    """Sign with P-256 keys only: what the cryptographic modules of validated systems offer."""
    signing: Signing = Signing()
    timestamp: TimestampAuthority | None = None
    serve: Serve = Serve()
    lanes: dict[Lane, Floors] = {}
    """What is signed as the least of a lane; `kgate trust update` signs it."""
    models: Models | None = None
    """Where model repositories come from; without, all are refused."""
    events: Events = Events()
    feeds: Feeds = Feeds()
    """Which advisories count without a signature, and whose VEX does."""
    tenants: Tenants = ()
    """Teams whose own policies are asked beside the site's; they may only tighten."""
    targets: tuple[Target, ...] = ()
    """The machines that every kernel should have a variant for; rule `targets-covered`."""
    publishers: tuple[Publisher, ...] = ()
    """Publishers besides Hugging Face's own, whose workflows are known."""
    sigstore_root: Path | None = None
    """Sigstore's trusted_root.json; the one that the installed release carries unless given."""
    on_moved: Literal["report", "fail"] = "report"
    """What `kgate sync` does when upstream moved a version branch: the pinned commit stays."""
    retention: Retention = Retention()
    """What `kgate gc` takes away; without keep_newest no publication ever goes."""
    quotas: Quotas = Quotas()
    """How many bytes may come in; checked before anything is fetched."""
    valid_days: Annotated[int, Field(ge=1, le=3650)] = 365
    """How long a decision counts; `kgate sync` renews it."""
    folder: Path = Path()
    """Where the file lies; relative paths start here."""

    @field_validator("upstream", mode="before")
    @classmethod
    def _short_upstream(cls, value: object) -> object:
        return written_short(value)

    @field_validator("upstreams", mode="before")
    @classmethod
    def _short_upstreams(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {name: written_short(item) for name, item in value.items()}

    @field_validator("kernels", mode="before")
    @classmethod
    def _no_kernels(cls, value: object) -> object:
        return () if value is None else value

    @field_validator("models", mode="before")
    @classmethod
    def _refuse_models(cls, value: object) -> object:
        return None if value == "refuse" else value

    @model_validator(mode="after")
    def _distinct(self) -> Config:
        seen = Counter((pin.repo, pin.wanted, pin.lane or self.lane) for pin in self.kernels)
        if twice := next((key for key, count in seen.items() if count > 1), None):
            raise ValueError(f"{twice[0]}@{twice[1]} is pinned twice in lane {twice[2]}")
        return self

    @model_validator(mode="after")
    def _routed(self) -> Config:
        check_distinct(self.upstream, self.upstreams)
        for pin in self._pins:
            self.check_allowed(pin)
        check_routes(
            [(p.repo, self.lane_of(p), self.upstream_of(p).identity) for p in self.kernels]
        )
        return self

    @property
    def _pins(self) -> tuple[Pin | ModelPin, ...]:
        return (*self.kernels, *(() if self.models is None else self.models.mirror))

    def upstream_of(self, pin: Pin | ModelPin) -> Upstream:
        """Return where a pin comes from; raises ValueError for a name that is not there."""
        if pin.upstream is None:
            return self.upstream
        if pin.upstream not in self.upstreams:
            known = ", ".join(sorted(self.upstreams)) or "none"
            raise ValueError(
                f"{pin}: there is no upstream {pin.upstream!r} under upstreams: (there is {known})"
            )
        return self.upstreams[pin.upstream]

    def check_allowed(self, pin: Pin | ModelPin) -> None:
        """Raise ValueError if the upstream's lists do not let a pin's repository in."""
        if refusal := self.upstream_of(pin).refusal(pin.repo):
            raise ValueError(refusal)

    def origins(self, lane: str) -> frozenset[str]:
        """Return the identities of all upstreams that a lane takes kernels or models from."""
        routed = {self.upstream_of(p).identity for p in self._pins if self.lane_of(p) == lane}
        return frozenset(routed | {self.upstream.identity})

    def lane_of(self, pin: Pin | ModelPin) -> str:
        """Return the lane that a pin belongs to."""
        return pin.lane or self.lane

    def path(self, relative: Path | str) -> Path:
        """Return a path of the file as an absolute one."""
        return (self.folder / relative).absolute()


def load_config(path: Path) -> Config:
    """Read `kgate.yaml`; raises InvalidInput naming line, field and nearest known."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as exc:
        raise InvalidInput(
            f"there is no {path.name} in {path.parent.absolute()}",
            hint="write one with `kgate init`, or name it with --config",
        ) from exc
    except OSError as exc:
        raise InvalidInput(f"{path}: cannot be read ({exc.strerror})") from exc
    marked = marks.read(data, name=path.name)
    if not isinstance(marked.value, dict):
        raise InvalidInput(f"{path.name}, line 1: expected fields such as 'upstream:'")
    try:
        config = Config.model_validate({**marked.value, "folder": path.parent.absolute()})
    except ValidationError as exc:
        raise _explain(exc, marked, path.name) from exc
    return _with_images(config)


def _with_images(config: Config) -> Config:
    """Return the configuration with the machines read that its targets name images of."""
    if all(target.image is None for target in config.targets):
        return config
    from kgate_mirror_server.settings.imagetarget import read_image  # noqa: PLC0415  # rarely needed

    def read(target: Target) -> Target:
        if target.image is None:
            return target
        if not target.image.startswith("oci://"):
            return read_image(str(config.path(target.image)), target.gpus)
        from kgate_mirror_server.settings.registrytarget import read_remote  # noqa: PLC0415  # as above

        return read_remote(target, config.path("kgate-data") / "images")

    return config.model_copy(update={"targets": tuple(map(read, config.targets))})


def _explain(error: ValidationError, marked: marks.Marked, name: str) -> InvalidInput:
    first = error.errors()[0]
    where: tuple[str | int, ...] = tuple(first["loc"])
    field = ".".join(str(part) for part in where) or "the file"
    message = first["msg"].removeprefix("Value error, ")
    hint = ""
    match first["type"]:
        case "extra_forbidden":
            message = "this field is not known"
            known = sorted(_known_fields(where[:-1]))
            near = difflib.get_close_matches(str(where[-1]), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
        case "missing":
            message = "this field is missing"
        case _:
            pass
    others = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return InvalidInput(f"{name}, line {marked.line(where)}, {field}: {message}{others}", hint=hint)


def _known_fields(where: tuple[str | int, ...]) -> set[str]:
    named = Config.model_fields.get(str(where[0])) if where else None
    model = Config if named is None else _model_in(named.annotation) or Config
    return {field.alias or name for name, field in model.model_fields.items()} - {"folder"}


def _model_in(kind: object) -> type[BaseModel] | None:
    """Return the model that an annotation names, alone or in a list, a table or an option."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind
    return next((found for part in get_args(kind) if (found := _model_in(part))), None)
