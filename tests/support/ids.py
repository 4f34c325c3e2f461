"""Names of test cases that are the same in each run, so that one of them can be run again by its name."""

import re

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def label(value: object) -> str:
    """Return what a value looks like in ASCII, but for where it lies in memory."""
    return _ADDRESS.sub("", ascii(value))
