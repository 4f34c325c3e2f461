"""The layer that spans processes, over Redis or Valkey: Channels' API over native mailboxes and an engine of its own.

Mailboxes are in this process, as those of the in-process layer. What is for others travels by pub/sub, and what is for
nobody in particular waits in queues on the server. docs/how-to/redis.md says how to set it up,
docs/explanation/reliability.md what it promises, docs/reference/protocol.md what travels.
"""

import asyncio
import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal, cast

from headrace._core import (
    Ledger,
    MemoryLayer,
    RedisLayer,
    Reply,
    Runtime,
    SendReport,
    Waiter,
    pack,
    unpack,
)
from headrace._layers.absent import ABSENT_OVER_REDIS, say_absent
from headrace._layers.arguments import suggests_arguments
from headrace._layers.base import Capacities, check_limit
from headrace._layers.hosts import HostSetting
from headrace._layers.native import Message, NativeChannelLayer, living_layers
from headrace._layers.overrides import DECIDED_NATIVELY
from headrace._layers.redis_config import RedisOptions, Ring, Topology, Wire, check_options
from headrace._layers.redis_stats import RedisStats, redis_stats
from headrace._layers.watcher import CLOSE_TIMEOUT, Gap, join_watchers, start_watcher
from headrace.exceptions import LayerClosed, LayerUnavailable

__all__ = ["Gap", "RedisChannelLayer", "RedisStats"]

_logger = logging.getLogger("headrace.redis")


_ROUND_TRIP = 0.25
"""Seconds that a receiver without patience waits at most for the server to say what is in a queue."""

_MSGPACK = "messages are msgpack, written and read natively: set symmetric_encryption_keys to encrypt them"
_DECIDED_NATIVELY = {
    **DECIDED_NATIVELY,
    **dict.fromkeys(("serialize", "deserialize"), f"{_MSGPACK}, or override send, group_send and receive"),
    "client_prefix": "each process has an id of its own: set prefix to keep projects apart",
    # Of channels_redis.
    **dict.fromkeys(("create_pool", "connection"), "connections are native: say in hosts what they need"),
    "consistent_hash": "set ring to say how names are spread over the hosts",
    "receive_single": "override receive",
}


