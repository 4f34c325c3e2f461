"""What the Redis layer asks of a server, and what of it the user there may not do.

Where the server can be asked what a user may do (ACL DRYRUN), nothing is tried. Elsewhere every command is given once,
on names of the doctor's own.
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from headrace._doctor.findings import Finding, ok, problem
from headrace._doctor.link import Link, Refusal
from headrace._layers.hosts import Endpoint

__all__ = ["Needs", "permissions"]

Command = tuple[str, ...]
# What may only be tried by who may also undo it.
_UNDONE_BY = {
    "RPUSH": "DEL",
    "LMOVE": "DEL",
    "LPUSH": "DEL",
    "HSET": "HDEL",
    "SADD": "DEL",
    "XADD": "DEL",
    "EXEC": "MULTI",
}


_OF_HISTORIES = {"MULTI", "EXEC", "XADD", "XRANGE", "XREVRANGE"}
_MENDING = "mend the server, or ask who runs it; docs/how-to/redis.md has what it needs"
_KEEPING = "'history' needs it: Redis 7.0 or newer, or any Valkey, that allows this command; or leave 'history' out"


@dataclass(frozen=True)
class Needs:
    """What a layer asks of one server.

    Attributes:
        prefix: What its names begin with.
        sharded: It is a cluster, so groups travel by sharded pub/sub.
        raw: The wire is channels_redis's, whose channels have no prefix; it has no queues.
        database: Its number.
        history: There are groups whose messages are kept.
        name: A plain channel of the doctor's own.
    """

    prefix: str
    sharded: bool = False
    raw: bool = False
    database: int = 0
    history: bool = False
    name: str = field(default_factory=lambda: f"headrace-doctor-{secrets.token_hex(8)}")

    def commands(self) -> Iterator[Command]:
        """Give each command with words that do no harm. What takes away comes before what puts there, and after."""
        yield ("PING",)
        if self.database:
            yield ("SELECT", str(self.database))
        if not self.raw:
            yield ("TIME",)
            yield from self._queue()
            yield from self._members()
            if self.history:
                yield from self._history()
        if self.sharded:
            yield from (("CLUSTER", "SLOTS"), ("ASKING",))
        yield from self._topics()
        if self.history:
            # Behind everything else: a transaction that may begin and not end would take all that follows.
            yield from (("MULTI",), ("EXEC",))

    def _queue(self) -> Iterator[Command]:
        queue = f"{self.prefix}:q:{{{self.name}}}"
        taken = f"{self.prefix}:t:{{{self.name}}}:{'0' * 16}"
        yield ("DEL", queue)
        yield ("RPUSH", queue, "x")
        yield ("EXPIRE", queue, "60")
        yield ("LLEN", queue)
        yield ("LMOVE", queue, taken, "LEFT", "RIGHT")
        yield ("LRANGE", taken, "0", "-1")
        yield ("LREM", taken, "1", "x")
        yield ("DEL", taken)
        yield ("LPUSH", queue, "x")
        yield ("DEL", queue)

    def _members(self) -> Iterator[Command]:
        # The index of an hour long ago.
        members, index = f"{self.prefix}:m", f"{self.prefix}:i:0"
        field = f"{self.name}\0{self.name}"
        yield ("HGETALL", members)
        yield ("HDEL", members, field)
        # A membership that ended long ago counts for nobody.
        yield ("HSET", members, field, "1")
        yield ("HDEL", members, field)
        yield ("SMEMBERS", index)
        yield ("SADD", index, self.name)
        yield ("DEL", index)

    def _history(self) -> Iterator[Command]:
        stream = f"{self.prefix}:h:{{{self.prefix}:g:{self.name}}}"
        yield ("DEL", stream)
        yield ("XADD", stream, "MAXLEN", "1", "1-*", "e", "")
        yield ("XRANGE", stream, "-", "+")
        yield ("XREVRANGE", stream, "+", "-")
        yield ("DEL", stream)

    def _topics(self) -> Iterator[Command]:
        group = f"{self.prefix}__group__{self.name}" if self.raw else f"{self.prefix}:g:{self.name}"
        letter = "S" if self.sharded else ""
        for topic in (group, self.name) if self.raw else (group,):
            yield (f"{letter}PUBLISH", topic, "x")
        # Behind everything else: with RESP2, who subscribes can ask for little else.
        for topic in (group, self.name) if self.raw else (group,):
            yield (f"{letter}SUBSCRIBE", topic)
            yield (f"{letter}UNSUBSCRIBE", topic)


def permissions(endpoint: Endpoint, timeout: float, needs: Needs, user: str) -> Iterator[Finding]:
    """Say what the user may not do of what the layer needs.

    Raises:
        Unreachable: The connection was lost meanwhile.
    """
    with Link.plain(endpoint, timeout) as link:
        first, *_ = needs.commands()
        dry = link.asked("ACL", "DRYRUN", user, *first) == "OK"
        refused = {} if dry else _tried(link, needs)
        if dry:
            refused = _dry(link, needs, user)
    how = "by ACL DRYRUN" if dry else "by trying each command"
    denied = {command: text for command, text in refused.items() if _is_denial(text)}
    if not refused:
        yield ok(f"user {user!r} may do all that the layer needs (found out {how})")
    if denied:
        yield problem(
            f"user {user!r} may not do what the layer needs: {_summary(denied)} (found out {how})",
            f"ACL SETUSER {user} {' '.join(_rules(denied, needs))}; then look again",
        )
    for command, text in refused.items():
        if command not in denied:
            yield problem(
                f"{command[0]} fails: {text}",
                _KEEPING if command[0] in _OF_HISTORIES else _MENDING,
            )


def _dry(link: Link, needs: Needs, user: str) -> dict[Command, str]:
    replies = {command: _reply(link, "ACL", "DRYRUN", user, *command) for command in needs.commands()}
    return {command: str(reply) for command, reply in replies.items() if reply != "OK"}


def _tried(link: Link, needs: Needs) -> dict[Command, str]:
    refused: dict[Command, str] = {}
    for command in needs.commands():
        if _UNDONE_BY.get(command[0]) in {other[0] for other in refused}:
            continue
        try:
            link.ask(*command)
        except Refusal as refusal:
            if not refusal.elsewhere:
                refused[command] = f"NOPERM {refusal}" if refusal.no_permission else str(refusal)
    return refused


def _reply(link: Link, *words: str) -> Any:
    try:
        return link.ask(*words)
    except Refusal as refusal:
        return str(refusal)


def _is_denial(text: str) -> bool:
    return "permission" in text.lower()


def _is_about(what: str, text: str) -> bool:
    """Tell whether a denial is about keys, or channels, and not about the command."""
    return "access" in text and what in text.partition("access")[2]


def _summary(denied: dict[Command, str]) -> str:
    commands = {_name(command) for command, text in denied.items() if not _of_names(text)}
    names = {"channels" if _is_about("channel", text) else "keys" for text in denied.values() if _of_names(text)}
    parts = [", ".join(sorted(commands))] if commands else []
    return " and ".join([*parts, *(f"{name} of its prefix" for name in sorted(names))])


def _rules(denied: dict[Command, str], needs: Needs) -> list[str]:
    commands = sorted({f"+{_name(command).lower()}" for command, text in denied.items() if not _of_names(text)})
    keys = [f"~{needs.prefix}:*"] if any(_is_about("key", text) for text in denied.values()) else []
    pattern = "&*" if needs.raw else f"&{needs.prefix}:*"
    channels = [pattern] if any(_is_about("channel", text) for text in denied.values()) else []
    return [*keys, *channels, *commands]


def _of_names(text: str) -> bool:
    return _is_about("key", text) or _is_about("channel", text)


def _name(command: Command) -> str:
    return "|".join(command[:2]) if command[0] == "CLUSTER" else command[0]
