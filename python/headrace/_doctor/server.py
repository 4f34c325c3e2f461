"""One server: what it says of itself, and what follows for a layer."""

import re
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from headrace._doctor.findings import Finding, note, ok, problem, warning
from headrace._doctor.link import Link

__all__ = ["Facts", "Use", "judged", "look", "ping"]

# What a process has to each server: a connection that writes, and one that subscribes.
_EACH = 2
# Of maxclients; what is left is for processes that start while others end.
_FULL = 0.9
_PINGS = 20
_LMOVE, _SPUBLISH = (6, 2), (7, 0)
# The layer asks every connection once a second whether it is there; what is closed sooner is closed all the time.
_SHORTEST_IDLE = 2


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a server said. What it did not tell is None, or empty.

    Attributes:
        mode: "standalone", "cluster" or "sentinel".
        role: "master" or "slave", as it says.
        clients: How many connections it has, this one included; 0 if it does not say.
        config: Its directives, by name; what it told in INFO is there too.
    """

    kind: str
    version: tuple[int, ...]
    mode: str
    role: str
    resp: int
    why_not_3: str
    tls: bool
    user: str
    clients: int = 0
    config: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return kind and version."""
        return f"{self.kind} {'.'.join(map(str, self.version))}" if self.version else f"{self.kind}, version not told"


@dataclass(frozen=True, kw_only=True)
class Use:
    """What a layer does with a server.

    Attributes:
        queues: It keeps queues there.
        topics: It subscribes to topics there.
        sharded: Topics are sharded, because the server is part of a cluster.
        tells: It tells its consumers when messages may have been missed.
        largest: How many bytes a message may have.
        database: The number of the database; 0 also for a layer that does nothing but what databases keep apart.
    """

    queues: bool = True
    topics: bool = True
    sharded: bool = False
    tells: bool = True
    largest: int = 0
    database: int = 0


def look(link: Link) -> Facts:
    """Ask a server about itself.

    Raises:
        Unreachable: The connection was lost meanwhile.
    """
    info = _info(link.asked("INFO"))
    kind, version = _kind(link.greeting, info)
    config = {name: info[told] for name, told in _IN_INFO.items() if told in info}
    for name in ("client-output-buffer-limit", "timeout", "maxmemory", "maxmemory-policy", "maxclients"):
        config |= _pairs(link.asked("CONFIG", "GET", name))
    role = link.asked("ROLE")
    return Facts(
        kind=kind,
        version=version,
        mode=info.get("redis_mode") or info.get("server_mode") or str(link.greeting.get("mode", "")) or _mode(link),
        role=str(role[0]) if isinstance(role, list) and role else info.get("role", str(link.greeting.get("role", ""))),
        resp=link.protocol,
        why_not_3=link.why_not_3,
        tls=link.endpoint.tls is not None,
        user=str(link.asked("ACL", "WHOAMI") or link.endpoint.username or "default"),
        clients=int(info.get("connected_clients", 0)),
        config=config,
    )


_IN_INFO = {"maxmemory": "maxmemory", "maxmemory-policy": "maxmemory_policy", "maxclients": "maxclients"}


def _mode(link: Link) -> str:
    """Find out what a server is that does not say it: only a cluster has slots."""
    return "cluster" if link.asked("CLUSTER", "SLOTS") else ""


def _kind(greeting: dict[str, Any], info: dict[str, str]) -> tuple[str, tuple[int, ...]]:
    # Valkey has a version of Redis too, the one that it is compatible with.
    for kind in ("valkey", "dragonfly"):
        if version := info.get(f"{kind}_version"):
            return kind.capitalize(), _numbers(version)
    server = str(greeting.get("server", "redis")).capitalize()
    return server, _numbers(info.get("redis_version") or str(greeting.get("version", "")))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:3]))


def _info(reply: object) -> dict[str, str]:
    lines = reply.splitlines() if isinstance(reply, str) else []
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _pairs(reply: Any) -> dict[str, str]:
    """Read a reply that is a map with RESP3 and a list with RESP2."""
    if isinstance(reply, dict):
        return reply
    return dict(zip(reply[::2], reply[1::2], strict=False)) if isinstance(reply, list) else {}


def ping(link: Link) -> float:
    """Return the median time of an answer, in milliseconds.

    Raises:
        Unreachable: The connection was lost meanwhile.
        Refusal: It does not answer to PING.
    """
    times = []
    for _ in range(_PINGS):
        began = time.perf_counter()
        link.ask("PING")
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


