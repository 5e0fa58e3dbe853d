"""Whole sites for tests: founded as `kgate init` does, fed from a folder of built kernels.

The kernel is pure Python and built in no time; `Site` offers what a person would do at a prompt.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from kgate_cli.main import main
from kgate_mirror_server.app import Mirror
from kgate_mirror_server.examples import build_gelu_and_mul
from kgate_mirror_server.ingest.sync import SyncResult, new_source, sync, update_lock
from kgate_mirror_server.settings.site import load_config
from kgate_mirror_server.trust.founding import Founding, found_site
from tests.repos import copy_repo, redigest

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_core.digest import Digest
    from kgate_mirror_server.ports import Publication

REPO: Final = "kernels-community/gelu-and-mul"
UPSTREAM: Final = "built"
VARIANT: Final = "torch-cpu"
CONNECTED: Final = "https://connected.test"
ISLAND: Final = "https://island.test"


def time_now() -> datetime:
    """Return this second."""
    return datetime.now(UTC).replace(microsecond=0)


@dataclass(frozen=True)
class Site:
    """A site in a folder; each call opens it anew, as commands do."""

    folder: Path

    @classmethod
    def found(
        cls,
        folder: Path,
        name: str,
        *,
        kernels: Path | None = None,
        holders: tuple[int, int] = (1, 1),
    ) -> Site:
        """Found a site; with `kernels`, a folder of built ones, it pins the example kernel.

        `holders` says how many people hold the root, and how many of them must sign.
        """
        choice = Founding(
            upstream=f"./{UPSTREAM}", site=name, root_keys=holders[0], root_threshold=holders[1]
        )
        found_site(folder, choice, time_now())
        site = cls(folder)
        if kernels is not None:
            copy_repo(kernels, folder / UPSTREAM / REPO)
            site.pin(REPO, 1)
        return site

    @property
    def config(self) -> Path:
        """Its kgate.yaml."""
        return self.folder / "kgate.yaml"

    @property
    def root(self) -> Path:
        """The root that its pods, and sites that take its bundles, pin."""
        return self.folder / "trust" / "root.json"

    @property
    def variant(self) -> Path:
        """The variant's folder upstream."""
        return self.folder / UPSTREAM / REPO / "build" / VARIANT

    def mirror(self) -> Mirror:
        """Open the site."""
        return Mirror(load_config(self.config))

    def pin(self, repo: str, version: int) -> None:
        """Pin one kernel and nothing else."""
        text = self.config.read_text(encoding="utf-8")
        text = text.replace("kernels: []", f"kernels: [{{repo: {repo}, version: {version}}}]")
        self.config.write_text(text, encoding="utf-8")

    def sync(self) -> SyncResult:
        """Lock and admit every pin."""
        mirror = self.mirror()
        try:
            source = new_source(mirror, lambda _count: None)
            lock = update_lock(
                mirror, None, source, upgrade=lambda _pin: True, tell=lambda _text: None
            )
            return sync(mirror, lock, source, time_now(), tell=lambda _text: None)
        finally:
            mirror.close()

    def add_file(self, name: str, data: bytes) -> None:
        """Add a file to the variant upstream, properly digested."""
        (self.variant / name).write_bytes(data)
        redigest(self.variant)

    def publications(self) -> list[Publication]:
        """Return what is published."""
        mirror = self.mirror()
        try:
            return list(mirror.catalog.publications())
        finally:
            mirror.close()

    def manifests(self) -> set[Digest]:
        """Return the manifests of everything published."""
        return {v.manifest for item in self.publications() for v in item.variants}

    def kgate(self, *arguments: str) -> int:
        """Run a command of the command line on this site."""
        return main([*arguments, "--config", str(self.config)])


def built_kernels(cache: Path) -> Path:
    """Return the example kernel's repository, pure Python."""
    return build_gelu_and_mul(cache, native=False, cuda=False)


def run_json(command: list[str], **options: Any) -> Any:
    """Run a program and return the JSON that it printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
