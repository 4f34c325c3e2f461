"""Broadcasting to topics and subscribing to them, from any thread, with or without an event loop."""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Collection, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from headrace.layers import InMemoryChannelLayer
from headrace.layers.base import check_seconds
from headrace.layers.hosts import HostSetting
from headrace.layers.native import NativeChannelLayer
from headrace.sockets.backend import SETTING, backend_of
from headrace.sockets.later import Later
from headrace.sockets.loop import background_loop, begun, ensure_running
from headrace.sockets.mailbox import Mailbox
from headrace.sockets.payload import broadcast_message, data_of, encoded
from headrace.sockets.stats import BroadcasterStats
from headrace.sockets.topics import Topic, topic_of, topics_of

__all__ = ["Broadcaster"]


_logger = logging.getLogger("headrace.sockets")


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
        layer: NativeChannelLayer | str | None = None,
        allow_memory: bool | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if loop is not None and not isinstance(loop, asyncio.AbstractEventLoop):
            raise TypeError(f"loop must be an event loop or None, got {loop!r}")
        self._backend = backend_of(hosts, config, layer, allow_memory)
        self.layer: Any = self._backend.layer
        self._loop = loop
        # A loop that was given may be run here if nobody does; one that somebody runs is not ours to run again.
        self._may_run_loop = True
        self._start_empty()

    def _start_empty(self) -> None:
        """Begin with nothing: when it is made, and in the child of a fork."""
        self._process = os.getpid()
        # Also taken by a signal handler, whose thread may have it already.
        self._lock = threading.RLock()
        self._broadcasts = 0
        self._dropped_unsubscribed = 0
        self._later = Later(type(self).__name__)
        self._mailbox = self._make_mailbox()

    def _make_mailbox(self) -> Mailbox:
        return Mailbox(self.layer)

    # Broadcasting.

    def broadcast(self, channel: Topic | Collection[Topic], data: Any) -> None:
        """Send data to a topic, or to each of several, in a few microseconds.

        With hosts it blocks for up to ``send_timeout`` seconds while 64 MiB wait for the server, until there is room.

        Args:
            channel: The topic, or a list, tuple or set of topics.
            data: What JSON can hold: dict, list, tuple, str, int, float, bool, None. Bytes too, for subscribers that
                have an encoder for them.

        Raises:
            TypeError, ValueError: A topic or the data cannot be carried; nothing was sent.
            MessageTooLarge: The data takes more bytes than ``max_message_bytes``.
            LayerUnavailable: No server can be reached, or there was no room in time; some of several topics may have
                been sent to.
            LayerClosed: The layer was closed.
        """
        messages = self._messages(channel, data)
        if self._later.is_busy() or not all(map(self._send_soon, messages)):
            self._later.begin(partial(self._send_all, messages), self._own_loop())
        else:
            self._count(len(messages))

    def _send_soon(self, message: dict[str, Any]) -> bool:
        soon: bool = self.layer._group_send_soon(message["type"], message, self._later.ledger)
        return soon

    def broadcast_many(self, channels: Collection[Topic], data: Any) -> None:
        """Do what ``broadcast`` does, for several topics."""
        self.broadcast(_several(channels), data)

    async def async_broadcast(self, channel: Topic | Collection[Topic], data: Any) -> None:
        """Send data to a topic, or to each of several; returns when the server has it.

        Raises:
            LayerUnavailable: The server could not be reached, did not answer in time, or refused.
            TypeError, ValueError, MessageTooLarge, LayerClosed: As ``broadcast``.
        """
        messages = self._messages(channel, data)
        await self._later.before()
        await self._send_all(messages)

    async def async_broadcast_many(self, channels: Collection[Topic], data: Any) -> None:
        """Do what ``async_broadcast`` does, for several topics, with one wait."""
        await self.async_broadcast(_several(channels), data)

    def _messages(self, channel: object, data: Any) -> list[dict[str, Any]]:
        self._check_broadcast()
        topics = topics_of(channel)
        payload = encoded(data, self._backend.limit)
        return [broadcast_message(topic, payload) for topic in topics]

    def _check_broadcast(self) -> None:
        """Raise if nothing can be broadcast any more."""
        self._mind_fork()

    async def _send_all(self, messages: list[dict[str, Any]]) -> None:
        if len(messages) == 1:
            await self.layer.group_send(messages[0]["type"], messages[0])
        else:
            await self.layer.group_send_many([(message["type"], message) for message in messages])
        self._count(len(messages))

    def _count(self, messages: int) -> None:
        with self._lock:
            self._broadcasts += messages
        if not self.layer._has_listeners_known:
            self.layer._has_listeners_known = True
            self._look_for_listeners()

    def _look_for_listeners(self) -> None:
        """Warn if the first broadcast of a layer in this process was heard by nobody: the sockets may be elsewhere."""
        if not isinstance(self.layer, InMemoryChannelLayer):
            return
        stats = self.layer.stats()
        if not stats.memberships and not stats.sent:
            _logger.warning(
                "a broadcast reached nobody: no socket of this process listens, and without hosts it goes to no other "
                "process. If the sockets are elsewhere, give hosts=[{'address': 'redis://localhost:6379'}] to them and "
                "here, or set %s, or make the default of CHANNEL_LAYERS a RedisChannelLayer; this is said once",
                SETTING,
            )

    # Subscribing.

    def subscribe(self, channel: Topic) -> None:
        """Get what is broadcast to a topic from now on.

        Raises:
            TypeError, ValueError: It is no topic.
            ConnectionClosed: The socket has been closed.
            LayerUnavailable: The server could not be reached in time.
            LayerClosed: The layer was closed.
        """
        topic = topic_of(channel)
        self._check_subscribe()
        if self._may_block():
            self._mailbox.join_sync(topic)
        else:
            self._later.begin(partial(self._mailbox.join, topic), self._own_loop())

    async def async_subscribe(self, channel: Topic) -> None:
        """Get what is broadcast to a topic from now on; returns when that is so. Raises as ``subscribe``."""
        topic = topic_of(channel)
        self._check_subscribe()
        await self._later.before()
        await self._mailbox.join(topic)

    def unsubscribe(self, channel: Topic) -> None:
        """Get nothing more of a topic; no error if it was not subscribed to. Never blocks.

        What was broadcast to it before and waits here is dropped and counted.

        Raises:
            TypeError, ValueError: It is no topic.
        """
        topic = topic_of(channel)
        self._mind_fork()
        has_to_wait = "group_discard" in self.layer._overridden and not self._may_block()
        if self._later.is_busy() or has_to_wait:
            self._later.begin(partial(self._mailbox.leave, topic), self._own_loop())
        else:
            self._mailbox.leave_sync(topic)

    async def async_unsubscribe(self, channel: Topic) -> None:
        """Get nothing more of a topic; see ``unsubscribe``."""
        topic = topic_of(channel)
        self._mind_fork()
        await self._later.before()
        await self._mailbox.leave(topic)

    @property
    def subscriptions(self) -> frozenset[str]:
        """The topics that it is subscribed to, as text."""
        self._mind_fork()
        return frozenset(self._mailbox.topics)

    def _check_subscribe(self) -> None:
        """Raise if nothing can be subscribed to any more."""
        self._mind_fork()

    def _mind_fork(self) -> None:
        """Begin anew in a child: what it inherited was in use by threads that are not there."""
        if self._process != os.getpid():
            self._begin_in_child()

    def _begin_in_child(self) -> None:
        self._start_empty()

    async def async_receive_broadcast(self) -> tuple[str, Any]:
        """Wait for the next broadcast to one of its topics; by one task at a time. Cancelling loses nothing.

        Returns:
            The topic, as text, and the data.

        Raises:
            ConnectionClosed, LayerUnavailable, LayerClosed: As ``subscribe``.
        """
        self._check_subscribe()
        inbox = await self._mailbox.open()
        while True:
            message = await anext(inbox)
            topic = message.get("topic")
            if topic in self._mailbox.topics:
                return topic, data_of(message)
            self._dropped_unsubscribed += 1

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
        check_seconds("timeout", timeout)
        if not self._may_block():
            raise RuntimeError("flush() would block the event loop of this thread; use 'await async_flush()'")
        self._mind_fork()
        self._flush(timeout)

    async def async_flush(self, timeout: float = 5.0) -> None:
        """Do what ``flush`` does, for code in an event loop."""
        check_seconds("timeout", timeout)
        self._mind_fork()
        await asyncio.to_thread(self._flush, timeout)

    def _flush(self, timeout: float) -> None:
        end = time.monotonic() + timeout
        for lane in self._lanes():
            lane.flush(max(0.0, end - time.monotonic()))

    def _lanes(self) -> tuple[Later, ...]:
        """Return what keeps calls that nobody waits for, each kind in its order."""
        return (self._later,)

    def run_async(self, coro: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the event loop of this broadcaster, and do not wait for it; what it raises is logged.

        Returns:
            A task, if that loop runs in this thread; else a ``concurrent.futures.Future``.
        """
        loop = self._own_loop()
        if asyncio._get_running_loop() is not loop:
            future = asyncio.run_coroutine_threadsafe(coro, loop)
            future.add_done_callback(_log_failure)
            return future
        return begun(coro)

    def stats(self) -> BroadcasterStats:
        """Read the counters of this broadcaster; those of the whole process are in ``layer.stats()``."""
        return BroadcasterStats(**self._counts())

    def _counts(self) -> dict[str, int]:
        self._mind_fork()
        channel = self._mailbox.stats()
        names = (
            *("depth", "bytes", "delivered", "dropped_full", "dropped_expired", "dropped_replaced", "full_by_bytes"),
        )
        return {
            "topics": len(self._mailbox.topics),
            "broadcasts": self._broadcasts,
            "pending": sum(lane.pending for lane in self._lanes()),
            "failed": sum(lane.failed for lane in self._lanes()),
            "dropped_unsubscribed": self._dropped_unsubscribed,
            **({} if channel is None else {name: getattr(channel, name) for name in names}),
        }

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop for what has to wait: its own, the running one, or that in the background."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return asyncio._get_running_loop() or background_loop()
        if self._may_run_loop:
            ensure_running(loop)
        return loop

    def _may_block(self) -> bool:
        return asyncio._get_running_loop() is None


def _log_failure(future: "Future[Any]") -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        _logger.error("a coroutine of run_async() failed", exc_info=error)


def _several(channels: object) -> Any:
    if isinstance(channels, list | tuple | set | frozenset):
        return channels
    raise TypeError(f"channels must be a list, tuple or set of topics, got a {type(channels).__name__}")
