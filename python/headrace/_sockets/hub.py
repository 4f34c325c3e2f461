"""The mechanics below ``Broadcaster``: its layer, its mailbox, and the calls that nobody waits for.

It is a part of the broadcaster and not its base, so that no name of it can be one of a subclass of the user's.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Collection, Coroutine
from concurrent.futures import Future
from functools import partial
from typing import Any

from headrace._layers.base import check_seconds
from headrace._sockets.backend import SETTING, Backend
from headrace._sockets.later import Later
from headrace._sockets.loop import background_loop, begun, ensure_running
from headrace._sockets.mailbox import TopicMailbox
from headrace._sockets.payload import broadcast_message, data_of, encoded
from headrace._sockets.topics import Topic, topic_of, topics_of
from headrace.layers import InMemoryChannelLayer

__all__ = ["Hub"]

_logger = logging.getLogger("headrace.sockets")


class Hub:
    """What one broadcaster has and does; its methods are those of ``Broadcaster``, which says what they promise.

    Args:
        name: Whose it is, for the log.
        backend: The layer to work on.
        loop: The event loop for what has to wait, or None for the one that runs, or else one in a thread.

    Attributes:
        layer: The layer.
    """

    def __init__(self, name: str, backend: Backend, loop: asyncio.AbstractEventLoop | None) -> None:
        if loop is not None and not isinstance(loop, asyncio.AbstractEventLoop):
            raise TypeError(f"loop must be an event loop or None, got {loop!r}")
        self._name = name
        self._backend = backend
        self.layer: Any = backend.layer
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
        self._later = Later(self._name)
        self._mailbox = self._make_mailbox()

    def _make_mailbox(self) -> TopicMailbox:
        return TopicMailbox(self.layer)

    # Broadcasting.

    def broadcast(self, channel: Topic | Collection[Topic], data: Any) -> None:
        """Send data to a topic, or to each of several, in a few microseconds."""
        messages = self._messages(channel, data)
        if self._later.is_busy() or not all(map(self._send_soon, messages)):
            self._later.begin(partial(self._send_all, messages), self._own_loop())
        else:
            self._count(len(messages))

    def _send_soon(self, message: dict[str, Any]) -> bool:
        soon: bool = self.layer._group_send_soon(message["type"], message, self._later.ledger)
        return soon

    async def async_broadcast(self, channel: Topic | Collection[Topic], data: Any) -> None:
        """Send data to a topic, or to each of several; returns when the server has it."""
        messages = self._messages(channel, data)
        await self._later.before()
        await self._send_all(messages)

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
        """Get what is broadcast to a topic from now on."""
        topic = topic_of(channel)
        self._check_subscribe()
        if self._may_block():
            self._mailbox.join_sync(topic)
        else:
            self._later.begin(partial(self._mailbox.join, topic), self._own_loop())

    async def async_subscribe(self, channel: Topic) -> None:
        """Get what is broadcast to a topic from now on; returns when that is so."""
        topic = topic_of(channel)
        self._check_subscribe()
        await self._later.before()
        await self._mailbox.join(topic)

    def unsubscribe(self, channel: Topic) -> None:
        """Get nothing more of a topic; no error if it was not subscribed to. Never blocks."""
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

    def subscriptions(self) -> frozenset[str]:
        """Return the topics that it is subscribed to, as text."""
        self._mind_fork()
        return frozenset(self._mailbox.groups)

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
        """Wait for the next broadcast to one of its topics; by one task at a time. Cancelling loses nothing."""
        self._check_subscribe()
        inbox = await self._mailbox.open()
        while True:
            message = await anext(inbox)
            topic = message.get("topic")
            if topic in self._mailbox.groups:
                return topic, data_of(message)
            self._dropped_unsubscribed += 1

    # Calls that nobody waits for.

    def flush(self, timeout: float) -> None:
        """Wait until the calls that nobody waited for have been done, blocking this thread."""
        check_seconds("timeout", timeout)
        if not self._may_block():
            raise RuntimeError("flush() would block the event loop of this thread; use 'await async_flush()'")
        self._mind_fork()
        self._flush(timeout)

    async def async_flush(self, timeout: float) -> None:
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
        """Run a coroutine in the event loop of this broadcaster, and do not wait for it; what it raises is logged."""
        loop = self._own_loop()
        if asyncio._get_running_loop() is not loop:
            future = asyncio.run_coroutine_threadsafe(coro, loop)
            future.add_done_callback(_log_failure)
            return future
        return begun(coro)

    def counts(self) -> dict[str, int]:
        """Read the counters."""
        self._mind_fork()
        channel = self._mailbox.stats()
        names = (
            *("depth", "bytes", "delivered"),
            *("dropped_full", "dropped_expired", "dropped_replaced", "full_by_bytes"),
        )
        return {
            "topics": len(self._mailbox.groups),
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
