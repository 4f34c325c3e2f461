"""A consumer whose client may have been away: each message of a group with history moves its position.

Guaranteed: ``resumed`` is called for each group that the consumer joins after its client has given a position, once,
behind the messages that were missed and before those that came later; and not while another handler runs.
"""

import logging
from typing import Any

from headrace._dispatch.dispatcher import Dispatcher
from headrace._websocket.resume import POSITION, Progress
from headrace.exceptions import StopConsumer

__all__ = ["ResumingDispatcher"]

_logger = logging.getLogger("headrace.consumer")


class ResumingDispatcher(Dispatcher):
    """Runs a consumer that has ``resume``."""

    __slots__ = ("_has_told_unknown", "_progress")

    def __init__(self, consumer: Any, session: Any, direct: bool) -> None:
        super().__init__(consumer, session, direct)
        self._progress: Progress = session.progress
        self._has_told_unknown = False

    def _attend(self, message: Any) -> Any:
        """Leave every message to the task: what comes before and after it may have to wait."""
        return message

    async def _take(self, message: Any) -> None:
        await super()._take(message)
        if self._progress.due:
            # Joined by a task of the consumer's own: no handler runs that it could follow.
            await self._tell_due()

    async def _handle(self, event: Any, of_layer: bool) -> None:
        progress = self._progress
        position = event.pop(POSITION, None) if of_layer and isinstance(event, dict) else None
        if position is not None and not self._session.closed and not progress.arrived(position):
            self._tell_unknown(event)
            position = None
        if progress.due:
            # Before the position moves: the client has not been sent this message yet.
            await self._tell_due()
        if position is not None:
            progress.advance(position)
        await super()._handle(event, of_layer)
        progress.handled()
        if progress.due:
            await self._tell_due()

    async def _tell_due(self) -> None:
        """Call ``resumed`` for what has come to its end."""
        consumer, session, progress = self._consumer, self._session, self._progress
        while progress.due and not session.closed:
            told = progress.due.pop(0)
            try:
                await session.tell_resumed(consumer, told.group, told.complete)
            except StopConsumer:
                raise
            except Exception as error:
                await self._fail(error, {"type": "resumed", "group": told.group})

    def _tell_unknown(self, message: Any) -> None:
        """Tell the log, once, that the consumer is in a group with history that it has not joined itself."""
        if self._has_told_unknown:
            return
        self._has_told_unknown = True
        consumer = self._consumer
        _logger.warning(
            "%s has resume = True and got a message of type %r of a group that it joined by the layer's group_add: "
            "such a group is not resumed; use self.join_group(group)",
            type(consumer).__name__,
            message.get("type"),
        )
