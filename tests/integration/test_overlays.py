"""The pods of the overlays as processes here: their commands, settings, volumes and Secrets.

PostgreSQL and the object store are real. Each container has its own mounts and none of the
others'; what the manifests mount read-only is read-only. Kubernetes itself is not part of it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import pytest

from tests.kustomization import FOLDER, Object, containers, pods, render
from tests.mirrorkit import free_port
from tests.objectstores import CREDENTIALS, s3_server
from tests.scalekit import KGATE, hub_of, scaled_site
from tests.services import postgresql
from tests.sitekit import CONNECTED, REPO, VARIANT, Site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgate_mirror_server.hubsim.simulator import HubSimulator

FILE: Final = f"/kernels/{REPO}/resolve/v1/build/{VARIANT}/metadata.json"


@dataclass
class Cluster:
    """Volumes and pods below one folder."""

    folder: Path
    """Has a folder for each ConfigMap and Secret by name, and `claims/` with volumes."""
    port: int
    """Where the server listens."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def put(self, name: str, text: str) -> None:
        """Write a file of a Secret."""
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(text, encoding="utf-8")

    def start(self, container: Object, volumes: Object) -> subprocess.Popen[str]:
        """Start a container's process: its command, or kgate with its arguments."""
        root = self.folder / "pods" / container["name"]
        mounts = {item["mountPath"]: item for item in container["volumeMounts"]}
        names = "|".join(sorted(map(re.escape, mounts), key=len, reverse=True))
        places = re.compile(rf"(?<![\w.-])({names})(?=/|\s|$)", re.MULTILINE)

        def moved(text: str) -> str:
            return places.sub(lambda found: f"{root}{found[1]}", text)

        script = ["mount --make-rprivate /"]
        for path, mount in mounts.items():
            source, target = self._source(volumes[mount["name"]], root), Path(f"{root}{path}")
            target.mkdir(parents=True, exist_ok=True)
            if mount["name"] == "site":  # the files name paths: each pod's are elsewhere here
                for file in source.iterdir():
                    (target / file.name).write_text(moved(file.read_text("utf-8")), "utf-8")
                source = target
            script.append(shlex.join(["mount", "--bind", str(source), str(target)]))
            if mount.get("readOnly"):
                script.append(f"mount -o remount,bind,ro {shlex.quote(str(target))}")
        environment = {item["name"]: moved(item["value"]) for item in container.get("env", ())}
        # The program lies where it lies, perhaps below a folder that the pod mounts.
        program = [] if container.get("command") else [KGATE]
        words = container.get("command") or container["args"]
        script.append("exec " + shlex.join([*program, *(moved(str(word)) for word in words)]))
        return subprocess.Popen(
            ["unshare", "--mount", "/bin/sh", "-ec", "\n".join(script)],
            env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **environment},
            cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip

    def _source(self, volume: Object, root: Path) -> Path:
        """Return the folder with what a volume holds."""
        match volume:
            case {"configMap": {"name": name}} | {"secret": {"secretName": name}}:
                return self.folder.joinpath(str(name))
            case {"persistentVolumeClaim": {"claimName": name}}:
                return self.folder.joinpath("claims", str(name))
            case {"projected": {"sources": sources}}:
                joined = root / "projected" / str(volume["name"])
                for source in sources:
                    shutil.copytree(
                        self.folder / source["secret"]["name"], joined, dirs_exist_ok=True
                    )
                return joined
            case _:
                empty = root / "empty" / str(volume["name"])
                empty.mkdir(parents=True, exist_ok=True)
                return empty


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubSimulator]:
    with hub_of(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


def make_cluster(
    folder: Path, site: Site, hub: HubSimulator, given: Path, changes: dict[str, str]
) -> Cluster:
    """Make what docs/deploy.md asks operators for; `given` is an overlay's kgate.yaml."""
    cluster = Cluster(folder, free_port())
    settings = given.read_text("utf-8")
    for old, new in {
        "upstream: https://huggingface.co": f"upstream: {hub.url}",
        "kernels: []": f"kernels: [{{repo: {REPO}, version: 1}}]",
        "https://kgate.local": CONNECTED,
        "host: 0.0.0.0": "host: 127.0.0.1",
        "port: 8800": f"port: {cluster.port}",
        **changes,
    }.items():
        assert old in settings, old
        settings = settings.replace(old, new)
    assert site.kgate("lock") == 0
    made = folder / "kgate-site"
    made.mkdir(parents=True)
    (made / "kgate.yaml").write_text(settings, encoding="utf-8")
    shutil.copy(site.folder / "kgate.lock", made)
    shutil.copy(FOLDER / "base" / "site" / "baseline.yaml", made)
    shutil.copytree(site.folder / "trust", folder / "kgate-trust")
    for key in ("admit", "timestamp"):
        (folder / f"kgate-{key}-key").mkdir()
        shutil.copy(site.folder / "keys" / f"{key}.pem", folder / f"kgate-{key}-key")
    for claim in ("kgate-data", "kgate-trust"):
        (folder / "claims" / claim).mkdir(parents=True)
    return cluster


def found_in(overlay: str) -> dict[str, tuple[Object, Object]]:
    """Return an overlay's containers by name, each with the volumes of its pod."""
    found: dict[str, tuple[Object, Object]] = {}
    for _, template in pods(render(FOLDER / "overlays" / overlay)):
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        found |= {item["name"]: (item, volumes) for item in containers(template)}
    return found


def finish(process: subprocess.Popen[str]) -> None:
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said


@contextlib.contextmanager
def running(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)  # a container ends with all its processes
        process.communicate(timeout=60)


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code
    except OSError:
        return 0


def until(url: str, seconds: float, *processes: subprocess.Popen[Any]) -> None:
    """Wait until an address answers 200; fails with what a process said that ended meanwhile."""
    end = time.monotonic() + seconds
    while status(url) != 200:
        for process in processes:
            assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, f"{url}: {status(url)}"
        time.sleep(0.2)


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount what each pod sees")


@as_root
def test_a_locked_kernel_goes_through_three_identities_into_a_replica(
    tmp_path: Path, hub: HubSimulator
) -> None:
    with postgresql() as url, s3_server(tmp_path) as s3:
        site = scaled_site(tmp_path / "site", hub, url, s3)
        overlay = FOLDER / "overlays" / "scaled" / "kgate.yaml"
        changes = {"https://s3.example": s3.endpoint, "s3://kgate/blobs": "s3://kernels/site"}
        cluster = make_cluster(tmp_path / "cluster", site, hub, overlay, changes)
        at = urlsplit(url)
        service = f"[kgate]\nhost={at.hostname}\nport={at.port}\nuser=kgate\ndbname=postgres\n"
        for who in ("owner", "ingest", "signer", "serve"):
            cluster.put(f"kgate-database-{who}/pg_service.conf", service)
        for may in ("read", "write"):
            lines = [f"{name}={value}" for name, value in CREDENTIALS.items()]
            cluster.put(f"kgate-store-{may}/credentials", "\n".join(lines))
        found = found_in("scaled")
        assert set(found) == {"serve", "worker", "found", "sign", "refresh", "migrate"}
        # The jobs that end, in the order in which a cluster would come to them at last.
        finish(cluster.start(*found["found"]))
        finish(cluster.start(*found["migrate"]))
        with (
            running(cluster.start(*found["refresh"])) as refresh,
            running(cluster.start(*found["serve"])) as serve,
        ):
            until(f"{cluster.address}/readyz", 60, serve, refresh)
            assert status(f"{cluster.address}{FILE}") == 404
            with (
                running(cluster.start(*found["worker"])) as worker,
                running(cluster.start(*found["sign"])) as sign,
            ):
                until(f"{cluster.address}{FILE}", 90, serve, refresh, worker, sign)


@as_root
def test_one_pod_serves_what_the_job_beside_it_syncs(tmp_path: Path, hub: HubSimulator) -> None:
    site = scaled_site(tmp_path / "site", hub, "sqlite:///kgate-data/kgate.db")
    overlay = FOLDER / "base" / "site" / "kgate.yaml"
    cluster = make_cluster(tmp_path / "cluster", site, hub, overlay, {})
    found = found_in("embedded")
    assert set(found) == {"serve", "found", "sync"}
    finish(cluster.start(*found["found"]))
    with running(cluster.start(*found["serve"])) as serve:
        until(f"{cluster.address}/readyz", 60, serve)
        finish(cluster.start(*found["sync"]))
        until(f"{cluster.address}{FILE}", 30, serve)
