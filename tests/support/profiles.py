"""How many examples Hypothesis makes up for a test, and which: said here for all of them."""

from hypothesis import settings
from hypothesis.database import DirectoryBasedExampleDatabase

GATE = "gate"
"""The same hundred each time: who changes something else does not meet a failure that has been there for long."""

DEEP = "deep"
"""Other thousands each time; what has failed is kept, and tried first the next time."""

settings.register_profile(GATE, max_examples=100, deadline=None, derandomize=True, database=None)
settings.register_profile(
    DEEP, max_examples=3_000, deadline=None, database=DirectoryBasedExampleDatabase(".hypothesis"), print_blob=True
)
