"""The close of a socket: nothing more goes to its client, which is told, and both of its lanes end.

Each close but ``kill`` tells the client in a task of its own, so that whoever asked for it may be cancelled.
"""

import asyncio
import logging
from functools import partial

from headrace._layers.close_message import check_code, code_and_reason
from headrace._sockets.incoming import Incoming
from headrace._sockets.outgoing import result_of
from headrace._websocket.closing import CLOSE_TIMEOUT
from headrace._websocket.codes import NO_STATUS, TRY_AGAIN_LATER
from headrace._websocket.phase import Phase
from headrace.typing import Message

__all__ = ["Closing"]

_logger = logging.getLogger("headrace.sockets")


class Closing:
    """Closes one socket.

    Args:
        incoming: The way from its client.

    Attributes:
        delivering: The task that delivers its broadcasts; None until there is one.
        is_told: ``group_close`` has told it to close, behind what waits: nothing more of its client is taken.
    """

    __slots__ = ("_incoming", "_telling", "delivering", "is_told")

    def __init__(self, incoming: Incoming) -> None:
        self._incoming = incoming
        self._telling: asyncio.Task[None] | None = None
        self.delivering: asyncio.Task[None] | None = None
        self.is_told = False

    def close(self, code: int) -> None:
        """Close the connection: wait in a thread, and return at once where a loop runs."""
        check_code(code)
        hub = self._incoming.outgoing.hub
        if hub.may_block():
            if hub.is_open():
                self._incoming.outgoing.note_closed(code)
                loop = hub.own_loop()
                result_of(asyncio.run_coroutine_threadsafe(self._told(), loop), loop, 2 * CLOSE_TIMEOUT)
        elif hub.sends is not None and hub.sends.is_busy():
            # What was to be sent before goes out before it.
            hub.send_later(partial(self.close_here, code), CLOSE_TIMEOUT)
        elif hub.is_open():
            self._incoming.outgoing.note_closed(code)
            hub.send_later(self._told)

    async def async_close(self, code: int) -> None:
        """Close the connection, from any loop."""
        check_code(code)
        hub = self._incoming.outgoing.hub
        if hub.sends is not None:
            await hub.sends.before(CLOSE_TIMEOUT)
        await hub.in_own_loop(partial(self.close_here, code))

    async def close_here(self, code: int) -> None:
        """Close the connection, unless something has ended it already; in its loop."""
        if self._incoming.outgoing.hub.phase is Phase.OPEN:
            self._incoming.outgoing.note_closed(code)
            await self._told()

    def begin(self, code: int, reason: str = "") -> None:
        """Begin to close, unless something has ended the connection already; in its loop."""
        if self._incoming.outgoing.hub.phase is Phase.OPEN:
            self._incoming.outgoing.note_closed(code)
            self.tell(reason)

    def by_group(self, message: Message) -> None:
        """Close, as ``group_close`` has told it; in its loop."""
        self.begin(*code_and_reason(message))

    def overrun(self) -> None:
        """Close, because the mailbox is full; in its loop."""
        if self._incoming.outgoing.hub.phase is Phase.OPEN:
            _logger.warning("%r is closed: its client does not keep up", self._incoming.outgoing.hub)
            self.begin(TRY_AGAIN_LATER)

    def kill(self) -> None:
        """End without telling the client."""
        hub = self._incoming.outgoing.hub
        if hub.is_open():
            self._incoming.outgoing.note_closed(NO_STATUS, owes_close=False)
            hub.own_loop().call_soon_threadsafe(self._incoming.call_away)

    def tell(self, reason: str = "") -> "asyncio.Task[None]":
        """Tell the client that it is closed, and call the task away from where it waits for more of it."""
        # It may be at a send that the client delays; and what waits is not to go out behind the close.
        self.stop_delivering()
        if self._telling is None:
            self._telling = asyncio.get_running_loop().create_task(self._tell(reason))
        return self._telling

    async def _told(self) -> None:
        await asyncio.shield(self.tell())

    async def _tell(self, reason: str) -> None:
        try:
            await self._incoming.outgoing.tell_closed(reason)
        finally:
            self._incoming.call_away()

    def stop_delivering(self) -> None:
        """Deliver nothing more."""
        inbox, delivering = self._incoming.outgoing.hub.mailbox.inbox, self.delivering
        if inbox is not None:
            inbox.end()  # in case its handler swallows the cancel
        if delivering is not None and delivering is not asyncio.current_task():
            delivering.cancel()