class RedisChannelLayer(NativeChannelLayer):
    """A channel layer over Redis 6.2 or newer, or any Valkey, for any number of processes, threads and event loops.

    It takes the settings of both layers of channels_redis. A channel made by ``new_channel`` has its mailbox in the
    process that made it, with a capacity of its own; a send to it is one PUBLISH. A group_send is one PUBLISH,
    whatever the number of members. Every other name is a queue: each message goes to exactly one receiver of the fleet.

    What waits for the server gives up after ``send_timeout`` with ``LayerUnavailable``, and at once while the server
    is known to be away; receivers go on waiting. After a fork the child has an empty layer of its own; the parent's is
    not affected.

    Args:
        hosts: Servers, as channels_redis takes them: URLs, tuples, dicts, Sentinel dicts. None is localhost:6379.
        prefix: What all keys and pub/sub channels begin with.
        expiry: Seconds that a message may be on its way, and wait in its mailbox or queue.
        group_expiry: Seconds that a membership lasts after its latest ``group_add``. One of a channel that a living
            consumer, socket or subscription has does not expire.
        capacity: How many messages a mailbox or a queue holds.
        channel_capacity: Other capacities by glob or compiled pattern of the channel's name; the first match counts.
        capacity_bytes: How many bytes of messages a mailbox in this process holds behind the first, which it takes
            whatever its size. A message counts its msgpack. Queues on the server are bounded in messages.
        on_disconnect: The ``type`` of a message to every channel of this process when the connection is lost.
        on_reconnect: The same, when it is back.
        symmetric_encryption_keys: What travels is encrypted with the first, and decrypted with any.
        encryption_versions: How it is encrypted: the first is sent, all are read. Version 2 authenticates all that
            travels, version 1 of earlier releases only what is in messages. For a fleet that is upgraded.
        random_prefix_length: Accepted for channels_redis' sake; nothing here needs it.
        serializer_format: ``"msgpack"``.
        on_gap: The ``type`` of a message to the members here of a group that may have missed messages; it has the keys
            ``group`` and ``missed``.
        gap: Called with a ``Gap`` when messages may have been missed, in a thread of its own.
        wire: ``"channels_redis"`` exchanges messages with ``channels_redis.pubsub.RedisPubSubChannelLayer``, for a
            fleet that is moved process by process. Queues are pub/sub channels then, as they are there.
        ring: How names are spread over several hosts: ``"rendezvous"``, or ``"channels_redis"`` for its own.
        topology: ``"auto"`` asks the first host whether it is a cluster; or ``"single"``, ``"shards"``, ``"sentinel"``,
            ``"cluster"``, ``"serverless"``.
        send_timeout: Seconds that a call waits for the server.
        connect_timeout: Seconds that one attempt to connect may take.
        subscription_linger: Seconds that a subscription outlives the last member here of its group.
        max_message_bytes: How long a message may be, in msgpack. A longer one is refused where it is sent, and dropped
            and counted where it arrives: give all processes the same.
        wake: As for the in-process layer.

    Raises:
        ValueError: A setting is wrong; the error names it, and shows no password.
    """

    _decided_natively = _DECIDED_NATIVELY

    @suggests_arguments
    def __init__(
        self,
        hosts: Iterable[HostSetting] | None = RedisOptions.hosts,
        prefix: str = RedisOptions.prefix,
        expiry: float = RedisOptions.expiry,
        group_expiry: float = RedisOptions.group_expiry,
        capacity: int = RedisOptions.capacity,
        channel_capacity: Capacities | None = RedisOptions.channel_capacity,
        on_disconnect: str | None = RedisOptions.on_disconnect,
        on_reconnect: str | None = RedisOptions.on_reconnect,
        symmetric_encryption_keys: Sequence[str | bytes] | None = RedisOptions.symmetric_encryption_keys,
        random_prefix_length: int | None = RedisOptions.random_prefix_length,
        serializer_format: str = RedisOptions.serializer_format,
        *,
        capacity_bytes: int = RedisOptions.capacity_bytes,
        on_gap: str | None = RedisOptions.on_gap,
        gap: Callable[[Gap], object] | None = None,
        wire: Wire | None = RedisOptions.wire,
        ring: Ring | None = RedisOptions.ring,
        topology: Topology = RedisOptions.topology,
        send_timeout: float = RedisOptions.send_timeout,
        connect_timeout: float = RedisOptions.connect_timeout,
        subscription_linger: float = RedisOptions.subscription_linger,
        max_message_bytes: int = RedisOptions.max_message_bytes,
        encryption_versions: Sequence[int] = RedisOptions.encryption_versions,
        wake: Literal["direct", "future"] = RedisOptions.wake,
    ) -> None:
        if isinstance(hosts, Iterator):
            hosts = list(hosts)
        if gap is not None and not callable(gap):
            raise ValueError(f"gap must be callable with a Gap, got {gap!r}; a message type is on_gap's")
        options = RedisOptions(
            hosts=hosts,
            prefix=prefix,
            expiry=expiry,
            group_expiry=group_expiry,
            capacity=capacity,
            channel_capacity=channel_capacity,
            capacity_bytes=capacity_bytes,
            on_disconnect=on_disconnect,
            on_reconnect=on_reconnect,
            on_gap=on_gap,
            symmetric_encryption_keys=symmetric_encryption_keys,
            encryption_versions=encryption_versions,
            serializer_format=serializer_format,
            random_prefix_length=random_prefix_length,
            wire=wire,
            ring=ring,
            topology=topology,
            send_timeout=send_timeout,
            connect_timeout=connect_timeout,
            subscription_linger=subscription_linger,
            max_message_bytes=max_message_bytes,
            wake=wake,
        )
        self._settings = check_options(options)
        for option, reason in self._settings.ignored.items():
            _logger.debug("the option %s has no effect: %s", option, reason)
        self._gap = gap
        limits = self._settings.limits
        super().__init__(
            limits.expiry,
            limits.group_expiry,
            limits.capacity,
            limits.channel_capacity,
            capacity_bytes=limits.capacity_bytes,
            strict=True,
            wake=wake,
        )

    _receive: Callable[[str], Message | Waiter | Reply]

    def _start_empty(self) -> None:
        core = MemoryLayer(self._config, None)
        self._core = core
        self._redis = self._engine = RedisLayer(self._settings, core, float(self.expiry), _runtime())
        self._owner = f".{self._redis.process}"
        # Until the first, which has somebody listen to what the connection says. Held weakly: it would be a cycle.
        self._receive = partial(_first_receive, weakref.ref(self))
        self._plain_wire = self._settings.wire == "channels_redis"
        self._watched = False
        # Also taken by a signal handler, whose thread may have it already.
        self._watching = threading.RLock()

    def _inherited(self) -> object:
        return self._core, self._redis

    def __repr__(self) -> str:
        return f"<RedisChannelLayer {self._settings!r}>"

    @property
    def prefix(self) -> str:
        """What keeps projects on one server apart."""
        return self._settings.given_prefix

    @property
    def hosts(self) -> list[dict[str, Any]]:
        """The servers as they were given, each as a mapping, as channels_redis has it: with their passwords."""
        return [dict(host) for host in self._settings.given]

    @property
    def ring_size(self) -> int:
        """How many hosts were given."""
        return len(self.hosts)

    @property
    def client_prefix(self) -> str:
        """The part of its channels' names by which this process is known."""
        return self._redis.process

    # Channels' methods, and those of channels_redis.

    async def send(self, channel: str, message: Mapping[str, Any]) -> None:
        """Send a message to one channel; returns when the server has it.

        A cancelled send may have been sent.

        Raises:
            ChannelFull: The queue, or the mailbox in this process, is at its capacity; the message was not sent. A
                mailbox of another process that is full counts the message in its ``dropped_full`` instead.
            LayerUnavailable: The server could not be reached, did not answer in time, or refused.
            TypeError: The name is not valid, or the message holds what cannot be carried; the error has its path.
            InvalidMessage: The message is not a dict, or uses a reserved key.
            ValueError: A value does not fit, or the message is nested too deep.
            MessageTooLarge: It is longer than ``max_message_bytes``.
            LayerClosed: The layer was closed.
        """
        self._watch()
        await self._redis.send(channel, message)

    async def receive(self, channel: str) -> Message:
        """Wait for the next message of a channel, however long its server is away.

        Receivers of one channel in one process are served in the order in which they came. Cancelling loses nothing.

        Raises:
            TypeError: The name is not valid.
            ForeignChannel: It is a channel of another process, or of none.
            LayerUnavailable: The server lacks what a queue needs, or does not allow it.
            LayerClosed: The layer was closed.
        """
        received = self._receive(channel)
        if type(received) is Reply:
            await received
            received = self._redis.receive_next(channel)
        if type(received) is not Waiter:
            return received
        # Written out in each method: a function to await would be a coroutine more for each message.
        try:
            await received
            return received.take()
        except BaseException:
            received.close()
            raise

    async def new_channel(self, prefix: str = "specific") -> str:
        """Make the name of a channel of this process that nobody else has.

        The first one waits until the process is subscribed to its inbox; the others cost nothing on the server.

        Args:
            prefix: What the name begins with.

        Raises:
            TypeError: No valid name can begin so.
            LayerUnavailable: The server could not be reached in time.
        """
        name = self._new_name(prefix)
        self._watch()
        if not self._redis.is_ready():
            await self._redis.connect()
        if self._plain_wire:
            await self._wait_for(self._redis.listen(name))
        return name

    async def group_add(self, group: str, channel: str) -> None:
        """Put a channel in a group, or renew its membership; returns when messages to the group will reach it.

        Any channel of the fleet: one of this process costs a round trip only if it is the group's first here.

        Raises:
            TypeError: A name is not valid.
            LayerUnavailable: The server could not be reached in time; the channel was not added.
            LayerClosed: The layer was closed.
        """
        self._watch()
        await self._wait_for(self._redis.group_add(group, channel, float(self.group_expiry)))

    async def group_discard(self, group: str, channel: str) -> None:
        """Take a channel out of a group; no error if it is not in it.

        Raises:
            TypeError: A name is not valid.
            LayerUnavailable: The channel is not one of this process, and the server could not be reached in time.
            LayerClosed: The layer was closed.
        """
        await self._wait_for(self._redis.group_discard(group, channel))

    async def group_send(
        self, group: str, message: Mapping[str, Any], *, exclude: str | Collection[str] = ()
    ) -> SendReport:
        """Send a message to every channel of a group; returns when the server has it. Never raises for a full channel.

        Args:
            group: The group; one without members is no error.
            message: The message. Each receiver gets a copy of its own.
            exclude: A channel, or several, to pass by.

        Returns:
            ``delivered_here`` counts the members that were in this process when it was sent, and the queues that took
            it; those of other processes are not known here, so that ``delivered`` is None. ``dropped_full`` counts the
            queues that were full, and ``processes`` those that have members.

        Raises:
            LayerUnavailable, TypeError, InvalidMessage, ValueError, MessageTooLarge, LayerClosed: As ``send``.
        """
        self._watch()
        self._check_exclude(exclude)
        return await self._redis.group_send(group, message, None if exclude == () else exclude)

    def _check_exclude(self, exclude: str | Collection[str]) -> None:
        if self._plain_wire and exclude != ():
            raise ValueError("messages of wire='channels_redis' name no excluded channels: exclude must not be given")

    async def flush(self) -> None:
        """Drop all messages and all memberships of the layer's prefix, here, on the server, and in all processes.

        It removes its own keys by their names, and no others. Receivers that wait go on waiting.

        Raises:
            LayerUnavailable: The server could not be reached in time; what is in this process is gone all the same.
        """
        self._core.flush()
        with suppress(LayerClosed):
            await self._redis.flush()

    def flush_sync(self) -> None:
        """Do what ``flush`` does, from any thread; it blocks until the server has done it."""
        self._core.flush()
        with suppress(LayerClosed):
            self._redis.flush().wait()

    async def close(self) -> None:
        """Wait a second for the server to take what was sent, and end. Waiting receivers raise ``LayerClosed``."""
        try:
            self._core.stats()
            if self._redis.is_started() and not self._is_closed():
                with suppress(TimeoutError, LayerClosed, LayerUnavailable):
                    async with asyncio.timeout(CLOSE_TIMEOUT):
                        await self._redis.drain(True)
        finally:
            self._end()

    def close_sync(self) -> None:
        """Do what ``close`` does, from any thread; it blocks for a second at most."""
        try:
            self._core.stats()
            if self._redis.is_started() and not self._is_closed():
                with suppress(TimeoutError, LayerClosed, LayerUnavailable):
                    self._redis.drain(True).wait(CLOSE_TIMEOUT)
        finally:
            self._end()

    def _is_closed(self) -> bool:
        return self._redis.link_stats().state == "closed"

    def _end(self) -> None:
        self._core.close()
        if not self._is_closed():
            self._redis.close()

    async def close_pools(self) -> None:
        """Wait until the server has what was sent, and what of it was for this process has come.

        channels_redis has connections for each loop, and closes them here.
        """
        if self._redis.is_started():
            await self._redis.drain(False)

    def serialize(self, message: Mapping[str, Any]) -> bytes:
        """Return the msgpack of a message, as it travels before it is encrypted."""
        return pack(cast("dict[str, Any]", message), self._settings.max_message_bytes)

    def deserialize(self, message: bytes) -> Message:
        """Return the message of some msgpack.

        Raises:
            ValueError: It is not that of a message; the error says what is wrong, and where.
        """
        return unpack(message)

    # Beyond Channels.

    async def connect(self) -> None:
        """Connect to the servers now, and not when the layer is first used.

        Raises:
            LayerUnavailable: They could not be reached in time; the error says why.
        """
        self._watch()
        await self._redis.connect()

    def connect_sync(self) -> None:
        """Do what ``connect`` does, from any thread; it blocks until they are connected."""
        self._watch()
        self._redis.connect().wait()

    async def _wait_for(self, asked: Reply | None) -> None:
        if asked is not None:
            await asked

    async def send_many(self, pairs: Iterable[tuple[str, Mapping[str, Any]]]) -> SendReport:
        """Send messages to channels, given as pairs, with one wait for all. A full channel is counted, and no error.

        Returns:
            ``delivered_here`` counts the messages to channels of this process, and those that queues took;
            ``processes`` those that the server passed on to the process of their channel.

        Raises:
            LayerUnavailable, TypeError, InvalidMessage, ValueError, MessageTooLarge, LayerClosed: As ``send``.
                Nothing was sent if a pair is not valid.
        """
        self._watch()
        return await self._redis.send_many(pairs)

    def send_many_sync(self, pairs: Iterable[tuple[str, Mapping[str, Any]]]) -> SendReport:
        """Do what ``send_many`` does, from any thread; it blocks until the server has the messages."""
        self._watch()
        return self._redis.send_many(pairs).wait()

    async def group_send_many(
        self, pairs: Iterable[tuple[str, Mapping[str, Any]]], *, exclude: str | Collection[str] = ()
    ) -> SendReport:
        """Send messages to groups, given as pairs, with one wait for all; the report is as that of ``group_send``.

        The excluded channel, or several, gets none of them.

        Raises:
            LayerUnavailable, TypeError, InvalidMessage, ValueError, MessageTooLarge, LayerClosed: As ``send``.
                Nothing was sent if a pair is not valid.
        """
        self._watch()
        self._check_exclude(exclude)
        return await self._redis.group_send_many(pairs, None if exclude == () else exclude)

    def group_send_many_sync(
        self, pairs: Iterable[tuple[str, Mapping[str, Any]]], *, exclude: str | Collection[str] = ()
    ) -> SendReport:
        """Do what ``group_send_many`` does, from any thread; it blocks until the server has the messages."""
        self._watch()
        self._check_exclude(exclude)
        return self._redis.group_send_many(pairs, None if exclude == () else exclude).wait()

    async def receive_many(self, channel: str, limit: int) -> list[Message]:
        """Wait for a message and take those behind it too, up to ``limit``. Cancelling loses nothing.

        Raises:
            ValueError: ``limit`` is not a positive integer.
            TypeError, ForeignChannel, LayerClosed: As ``receive``.
        """
        most = check_limit(limit)
        self._watch()
        await self._wait_for(self._redis.look(channel, most))
        ready = self._core.receive_ready(channel, most)
        if ready:
            return ready
        received = self._redis.receive_next(channel)
        if type(received) is not Waiter:
            return [received, *self._core.receive_ready(channel, most - 1)]
        try:
            await received
            if most > 1:
                # The first is not taken before: what is cancelled here leaves it in its place.
                await self._wait_for(self._redis.look(channel, most - 1))
            return [received.take(), *self._core.receive_ready(channel, most - 1)]
        except BaseException:
            received.close()
            raise

    def receive_many_sync(self, channel: str, limit: int, timeout: float | None = None) -> list[Message]:
        """Do what ``receive_many`` does, blocking this thread as ``receive_sync`` does.

        When it had to wait for the first message, those behind it are the ones that have come to this process by then.

        Raises:
            ValueError: ``limit`` is not a positive integer.
            TimeoutError, RuntimeError, TypeError, ForeignChannel, LayerClosed: As ``receive_sync``.
        """
        most = check_limit(limit)
        self._watch()
        asked = self._redis.look(channel, most)
        begun = time.monotonic()
        if asked is not None and asyncio._get_running_loop() is None:
            # A server that does not answer is waited for below, as by any receiver.
            with suppress(TimeoutError):
                asked.wait(None if timeout is None else max(timeout, _ROUND_TRIP))
        ready = self._core.receive_ready(channel, most)
        if ready:
            return ready
        left = None if timeout is None else timeout - (time.monotonic() - begun)
        first = self._redis.receive_sync(channel, left)
        return [first, *self._core.receive_ready(channel, most - 1)]

    def receive_nowait(self, channel: str) -> Message:
        """Take the next message if there is one. For a queue this asks the server, and blocks for one round trip.

        Raises:
            ChannelEmpty: There is none.
            LayerUnavailable: The server of a queue could not be reached in time.
            TypeError, ForeignChannel, LayerClosed: As ``receive``.
        """
        self._watch()
        self._sleep_for(self._redis.look_at_once(channel))
        return self._core.receive_nowait(channel)

    def send_sync(self, channel: str, message: Mapping[str, Any], *, confirm: bool = False) -> None:
        """Do what ``send`` does, from any thread, with or without a loop.

        To a channel of a process it does not wait for the server unless asked to; what the server does not take in
        time is counted in ``stats().connection.unsent``, and told to the log. A queue is always waited for, because it
        may be full. While 64 MiB wait for the server it blocks for up to ``send_timeout`` seconds, until there is room.

        Args:
            channel: The channel.
            message: The message.
            confirm: Wait for the server. Whether the channel's process is still there ``send_many_sync`` reports.

        Raises:
            LayerUnavailable: As ``send``; or, without waiting, no server can be reached.
            ChannelFull, TypeError, InvalidMessage, ValueError, MessageTooLarge, LayerClosed: As ``send``.
        """
        self._watch()
        if not (confirm or self._redis.is_queue(channel)):
            self._redis.send_soon(channel, message)
        else:
            self._redis.send(channel, message).wait()

    def receive_sync(self, channel: str, timeout: float | None = None) -> Message:
        """Wait for the next message of a channel, blocking this thread.

        Args:
            channel: The channel.
            timeout: Seconds to wait at most; None waits for ever.

        Raises:
            TimeoutError: The time is over; no message was taken.
            RuntimeError: A loop runs in this thread; it would stand still.
            TypeError, ForeignChannel, LayerClosed: As ``receive``.
        """
        self._watch()
        return self._redis.receive_sync(channel, timeout)

    def new_channel_sync(self, prefix: str = "specific") -> str:
        """Do what ``new_channel`` does, from any thread; it blocks where that would wait."""
        name = self._new_name(prefix)
        self._watch()
        if not self._redis.is_ready():
            self._redis.connect().wait()
        if self._plain_wire:
            self._sleep_for(self._redis.listen(name))
        return name

    def group_add_sync(self, group: str, channel: str) -> None:
        """Do what ``group_add`` does, from any thread; it blocks for a round trip if that would wait for one."""
        self._watch()
        self._sleep_for(self._redis.group_add(group, channel, float(self.group_expiry)))

    def group_discard_sync(self, group: str, channel: str) -> None:
        """Do what ``group_discard`` does, from any thread; it blocks for a round trip if that would wait for one."""
        self._sleep_for(self._redis.group_discard(group, channel))

    def _sleep_for(self, asked: Reply | None) -> None:
        if asked is not None:
            asked.wait()

    def group_send_sync(
        self, group: str, message: Mapping[str, Any], *, exclude: str | Collection[str] = (), confirm: bool = False
    ) -> SendReport:
        """Do what ``group_send`` does, from any thread, with or without a loop, in a few microseconds.

        It does not wait for the server unless asked to; what the server does not take in time is counted in
        ``stats().connection.unsent``, and told to the log. If there are queues in the group it waits, because they may
        be full. While 64 MiB wait for the server it blocks for up to ``send_timeout`` seconds, until there is room.

        Returns:
            As ``group_send``. ``processes`` is None if the server was not waited for, and ``delivered_here`` is no
            evidence then: it counts the members here before the server has the message.

        Raises:
            LayerUnavailable: As ``send``; or, without waiting, no server can be reached.
            TypeError, InvalidMessage, ValueError, MessageTooLarge, LayerClosed: As ``send``.
        """
        self._watch()
        self._check_exclude(exclude)
        wait = confirm or self._redis.has_queues(group)
        excluded = None if exclude == () else exclude
        if not wait:
            return self._redis.group_send_soon(group, message, excluded)
        return self._redis.group_send(group, message, excluded).wait()

    def _group_send_soon(self, group: str, message: Mapping[str, Any], ledger: Ledger) -> bool:
        self._watch()
        self._redis.group_send_soon(group, message, None, ledger)
        return True

    def _close_here(self, channel: str) -> None:
        if self._redis.is_queue(channel):
            self._core.close_channel(channel)
        else:
            self.close_channel(channel)

    def stats(self) -> RedisStats:
        """Read the layer's counters. Nothing is asked of the server: what is in queues is known from the last look."""
        return redis_stats(*self._redis.stats())

    # What the connection says.

    def _watch(self) -> None:
        """Have somebody listen to what the connection has to say, from the first use on."""
        if not self._watched:
            with self._watching:
                if not self._watched:
                    self._watched = True
                    start_watcher(self, self._redis)


