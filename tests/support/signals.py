"""Handlers of signals that a test sets for itself."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def handled(number: int, handler: Callable[[int, Any], Any] | signal.Handlers) -> Iterator[None]:
    """Handle a signal while the context lasts, and then as before."""
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)
