"""How the layers with native mailboxes receive.

The native side returns a message, a ``Waiter`` for the next one, or, before the first of a queue, a ``Reply``: of the
look at the server that comes before.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from headrace._core import MemoryLayer, RedisLayer, Reply, Waiter
from headrace._layers.base import check_limit

__all__ = ["Message", "ReceivingLayer"]

Message: TypeAlias = dict[str, Any]


class ReceivingLayer:
    """The methods that receive."""

    _core: MemoryLayer
    _engine: MemoryLayer | RedisLayer
    _receive: Callable[[str], Message | Waiter | Reply]

    def _bind_receiving(self) -> None:
        # Bound once: a lookup less on every message.
        self._receive = self._engine.receive

    async def receive(self, channel: str) -> Message:
        """Wait for the next message of a channel, however long its server is away.

        Receivers of one channel in one process are served in the order in which they came, each message to one of
        them. Cancelling loses nothing: a message that had been handed over returns to its place, or to the next
        receiver.

        Raises:
            TypeError: The name is not valid.
            ForeignChannel: It has a ``!``, and ``new_channel`` has not made it here.
            LayerUnavailable: The server lacks what a queue needs, or does not allow it.
            LayerClosed: The layer was closed.
        """
        received = self._receive(channel)
        if type(received) is dict:
            return received
        if type(received) is not Waiter:
            if type(received) is not Reply:
                return received  # a subclass of dict
            await received
            found: Message | Waiter = self._engine.receive_next(channel)
            if type(found) is not Waiter:
                return found
            received = found
        # Written out in each method: a function to await would be a coroutine more for each message.
        try:
            await received
            return received.take()
        except BaseException:
            # Also what an interrupt left between the two lines: nobody else would find that message.
            received.close()
            raise

    def receive_sync(self, channel: str, timeout: float | None = None) -> Message:
        """Wait for the next message of a channel, blocking this thread.

        Args:
            channel: The channel.
            timeout: Seconds to wait at most; None waits for ever.

        Raises:
            TimeoutError: The time is over; no message was taken.
            RuntimeError: A loop runs in this thread; it would stand still.
            TypeError, ForeignChannel, LayerClosed: As ``receive``.
        """
        return self._engine.receive_sync(channel, timeout)

    async def receive_many(self, channel: str, limit: int) -> list[Message]:
        """Wait for a message and take those behind it too, up to ``limit``. Cancelling loses nothing.

        Raises:
            ValueError: ``limit`` is not a positive integer.
            TypeError, ForeignChannel, LayerClosed: As ``receive``.
        """
        most = check_limit(limit)
        await self._look(channel, most)
        ready = self._core.receive_ready(channel, most)
        if ready:
            return ready
        received = self._engine.receive_next(channel)
        if type(received) is not Waiter:
            return [received, *self._core.receive_ready(channel, most - 1)]
        try:
            await received
            if most > 1:
                # The first is not taken before: what is cancelled here leaves it in its place.
                await self._look(channel, most - 1)
            return [received.take(), *self._core.receive_ready(channel, most - 1)]
        except BaseException:
            received.close()
            raise

    async def _look(self, channel: str, most: int) -> None:
        """Have up to so many messages of a queue come to this process."""
        asked = self._engine.look(channel, most)
        if asked is not None:
            await asked

    def receive_many_sync(self, channel: str, limit: int, timeout: float | None = None) -> list[Message]:
        """Do what ``receive_many`` does, blocking this thread as ``receive_sync`` does.

        When it had to wait for the first message, those behind it are the ones that have come to this process by then.

        Raises:
            ValueError: ``limit`` is not a positive integer.
            TimeoutError, RuntimeError, TypeError, ForeignChannel, LayerClosed: As ``receive_sync``.
        """
        return self._engine.receive_many_sync(channel, check_limit(limit), timeout)

    def receive_nowait(self, channel: str) -> Message:
        """Take the next message if there is one. For a queue this asks the server, and blocks for one round trip.

        Raises:
            ChannelEmpty: There is none.
            LayerUnavailable: The server of a queue could not be reached in time.
            TypeError, ForeignChannel, LayerClosed: As ``receive``.
        """
        return self._engine.receive_nowait(channel)
