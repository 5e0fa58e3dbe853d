"""Targets that name an image in a registry by its digest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kgate_core.errors import InvalidInput
from kgate_mirror_server.oci.credentials import Access, Place
from kgate_mirror_server.oci.registry import Registry
from kgate_mirror_server.settings.site import load_config
from tests.ingestkit import make_site
from tests.integration.test_scan_image import layer
from tests.integration.test_scan_registry import HOME, push_image
from tests.registrykit import live_registry

if TYPE_CHECKING:
    from pathlib import Path

TORCH = b"__version__ = '2.13.0+cu130'\ncuda: str = '13.0'\nhip = None\n"


def test_an_image_in_a_registry_is_read_once_and_by_digest(tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    with live_registry(tmp_path / "registry") as registry:
        place = Place(registry.address)
        repository = Registry(place, Access()).named("ai/vllm")
        image = push_image(
            repository, "amd64", layer({"etc/x": b""}), layer({f"{HOME}/torch/version.py": TORCH})
        )
        site = make_site(tmp_path / "site", "https://hub.test")
        reference = f"oci://{registry.address}/ai/vllm"
        with site.config_path.open("a", encoding="utf-8") as file:
            file.write(f"\ntargets: [{{image: '{reference}@{image['digest']}', gpus: [sm_90]}}]\n")
        (target,) = load_config(site.config_path).targets
        assert (target.torch, target.cuda, target.arch) == ("2.13.0+cu130", "13.0", "x86_64")
        assert target.gpus == ("sm_90",)
    # What a digest names cannot change: nobody asks the registry again.
    assert load_config(site.config_path).targets == (target,)
    text = site.config_path.read_text(encoding="utf-8")
    site.config_path.write_text(text.replace(f"@{image['digest']}", ":1.2"), encoding="utf-8")
    with pytest.raises(InvalidInput, match="names no digest"):
        load_config(site.config_path)
