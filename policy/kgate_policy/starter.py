"""The policy that `kgate init` writes: short, commented, ready to be changed.

It is a text for people; `document` reads it back, and a test holds the two together.
"""

from __future__ import annotations

from typing import Final

STARTER: Final = """\
# What may run. kgate asks every rule of the profile about every kernel variant that is pinned;
# one "deny" refuses it. The rules: docs/policy-rules.md, recipes: docs/policy.md.
apiVersion: kgate.dev/v1
kind: Policy
name: baseline

# The profile to start from, from loose to strict: dev, staging, production, airgap (and
# approved-algorithms, for sites under FIPS 140).
extends: staging

# What the scanner's findings lead to: info, low, medium, high or critical.
severity:
  deny: high
  warn: medium

# How much single rules count: deny, warn or off. What is not named stands as in the profile.
rules:
  require-upstream-signature: warn

# Which repositories may be used (shell patterns); without an allow list, all that are pinned.
# repositories:
#   allow: ["kernels-community/*"]
#   deny: []

# Which licences may be used, by SPDX id.
# licences:
#   allow: [Apache-2.0, BSD-3-Clause, MIT]

# What may not be used whatever its name is: digests of manifests or of single files.
# digests:
#   deny: []
"""


def starter_policy() -> str:
    """Return the commented YAML text of a starter policy."""
    return STARTER
