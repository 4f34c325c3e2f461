"""How many examples Hypothesis makes up for a test, and which: said here for all of them."""

from hypothesis import HealthCheck, settings
from hypothesis.database import DirectoryBasedExampleDatabase

GATE = "gate"
"""The same hundred each time: who changes something else does not meet a failure that has been there for long."""

DEEP = "deep"
"""Other thousands each time; what has failed is kept, and tried first the next time."""

# How long an example takes says as much about the machine, and what else it does, as about the test.
_ON_ANY_MACHINE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

settings.register_profile(GATE, _ON_ANY_MACHINE, max_examples=100, derandomize=True, database=None)
settings.register_profile(
    DEEP,
    _ON_ANY_MACHINE,
    max_examples=3_000,
    database=DirectoryBasedExampleDatabase(".hypothesis"),
    print_blob=True,
)
