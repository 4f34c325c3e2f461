"""The layer that spans processes, over Redis or Valkey: Channels' API over native mailboxes and an engine of its own.

Mailboxes are in this process, as those of the in-process layer. What is for others travels by pub/sub, and what is for
nobody in particular waits in queues on the server. docs/how-to/redis.md says how to set it up,
docs/explanation/reliability.md what it promises, docs/reference/protocol.md what travels.
"""

import atexit
import logging
import os
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal, cast

from headrace._core import (
    MemoryLayer,
    RedisLayer,
    Reply,
    Runtime,
    pack,
    unpack,
)
from headrace._layers.absent import ABSENT_OVER_REDIS, say_absent
from headrace._layers.arguments import suggests_arguments
from headrace._layers.base import Capacities, HistorySetting, PresenceSetting
from headrace._layers.hosts import HostSetting
from headrace._layers.native import CLOSE_TIMEOUT, Message, NativeChannelLayer, living_layers
from headrace._layers.overrides import DECIDED_NATIVELY
from headrace._layers.redis_config import RedisOptions, Ring, Topology, Wire, check_options
from headrace._layers.redis_stats import RedisStats, redis_stats
from headrace._layers.watcher import Gap, join_watchers, start_watcher

__all__ = ["Gap", "RedisChannelLayer", "RedisStats"]

_logger = logging.getLogger("headrace.redis")


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
        history: Of which groups the newest messages are kept on the servers, as for the in-process layer; a group is a
            stream there. Give all processes the same. Not with ``wire="channels_redis"``.
        history_bytes: How many bytes of these messages this process holds as well, as the in-process layer does, so
            that clients that come back cost the server nothing.
        presence: Which groups tell their members who is present, as for the in-process layer; who is present in all
            processes. Give all processes the same. Not with ``wire="channels_redis"``.
        counted: Globs of the groups that ``group_count_everywhere`` counts, in all processes. Give all the same.
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
        presence_timeout: Seconds after which a process that shows no sign of life is taken for dead: whoever was
            present in it has left. It shows one every fifth of this. Give all processes the same.
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
        history: HistorySetting | None = RedisOptions.history,
        history_bytes: int = RedisOptions.history_bytes,
        presence: PresenceSetting | None = RedisOptions.presence,
        counted: Iterable[str] | None = RedisOptions.counted,
        on_gap: str | None = RedisOptions.on_gap,
        gap: Callable[[Gap], object] | None = None,
        wire: Wire | None = RedisOptions.wire,
        ring: Ring | None = RedisOptions.ring,
        topology: Topology = RedisOptions.topology,
        send_timeout: float = RedisOptions.send_timeout,
        connect_timeout: float = RedisOptions.connect_timeout,
        subscription_linger: float = RedisOptions.subscription_linger,
        presence_timeout: float = RedisOptions.presence_timeout,
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
            history=history,
            history_bytes=history_bytes,
            presence=presence,
            counted=counted,
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
            presence_timeout=presence_timeout,
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
            history=history,
            history_bytes=limits.history_bytes,
            presence=presence,
            counted=self._settings.counted,
            strict=True,
            wake=wake,
        )

    _engine: RedisLayer

    def _start_empty(self) -> None:
        core = MemoryLayer(self._config, None)
        seconds = float(self.expiry), float(self.group_expiry)
        # Held weakly: it would be a cycle.
        engine = RedisLayer(self._settings, core, *seconds, _runtime(), partial(_watch, weakref.ref(self)))
        self._begin(core, engine, f".{engine.process}")

    def _open(self, channel: str) -> Iterable[Reply]:
        if not self._engine.is_ready():
            yield self._engine.connect()
        if self._settings.wire == "channels_redis":
            asked = self._engine.listen(channel)
            if asked is not None:
                yield asked

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
        return self._engine.process

    async def close_pools(self) -> None:
        """Wait until the server has what was sent, and what of it was for this process has come.

        channels_redis has connections for each loop, and closes them here.
        """
        asked = self._engine.drain()
        if asked is not None:
            await asked

    def serialize(self, message: Mapping[str, Any]) -> bytes:
        """Return the msgpack of a message, as it travels before it is encrypted."""
        return pack(cast("dict[str, Any]", message), self._settings.max_message_bytes)

    def deserialize(self, message: bytes) -> Message:
        """Return the message of some msgpack.

        Raises:
            ValueError: It is not that of a message; the error says what is wrong, and where.
        """
        return unpack(message)

    async def connect(self) -> None:
        """Connect to the servers now, and not when the layer is first used.

        Raises:
            LayerUnavailable: They could not be reached in time; the error says why.
        """
        await self._engine.connect()

    def connect_sync(self) -> None:
        """Do what ``connect`` does, from any thread; it blocks until they are connected."""
        self._engine.connect().wait()

    def _close_here(self, channel: str) -> None:
        if self._engine.is_queue(channel):
            self._core.close_channel(channel)
        else:
            self.close_channel(channel)

    def stats(self) -> RedisStats:
        """Read the layer's counters. Nothing is asked of the server: what is in queues is known from the last look."""
        return redis_stats(*self._engine.stats())

    def _unhealed(self) -> int:
        return self._engine.unhealed()


def _watch(reference: "weakref.ref[RedisChannelLayer]") -> None:
    """Have somebody listen to what the connection has to say, from the first use on."""
    layer = reference()
    if layer is not None:
        start_watcher(layer, layer._engine)


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
        if isinstance(layer, RedisChannelLayer):
            asked = layer._engine.finish()
            if asked is not None:
                with suppress(Exception):
                    asked.wait(max(0.0, end - time.monotonic()))
            layer._engine.close()
    join_watchers()


atexit.register(_at_exit)


say_absent(RedisChannelLayer, ABSENT_OVER_REDIS)
