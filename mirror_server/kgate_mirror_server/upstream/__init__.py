"""Where kernels come from: one adapter for each kind of upstream, behind `ports.HubClient`."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from kgate_core.digest import Digest
from kgate_core.errors import InvalidInput, TrustError
from kgate_core.kernel import RepoType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kgate_mirror_server.ports import HubClient
    from kgate_mirror_server.settings.site import Config
    from kgate_mirror_server.settings.upstreams import Upstream
    from kgate_mirror_server.upstream.requests import Access, Requests
    from kgate_mirror_server.upstream.voucher import Voucher

AGENT: Final = f"kgate/{version('kgate')}"
"""What upstreams see as our User-Agent."""


def open_upstream(
    config: Config, upstream: Upstream, environment: Mapping[str, str] | None = None
) -> HubClient:
    """Return the adapter for one of the configured upstreams; does no request yet.

    `environment` is asked for `token_env` alone. Raises InvalidInput, TrustError.
    """
    if upstream.is_folder:
        from kgate_mirror_server.upstream.folder import FolderUpstream  # noqa: PLC0415  # see below

        return FolderUpstream(config.path(upstream.url), origin=upstream.identity)
    if upstream.is_registry:
        from kgate_mirror_server.oci.pull import open_registry_upstream  # noqa: PLC0415  # see below

        ca_file = config.path(upstream.ca_file) if upstream.ca_file else None
        return open_registry_upstream(upstream.url, upstream.identity, ca_file)
    # Only those who need an HTTP client pay for its import.
    from kgate_mirror_server.upstream.hub import HubUpstream  # noqa: PLC0415  # as said
    from kgate_mirror_server.upstream.requests import Requests  # noqa: PLC0415  # as said

    access = access_of(config, upstream, environment or {})
    requests = Requests(upstream.url, access, AGENT)
    voucher = _voucher(config, upstream, requests)
    return HubUpstream(requests, origin=upstream.identity, voucher=voucher)


def _voucher(config: Config, upstream: Upstream, requests: Requests) -> Voucher | None:
    if upstream.trust_root is None:
        return None
    from kgate_mirror_server.upstream.voucher import Voucher, read_root  # noqa: PLC0415  # rarely used

    root = read_root(config.path(upstream.trust_root))
    state = config.path(config.trust) / "upstreams" / f"{Digest.of(root).short}.json"
    return Voucher(requests, root, state, RepoType.KERNEL)


def open_models(
    config: Config, upstream: Upstream, environment: Mapping[str, str] | None = None
) -> HubClient:
    """Return an upstream's model repositories; raises InvalidInput if it has none."""
    if upstream.is_folder or upstream.is_registry:
        raise InvalidInput(
            f"models cannot be mirrored from {upstream.url}",
            hint="only a Hub has model repositories; name one under upstreams: and in the pin",
        )
    from kgate_mirror_server.upstream.hub import HubUpstream  # noqa: PLC0415  # as above
    from kgate_mirror_server.upstream.requests import Requests  # noqa: PLC0415  # as above

    requests = Requests(upstream.url, access_of(config, upstream, environment or {}), AGENT)
    return HubUpstream(requests, origin=upstream.identity, repo_type=RepoType.MODEL)


def access_of(config: Config, upstream: Upstream, environment: Mapping[str, str]) -> Access:
    """Return how an upstream is reached; raises TrustError if its token is not to be had."""
    from kgate_mirror_server.upstream.requests import Access  # noqa: PLC0415  # as above

    return Access(
        _token(config, upstream, environment),
        config.path(upstream.ca_file) if upstream.ca_file else None,
        upstream.proxy,
        upstream.no_proxy,
        upstream.timeout,
    )


def _token(config: Config, upstream: Upstream, environment: Mapping[str, str]) -> str:
    from kgate_mirror_server.upstream.requests import clean_token  # noqa: PLC0415  # as above

    # Without a configured token none of the user's own login may leak to an upstream.
    if upstream.token_env is not None:
        if not (found := environment.get(upstream.token_env, "")):
            raise TrustError(f"the upstream token variable {upstream.token_env} is not set")
        return clean_token(found.encode(), f"the variable {upstream.token_env}")
    if upstream.token_file is None:
        return ""
    try:
        data = config.path(upstream.token_file).read_bytes()
    except OSError as exc:
        raise TrustError(
            f"the upstream token {upstream.token_file} cannot be read ({exc.strerror})"
        ) from exc
    return clean_token(data, f"the upstream token {upstream.token_file}")