def _first_receive(reference: "weakref.ref[RedisChannelLayer]", channel: str) -> Message | Waiter | Reply:
    """Receive for the first time in this process."""
    layer = cast(RedisChannelLayer, reference())  # it is alive: its method has been called
    layer._watch()
    layer._receive = layer._redis.receive
    received: Message | Waiter | Reply = layer._receive(channel)
    return received


_runtimes: dict[int, Runtime] = {}
"""The one thread of input and output of this process, by the process. That of a parent is kept and never looked at."""


def _runtime() -> Runtime:
    process = os.getpid()
    if process not in _runtimes:
        _runtimes[process] = Runtime()
    return _runtimes[process]


def _at_exit() -> None:
    """Give what was sent a second to reach the server, and end the threads that wait for notices.

    Daemon threads that receive are left asleep, as the process ends: an exception now would only be printed.
    """
    end = time.monotonic() + CLOSE_TIMEOUT
    for layer in living_layers():
        if isinstance(layer, RedisChannelLayer) and not layer._is_closed():
            if layer._redis.is_started():
                with suppress(Exception):
                    layer._redis.drain(True).wait(max(0.0, end - time.monotonic()))
            layer._redis.close()
    join_watchers()


atexit.register(_at_exit)


say_absent(RedisChannelLayer, ABSENT_OVER_REDIS)
