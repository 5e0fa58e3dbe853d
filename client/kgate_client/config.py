"""What the pod's environment asks for, read once and passed on as plain values.

It touches no file and no network, and it knows nothing of signed floors: what a pod asks for can
be overruled by the trust metadata (see `pod.Pod.mode`), never the other way round.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from kgate_client.choice import read_choices
from kgate_core.errors import InvalidInput
from kgate_core.ondeny import EVERY, OnDeny
from kgate_core.trust import Mode

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_LANE: Final = "experimental"
_LANE_SEGMENT: Final = "l"  # HF_ENDPOINT=https://mirror/l/<lane>
_TRUE: Final = {"1", "true", "yes", "on"}  # as huggingface_hub reads its switches


@dataclass(frozen=True, slots=True)
class PodConfig:
    """The environment of one process."""

    trust_root: Path | None = None
    """`KGATE_TRUST_ROOT`: the pinned TUF root; without it nothing can be verified."""
    cache: Path | None = None
    """`KGATE_CACHE`, else `$HF_HOME/kgate`; None keeps everything in this process."""
    hf_home: Path | None = None
    """`HF_HOME`, else where huggingface_hub would put it; None without a home directory."""
    lock: Path | None = None
    """`KGATE_LOCK`: a kgate.lock; kernels that it does not hold are refused."""
    lane: str = DEFAULT_LANE
    """`KGATE_LANE`, else the lane in the path of `HF_ENDPOINT`."""
    mode: Mode | None = None
    """`KGATE_MODE`; None leaves it to the signed floor."""
    on_deny: Mapping[str, OnDeny] = field(default_factory=dict)
    """`KGATE_ON_DENY`: what becomes of refused kernels, by name or `*`; it only tightens."""
    disable: bool = False
    """`KGATE_DISABLE` was set; counts only where no trust root is pinned."""
    report: Path | None = None
    """`KGATE_REPORT`: file that gets one JSON line per decision."""
    report_url: str | None = None
    """`KGATE_REPORT_URL`: `mirror`, or an address to which decisions are posted."""
    warn: bool = True
    """False for `KGATE_WARN=0`: no sentence on stderr."""
    canary: str = ""
    """`KGATE_CANARY`: the pool of replicas that this one belongs to (see `locks`)."""
    endpoint: str | None = None
    """`HF_ENDPOINT` without a trailing slash; None where it is not set."""
    token: str | None = field(default=None, repr=False)
    """`HF_TOKEN`, sent to the endpoint's own host only."""
    token_path: Path | None = None
    """File that holds the token where `HF_TOKEN` is not set."""
    offline: bool = False
    """`HF_HUB_OFFLINE`: no socket is opened."""
    ca_bundle: Path | None = None
    """`SSL_CERT_FILE` or `REQUESTS_CA_BUNDLE`: certificate authorities for the endpoint."""
    library_path: str = ""
    """`LD_LIBRARY_PATH`: where the loader looks before a library's own search path."""
    problems: tuple[str, ...] = ()
    """What could not be understood, in sentences; the strict reading was taken."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> PodConfig:
        """Read the environment; never raises, odd values are named in `problems`."""
        problems: list[str] = []
        hf_home = _hf_home(environ)
        endpoint = environ.get("HF_ENDPOINT", "").rstrip("/") or None
        cache = _path(environ, "KGATE_CACHE")
        if cache is None and hf_home is not None:
            cache = hf_home / "kgate"
        token_path = _path(environ, "HF_TOKEN_PATH")
        if token_path is None and hf_home is not None:
            token_path = hf_home / "token"
        return cls(
            trust_root=_path(environ, "KGATE_TRUST_ROOT"),
            cache=cache,
            hf_home=hf_home,
            lock=_path(environ, "KGATE_LOCK"),
            lane=environ.get("KGATE_LANE") or _lane_of(endpoint) or DEFAULT_LANE,
            mode=_mode(environ, problems),
            on_deny=_on_deny(environ, problems),
            disable=_switch(environ, "KGATE_DISABLE"),
            report=_path(environ, "KGATE_REPORT"),
            report_url=environ.get("KGATE_REPORT_URL") or None,
            warn=environ.get("KGATE_WARN", "1").lower() not in {"0", "false", "no", "off"},
            canary=environ.get("KGATE_CANARY", ""),
            endpoint=endpoint,
            token=environ.get("HF_TOKEN") or environ.get("HUGGING_FACE_HUB_TOKEN") or None,
            token_path=token_path,
            offline=_switch(environ, "HF_HUB_OFFLINE") or _switch(environ, "TRANSFORMERS_OFFLINE"),
            ca_bundle=_path(environ, "SSL_CERT_FILE") or _path(environ, "REQUESTS_CA_BUNDLE"),
            library_path=environ.get("LD_LIBRARY_PATH", ""),
            problems=tuple(problems),
        )


def _mode(environ: Mapping[str, str], problems: list[str]) -> Mode | None:
    text = environ.get("KGATE_MODE", "").lower()
    if not text:
        return None
    try:
        return Mode(text)
    except ValueError:
        problems.append(f"KGATE_MODE={text!r} is not one of {', '.join(Mode)}: taken as enforce")
        return Mode.ENFORCE


def _on_deny(environ: Mapping[str, str], problems: list[str]) -> Mapping[str, OnDeny]:
    try:
        return read_choices(environ.get("KGATE_ON_DENY", ""))
    except InvalidInput as exc:
        problems.append(f"{exc.message}: taken as block for all")
        return {EVERY: OnDeny.BLOCK}


def _lane_of(endpoint: str | None) -> str | None:
    if endpoint is None:
        return None
    try:
        segments = urlsplit(endpoint).path.strip("/").split("/")
    except ValueError:
        return None  # no address at all; whoever uses it says so
    for name, value in pairwise(segments):
        if name == _LANE_SEGMENT:
            return value
    return None


def _hf_home(environ: Mapping[str, str]) -> Path | None:
    if home := _path(environ, "HF_HOME"):
        return home
    if cache := _path(environ, "XDG_CACHE_HOME"):
        return cache / "huggingface"
    # An arbitrary user id without a home directory is normal in a cluster: then nothing is kept.
    home = _path(environ, "HOME")
    return None if home is None else home / ".cache" / "huggingface"


def _path(environ: Mapping[str, str], name: str) -> Path | None:
    text = environ.get(name, "")
    if not text:
        return None
    if text.startswith("~/") and environ.get("HOME"):
        text = environ["HOME"] + text[1:]
    return Path(text)


def _switch(environ: Mapping[str, str], name: str) -> bool:
    return environ.get(name, "").lower() in _TRUE
