"""Waiting for another process: asked again until it is so, and never longer than said."""

import time
from collections.abc import Callable
from typing import TypeVar

# Long enough for a machine that is busy with something else: what it limits fails only where something is wrong.
SECONDS = 60.0
_PAUSE = 0.002
T = TypeVar("T")


def eventually(ask: Callable[[], T], what: str, seconds: float = SECONDS) -> T:
    """Ask until the answer is true, and return it.

    Raises:
        TimeoutError: it was not within ``seconds``; the message has ``what`` and the last answer.
    """
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what} (the last answer was {answer!r})")
        time.sleep(_PAUSE)
    return answer
