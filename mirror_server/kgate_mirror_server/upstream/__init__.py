"""Where kernels come from: one adapter for each kind of upstream, behind `ports.HubClient`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kgate_mirror_server.ports import HubClient
    from kgate_mirror_server.settings.site import Config


def open_upstream(config: Config) -> HubClient:
    """Return the adapter for the configured upstream; raises InvalidInput, does no request yet."""
    upstream = config.upstream
    if upstream.is_folder:
        from kgate_mirror_server.upstream.folder import FolderUpstream  # noqa: PLC0415  # see below

        return FolderUpstream(config.path(upstream.url), origin=upstream.identity)
    if upstream.is_registry:
        from kgate_mirror_server.oci.pull import open_registry_upstream  # noqa: PLC0415  # see below

        ca_file = config.path(upstream.ca_file) if upstream.ca_file else None
        return open_registry_upstream(upstream.url, upstream.identity, ca_file)
    # huggingface_hub takes most of a second to import: only those who need it pay.
    from kgate_mirror_server.upstream.hub import HubUpstream  # noqa: PLC0415  # as said

    token_file = config.path(upstream.token_file) if upstream.token_file else None
    return HubUpstream(upstream.url, origin=upstream.identity, token_file=token_file)
