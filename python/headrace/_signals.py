"""What a process does when it is asked to end."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

__all__ = ["TakenOver", "stop_on_signals", "take_over"]


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


class TakenOver:
    """A signal that was taken over from whoever handled it before.

    Args:
        number: The signal.
        call: Called in the loop when it comes.
        loop: The loop.
    """

    def __init__(self, number: signal.Signals, call: Callable[[], object], loop: asyncio.AbstractEventLoop) -> None:
        self._number = number
        self._call = call
        self._loop = loop
        self._before: Any = None
        self._was_of_loop = False
        # Ours, or what the loop has put in the place of it.
        self._now: Any = None

    def begin(self) -> None:
        """Take it over, or once more from who has taken it meanwhile.

        Raises:
            ValueError: This is not the main thread.
        """
        if self._now is not None and signal.getsignal(self._number) == self._now:
            return
        with contextlib.suppress(NotImplementedError):  # Windows' loops take no signals
            self._was_of_loop = self._loop.remove_signal_handler(self._number)
        if self._was_of_loop:
            # A handler of Python's own would not keep the loop from hearing of the signal.
            self._loop.add_signal_handler(self._number, self._call)
        else:
            self._before = signal.signal(self._number, self._handle)
        self._now = signal.getsignal(self._number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # In the midst of anything; and the loop may be asleep.
        if self._loop.is_closed():
            self.pass_on()  # whoever ran the loop has not given the signal back
        else:
            self._loop.call_soon_threadsafe(self._call)

    def pass_on(self) -> None:
        """Give it back, and have it handled as it would have been."""
        if self._was_of_loop:
            self._loop.remove_signal_handler(self._number)
            # What the loop called cannot be asked for. Who has the loop handle SIGTERM has it handle SIGINT alike.
            signal.raise_signal(signal.SIGINT)
            return
        before = signal.SIG_DFL if self._before is None else self._before
        signal.signal(self._number, before)
        if callable(before):
            before(self._number, None)
        elif before == signal.SIG_DFL:
            signal.raise_signal(self._number)


def take_over(number: signal.Signals, call: Callable[[], object], taken: TakenOver | None) -> TakenOver:
    """Have a function called in the running loop when a signal comes, in the place of who handles it now.

    Args:
        number: The signal.
        call: The function.
        taken: What an earlier call returned: nothing is done if it still holds.

    Raises:
        ValueError: This is not the main thread.
    """
    taken = TakenOver(number, call, asyncio.get_running_loop()) if taken is None else taken
    taken.begin()
    return taken
