"""Channels' unchanged consumers on a layer of headrace, without two tasks for every message.

``channels.utils.await_many_dispatch`` starts a task for each message and each source, and waits for whichever is ready.
On a layer of headrace one inbox does for the layer, and one task reads the client.
"""

import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from headrace._dispatch.incoming import Failure, Incoming, receives_natively
from headrace._layers.native import NativeChannelLayer

__all__ = ["await_many_dispatch"]

_Source: TypeAlias = Callable[[], Awaitable[Any]]


class _Channels:
    """Channels' consumers see for themselves what happens to them."""

    def gone(self, message: Any) -> None:
        """Do nothing."""

    def lost(self) -> None:
        """Do nothing."""

    def overrun(self) -> None:
        """Do nothing."""

    def end(self, ending: object) -> None:
        """Do nothing: they have no such hooks."""


async def await_many_dispatch(
    otherwise: Callable[..., Awaitable[None]], sources: Sequence[_Source], dispatch: Callable[[Any], Awaitable[Any]]
) -> None:
    """Dispatch messages one after the other, the client's first, as Channels' function of this name does.

    Between two of them the loop has a turn, as there: what the first starts runs before the second is handled.

    Args:
        otherwise: Channels' own, for sources that are not a client and a channel of headrace's layer.
        sources: What to await for the next message of each source.
        dispatch: What to await with each message.
    """
    address = _address(sources)
    if address is None:
        await otherwise(sources, dispatch)
        return
    incoming = Incoming(*address)
    # The next message is asked for when the last one has been handled, as Channels does it.
    incoming.read(sources[0], 1, None, _Channels())
    try:
        async for message in incoming.inbox:
            for lane in incoming.lanes() if incoming.client else ():
                event = incoming.take(lane)
                if isinstance(event, Failure):
                    raise event.error
                await dispatch(event)
                await incoming.finish_and_read()
            if message is not None:
                await dispatch(message)
            incoming.inbox.end_turn()
    finally:
        incoming.inbox.release()
        await incoming.close()


def _address(sources: Sequence[_Source]) -> tuple[NativeChannelLayer, str] | None:
    """Return the layer and the channel of the second source, as Channels' consumers make it, if the layer is ours."""
    if len(sources) != 2 or not isinstance(sources[1], functools.partial):
        return None
    receive: Any = sources[1]
    layer = getattr(receive.func, "__self__", None)
    if not receives_natively(layer) or receive.keywords or len(receive.args) != 1:
        return None
    is_receive = getattr(receive.func, "__func__", None) is type(layer).receive
    return (layer, receive.args[0]) if is_receive else None
