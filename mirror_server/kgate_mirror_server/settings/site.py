"""`kgate.yaml`: what to mirror, from where, under which rules, kept where.

Reads and checks the file once; the rest of the program gets plain values. It opens nothing and
resolves no pin. Paths are relative to the file's own folder.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from kgate_core.errors import InvalidInput, KgateError
from kgate_core.kernel import KernelRef, Revision, check_origin
from kgate_core.ondeny import OnDeny  # noqa: TC001  # pydantic reads it at run time
from kgate_mirror_server.events import Events
from kgate_mirror_server.settings import marks
from kgate_mirror_server.settings.floors import Floors
from kgate_mirror_server.settings.serving import Models, Serve
from kgate_mirror_server.settings.targets import Target

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
    variants: tuple[str, ...] = ("*",)
    """Shell patterns over build variant names."""
    lane: Lane | None = None
    on_deny: Annotated[OnDeny | None, Field(alias="onDeny")] = None
    """What a pod with the lock does when the kernel is refused."""

    @model_validator(mode="after")
    def _one_of(self) -> Pin:
        if (self.version is None) == (self.revision is None):
            raise ValueError(
                "give either version: N (of branch vN) or revision: a 40-hex commit; "
                "branches and tags move and cannot be pinned"
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
        """The pin as the lock writes it: `vN` or a commit."""
        return f"v{self.version}" if self.version is not None else str(self.revision)

    def __str__(self) -> str:
        return f"{self.repo}@{self.wanted}"


class Upstream(_Model):
    """Where kernels come from: a Hub's address or a folder, and its identity in attestations."""

    url: str
    origin: Annotated[str, _checked(check_origin)] | None = None
    """Identity of the upstream; the address without a trailing slash unless given."""
    token_file: Path | None = None
    """File with the access token for this upstream; it is sent nowhere else."""
    ca_file: Path | None = None
    """Certificates of the private CA of a registry (`oci://…`)."""

    @field_validator("url")
    @classmethod
    def _usable(cls, url: str) -> str:
        if "://" in url and not url.startswith(("http://", "https://", "oci://")):
            raise ValueError(f"an upstream is http(s)://…, oci://… or a folder, not {url!r}")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _known_origin(self) -> Upstream:
        if self.is_registry and self.origin is None:
            raise ValueError(
                "a registry holds kernels of another origin: name it, "
                "for example origin: https://huggingface.co"
            )
        return self

    @property
    def is_registry(self) -> bool:
        """True if the upstream is an OCI registry to which a kgate pushed."""
        return self.url.startswith("oci://")

    @property
    def is_folder(self) -> bool:
        """True if the upstream is a folder of built kernels."""
        return "://" not in self.url

    @property
    def identity(self) -> str:
        """The origin that attestations state."""
        if self.origin is not None:
            return self.origin
        if self.is_folder:
            return check_origin(f"dir:{Path(self.url).name}")
        return check_origin(self.url)


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


class Publisher(_Model):
    """Whose own signatures count for the kernels of one organisation."""

    org: str
    """Organisation on the Hub, such as `acme`."""
    repository: str
    """Source repository that the build ran in, such as `https://github.com/acme/kernels`."""
    workflows: Annotated[tuple[str, ...], Field(min_length=1)]
    """Addresses of the build definitions with their branch, as the certificate names them."""
    issuer: str = "https://token.actions.githubusercontent.com"


class TimestampAuthority(_Model):
    """An independent authority that dates decisions (RFC 3161)."""

    url: str
    authority: Path
    """Its certificate or public key in PEM; `kgate trust update` tells pods to believe it."""

    @field_validator("url")
    @classmethod
    def _usable(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"a timestamp authority is http(s)://…, not {url!r}")
        return url


class Config(_Model):
    """The whole of `kgate.yaml`."""

    api_version: Annotated[Literal["kgate.dev/v1"], Field(alias="apiVersion")]
    upstream: Upstream
    kernels: tuple[Pin, ...] = ()
    site: str = "https://kgate.local"
    """This installation's name in what it signs; pods compare it."""
    lane: Lane = "experimental"
    """Lane of pins that name none, and what the mirror's root address serves."""
    policy: Path = Path("policy/baseline.yaml")
    exceptions: Path = Path("policy/exceptions")
    """Folder of signed exceptions, as `kgate policy except` writes them."""
    store: str = "./kgate-data"
    database: str = "sqlite:///kgate-data/kgate.db"
    trust: Path = Path("trust")
    keys: Keys = Keys()
    approved_algorithms: bool = False
    """Sign with P-256 keys only: what the cryptographic modules of validated systems offer."""
    timestamp: TimestampAuthority | None = None
    serve: Serve = Serve()
    lanes: dict[Lane, Floors] = {}
    """What is signed as the least of a lane; `kgate trust update` signs it."""
    models: Models | None = None
    """Where model repositories come from; without, those that are not published are refused."""
    events: Events = Events()
    targets: tuple[Target, ...] = ()
    """The machines that every kernel should have a variant for; rule `targets-covered`."""
    publishers: tuple[Publisher, ...] = ()
    """Publishers besides Hugging Face's own, whose workflows are known."""
    sigstore_root: Path | None = None
    """Sigstore's trusted_root.json; the one that the installed release carries unless given."""
    on_moved: Literal["report", "fail"] = "report"
    """What `kgate sync` does when upstream moved a version branch: the pinned commit stays."""
    valid_days: Annotated[int, Field(ge=1, le=3650)] = 365
    """How long a decision counts; `kgate sync` renews it."""
    folder: Path = Path()
    """Where the file lies; relative paths start here."""

    @field_validator("upstream", mode="before")
    @classmethod
    def _short_upstream(cls, value: object) -> object:
        return {"url": value} if isinstance(value, str) else value

    @field_validator("kernels", mode="before")
    @classmethod
    def _no_kernels(cls, value: object) -> object:
        return () if value is None else value

    @model_validator(mode="after")
    def _distinct(self) -> Config:
        seen = [(pin.repo, pin.wanted, pin.lane or self.lane) for pin in self.kernels]
        if twice := next((key for key in seen if seen.count(key) > 1), None):
            raise ValueError(f"{twice[0]}@{twice[1]} is pinned twice in lane {twice[2]}")
        return self

    def lane_of(self, pin: Pin) -> str:
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
        return Config.model_validate({**marked.value, "folder": path.parent.absolute()})
    except ValidationError as exc:
        raise _explain(exc, marked, path.name) from exc


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
    models: dict[str, type[BaseModel]] = {
        "kernels": Pin,
        "upstream": Upstream,
        "publishers": Publisher,
        "targets": Target,
        "events": Events,
        "keys": Keys,
        "lanes": Floors,
        "serve": Serve,
        "timestamp": TimestampAuthority,
    }
    model = models.get(str(where[0])) if where else Config
    fields = (model or Config).model_fields
    return {field.alias or name for name, field in fields.items()} - {"folder"}
