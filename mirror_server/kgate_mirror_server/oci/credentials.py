"""Names of repositories and credentials for a registry, as every container tool has them: by oras.

`oras` reads Docker's configuration, credential helpers and references, and fetches tokens; this
module answers a registry's challenge with it. What is transferred is not its affair.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import requests
from oras.auth import get_auth_backend
from oras.container import Container

from kgate_core.errors import InvalidInput, UpstreamError

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_core.kernel import KernelRef

SCHEME: Final = "oci://"
_COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")  # distribution specification, "name"
_HOST: Final = re.compile(r"[A-Za-z0-9.-]+(?::[0-9]{1,5})?|\[[0-9a-fA-F:]+\](?::[0-9]{1,5})?")
_LOCAL: Final = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, slots=True)
class Place:
    """A registry and the namespace in it under which kernels lie."""

    host: str
    namespace: str = ""
    """Without slashes at its ends; may be empty."""

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read `oci://host[:port][/namespace]`; raises InvalidInput."""
        host, _, namespace = text.removeprefix(SCHEME).rstrip("/").partition("/")
        if not text.startswith(SCHEME) or _HOST.fullmatch(host) is None:
            raise InvalidInput(
                f"not a registry: {text!r}", hint="write oci://registry.example:5000/namespace"
            )
        if namespace and _NAME.fullmatch(namespace) is None:
            raise InvalidInput(f"not a namespace of a registry: {namespace!r}")
        return cls(host, namespace)

    def repository(self, repo: KernelRef) -> str:
        """Return where a kernel lies; registries know lower case only. Raises InvalidInput."""
        name = "/".join(filter(None, (self.namespace, str(repo).lower())))
        if _NAME.fullmatch(name) is None:
            raise InvalidInput(
                f"a registry has no name for {repo}",
                hint="it may not hold two dots or dashes in a row",
            )
        # The same parser that oras, and so its users, go by.
        container = Container(f"{self.host}/{name}")
        return str(container.api_prefix)

    def __str__(self) -> str:
        return f"{SCHEME}{self.host}" + (f"/{self.namespace}" if self.namespace else "")


@dataclass(frozen=True, slots=True)
class Access:
    """How a registry is reached."""

    plain_http: bool = False
    """HTTP instead of HTTPS; this machine's own addresses are reached so without saying it."""
    ca_file: Path | None = None
    """Certificates of a private CA, in PEM."""
    config: Path | None = None
    """A Docker configuration with credentials, besides the user's own."""

    def scheme(self, host: str) -> str:
        """Return `http` or `https` for a host."""
        if self.ca_file is not None and not self.plain_http:
            return "https"
        name = host if host.startswith("[") else host.partition(":")[0]
        return "http" if self.plain_http or name.startswith(_LOCAL) else "https"


class Login:
    """Credentials for one registry; answers its challenges."""

    def __init__(self, place: Place, access: Access, session: requests.Session) -> None:
        verify = str(access.ca_file) if access.ca_file else True
        insecure = access.scheme(place.host) == "http"
        self._backend: Any = get_auth_backend("token", session, insecure, tls_verify=verify)
        self._host = place.host
        configs = [str(access.config)] if access.config else []
        try:
            self._backend.load_configs(Container(f"{place.host}/any"), configs)
        except (OSError, ValueError, KeyError) as exc:
            raise InvalidInput(f"the registry credentials cannot be read ({exc})") from exc
        self._header: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """What the next request should carry."""
        return {} if self._header is None else {"Authorization": self._header}

    def answer(self, response: requests.Response) -> bool:
        """Take a registry's challenge; returns whether asking again makes sense."""
        before = self._header
        challenge = response.headers.get("Www-Authenticate", "")
        basic = getattr(self._backend, "_basic_auth", None)
        if challenge.lower().startswith("basic"):
            self._header = f"Basic {basic}" if basic else None
        else:
            try:
                headers, changed = self._backend.authenticate_request(response, {}, refresh=True)
            except (requests.RequestException, ValueError, AttributeError) as exc:
                raise UpstreamError(
                    f"{self._host}: no token could be had ({type(exc).__name__})"
                ) from exc
            self._header = str(headers["Authorization"]) if changed else None
        return self._header is not None and self._header != before
