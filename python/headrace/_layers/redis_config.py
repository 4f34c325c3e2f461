"""The settings of the Redis layer, checked alone and together, as one frozen object.

The native side reads it by the names of its fields.
"""

import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from headrace._layers.base import BaseChannelLayer, LayerOptions, check_capacity, check_seconds
from headrace._layers.histories import check_history
from headrace._layers.hosts import Host, HostSetting, as_mappings, parse_hosts
from headrace._layers.limits import Limits, limits_of
from headrace._layers.native import LayerConfig
from headrace._layers.options import IGNORED
from headrace._layers.presences import check_presence, counted_globs

__all__ = ["RedisConfig", "RedisOptions", "Ring", "Topology", "Wire", "check_options", "redis_config"]

Ring: TypeAlias = Literal["rendezvous", "channels_redis"]
Topology: TypeAlias = Literal["auto", "single", "shards", "sentinel", "cluster", "serverless"]
Wire: TypeAlias = Literal["headrace", "channels_redis"]

_SMALLEST_LIMIT = 1024
# What Redis stores in one string at most, unless its configuration says otherwise.
_LARGEST_LIMIT = 512 * 1024 * 1024
_LONGEST_PREFIX = 100
# In seconds. A fifth of it passes between two signs of life.
_PRESENCE_TIMEOUTS = 0.5, 3600
_JSON = "messages are msgpack, which holds all that JSON does"
_RANDOM_PREFIX = "it keeps equal messages apart in channels_redis's sorted sets, which this layer does not have"


@dataclass(frozen=True, repr=False)
class RedisConfig:
    """The settings of a Redis layer as the native side reads them.

    Attributes:
        limits: The capacities and times, with text read as numbers.
        local: The settings of the mailboxes in this process.
        given: The hosts as they were given, each as a mapping, with its passwords.
        hosts: The shards; one server if the topology is "single", the seeds if it is "cluster".
        topology: "auto" leaves it to the first host, which says whether it is part of a cluster; else the hosts are
            shards. Never "auto" with sentinels.
        given_prefix: The prefix as it was given.
        prefix: The same as names on the servers begin with it, without braces.
        encryption_keys: The keys as given, the one to encrypt with first. Empty if messages are not encrypted.
        encryption_versions: The versions of encryption that are read, the one that is sent first.
        ignored: The options that were given and have no effect, each with the reason.
    """

    limits: Limits
    local: LayerConfig
    given: list[dict[str, Any]]
    hosts: tuple[Host, ...]
    topology: Topology
    given_prefix: str
    prefix: str
    wire: Wire
    ring: Ring
    encryption_keys: tuple[bytes, ...]
    encryption_versions: tuple[int, ...]
    send_timeout: float
    connect_timeout: float
    subscription_linger: float
    counted: tuple[str, ...]
    presence_timeout: float
    max_message_bytes: int
    on_disconnect: str | None
    on_reconnect: str | None
    on_gap: str | None
    ignored: dict[str, str]

    def __repr__(self) -> str:
        hosts = ", ".join(map(str, self.hosts))
        encrypted = ", encrypted" if self.encryption_keys else ""
        return f"RedisConfig({self.topology}: {hosts}, prefix={self.given_prefix!r}, wire={self.wire!r}{encrypted})"


# Without a repr, which would have the passwords.
@dataclass(frozen=True, kw_only=True, repr=False)
class RedisOptions(LayerOptions):
    """What a ``RedisChannelLayer`` is made with, and the defaults, as it is given and not checked yet."""

    hosts: Iterable[HostSetting] | None = None
    prefix: str = "asgi"
    on_disconnect: str | None = None
    on_reconnect: str | None = None
    on_gap: str | None = None
    symmetric_encryption_keys: Sequence[str | bytes] | None = None
    encryption_versions: Sequence[int] = (2,)
    serializer_format: str = "msgpack"
    random_prefix_length: int | None = None
    wire: Wire | None = None
    ring: Ring | None = None
    topology: Topology = "auto"
    send_timeout: float = 5
    connect_timeout: float = 5
    subscription_linger: float = 5
    presence_timeout: float = 15
    max_message_bytes: int = 8 * 1024 * 1024


def redis_config(**options: Any) -> RedisConfig:
    """Check the options of a mapping, such as ``CONFIG``; see ``check_options``."""
    return check_options(RedisOptions(**options))


