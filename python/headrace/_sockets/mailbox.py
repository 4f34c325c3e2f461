"""The channel of one socket: where the messages of its topics wait for it.

Guaranteed: when ``join`` has returned, what is broadcast to the topic from then on is put here; when ``close`` has
returned, the channel is in no group and nothing is left of it, also if a join of another thread was on its way.
"""

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal

from headrace._core import ChannelStats, Inbox
from headrace._layers.native import NativeChannelLayer
from headrace._sockets.topics import group_of
from headrace.exceptions import ConnectionClosed, LayerClosed

__all__ = ["Mailbox", "Overflow"]

Overflow = Literal["drop_new", "drop_old", "coalesce", "close"]


class Mailbox:
    """The channel of one socket, made when it is first needed; for any thread.

    Args:
        layer: The layer.
        backlog: How many messages it holds; None for the layer's capacity.
        backlog_bytes: How many bytes it holds behind the first message; None for the layer's ``capacity_bytes``.
        overflow: What becomes of the rest, as on a consumer.
        opened: Called when there is an inbox, by whichever thread made it.
    """

    __slots__ = (
        "__weakref__",
        "_backlog",
        "_backlog_bytes",
        "_closed",
        "_last",
        "_layer",
        "_lock",
        "_opened",
        "_overflow",
        "inbox",
        "topics",
    )

    def __init__(
        self,
        layer: NativeChannelLayer,
        backlog: int | None = None,
        overflow: Overflow = "drop_new",
        *,
        backlog_bytes: int | None = None,
        opened: Callable[[], object] | None = None,
    ) -> None:
        self._layer = layer
        self._backlog = backlog
        self._backlog_bytes = backlog_bytes
        self._overflow = overflow
        self._opened = opened
        self._closed = False
        # What was read before the channel was closed, which takes its counters along.
        self._last: ChannelStats | None = None
        # Held while the inbox is made, so that it is made once; also by a signal handler, whose thread may have it.
        self._lock = threading.RLock()
        self.inbox: Inbox | None = None
        # The topics that it is to get, those that are being joined too: their messages may come before the answer. With
        # each, in a list of one, how many joins have succeeded or are on their way.
        self.topics: dict[str, list[int]] = {}

    async def open(self) -> Inbox:
        """Return the inbox; the first one of a process waits until the server knows the process."""
        self._require_open()
        return self.inbox or self._make_inbox(await self._layer.new_channel())

    def open_sync(self) -> Inbox:
        """Do what ``open`` does, blocking."""
        self._require_open()
        return self.inbox or self._make_inbox(self._layer.new_channel_sync())

    def _make_inbox(self, channel: str) -> Inbox:
        with self._lock:
            if self.inbox is not None:
                return self.inbox
            inbox = self._layer._inbox(channel)
            if self._backlog is not None or self._backlog_bytes is not None or self._overflow != "drop_new":
                self._own(inbox, None)
            self.inbox = inbox
        weakref.finalize(self, _close_forgotten, self._layer, channel, os.getpid()).atexit = False
        if self._opened is not None:
            self._opened()
        return inbox

    def _own(self, inbox: Inbox, alarm: Callable[[], object] | None) -> None:
        backlog = self._backlog or self._layer.get_capacity(inbox.channel)
        overflow = "drop_new" if self._overflow == "close" else self._overflow
        inbox.own(backlog, overflow, alarm, self._backlog_bytes)

    async def arm(self, alarm: Callable[[], object]) -> None:
        """Have a function called in the running loop when the mailbox is full."""
        self._own(await self.open(), alarm)

    async def join(self, topic: str) -> None:
        """Get what is broadcast to a topic from now on.

        Raises:
            ConnectionClosed: The mailbox is closed.
            LayerUnavailable, LayerClosed: As the layer's ``group_add``; nothing was joined.
        """
        inbox, group = await self.open(), group_of(topic)
        with self._joining(topic, inbox):
            await self._layer.group_add(group, inbox.channel)
        if topic not in self.topics and not self._closed:
            await self._layer.group_discard(group, inbox.channel)
        self._require_open()

    def join_sync(self, topic: str) -> None:
        """Do what ``join`` does, blocking for at most a round trip."""
        inbox, group = self.open_sync(), group_of(topic)
        with self._joining(topic, inbox):
            self._layer.group_add_sync(group, inbox.channel)
        if topic not in self.topics and not self._closed:
            self._layer.group_discard_sync(group, inbox.channel)
        self._require_open()

    @contextmanager
    def _joining(self, topic: str, inbox: Inbox) -> Iterator[None]:
        """Have the topic while it is joined, and no longer if that fails and no other join of it succeeds."""
        with self._lock:
            joins = self.topics.setdefault(topic, [0])
            joins[0] += 1
        try:
            yield
        except BaseException:
            with self._lock:
                joins[0] -= 1
                if not joins[0] and self.topics.get(topic) is joins:
                    del self.topics[topic]
            raise
        finally:
            if self._closed:
                _close(self._layer, inbox.channel)

    async def leave(self, topic: str) -> None:
        """Get nothing more of a topic; what of it waits here is dropped when its turn comes."""
        self.topics.pop(topic, None)
        if self.inbox is not None and not self._closed:
            await self._layer.group_discard(group_of(topic), self.inbox.channel)

    def leave_sync(self, topic: str) -> None:
        """Do what ``leave`` does; it blocks only if a subclass of the layer makes it."""
        self.topics.pop(topic, None)
        if self.inbox is not None and not self._closed:
            self._layer.group_discard_sync(group_of(topic), self.inbox.channel)

    def stats(self) -> ChannelStats | None:
        """Read the counters of the channel, or what they were when it was closed; None if there was none."""
        if self.inbox is not None and not self._closed:
            with suppress(LayerClosed):
                return self._layer.channel_stats(self.inbox.channel)
        return self._last

    def close(self) -> None:
        """Leave all topics and drop what waits. Never blocks; may be called again, and by any thread."""
        self._last = self.stats()
        self._closed = True
        # The other half of a cycle.
        self._opened = None
        if self.inbox is not None:
            _close(self._layer, self.inbox.channel)
            self.inbox.release()

    def _require_open(self) -> None:
        if self._closed:
            raise ConnectionClosed("the socket has been closed, so it cannot be subscribed to anything any more")


def _close_forgotten(layer: NativeChannelLayer, channel: str, process: int) -> None:
    """Close the channel of a mailbox that nobody has any more; not in the child of a fork, where it is the parent's."""
    if process == os.getpid():
        _close(layer, channel)


def _close(layer: NativeChannelLayer, channel: str) -> None:
    with suppress(LayerClosed):  # which has left nothing behind
        layer.close_channel(channel)
