"""Turns of tasks of one event loop, first come, first served.

An ``asyncio.Lock`` is the same, at a quarter of the price of a delivery: it is taken by two awaits. Here whoever finds
nobody before it only sets a flag.
"""

import asyncio
from collections import deque

__all__ = ["Turns"]


class Turns:
    """Whose turn it is: ``if turns.taken: await turns.wait()``, ``turns.taken = True``, and last ``turns.pass_on()``.

    Attributes:
        taken: It is somebody's turn.
    """

    __slots__ = ("_waiting", "taken")

    def __init__(self) -> None:
        self.taken = False
        self._waiting: deque[asyncio.Future[None]] | None = None

    async def wait(self) -> None:
        """Wait for one's turn, behind all who wait. Cancelling passes it on."""
        if self._waiting is None:
            self._waiting = deque()
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.pass_on()
            raise

    def pass_on(self) -> None:
        """End one's turn: it is that of the next who waits, from this moment on."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.taken = False
