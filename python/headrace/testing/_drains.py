"""A drain in a test: the process goes on behind it."""

from collections.abc import Iterator
from contextlib import contextmanager

from headrace._drain import let_in_again

__all__ = ["undo_drain"]


@contextmanager
def undo_drain() -> Iterator[None]:
    """Let the process take WebSockets again at the end of the context, whatever has called ``drain`` in it.

    In pytest the fixture ``headrace_drain`` does it: it is ``headrace.drain``, undone at the end of the test.
    """
    try:
        yield
    finally:
        let_in_again()
