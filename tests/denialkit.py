"""The curl transcript of a denial in docs/denials.md, taken from a real server.

`python -m tests.denialkit` writes it into the page; a test compares the two.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from tests.mirrorkit import VARIANT, commit_of, make_mirror, served

PAGE: Final = Path(__file__).parents[1] / "docs" / "denials.md"
BEGIN: Final = "```console\n"
END: Final = "```\n"
EVIL: Final = commit_of("evil")
ASKED: Final = (
    ("What a client sees: a kernel without builds", "curl -s $HF_ENDPOINT{api}/tree/v1/build"),
    ("Why, for people", "curl -s $HF_ENDPOINT/k/acme/evil"),
    (
        "Why, for a pod that asks for attestations",
        f"curl -s $HF_ENDPOINT/api/kgate/v1/attestations/acme/evil/{EVIL}/{VARIANT}",
    ),
    (
        "Writing is refused",
        "curl -s -X POST -w '%{http_code}\\n' $HF_ENDPOINT{api}/commit/main",
    ),
)


def transcript() -> str:
    """Serve a mirror with one denied kernel, ask it with curl, and return what was said."""
    with tempfile.TemporaryDirectory() as folder:
        kit = make_mirror(Path(folder))
        kit.deny()
        with served(kit.settings) as address:
            return "\n".join(_one(title, text, address) for title, text in ASKED)


def _one(title: str, text: str, address: str) -> str:
    command = text.replace("{api}", "/api/kernels/acme/evil")
    done = subprocess.run(
        ["sh", "-c", command],
        env={"PATH": "/usr/bin:/bin", "HF_ENDPOINT": address, "NO_PROXY": "127.0.0.1"},
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    said = re.sub(r'"deniedAt":"[^"]*"', '"deniedAt":"2026-11-21T12:00:00Z"', done.stdout.strip())
    first, _, rest = said.rpartition("}")
    try:
        pretty = json.dumps(json.loads(first + "}" if first else said), indent=2)
    except ValueError:
        pretty = said
    return f"# {title}.\n$ {command}\n{pretty}{rest if first else ''}\n"


def written() -> str:
    """Return the transcript in the page."""
    _, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    return rest.partition(END)[0]


def main() -> None:
    """Write the transcript into the page."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(page.replace(written(), transcript()), encoding="utf-8")


if __name__ == "__main__":
    main()