def check_options(options: RedisOptions) -> RedisConfig:
    """Check all options of a Redis layer, alone and together.

    Raises:
        ValueError: An option is wrong, or two exclude each other; the error names them and says what to do.
    """
    parsed = parse_hosts(options.hosts)
    chosen_wire: Wire = _one_of("wire", options.wire or "headrace", get_args(Wire))
    arranged = _arranged(_one_of("topology", options.topology, get_args(Topology)), parsed)
    _refuse_cluster_with(arranged, parsed, chosen_wire)
    _one_of("wake", options.wake, ("direct", "future"))
    _refuse_other_formats(options.serializer_format, chosen_wire)
    _refuse_history(options.history, chosen_wire, arranged, parsed)
    _refuse_presence(options.presence, options.counted, chosen_wire)
    ignored = {option: IGNORED[option] for host in parsed for option in host.ignored}
    if options.random_prefix_length is not None:
        ignored["random_prefix_length"] = _RANDOM_PREFIX
    if options.serializer_format != "msgpack":
        ignored["serializer_format"] = _JSON
    limits = limits_of(options)
    base = BaseChannelLayer(limits.expiry, limits.capacity, limits.channel_capacity)
    globs = limits.channel_capacity.items() if isinstance(limits.channel_capacity, Mapping) else None
    return RedisConfig(
        limits=limits,
        local=LayerConfig(
            expiry=float(limits.expiry),
            group_expiry=float(check_seconds("group_expiry", limits.group_expiry)),
            capacity=limits.capacity,
            # Globs go to the native side as they are, and not as the regular expressions that the base makes of them.
            channel_capacity=list(globs) if globs else list(base.channel_capacity),
            capacity_bytes=check_capacity("capacity_bytes", limits.capacity_bytes),
            history_bytes=check_capacity("history_bytes", limits.history_bytes),
            # Only what msgpack can carry leaves the process.
            strict=True,
            direct_wake=options.wake == "direct",
            history=check_history(options.history),
            presence=check_presence(options.presence),
        ),
        given=as_mappings(options.hosts),
        hosts=parsed,
        topology=arranged,
        given_prefix=_prefix(options.prefix),
        prefix=_in_keys(options.prefix, chosen_wire),
        wire=chosen_wire,
        ring=_ring(options.ring, chosen_wire, len(parsed)),
        encryption_keys=_encryption_keys(options.symmetric_encryption_keys),
        encryption_versions=_encryption_versions(options.encryption_versions),
        send_timeout=float(check_seconds("send_timeout", options.send_timeout)),
        connect_timeout=float(check_seconds("connect_timeout", options.connect_timeout)),
        subscription_linger=_linger(options.subscription_linger),
        counted=counted_globs(options.counted),
        presence_timeout=_presence_timeout(options.presence_timeout),
        max_message_bytes=_limit(options.max_message_bytes),
        on_disconnect=_message_type("on_disconnect", options.on_disconnect),
        on_reconnect=_message_type("on_reconnect", options.on_reconnect),
        on_gap=_message_type("on_gap", options.on_gap),
        ignored=ignored,
    )


def _refuse_presence(presence: object, counted: object, wire: Wire) -> None:
    """Refuse it where processes do not tell each other who is there."""
    for option, value in (("presence", presence), ("counted", counted)):
        if value and wire == "channels_redis":
            raise ValueError(
                f"{option} needs the wire format of headrace: processes with wire='channels_redis' do not tell each "
                "other who is there; leave out one of them"
            )


def _refuse_history(history: object, wire: Wire, topology: Topology, hosts: tuple[Host, ...]) -> None:
    """Refuse a history where none can be kept; a prefix with a brace is refused by the native side."""
    if not history:
        return
    if wire == "channels_redis":
        raise ValueError(
            "history needs the wire format of headrace: messages of wire='channels_redis' have no number by which one "
            "is known again; leave out one of them"
        )
    if topology == "cluster" and any(host.endpoint.protocol == 2 for host in hosts):
        raise ValueError(
            "history needs sharded pub/sub on a cluster, and so RESP3: leave out the 'protocol' of the hosts, or "
            "history"
        )


def _one_of(argument: str, value: Any, choices: Sequence[Any]) -> Any:
    if value in choices:
        return value
    raise ValueError(f"{argument} must be one of {', '.join(map(repr, choices))}, got {reprlib.repr(value)}")


def _arranged(topology: Topology, hosts: tuple[Host, ...]) -> Topology:
    """Return the topology that is meant, if the hosts fit it."""
    by_sentinel = [host for host in hosts if host.sentinels]
    if topology == "auto":
        return "auto" if not by_sentinel else "sentinel" if len(hosts) == 1 else "shards"
    if topology in ("single", "serverless", "sentinel") and len(hosts) != 1:
        instead = "" if topology == "serverless" else "; several are 'shards', each of which may have sentinels"
        raise ValueError(f"topology={topology!r} takes one host, got {len(hosts)}{instead}")
    if topology == "sentinel" and not by_sentinel:
        raise ValueError(
            f"topology='sentinel' needs a host with sentinels, got {hosts[0]}: "
            "give {'sentinels': [(host, port), ...], 'master_name': ...}"
        )
    if topology in ("single", "cluster", "serverless") and by_sentinel:
        raise ValueError(f"topology={topology!r} takes no sentinels, got {by_sentinel[0]}: leave topology out")
    return topology


