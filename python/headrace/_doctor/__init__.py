"""What `headrace doctor` finds out about the servers of a project's channel layers, and says in plain words.

It changes nothing: what it has to try, it tries with names of its own, which it removes. It prints no password.
`diagnose` looks at everything; what it needs beyond the standard library is the extra `doctor`, redis-py.
"""

from headrace._doctor.examination import Target, diagnose
from headrace._doctor.findings import Section

__all__ = ["Section", "Target", "diagnose"]
