"""What other implementations were shown and said, as the page docs/verify-elsewhere.md.

Each row names the test that asks the other implementation; the page is nothing but this table.
Write it with `python -m tests.interop.elsewhere > docs/verify-elsewhere.md`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Final

_COSIGN: Final = (
    "cosign verify-blob-attestation --key admit.pub.pem --insecure-ignore-tlog "
    "--type https://slsa.dev/verification_summary/v1 --bundle vsa.json FILE"
)


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that another implementation was asked."""

    tool: str
    version: str
    """As tested; `installed` if the environment's lock says which."""
    what: str
    said: str
    """What the test asserts that it answers."""
    file: str
    test: str


ROWS: Final = (
    Row(
        "npm `@sigstore/verify`",
        "4.1.3",
        "key-signed bundle, P-256 and Ed25519",
        "accepts",
        "tests/interop/test_npm_verify.py",
        "test_it_accepts_what_is_signed_here",
    ),
    Row(
        "npm `@sigstore/verify`",
        "4.1.3",
        "the same with a changed payload",
        "refuses: SIGNATURE_ERROR",
        "tests/interop/test_npm_verify.py",
        "test_it_refuses_a_changed_payload",
    ),
    Row(
        "npm `@sigstore/verify`",
        "4.1.3",
        "RFC 3161 timestamp inside, key inside and outside its time",
        "accepts; refuses: PUBLIC_KEY_ERROR",
        "tests/interop/test_npm_verify.py",
        "test_it_reads_our_timestamps_and_holds_them_against_the_keys_time",
    ),
    Row(
        "npm `@sigstore/verify`",
        "4.1.3",
        "keyless statement, Rekor v1 and v2; changed payload; another name",
        "accepts; refuses; refuses",
        "tests/interop/test_npm_keyless.py",
        "test_it_accepts_a_keyless_statement_and_refuses_a_changed_one",
    ),
    Row(
        "npm `@sigstore/verify`",
        "4.1.3",
        "stored keyless bundles of 2026, Rekor v1 and v2",
        "accepts",
        "tests/interop/test_npm_keyless.py",
        "test_it_accepts_the_stored_bundles",
    ),
    Row(
        "`model_signing verify key`",
        "1.1.1",
        "model signature over a variant's folder",
        "accepts",
        "tests/interop/test_model_signing.py",
        "test_the_tool_accepts_the_signed_files",
    ),
    Row(
        "`model_signing verify key`",
        "1.1.1",
        "changed, extra and missing files",
        "refuses each",
        "tests/interop/test_model_signing.py",
        "test_the_tool_refuses_changed_extra_and_missing_files",
    ),
    Row(
        "`sigstore` (Python)",
        "installed",
        "keyless statement through a private Sigstore, Rekor v1 and v2",
        "accepts",
        "tests/unit/signer/test_keyless.py",
        "test_what_an_identity_signed_is_believed_and_its_exact_bytes_come_back",
    ),
    Row(
        "`sigstore` (Python)",
        "installed",
        "stored keyless bundles of 2026, Rekor v1 and v2",
        "accepts",
        "tests/unit/signer/test_keyless_stored.py",
        "test_the_library_itself_accepts_it_without_our_code",
    ),
    Row(
        "securesystemslib",
        "installed",
        "the DSSE envelope of a bundle",
        "accepts",
        "tests/conformance/test_dsse.py",
        "test_securesystemslib_accepts_what_is_signed_here",
    ),
    Row(
        "`openssl`",
        "3",
        "the signature of a bundle over its pre-authentication encoding",
        "accepts",
        "tests/conformance/test_dsse.py",
        "test_openssl_accepts_what_is_signed_here",
    ),
    Row(
        "`openssl ts`",
        "3",
        "the timestamp that was asked for",
        "accepts",
        "tests/unit/signer/test_timestamps.py",
        "test_openssl_verifies_what_the_authority_answered",
    ),
    Row(
        "in-toto-attestation",
        "installed",
        "the statements",
        "finds them valid",
        "tests/conformance/test_intoto.py",
        "test_the_reference_library_finds_our_statements_valid",
    ),
    Row(
        "python-tuf's client",
        "installed",
        "the trust metadata of a site",
        "accepts",
        "tests/conformance/test_tuf.py",
        "test_python_tufs_client_accepts_what_is_written_here",
    ),
    Row(
        "python-tuf's client",
        "installed",
        "attacks on it, a rollback among them",
        "refuses what kgate refuses",
        "tests/conformance/test_tuf.py",
        "test_both_readers_refuse_the_same_attacks",
    ),
    Row(
        "python-tuf's client",
        "installed",
        "two rolls of a root that two of three holders sign",
        "follows",
        "tests/integration/test_root_holders.py",
        "test_the_root_rolls_with_two_of_three_and_pods_follow",
    ),
)


def page() -> str:
    """Return the whole page."""
    lines = [
        "<!-- Written by `python -m tests.interop.elsewhere`; change it there. -->",
        "",
        "# Checking without kgate",
        "",
        "Bundles, statements and trust metadata are in public formats, so nobody has to take",
        "kgate's word. Each row is a test that hands what kgate wrote to another implementation.",
        "Those in `tests/interop` fetch it and run with `make test-matrix`; the others always run.",
        "",
        "| implementation | version | is shown | says | test |",
        "|---|---|---|---|---|",
        *(
            f"| {row.tool} | {row.version} | {row.what} | {row.said} | [{row.file.split('/')[-1]}]"
            f"(../{row.file}) |"
            for row in ROWS
        ),
        "",
        "A mirror gives the bundles at `/api/kgate/v1/attestations/ORG/NAME/COMMIT/VARIANT`;",
        "`openssl pkey -in keys/admit.pem -pubout` gives the public key. With OpenSSL alone:",
        "[predicates](predicates.md#checking-one-without-kgate).",
        "",
        "## Not run",
        "",
        "cosign 3 reads the same bundles; it takes a key without a log by a flag that calls this",
        "insecure. This command follows its documentation, and no test runs it:",
        "",
        "```console",
        _COSIGN,
        "```",
        "",
        "Notation reads another signature format and is not supported.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