def _refuse_cluster_with(topology: Topology, hosts: tuple[Host, ...], wire: Wire) -> None:
    if topology not in ("cluster", "serverless"):
        return
    for host in hosts:
        if host.endpoint.database:
            raise ValueError(
                f"topology={topology!r} has only database 0, got {host}: "
                "leave the number out, and give each project a prefix of its own"
            )
        if host.endpoint.path is not None:
            raise ValueError(f"topology={topology!r} is reached by TCP, got {host}: give host and port")
    if wire == "channels_redis":
        raise ValueError(
            f"wire='channels_redis' does not go with topology={topology!r}, which channels_redis cannot use: "
            "leave wire out, or move over on another server first"
        )


def _ring(ring: Ring | None, wire: Wire, shards: int) -> Ring:
    if wire == "headrace":
        chosen: Ring = _one_of("ring", ring or "rendezvous", get_args(Ring))
        return chosen
    if _one_of("ring", ring or "channels_redis", get_args(Ring)) != "channels_redis" and shards > 1:
        raise ValueError(
            f"ring={ring!r} with wire='channels_redis' would send to other hosts than channels_redis listens to: "
            "leave ring out"
        )
    return "channels_redis"


def _prefix(prefix: object) -> str:
    if not isinstance(prefix, str):
        # The first sentence is channels_redis's, which programs may match on.
        raise ValueError(f"Prefix must be unicode. Got {reprlib.repr(prefix)}: give text, such as 'asgi'")
    if len(prefix) > _LONGEST_PREFIX:
        raise ValueError(f"prefix must be at most {_LONGEST_PREFIX} characters, got {len(prefix)}")
    if re.search("[\ud800-\udfff]", prefix):
        raise ValueError(
            f"prefix must be text that UTF-8 can hold, got {reprlib.repr(prefix)} with half a surrogate pair"
        )
    return prefix


def _in_keys(prefix: str, wire: Wire) -> str:
    """Return a prefix as keys have it: braces there would move keys to other slots of a cluster."""
    return prefix if wire == "channels_redis" else prefix.replace("{", "%7B").replace("}", "%7D")


def _refuse_other_formats(serializer_format: object, wire: Wire) -> None:
    if serializer_format == "msgpack" or (serializer_format == "json" and wire == "headrace"):
        return
    if serializer_format == "json":
        raise ValueError(
            "serializer_format='json' does not go with wire='channels_redis': this layer writes msgpack, which the "
            "other processes would not read; set 'msgpack' in all of them first"
        )
    raise ValueError(
        f"serializer_format must be 'msgpack' or 'json', got {reprlib.repr(serializer_format)}: messages are msgpack, "
        "and no serializer of one's own is called; leave it out, and turn other values to text before you send"
    )


def _encryption_keys(keys: object) -> tuple[bytes, ...]:
    if not keys:
        return ()
    # The text of channels_redis, which programs may match on. What was given is a key, so it is not shown.
    text = "symmetric_encryption_keys must be a list of possible keys"
    if isinstance(keys, str | bytes):
        raise ValueError(f"{text}, got one {type(keys).__name__}: put it in square brackets")
    if not isinstance(keys, list | tuple):
        raise ValueError(f"{text}, got a {type(keys).__name__}: give a list, the key to encrypt with first")
    for position, key in enumerate(keys):
        if not isinstance(key, str | bytes) or not key:
            what = "an empty one" if isinstance(key, str | bytes) else f"a {type(key).__name__}"
            raise ValueError(f"{text} of text or bytes, got {what} at position {position}: is a variable not set?")
    return tuple(key.encode() if isinstance(key, str) else key for key in keys)


def _encryption_versions(versions: object) -> tuple[int, ...]:
    if isinstance(versions, list | tuple) and tuple(versions) in ((2,), (1, 2), (2, 1), (1,)):
        return tuple(versions)
    raise ValueError(
        f"encryption_versions must be [2], or [1, 2], [2, 1] or [1] in a fleet that is upgraded, the version to send "
        f"first; got {reprlib.repr(versions)}"
    )


def _linger(seconds: float) -> float:
    return float(seconds if seconds == 0 else check_seconds("subscription_linger", seconds))


def _presence_timeout(seconds: Any) -> float:
    shortest, longest = _PRESENCE_TIMEOUTS
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if is_number and shortest <= seconds <= longest:
        return float(seconds)
    raise ValueError(
        f"presence_timeout must be from {shortest} to {longest} seconds, after which a process without a sign of life "
        f"has left, got {reprlib.repr(seconds)}"
    )


def _limit(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and _SMALLEST_LIMIT <= value <= _LARGEST_LIMIT:
        return value
    raise ValueError(
        f"max_message_bytes must be an integer from {_SMALLEST_LIMIT} to {_LARGEST_LIMIT}, got {reprlib.repr(value)}"
    )


def _message_type(argument: str, value: object) -> str | None:
    if value is None or (isinstance(value, str) and value):
        return value
    raise ValueError(
        f"{argument} must be the type of a message, such as 'redis.disconnect', or None, got {reprlib.repr(value)}"
    )
