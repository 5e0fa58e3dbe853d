"""Names of kernels: repository, revision, build variant, and where they come from.

`Revision` is a commit. A branch or a version number is a pin, resolved elsewhere; it can never
become a `Revision` by mistake. The variant grammar is that of `kernels` 0.17 (its modules
`variants` and `backends`); whether a variant fits a machine is not decided here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from kgate_core.errors import InvalidInput

# The Hub's own rule for names, less the leading and trailing punctuation that it refuses too.
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_TORCH: Final = re.compile(r"torch([0-9])([0-9]+)(?:-(cxx11|cxx98))?")
_STABLE: Final = re.compile(r"torch-stable-abi([0-9])([0-9]+)")
_TVM: Final = re.compile(r"tvm-ffi([0-9]+?)([0-9]+)")
_VERSIONED_BACKEND: Final = re.compile(r"(cu|rocm|xpu|cann)([0-9]+)([0-9])")
_PLATFORM: Final = re.compile(r"[a-z0-9_]{1,32}")
_PLAIN_URL: Final = re.compile(r"https?://[A-Za-z0-9._~:@%/\[\]-]{0,510}[A-Za-z0-9._~%\]-]")
_MAX_VARIANT: Final = 128  # characters

_PLAIN_BACKENDS: Final = frozenset({"cpu", "metal", "neuron", "tpu"})
_NOARCH_BACKENDS: Final = frozenset(
    {"cpu", "cuda", "rocm", "xpu", "npu", "cann", "metal", "neuron", "tpu", "universal"}
)
_FAMILIES: Final = {"cu": "cuda", "rocm": "rocm", "xpu": "xpu", "cann": "cann"}


class RepoType(StrEnum):
    """The Hub's repository types that kgate can hold; part of a kernel's identity."""

    KERNEL = "kernel"
    MODEL = "model"


@dataclass(frozen=True, slots=True, order=True)
class KernelRef:
    """A repository name `org/name`; says nothing about where it is or which commit."""

    org: str
    name: str

    def __post_init__(self) -> None:
        for part in (self.org, self.name):
            if (
                not isinstance(part, str)
                or _NAME.fullmatch(part) is None
                or ".." in part
                or "--" in part
            ):
                raise InvalidInput(
                    f"not a repository name: {self.org}/{self.name}",
                    hint="write it as org/name, with letters, digits, '-', '_' and '.'",
                )

    @classmethod
    def parse(cls, text: str) -> KernelRef:
        """Read `org/name`; raises InvalidInput."""
        org, slash, name = text.partition("/") if isinstance(text, str) else ("", "", "")
        if not slash or "/" in name:
            raise InvalidInput(
                f"not a repository name: {text!r}",
                hint="write it as org/name, for example kernels-community/relu",
            )
        return cls(org, name)

    def __str__(self) -> str:
        return f"{self.org}/{self.name}"


@dataclass(frozen=True, slots=True, order=True)
class Revision:
    """A commit in 40 lower-case hex digits."""

    commit: str

    def __post_init__(self) -> None:
        if not isinstance(self.commit, str) or _COMMIT.fullmatch(self.commit) is None:
            raise InvalidInput(
                f"not a commit: {self.commit!r}",
                hint="a commit has 40 lower-case hex digits; branches and tags move",
            )

    def __str__(self) -> str:
        return self.commit

    @property
    def short(self) -> str:
        """First twelve hex digits, for people; never compared."""
        return self.commit[:12]


class Framework(StrEnum):
    """What a variant's host code was built against."""

    TORCH = "torch"
    TORCH_STABLE_ABI = "torch-stable-abi"
    TVM_FFI = "tvm-ffi"


@dataclass(frozen=True, slots=True)
class Variant:
    """A parsed build directory name, such as `torch213-cxx11-cu130-x86_64-linux` or `torch-cpu`.

    `noarch` variants (`torch-<backend>`) hold Python only and leave the versions, `cpu` and
    `os` None.
    """

    name: str
    framework: Framework
    framework_version: tuple[int, int] | None
    cxx11_abi: bool | None
    backend: str
    backend_version: tuple[int, int] | None
    cpu: str | None
    os: str | None

    @property
    def noarch(self) -> bool:
        """True if the variant is built for no particular machine."""
        return self.cpu is None

    @classmethod
    def parse(cls, text: str) -> Variant:
        """Read a variant directory name; raises InvalidInput for forms that `kernels` rejects."""
        if not isinstance(text, str) or len(text) > _MAX_VARIANT:
            raise InvalidInput(f"not a build variant: {text!r}")
        if text.startswith("torch-") and not text.startswith("torch-stable-abi"):
            backend = text.removeprefix("torch-")
            if backend not in _NOARCH_BACKENDS:
                raise InvalidInput(
                    f"not a build variant: {text!r}",
                    hint=f"torch-<backend> knows {', '.join(sorted(_NOARCH_BACKENDS))}",
                )
            return cls(text, Framework.TORCH, None, None, backend, None, None, None)
        return cls._parse_arch(text)

    @classmethod
    def _parse_arch(cls, text: str) -> Variant:
        parts = text.split("-")
        head, arch = "-".join(parts[:-3]), parts[-3:]
        if found := _TORCH.fullmatch(head):
            framework, abi = Framework.TORCH, None if found[3] is None else found[3] == "cxx11"
        elif found := _STABLE.fullmatch(head):
            framework, abi = Framework.TORCH_STABLE_ABI, None
        elif found := _TVM.fullmatch(head):
            framework, abi = Framework.TVM_FFI, None
        else:
            raise InvalidInput(f"not a build variant: {text!r}", hint="its framework is not known")
        backend, backend_version = _parse_backend(arch[0], text)
        if _PLATFORM.fullmatch(arch[1]) is None or _PLATFORM.fullmatch(arch[2]) is None:
            raise InvalidInput(
                f"not a build variant: {text!r}", hint="its platform is not well formed"
            )
        version = (int(found[1]), int(found[2]))
        return cls(text, framework, version, abi, backend, backend_version, arch[1], arch[2])

    def __str__(self) -> str:
        return self.name


