"""Writes the stored keyless bundles: `python -m tests.assets.keyless.make`.

A private Sigstore is brought up on loopback, signs one decision through Rekor v1 and once more
through Rekor v2, and is gone. Its keys are not kept, so nobody can make further bundles that these
roots believe. The tests that read the files hold them against today's code and today's libraries.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from kgate_signer.keyless import Keyless
from kgate_signer.predicates import vsa_statement
from tests.sigstoreservers import Services
from tests.trustkit import make_trust, manifest_of
from tests.tsakit import LocalAuthority

FOLDER = Path(__file__).parent
NOBODY = "http://127.0.0.1:1"  # where the services were does not matter any more


def main() -> None:
    """Write `trust-config.json` and a bundle for each kind of log."""
    manifest = manifest_of()
    statement = vsa_statement(manifest, make_trust().vsa(manifest))
    with (
        tempfile.TemporaryDirectory() as folder,
        Services(LocalAuthority(Path(folder), days=3650, digits=0)).served() as services,
    ):
        for version in (1, 2):
            bundle = Keyless(services.trust_config(version)).sign(statement, services.token)
            (FOLDER / f"rekor-v{version}.sigstore.json").write_bytes(bundle + b"\n")
        config = services.trust_config(2).replace(services.address.encode(), NOBODY.encode())
    text = json.dumps(json.loads(config), indent=1) + "\n"
    (FOLDER / "trust-config.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
