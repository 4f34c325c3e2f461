"""Broadcasting to topics and subscribing to them, from any thread, with or without an event loop."""

import asyncio
from collections.abc import Collection, Coroutine, Mapping, Sequence
from typing import Any

from headrace._layers.hosts import HostSetting
from headrace._sockets.backend import backend_of
from headrace._sockets.hub import Hub
from headrace._sockets.stats import BroadcasterStats
from headrace._sockets.topics import Topic, group_of, topics_of
from headrace._websocket.codes import FORBIDDEN
from headrace._websocket.resume import Replaceable
from headrace.typing import ChannelLayer

__all__ = ["Broadcaster"]


class Broadcaster:
    """Sends data to topics, and gets what is sent to those that it subscribes to.

    All broadcasters and socket servers of a process that are configured alike share one channel layer, and so one set
    of connections. The plain methods may be called from any thread, with or without an event loop, and raise at once
    what is wrong with their arguments. A broadcast does not wait for the server: what it does not take in time is
    logged and counted in ``stats()``, and ``flush`` waits and raises. Subscribing waits for a round trip, but where an
    event loop runs: there it is done a moment later, and what is called after it comes after it.

    Every call has a twin with ``async_`` before its name, which waits for the server and raises what it says.

    Differs from ``django_sockets``: no connection is made for each broadcaster; ``unsubscribe``, ``flush``, ``stats``;
    topics are checked; without hosts it works in this process.

    Args:
        hosts: Servers: ``[{"address": "redis://localhost:6379"}]``, or anything that ``RedisChannelLayer`` takes, also
            with ``"cluster": True``.
        config: ``{"hosts": [...]}``, with any settings of ``RedisChannelLayer``.
        layer: A channel layer of headrace, or its alias, in the place of both.
        allow_memory: Whether topics may be in this process alone where no hosts are given. Default True.
        loop: The event loop for what has to wait. Default is the one that runs, or else one in a thread.

    Raises:
        ValueError: An argument is wrong; the error names it, and shows no password.
        InvalidChannelLayerError: The channel layer of the project is not one of headrace's.
    """

    def __init__(
        self,
        hosts: Sequence[HostSetting] | Mapping[str, Any] | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        layer: ChannelLayer | str | None = None,
        allow_memory: bool | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._headrace_hub = Hub(type(self).__name__, backend_of(hosts, config, layer, allow_memory), loop)
        self.layer: Any = self._headrace_hub.layer
        """The channel layer; to be read, as another one put there is not used."""

    # Broadcasting.

    def broadcast(self, channel: Topic | Collection[Topic], data: Any) -> str | None:
        """Send data to a topic, or to each of several, in a few microseconds.

        With hosts it blocks for up to ``send_timeout`` seconds while 64 MiB wait for the server, until there is room.

        Args:
            channel: The topic, or a list, tuple or set of topics.
            data: What JSON can hold: dict, list, tuple, str, int, float, bool, None. Bytes too, for subscribers that
                have an encoder for them.

        Returns:
            The position of what was broadcast, if it went to one topic of this process that the layer keeps a
            ``history`` of. Else None: with hosts it is not waited for, and ``async_broadcast`` tells.

        Raises:
            TypeError, ValueError: A topic or the data cannot be carried; nothing was sent.
            MessageTooLarge: The data takes more bytes than ``max_message_bytes``.
            LayerUnavailable: No server can be reached, or there was no room in time; some of several topics may have
                been sent to.
            LayerClosed: The layer was closed.
        """
        return self._headrace_hub.broadcast(channel, data)

    def broadcast_many(self, channels: Collection[Topic], data: Any) -> None:
        """Do what ``broadcast`` does, for several topics."""
        self.broadcast(_several(channels), data)

    async def async_broadcast(self, channel: Topic | Collection[Topic], data: Any) -> str | None:
        """Send data to a topic, or to each of several; returns when the server has it.

        Returns:
            The position of what was broadcast, if it went to one topic that the layer keeps a ``history`` of; else
            None.

        Raises:
            LayerUnavailable: The server could not be reached, did not answer in time, or refused.
            TypeError, ValueError, MessageTooLarge, LayerClosed: As ``broadcast``.
        """
        return await self._headrace_hub.async_broadcast(channel, data)

    async def async_broadcast_many(self, channels: Collection[Topic], data: Any) -> None:
        """Do what ``async_broadcast`` does, for several topics, with one wait."""
        await self.async_broadcast(_several(channels), data)

    def close_sockets(self, channel: Topic | Collection[Topic], code: int = FORBIDDEN, reason: str = "") -> None:
        """Close the sockets that are subscribed to a topic, or to one of several, in all processes.

        Each closes when it has delivered what was broadcast to it before, also where its mailbox is full. Broadcasters
        without a socket pass it by. Like ``broadcast`` it does not wait for a server.

        Args:
            channel: The topic, or a list, tuple or set of topics.
            code: What to close with; ``disconnect`` gets it.
            reason: A text of at most 123 bytes.

        Raises:
            TypeError, ValueError: It is no topic, the code cannot be sent, or the reason is no text or too long.
            LayerUnavailable, LayerClosed: As ``broadcast``.
        """
        for topic in topics_of(channel):
            self._headrace_hub.layer.group_close_sync(group_of(topic), code, reason)

    async def async_close_sockets(
        self, channel: Topic | Collection[Topic], code: int = FORBIDDEN, reason: str = ""
    ) -> None:
        """Do what ``close_sockets`` does; returns when the server has been told."""
        for topic in topics_of(channel):
            await self._headrace_hub.layer.group_close(group_of(topic), code, reason)

    # Subscribing.

    def subscribe(self, channel: Topic, since: str | int | None = None) -> bool | None:
        """Get what is broadcast to a topic from now on, or what was broadcast behind a position first.

        Args:
            channel: The topic.
            since: A ``position``, of this topic or of several; or how many of the newest broadcasts to get first,
                which may be 0. Either way ``position`` holds this topic from now on.

        Returns:
            With ``since``, whether all that was broadcast behind it comes, in order and before what comes later; False
            if nobody knows what that was, and none of it comes then. None without, and where an event loop runs.

        Raises:
            TypeError, ValueError: It is no topic, or ``since`` is wrong; or the layer keeps no ``history`` of the
                topic, or ``position`` would hold more than 16 topics.
            ConnectionClosed: The socket has been closed.
            LayerUnavailable: The server could not be reached in time.
            LayerClosed: The layer was closed.
        """
        return self._headrace_hub.subscribe(channel, since)

    async def async_subscribe(self, channel: Topic, since: str | int | None = None) -> bool | None:
        """Do what ``subscribe`` does, and return when that is so."""
        return await self._headrace_hub.async_subscribe(channel, since)

    def unsubscribe(self, channel: Topic) -> None:
        """Get nothing more of a topic; no error if it was not subscribed to. Never blocks.

        What was broadcast to it before and waits here is dropped and counted.

        Raises:
            TypeError, ValueError: It is no topic.
        """
        self._headrace_hub.unsubscribe(channel)

    async def async_unsubscribe(self, channel: Topic) -> None:
        """Get nothing more of a topic; see ``unsubscribe``."""
        await self._headrace_hub.async_unsubscribe(channel)

    @Replaceable
    def position(self) -> str | None:
        """Where it is in the topics that it subscribed to with ``since``, up to the latest broadcast that it got.

        Text of letters, digits, ``-``, ``_`` and dots, of at most 656 characters; None without such a topic. What a
        full mailbox has dropped stays behind it, with all that came after.
        """
        return self._headrace_hub.position()

    @property
    def subscriptions(self) -> frozenset[str]:
        """The topics that it is subscribed to, as text."""
        return self._headrace_hub.subscriptions()

    async def async_receive_broadcast(self) -> tuple[str, Any]:
        """Wait for the next broadcast to one of its topics; by one task at a time. Cancelling loses nothing.

        Returns:
            The topic, as text, and the data.

        Raises:
            ConnectionClosed, LayerUnavailable, LayerClosed: As ``subscribe``.
        """
        return await self._headrace_hub.async_receive_broadcast()

    # Calls that nobody waits for.

    def flush(self, timeout: float = 5.0) -> None:
        """Wait until the calls that nobody waited for have been done, blocking this thread.

        Args:
            timeout: Seconds to wait at most.

        Raises:
            TimeoutError: They have not all been done by then.
            LayerUnavailable: The server did not take some that were made since the last flush.
            RuntimeError: Some failed otherwise; or an event loop runs in this thread, which would stand still.
            ValueError: ``timeout`` is no number of seconds.
        """
        self._headrace_hub.flush(timeout)

    async def async_flush(self, timeout: float = 5.0) -> None:
        """Do what ``flush`` does, for code in an event loop."""
        await self._headrace_hub.async_flush(timeout)

    def run_async(self, coro: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the event loop of this broadcaster, and do not wait for it; what it raises is logged.

        Returns:
            A task, if that loop runs in this thread; else a ``concurrent.futures.Future``.
        """
        return self._headrace_hub.run_async(coro)

    def stats(self) -> BroadcasterStats:
        """Read the counters of this broadcaster; those of the whole process are in ``layer.stats()``."""
        return BroadcasterStats(**self._headrace_hub.counts())


def _several(channels: object) -> Any:
    if isinstance(channels, list | tuple | set | frozenset):
        return channels
    raise TypeError(f"channels must be a list, tuple or set of topics, got a {type(channels).__name__}")
