"""What a process does when it is asked to end."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator

__all__ = ["stop_on_signals"]


@contextlib.contextmanager
def stop_on_signals(stop: Callable[[], object]) -> Iterator[None]:
    """Let SIGINT and SIGTERM call a function in the running loop while the context lasts, where that can be.

    Windows' loops take no signals, and a thread other than the main one may not set a handler.
    """
    loop = asyncio.get_running_loop()
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(number)
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, stop)
            before[number] = handler
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            # The loop leaves Python's own, also where the signal was ignored, as in a job of a shell's background.
            if handler is not None:
                signal.signal(number, handler)
