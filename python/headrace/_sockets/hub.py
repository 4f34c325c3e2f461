"""The mechanics below ``Broadcaster``: its layer, its mailbox, and the calls that nobody waits for.

It is a part of the broadcaster and not its base, so that no name of it can be one of a subclass of the user's.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any

from headrace._forks import call_in_child
from headrace._layers.base import check_seconds
from headrace._sockets.backend import SETTING, Backend
from headrace._sockets.later import Later
from headrace._sockets.loop import background_loop, begun, ensure_running
from headrace._sockets.mailbox import TopicMailbox
from headrace._sockets.payload import broadcast_message, data_of, encoded
from headrace._sockets.topics import Topic, group_of, topic_of, topics_of
from headrace._websocket.phase import Phase
from headrace._websocket.resume import POSITION, Progress, check_since, dropped_of, part_of
from headrace.exceptions import ConnectionClosed
from headrace.layers import InMemoryChannelLayer

__all__ = ["Hub"]

_logger = logging.getLogger("headrace.sockets")

# What stands for this process; another object in each child of a fork.
_process = object()


def _after_fork() -> None:
    global _process  # noqa: PLW0603
    _process = object()


call_in_child(_after_fork)


class Hub:
    """What one broadcaster has and does; its methods are those of ``Broadcaster``, which says what they promise.

    Args:
        name: Whose it is, for the log.
        backend: The layer to work on.
        loop: The event loop for what has to wait, or None for the one that runs, or else one in a thread.
        server: The socket server whose broadcaster it is, if it is one's, by a weak proxy: it holds this object.
            Whoever serves the connection keeps it alive.
        mailbox: Where the messages of its topics are to wait; None for one as the layer has it.

    Attributes:
        layer: The layer.
        loop: The loop that was given, or that the connection is served in.
        may_run_loop: A loop that was given may be run here if nobody does; one that somebody runs is not ours to run
            again.
        phase: How far the connection of the socket server has come; a broadcaster of its own stays open.
        mailbox: Where the messages of its topics wait.
        progress: How far it has come in its topics; made when it subscribes to one with ``since``.
        sends: The plain sends to a client in an event loop; made when there is one.
        dropped_unsubscribed: Messages of topics that it was not subscribed to any more.
        on_joined: Called with each topic that was subscribed to, and the channel; from any thread.
    """

    __slots__ = (
        *("_backend", "_broadcasts", "_name", "_process", "_server"),
        *("dropped_unsubscribed", "later", "layer", "loop", "mailbox", "may_run_loop", "on_joined", "phase"),
        *("progress", "sends"),
    )

    def __init__(
        self,
        name: str,
        backend: Backend,
        loop: asyncio.AbstractEventLoop | None,
        server: object = None,
        mailbox: TopicMailbox | None = None,
    ) -> None:
        if loop is not None and not isinstance(loop, asyncio.AbstractEventLoop):
            raise TypeError(f"loop must be an event loop or None, got {loop!r}")
        self._name = name
        self._backend = backend
        self._server = server
        self.layer: Any = backend.layer
        self.loop = loop
        self.may_run_loop = True
        self.phase = Phase.OPEN
        self.on_joined: Callable[[str, str], object] | None = None
        self._start_empty(mailbox)

    def _start_empty(self, mailbox: TopicMailbox | None = None) -> None:
        """Begin with nothing: when it is made, and in the child of a fork."""
        self._process = _process
        self._broadcasts = 0
        self.dropped_unsubscribed = 0
        self.later = Later(self._name)
        self.sends: Later | None = None
        self.progress: Progress | None = None
        self.mailbox = TopicMailbox(self.layer) if mailbox is None else mailbox

    def __repr__(self) -> str:
        with suppress(ReferenceError):
            if self._server is not None:
                return self._server.__repr__()
        return f"<{self._name} that has ended>"

    # Broadcasting.

    def broadcast(self, channel: Topic | Collection[Topic], data: Any) -> str | None:
        """Send data to a topic, or to each of several, in a few microseconds; return its position if that is known."""
        messages = self._messages(channel, data)
        if self.later.is_busy():
            self.later.begin(partial(self._send_all, messages), self.own_loop())
            return None
        if len(messages) == 1 and self._knows_positions():
            report = self.layer.group_send_sync(messages[0]["type"], messages[0])
            self._count(1)
            return _position_of(report)
        if all(map(self._send_soon, messages)):
            self._count(len(messages))
        else:
            self.later.begin(partial(self._send_all, messages), self.own_loop())
        return None

    def _knows_positions(self) -> bool:
        """Tell whether a send that waits for nothing knows the position: none of a server's does."""
        layer = self.layer
        return isinstance(layer, InMemoryChannelLayer) and "group_send" not in layer._overridden

    def _send_soon(self, message: dict[str, Any]) -> bool:
        soon: bool = self.layer._group_send_unattended(message["type"], message, self.later.ledger)
        return soon

    async def async_broadcast(self, channel: Topic | Collection[Topic], data: Any) -> str | None:
        """Send data to a topic, or to each of several; returns its position when the server has it."""
        messages = self._messages(channel, data)
        await self.later.before()
        return await self._send_all(messages)

    def _messages(self, channel: object, data: Any) -> list[dict[str, Any]]:
        self.mind_fork()
        if self.phase in (Phase.CLOSED, Phase.ENDED):
            raise ConnectionClosed(
                f"{self!r} has been closed, so it broadcasts nothing any more; a Broadcaster of its own can"
            )
        topics = topics_of(channel)
        payload = encoded(data, self._backend.limit)
        return [broadcast_message(topic, payload) for topic in topics]

    async def _send_all(self, messages: list[dict[str, Any]]) -> str | None:
        if len(messages) == 1:
            report = await self.layer.group_send(messages[0]["type"], messages[0])
        else:
            report = await self.layer.group_send_many([(message["type"], message) for message in messages])
        self._count(len(messages))
        return _position_of(report)

    def _count(self, messages: int) -> None:
        with self.later.lock:
            self._broadcasts += messages
        if not self.layer._has_listeners_known:
            self.layer._has_listeners_known = True
            self._look_for_listeners()

    def _look_for_listeners(self) -> None:
        """Warn if the first broadcast of a layer in this process was heard by nobody: the sockets may be elsewhere."""
        if self._server is not None or not isinstance(self.layer, InMemoryChannelLayer):
            return  # a socket server is a socket, whether it listens or not
        stats = self.layer.stats()
        if not stats.memberships and not stats.sent:
            _logger.warning(
                "a broadcast reached nobody: no socket of this process listens, and without hosts it goes to no other "
                "process. If the sockets are elsewhere, give hosts=[{'address': 'redis://localhost:6379'}] to them and "
                "here, or set %s, or make the default of CHANNEL_LAYERS a RedisChannelLayer; this is said once",
                SETTING,
            )

    # Subscribing.

    def subscribe(self, channel: Topic, since: str | int | None = None) -> bool | None:
        """Get what is broadcast to a topic from now on, or behind a position."""
        topic, since = topic_of(channel), check_since(since)
        self._check_subscribe()
        if not self.may_block():
            self.later.begin(partial(self._join, topic, since), self.own_loop())
        elif since is None:
            self.mailbox.join_sync(topic)
            self._note_joined(topic)
        else:
            end = self.layer.group_position_sync(group_of(topic))
            if isinstance(since, int) and end and not self.layer.group_history_sync(group_of(topic), limit=1).messages:
                since = 0
            joining = _Joining(self, topic, since, end)
            with joining:
                complete = joining.joined(self.mailbox.join_sync(topic, joining.since))
            self._note_joined(topic)
            return complete
        return None

    async def async_subscribe(self, channel: Topic, since: str | int | None = None) -> bool | None:
        """Get what is broadcast to a topic from now on, or behind a position; returns when that is so."""
        topic, since = topic_of(channel), check_since(since)
        self._check_subscribe()
        await self.later.before()
        return await self._join(topic, since)

    async def _join(self, topic: str, since: str | int | None) -> bool | None:
        if since is None:
            await self.mailbox.join(topic)
            self._note_joined(topic)
            return None
        end = await self.layer.group_position(group_of(topic))
        if isinstance(since, int) and end and not (await self.layer.group_history(group_of(topic), limit=1)).messages:
            # There is nothing to begin with, so that it begins where the topic is.
            since = 0
        joining = _Joining(self, topic, since, end)
        with joining:
            complete = joining.joined(await self.mailbox.join(topic, joining.since))
        self._note_joined(topic)
        return complete

    def _note_joined(self, topic: str) -> None:
        if self.on_joined is not None and self.mailbox.inbox is not None:
            self.on_joined(topic, self.mailbox.inbox.channel)

    def need_progress(self) -> Progress:
        """Return how far it has come in its topics, from now on."""
        if self.progress is None:
            self.progress = Progress(None, self._dropped)
        return self.progress

    def _dropped(self) -> int:
        inbox = self.mailbox.inbox
        return 0 if inbox is None else dropped_of(self.layer, inbox.channel)

    def note(self, message: dict[str, Any]) -> None:
        """Note that a broadcast has come."""
        if self.progress is not None and (position := message.get(POSITION)) is not None:
            self.progress.arrived(position)
            self.progress.advance(position)

    def position(self) -> str | None:
        """Return where it is in the topics that it subscribed to with ``since``."""
        return None if self.progress is None else self.progress.text()

    def unsubscribe(self, channel: Topic) -> None:
        """Get nothing more of a topic; no error if it was not subscribed to. Never blocks."""
        topic = topic_of(channel)
        self.mind_fork()
        has_to_wait = "group_discard" in self.layer._overridden and not self.may_block()
        if self.later.is_busy() or has_to_wait:
            self.later.begin(partial(self.mailbox.leave, topic), self.own_loop())
        else:
            self.mailbox.leave_sync(topic)

    async def async_unsubscribe(self, channel: Topic) -> None:
        """Get nothing more of a topic; see ``unsubscribe``."""
        topic = topic_of(channel)
        self.mind_fork()
        await self.later.before()
        await self.mailbox.leave(topic)

    def subscriptions(self) -> frozenset[str]:
        """Return the topics that it is subscribed to, as text."""
        self.mind_fork()
        return frozenset(self.mailbox.groups)

    def _check_subscribe(self) -> None:
        """Raise if nothing can be subscribed to any more."""
        self.mind_fork()
        if self.phase is not Phase.OPEN:
            raise ConnectionClosed(f"{self!r} has been closed, so it cannot be subscribed to anything any more")

    def is_open(self) -> bool:
        """Tell whether the client can be sent to."""
        self.mind_fork()
        return self.phase is Phase.OPEN

    def mind_fork(self) -> None:
        """Begin anew in a child: what it inherited was in use by threads that are not there."""
        if self._process is _process:
            return
        self._start_empty()
        if self._server is not None:
            # The client is the parent's.
            self.phase = Phase.ENDED
            self.loop = None

    async def async_receive_broadcast(self) -> tuple[str, Any]:
        """Wait for the next broadcast to one of its topics; by one task at a time. Cancelling loses nothing."""
        self._check_subscribe()
        inbox = await self.mailbox.open()
        while True:
            message = await anext(inbox)
            topic = message.get("topic")
            if topic in self.mailbox.groups:
                self.note(message)
                return topic, data_of(message)
            self.dropped_unsubscribed += 1

    # Calls that nobody waits for.

    def flush(self, timeout: float) -> None:
        """Wait until the calls that nobody waited for have been done, blocking this thread."""
        check_seconds("timeout", timeout)
        if not self.may_block():
            raise RuntimeError("flush() would block the event loop of this thread; use 'await async_flush()'")
        self.mind_fork()
        self._flush(timeout)

    async def async_flush(self, timeout: float) -> None:
        """Do what ``flush`` does, for code in an event loop."""
        check_seconds("timeout", timeout)
        self.mind_fork()
        await asyncio.to_thread(self._flush, timeout)

    def _flush(self, timeout: float) -> None:
        end = time.monotonic() + timeout
        for lane in self._lanes():
            lane.flush(max(0.0, end - time.monotonic()))

    def _lanes(self) -> tuple[Later, ...]:
        """Return what keeps calls that nobody waits for, each kind in its order."""
        return (self.later,) if self.sends is None else (self.later, self.sends)

    def send_later(
        self, call: Callable[[], Coroutine[Any, Any, Any]], timeout: float | None = None, size: int = 0
    ) -> None:
        """Have something done for the client in its turn, from a thread where a loop runs."""
        if self.sends is None:
            self.sends = Later(self._name)
        self.sends.begin(call, self.own_loop(), timeout, size)

    async def in_own_loop(self, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Call a coroutine function: in the loop of the connection, from whichever loop it is asked for."""
        loop = self.loop
        if loop is None or loop is asyncio.get_running_loop() or not loop.is_running():
            await call()
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(), loop))

    def run_async(self, coro: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the event loop of this broadcaster, and do not wait for it; what it raises is logged."""
        loop = self.own_loop()
        if asyncio._get_running_loop() is not loop:
            future = asyncio.run_coroutine_threadsafe(coro, loop)
            future.add_done_callback(_log_failure)
            return future
        return begun(coro)

    def counts(self) -> dict[str, int]:
        """Read the counters."""
        self.mind_fork()
        channel = self.mailbox.stats()
        names = (
            *("depth", "bytes", "delivered"),
            *("dropped_full", "dropped_expired", "dropped_replaced", "full_by_bytes"),
        )
        return {
            "topics": len(self.mailbox.groups),
            "broadcasts": self._broadcasts,
            "pending": sum(lane.pending for lane in self._lanes()),
            "failed": sum(lane.failed for lane in self._lanes()),
            "dropped_unsubscribed": self.dropped_unsubscribed,
            **({} if channel is None else {name: getattr(channel, name) for name in names}),
        }

    def own_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop for what has to wait: its own, the running one, or that in the background."""
        loop = self.loop
        if loop is None or loop.is_closed():
            return asyncio._get_running_loop() or background_loop()
        if self.may_run_loop:
            ensure_running(loop)
        return loop

    def may_block(self) -> bool:
        """Tell whether this thread has no event loop that would stand still."""
        return asyncio._get_running_loop() is None


class _Joining:
    """A topic that is being subscribed to with ``since``; it is forgotten if that fails.

    Args:
        hub: Who subscribes.
        topic: The topic.
        since: What it was asked to go on behind: a token, which may be of several topics, or a number of messages.
        end: Where the topic is; None if it has no history, which the layer refuses.

    Attributes:
        since: What to ask the layer for.
    """

    def __init__(self, hub: Hub, topic: str, since: str | int, end: str | None) -> None:
        self._progress, self._group, self._end = hub.need_progress(), group_of(topic), end
        self.since = part_of(since, self._group) if isinstance(since, str) else since or end or since
        if end is not None:
            # A topic that it has already begins anew.
            self._progress.keep([group_of(each) for each in hub.mailbox.groups if each != topic])
            self._progress.joining(self._group, self.since or end if isinstance(self.since, str) else None)

    def joined(self, complete: bool | None) -> bool | None:
        if self._end is not None:
            position = self.since if isinstance(self.since, str) else None
            self._progress.joined(self._group, position, self._end, bool(complete))
        return complete

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        if kind is not None:
            self._progress.left(self._group)


def _position_of(report: Any) -> str | None:
    # Of a subclass's own group_send it may be anything.
    position: str | None = getattr(report, "position", None)
    return position


def _log_failure(future: "Future[Any]") -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        _logger.error("a coroutine of run_async() failed", exc_info=error)