def _parse_backend(text: str, variant: str) -> tuple[str, tuple[int, int] | None]:
    if text in _PLAIN_BACKENDS:
        return text, None
    # The minor version is the last digit, as upstream's greedy pattern reads it: cu130 is 13.0.
    if found := _VERSIONED_BACKEND.fullmatch(text):
        return _FAMILIES[found[1]], (int(found[2]), int(found[3]))
    raise InvalidInput(
        f"not a build variant: {variant!r}", hint=f"its backend {text!r} is not known"
    )


WHOLE: Final = ""
"""The variant of a model: all of its repository, which has no builds."""


def folder_of(variant: str) -> str:
    """Return where a variant's files lie in its repository, with a slash at the end."""
    return "" if variant == WHOLE else f"build/{variant}/"


@dataclass(frozen=True, slots=True)
class KernelId:
    """What a kernel is: origin, repository type, repository, revision and variant together.

    Names alone decide nothing; a manifest digest is added wherever bytes are meant.
    `origin` is the upstream's base URL without a trailing slash. A model is named the same way;
    its variant is `WHOLE`.
    """

    origin: str
    repo_type: RepoType
    repo: KernelRef
    revision: Revision
    variant: str

    def __post_init__(self) -> None:
        check_origin(self.origin)
        if self.repo_type is not RepoType.MODEL or self.variant != WHOLE:
            Variant.parse(self.variant)

    @property
    def purl(self) -> str:
        """Return the package URL that attestations carry as `resourceUri`."""
        origin = quote(self.origin, safe="")
        where = "" if self.variant == WHOLE else f"#build/{self.variant}"
        return (
            f"pkg:huggingface/{self.repo}@{self.revision}"
            f"?repository_url={origin}&type={self.repo_type}{where}"
        )

    @classmethod
    def parse_purl(cls, text: str) -> KernelId:
        """Read a `resourceUri` written exactly as `purl` does; raises InvalidInput."""
        found = _PURL.fullmatch(text)
        if found is None:
            raise InvalidInput(f"not the package URL of a kernel variant: {text!r}")
        try:
            repo_type = RepoType(found["type"])
        except ValueError as exc:
            raise InvalidInput(f"unknown repository type in {text!r}") from exc
        parsed = cls(
            origin=unquote(found["origin"]),
            repo_type=repo_type,
            repo=KernelRef.parse(found["repo"]),
            revision=Revision(found["revision"]),
            variant=found["variant"] or WHOLE,
        )
        if parsed.purl != text:
            raise InvalidInput(f"not written canonically: {text!r}")
        return parsed


_PURL: Final = re.compile(
    r"pkg:huggingface/(?P<repo>[^@?#]+)@(?P<revision>[0-9a-f]{40})"
    r"\?repository_url=(?P<origin>[^&#]+)&type=(?P<type>[a-z]+)(?:#build/(?P<variant>[^/]+))?"
)


def check_origin(text: str) -> str:
    """Return an upstream's identity unchanged if it is well formed; raises InvalidInput.

    An origin is `https://host[:port][/path]`, `http://…` (loopback tests, internal mirrors) or
    `dir:<name>` for a folder of built kernels, whose name a person chose.
    """
    if text.startswith("dir:") and _NAME.fullmatch(text.removeprefix("dir:")):
        return text
    if not _is_base_url(text):
        raise InvalidInput(
            f"not an upstream origin: {text!r}",
            hint="write https://host without a trailing slash, user name or query",
        )
    return text


def _is_base_url(text: str) -> bool:
    # urlsplit drops tabs and newlines and keeps other odd characters: only plain ones get there.
    if _PLAIN_URL.fullmatch(text) is None:
        return False
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    return bool(parts.hostname) and parts.username is None and port != 0
