"""The story itself: two scenes, told in short sentences, every value observed in a real process."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from kgate_cli.demo import attacks
from kgate_cli.demo.pods import Outcome, Pod
from kgate_cli.demo.site import (
    ADMITTED,
    UNPINNED,
    bring_in,
    lay_out_upstream,
    make_site,
    serving,
)
from kgate_core.errors import Conflict, KgateError
from kgate_mirror_server.app import Mirror
from kgate_mirror_server.examples.build import build_gelu_and_mul
from kgate_mirror_server.ports import EvidenceKind
from kgate_mirror_server.settings.site import load_config

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

TOLERANCE: Final = 1e-3  # largest difference to PyTorch that counts as equal numbers
MARK: Final = ".kgate-demo"  # a folder with this file was made by the demo and may be replaced


@dataclass(slots=True)
class Result:
    """What the demo is about, each value seen in a client process."""

    admitted: str = ""
    numbers_equal: bool = False
    tampered: str = ""
    unsigned: str = ""
    unpinned: str = ""
    planted_pyc: str = ""
    offline_reuse: str = ""

    @property
    def as_told(self) -> bool:
        """True if everything came out as the story says."""
        return asdict(self) == {
            "admitted": "loaded",
            "numbers_equal": True,
            "tampered": "fallback",
            "unsigned": "fallback",
            "unpinned": "fallback",
            "planted_pyc": "not executed",
            "offline_reuse": "loaded",
        }


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the final table."""

    what: str
    outcome: str
    why: str


def prepare_folder(out: Path) -> None:
    """Make an empty folder, replacing an earlier demo; raises Conflict for anything else."""
    if out.exists() and any(out.iterdir()):
        if not (out / MARK).exists():
            raise Conflict(
                f"{out} is not empty and was not made by the demo", hint="name another with --out"
            )
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()


def tell_story(
    out: Path, cache: Path, now: Callable[[], datetime], say: Callable[[str], None]
) -> tuple[Result, list[Line]]:
    """Play the first scene: a kernel is admitted, and everything else falls back."""
    prepare_folder(out)
    say("1. Building a real kernel: GELU-and-multiply for CPU and for NVIDIA GPUs.")
    built = build_gelu_and_mul(cache, progress=lambda text: say(f"   {text}"))
    lay_out_upstream(out, built)
    say("2. A platform engineer starts a site, pins that kernel and brings it in.")
    config = make_site(out, now())
    synced = bring_in(config, now(), lambda text: say(f"   {text}"))
    if synced.failures or synced.denied or not synced.approved:
        raise KgateError(f"the demo's kernel was not admitted: {synced}")
    say(f"   {synced.approved} variants fetched, scanned, allowed, signed and published.")
    _keep_evidence(config, out)
    program = out / "app.py"
    shutil.copyfile(f"{os.path.dirname(__file__)}/app.py", program)  # noqa: PTH120  # beside this file
    trust_root = out / "trust" / "root.json"
    with serving(config) as url:
        say(f"3. The mirror serves it on {url}; pods only set HF_ENDPOINT and a trust root.")

        def pod(name: str) -> Pod:
            return Pod(out / "pods" / name, program, url, trust_root)

        result, lines = _play(out, built, pod, say)
    say("8. The mirror is stopped. A pod that has the kernel loads it again, offline.")
    offline = Pod(out / "pods" / "admitted", program, url, trust_root)
    again = offline.run(ADMITTED, HF_HUB_OFFLINE="1")
    result.offline_reuse = again.word
    lines.append(Line("the same pod, no network", again.word, _why(again)))
    (out / "result.json").write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")
    return result, lines


def _play(
    out: Path, built: Path, pod: Callable[[str], Pod], say: Callable[[str], None]
) -> tuple[Result, list[Line]]:
    result = Result()
    lines: list[Line] = []

    def note(what: str, outcome: Outcome) -> str:
        lines.append(Line(what, outcome.word, _why(outcome)))
        return outcome.word

    admitted = pod("admitted").run(ADMITTED)
    result.admitted = note("pinned, scanned, signed", admitted)
    result.numbers_equal = bool(admitted.kernels) and admitted.difference < TOLERANCE
    say(f"   admitted kernel: {admitted.word}, differs from PyTorch by {admitted.difference:.1e}")

    say("4. Somebody changes one byte of the library in a pod's cache. Its size stays the same.")
    victim = pod("tampered")
    victim.run(ADMITTED)
    attacks.tamper(attacks.cached_variant(victim.hub_cache, ADMITTED))
    result.tampered = note("one byte changed", victim.run(ADMITTED))

    say("5. Somebody points LOCAL_KERNELS at a build of their own.")
    local = attacks.copy_unsigned(built, out / "pods" / "unsigned-build")
    stray = pod("unsigned").run(ADMITTED, LOCAL_KERNELS=f"{ADMITTED}={local}")
    result.unsigned = note("a local build, unsigned", stray)

    say("6. A model asks for a repository that nobody pinned.")
    result.unpinned = note("not pinned", pod("unpinned").run(UNPINNED))

    say("7. Somebody plants bytecode beside an untouched source file.")
    planted = pod("planted")
    planted.run(ADMITTED)
    marker = planted.home / "the-planted-code-ran"
    attacks.plant_bytecode(attacks.cached_variant(planted.hub_cache, ADMITTED), marker)
    after = planted.run(ADMITTED)
    result.planted_pyc = "executed" if marker.exists() else "not executed"
    lines.append(Line("bytecode planted", f"{after.word}, {result.planted_pyc}", _why(after)))
    return result, lines


def _keep_evidence(config: Path, out: Path) -> None:
    """Lay SBOMs, bundles and scan reports out for people to read."""
    mirror = Mirror(load_config(config))
    try:
        for publication in mirror.catalog.publications():
            for variant in publication.variants:
                folder = out / "evidence" / variant.variant
                folder.mkdir(parents=True)
                names = {
                    EvidenceKind.SBOM: "sbom.cdx.json",
                    EvidenceKind.SCAN: "scan.json",
                    EvidenceKind.DECISION: "decision.json",
                    EvidenceKind.MANIFEST: "manifest.json",
                }
                for kind, name in names.items():
                    (folder / name).write_bytes(mirror.room.read(variant.evidence[kind]))
                for number, digest in enumerate(variant.bundles, start=1):
                    data = mirror.room.read(digest)
                    (folder / f"bundle-{number}.sigstore.json").write_bytes(data)
    finally:
        mirror.close()


def _why(outcome: Outcome) -> str:
    if outcome.kernels:
        return f"verified; differs from PyTorch by {outcome.difference:.1e}"
    return f"{outcome.reason or 'no report'}: PyTorch ran, nothing else did"
