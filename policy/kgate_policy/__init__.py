"""Decides from evidence whether a kernel may be used, and says why.

`evaluate` is a pure function; no evidence, no rule or no answer means deny. This part fetches,
scans and signs nothing, and it imports no sibling: it works on ids and facts.
"""

from kgate_policy.document import load_policy
from kgate_policy.evaluation import evaluate
from kgate_policy.exceptions import KernelException, load_exceptions
from kgate_policy.joining import join
from kgate_policy.policy import Policy
from kgate_policy.profiles import builtin_profile
from kgate_policy.starter import starter_policy

__all__ = [
    "KernelException",
    "Policy",
    "builtin_profile",
    "evaluate",
    "join",
    "load_exceptions",
    "load_policy",
    "starter_policy",
]