def judged(facts: Facts, use: Use) -> Iterator[Finding]:
    """Say what a server's facts mean for what a layer does with it."""
    tls = "TLS" if facts.tls else "no TLS"
    mode = f", {facts.mode}" if facts.mode else ""
    yield ok(f"{facts.name}{mode}, RESP{facts.resp}, {tls}, user {facts.user!r}")
    if facts.why_not_3:
        yield note(
            f"it does not speak RESP3 ({facts.why_not_3}), so RESP2 is used", "set protocol to 2, to save the attempt"
        )
    yield from _lacking(facts, use)
    if facts.role == "slave":
        yield problem(
            "it is a replica, which takes no messages for queues", "give the address of the master, or use Sentinel"
        )
    if facts.mode == "sentinel":
        yield problem("it is a sentinel and keeps nothing", "give it in 'sentinels', with a 'master_name'")
    if use.database:
        yield note(
            f"database {use.database} keeps keys apart, but pub/sub knows no databases",
            "give each project that shares this server a prefix of its own",
        )
    yield from _limits(facts, use)
    yield from _connections(facts)
    yield from _memory(facts, use)


def _lacking(facts: Facts, use: Use) -> Iterator[Finding]:
    if facts.kind != "Redis" or not facts.version:
        return
    if use.queues and facts.version < _LMOVE:
        yield problem(
            "it has no LMOVE, so channels with plain names cannot be received from; that came with Redis 6.2",
            "install Redis 6.2 or newer, or any Valkey",
        )
    if use.sharded and facts.version < _SPUBLISH:
        yield problem(
            "it has no SPUBLISH, which the layer uses on a cluster; that came with Redis 7.0",
            "install Redis 7.0 or newer, or any Valkey",
        )


def _limits(facts: Facts, use: Use) -> Iterator[Finding]:
    unknown = [name for name in ("client-output-buffer-limit", "timeout") if name not in facts.config]
    if unknown:
        yield note(f"user {facts.user!r} may not read the configuration, so {' and '.join(unknown)} were not looked at")
    limit = re.search(r"pubsub (\d+) (\d+) (\d+)", facts.config.get("client-output-buffer-limit", ""))
    if limit and use.topics:
        hard, soft, seconds = map(int, limit.groups())
        yield _buffer(hard, soft, seconds, use)
    idle = int(facts.config.get("timeout", 0))
    if 0 < idle <= _SHORTEST_IDLE:
        yield warning(
            f"timeout {idle}: it closes connections that were idle for {idle} s, also one that only waits for its turn",
            "set timeout to 0, or to a minute and more",
        )
    elif idle:
        yield ok(f"timeout {idle}: idle connections are closed after {idle} s; the layer's are never idle for so long")


def _buffer(hard: int, soft: int, seconds: int, use: Use) -> Finding:
    if not hard and not soft:
        return note(
            "client-output-buffer-limit has no limit for pubsub: a process that hangs makes the server's memory grow",
            "CONFIG SET client-output-buffer-limit 'pubsub 32mb 8mb 60', which is the default",
        )
    parts = [f"{_bytes(hard)} behind"] if hard else []
    parts += [f"{_bytes(soft)} behind for {seconds} s"] if soft else []
    what = f"client-output-buffer-limit: a process that is {', or '.join(parts)}, is cut off"
    if hard and hard < use.largest:
        return problem(
            f"{what}; one message may have {_bytes(use.largest)}",
            "raise the limit for pubsub, or lower max_message_bytes",
        )
    then = "and is told that it may have missed messages" if use.tells else "and nobody is told of what it missed"
    return ok(f"{what}; it connects again, {then}")


def _connections(facts: Facts) -> Iterator[Finding]:
    most, used = int(facts.config.get("maxclients", 0)), facts.clients
    if not most or not used:
        # It was not told; that is only a number less.
        return
    what = f"maxclients {most}: {used} connections are open, and each process has {_EACH} here"
    if used + _EACH > most * _FULL:
        yield warning(f"{what}; beyond that the server refuses new ones", "raise maxclients, or run fewer processes")
    else:
        yield ok(what)


def _memory(facts: Facts, use: Use) -> Iterator[Finding]:
    most, policy = int(facts.config.get("maxmemory", 0)), facts.config.get("maxmemory-policy", "")
    if not most:
        # Without a limit nothing is ever evicted; or it was not told, which is said above.
        return
    if policy.startswith(("allkeys", "volatile")) and use.queues:
        yield warning(
            f"maxmemory-policy {policy}: when its {_bytes(most)} are full it removes keys, which may be queues with "
            "their messages, and nobody is told",
            "set maxmemory-policy to noeviction: a send then raises LayerUnavailable; or give it a server of its own",
        )
    else:
        yield ok(
            f"maxmemory {_bytes(most)}, {policy or 'policy not told'}: when it is full, sends to queues are refused"
        )


def _bytes(number: int) -> str:
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if number >= 1024**power:
            return f"{number / 1024**power:.4g} {unit}"
    return f"{number} bytes"
