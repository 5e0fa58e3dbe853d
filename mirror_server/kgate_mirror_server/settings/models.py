"""The part of `kgate.yaml` that says where model repositories come from.

A process has one `HF_ENDPOINT`, so models pass through the mirror too: refused unless this says
otherwise, mirrored commit by commit like kernels, or streamed from a delegate. Nothing is opened
or resolved here.
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # pydantic reads it when the models are built
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from kgate_core.errors import InvalidInput
from kgate_core.kernel import KernelRef, Revision

if TYPE_CHECKING:
    from collections.abc import Callable


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelPin(_Strict):
    """One model repository at one commit, mirrored into one lane."""

    repo: str
    revision: str
    """A 40-hex commit: a model's branches move and say nothing about what runs."""
    files: Annotated[tuple[str, ...], Field(min_length=1)] = ("*",)
    """Shell patterns over the paths that are mirrored."""
    lane: str | None = None
    upstream: str | None = None
    """Name of an upstream under `upstreams:`; the one under `upstream:` unless given."""

    @field_validator("repo")
    @classmethod
    def _named(cls, text: str) -> str:
        return _checked(lambda: str(KernelRef.parse(text)))

    @field_validator("revision")
    @classmethod
    def _fixed(cls, text: str) -> str:
        return _checked(lambda: str(Revision(text)))

    @property
    def ref(self) -> KernelRef:
        """The repository."""
        return KernelRef.parse(self.repo)

    @property
    def wanted(self) -> str:
        """The pin as its import record states it: the commit, and the patterns if there are any."""
        return self.revision if self.files == ("*",) else f"{self.revision} {' '.join(self.files)}"

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision[:12]}"


class Models(_Strict):
    """Where model repositories come from: one HF_ENDPOINT serves them too."""

    mirror: tuple[ModelPin, ...] = ()
    """Fetched by `kgate sync` and served from here."""
    delegate: str | None = None
    """Address of a Hub or an Artifactory repository for all others; kernels never come from it."""
    token_file: Path | None = None
    """File with the mirror's own token for the delegate."""
    forward_credentials: bool = False
    """Whether a client's Authorization header goes to the delegate."""
    strict_lanes: tuple[str, ...] = ("production",)
    """Lanes in which models may carry neither code nor pickles."""
    code_allowed: tuple[str, ...] = ()
    """Patterns of repositories that may carry them there all the same."""

    @model_validator(mode="after")
    def _useful(self) -> Models:
        if not self.mirror and self.delegate is None:
            raise ValueError("give mirror: pins or delegate: an address, or write models: refuse")
        seen = [(pin.repo, pin.revision, pin.lane) for pin in self.mirror]
        if twice := next((key for key in seen if seen.count(key) > 1), None):
            raise ValueError(f"{twice[0]}@{twice[1]} is mirrored twice")
        return self


def _checked(read: Callable[[], str]) -> str:
    """Return what a core check returns; its sentence and hint become pydantic's error."""
    try:
        return read()
    except InvalidInput as exc:
        raise ValueError(f"{exc.message}{f' ({exc.hint})' if exc.hint else ''}") from exc
