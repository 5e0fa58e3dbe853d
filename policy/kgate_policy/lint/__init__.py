"""`kgate lint`: what a project's own files say about kernels, before anything is fetched.

Reads Python, model `config.json`, Dockerfiles, KernelPort manifests and Kubernetes YAML as text;
nothing is imported, run or downloaded. It finds habits, not attacks: code that wants to hide what
it loads can. The gate in the pod and the mirror are what stops those.
"""

from kgate_policy.lint.files import Checked, apply_fixes, lint_paths, lint_text
from kgate_policy.lint.findings import RULES, Fix, LintFinding

__all__ = ["RULES", "Checked", "Fix", "LintFinding", "apply_fixes", "lint_paths", "lint_text"]
