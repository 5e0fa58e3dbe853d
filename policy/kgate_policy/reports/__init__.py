"""Decisions and findings in the formats that people and their tools read.

One vocabulary for all of them, in `vocabulary`. Every writer is a pure function from entries to
text with equal bytes for equal input; nothing is stored or sent.
"""

from kgate_policy.reports.ci import github_annotations, gitlab_quality, notes
from kgate_policy.reports.entries import Entry
from kgate_policy.reports.junit import junit
from kgate_policy.reports.markdown import markdown
from kgate_policy.reports.openreports import openreports
from kgate_policy.reports.sarif import sarif

__all__ = [
    "Entry",
    "github_annotations",
    "gitlab_quality",
    "junit",
    "markdown",
    "notes",
    "openreports",
    "sarif",
]
