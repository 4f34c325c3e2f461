"""A consumer that is present in its groups: it follows their lists, from the whole one on.

Guaranteed: it is shown when its connection was accepted and its first message has been handled. The handler gets the
whole list of a group first, and each later diff once, in order. If one was lost it gets the whole list in its place.
"""

from typing import Any

from headrace._dispatch.dispatcher import Dispatcher
from headrace._dispatch.handlers import get_handler_name
from headrace._dispatch.resuming import ResumingDispatcher
from headrace.exceptions import StopConsumer

__all__ = ["PresentDispatcher", "PresentResumingDispatcher"]


class _Present(Dispatcher):
    """Runs a consumer that has ``presence``."""

    __slots__ = ()

    # Of a WebSocket.
    _consumer: Any
    _session: Any

    def _attend(self, message: Any) -> Any:
        """Leave to the task what may have to wait for the layer."""
        return message if self._session.following.tells(message) else super()._attend(message)

    async def _take(self, message: Any) -> None:
        await super()._take(message)
        if self._session.following.due:
            # Joined by a task of the consumer's own: no handler runs that it could follow.
            await self._enter_due()

    async def _handle(self, event: Any, of_layer: bool) -> None:
        session, following = self._session, self._session.following
        if not (of_layer and following.tells(event)) or session.closed:
            await super()._handle(event, of_layer)
        elif self._is_handled(event):
            try:
                told = await following.admit(event)
            except Exception as error:
                await self._fail(error, event)
            else:
                if told is not None:
                    await super()._handle(told, True)
        if not following.has_begun and session.accepted and not session.closed:
            following.begin()
        if following.due:
            await self._enter_due()

    async def _enter_due(self) -> None:
        """Show the consumer in what it has joined, and tell it who is there."""
        consumer, session, following = self._consumer, self._session, self._session.following
        while following.due and not session.closed:
            group = following.due.pop(0)
            try:
                key, meta = await session.ask(consumer.presence_key), await session.ask(consumer.presence_meta)
                told = await following.enter(group, key, meta)
            except StopConsumer:
                raise
            except Exception as error:
                await self._fail(error, {"type": "presence", "group": group})
                continue
            if told is not None and self._is_handled(told):
                await super()._handle(told, True)

    def _is_handled(self, event: Any) -> bool:
        """Tell whether the consumer wants to know: it may be present and not look at the others."""
        return callable(getattr(self._consumer, get_handler_name(event), None))


class PresentDispatcher(_Present):
    """Runs a consumer that has ``presence``."""

    __slots__ = ()


class PresentResumingDispatcher(_Present, ResumingDispatcher):
    """Runs a consumer that has ``presence`` and ``resume``."""

    __slots__ = ()
