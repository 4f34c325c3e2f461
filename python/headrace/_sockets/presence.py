"""A socket that is present in its topics: it is shown when it has subscribed, and follows the lists.

The hooks run one at a time, in the order of what they are told; broadcasts are delivered meanwhile.
"""

import asyncio
from typing import Any, Protocol

from headrace._sockets.hook_calls import HookCalls
from headrace._sockets.topics import group_of
from headrace._websocket.presence import Following, PresentLayer

__all__ = ["SocketPresence"]

# asyncio keeps no task.
_entering: set[asyncio.Task[None]] = set()


class _Connection(Protocol):
    """What is asked of a socket."""

    calls: HookCalls

    def is_open(self) -> bool: ...
    def own_loop(self) -> asyncio.AbstractEventLoop: ...


class SocketPresence:
    """The topics that a socket is present in.

    Args:
        connection: Its connection.
        layer: Its layer, which has the setting ``presence``.
        channel: Its channel, which it has from its first topic on.
    """

    __slots__ = ("_connection", "_following", "_layer", "_lock", "_topics", "_waiting")

    def __init__(self, connection: _Connection, layer: PresentLayer) -> None:
        self._connection, self._layer = connection, layer
        self._following: Following | None = None
        self._lock = asyncio.Lock()
        # By the name of the group that each has.
        self._topics: dict[str, str] = {}
        # Topics that were subscribed to before it was accepted.
        self._waiting: list[tuple[str, str]] | None = []

    def begin(self) -> None:
        """Show it in what it has subscribed to, now that it was accepted; in its loop."""
        waiting, self._waiting = self._waiting, None
        for topic, channel in waiting or ():
            self._enter(topic, channel)

    def joined(self, topic: str, channel: str) -> None:
        """Show it in a topic that it has subscribed to; from any thread."""
        if self._waiting is not None:
            self._waiting.append((topic, channel))
        else:
            self._connection.own_loop().call_soon_threadsafe(self._enter, topic, channel)

    def _enter(self, topic: str, channel: str) -> None:
        if self._layer._presence_type(group_of(topic)) is None or not self._connection.is_open():
            return
        task = asyncio.get_running_loop().create_task(self._show(topic, channel))
        _entering.add(task)
        task.add_done_callback(_entering.discard)

    async def _show(self, topic: str, channel: str) -> None:
        group = group_of(topic)
        self._topics[group] = topic
        try:
            async with self._lock:
                following = self._following = self._following or Following(self._layer, channel)
                key = await self._connection.calls.call("presence_key")
                meta = await self._connection.calls.call("presence_meta")
                event = await following.enter(group, key, meta)
                if not self._connection.is_open():
                    # It ended meanwhile, and with it what it had: nothing is to be there again.
                    await self._layer.group_discard(group, channel)
                elif event is not None:
                    await self._connection.calls.call("presence_diff", {**event, "topic": topic})
        except ReferenceError:
            await self._layer.group_discard(group, channel)  # nobody has the connection any more
        except Exception:
            if self._connection.is_open():
                self._connection.calls.note_error("presence")

    def tells(self, message: object) -> bool:
        """Tell whether a message of the layer is one that says who is present."""
        return self._following is not None and self._following.tells(message)

    async def take(self, event: dict[str, Any]) -> None:
        """Tell the socket what has changed, if it has not been told already."""
        topic = self._topics.get(event["group"])
        if topic is None or self._following is None:
            return
        async with self._lock:
            told = await self._following.admit(event)
            if told is not None:
                await self._connection.calls.call("presence_diff", {**told, "topic": topic})
