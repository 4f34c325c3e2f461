"""What every channel layer shares: the rules of names and capacities, and the methods it must have.

This is the base for layers written in Python, in this package or in another. The rules are those
of Django Channels, in ASCII: a name of 100 characters is accepted (Channels stops at 99), a
trailing newline and digits or letters of other scripts are not (Channels lets them through).
"""

import fnmatch
import math
import re
import reprlib
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeAlias

__all__ = [
    "BaseChannelLayer",
    "Capacities",
    "HistorySetting",
    "LayerOptions",
    "Matcher",
    "PresenceSetting",
    "check_capacity",
    "check_limit",
    "check_seconds",
]


MAX_SECONDS = 1e10
"""About three hundred years: what a clock of nanoseconds in 64 bits can add to now."""


class Matcher(Protocol):
    """A compiled pattern, of ``re`` or of a package like it."""

    def match(self, string: str, /) -> object:
        """Return something true if the pattern matches at the start of the string."""


# The keys are ``str | Matcher``; but a Mapping is invariant in its keys, and a dict of globs alone
# has to pass as well.
Capacities: TypeAlias = Mapping[Any, int]
"""The capacity of the channels whose name matches a glob or a compiled pattern."""


HistorySetting: TypeAlias = Mapping[str, Mapping[str, Any]]
"""For the groups whose name matches a glob, how many messages are kept, and for how many seconds after the last."""


PresenceSetting: TypeAlias = Mapping[str, Mapping[str, Any]]
"""For the groups whose name matches a glob, how their members are told who is present."""


@dataclass(frozen=True, kw_only=True)
class LayerOptions:
    """What every layer of headrace is made with, and the defaults. The layers' docstrings say what an option means."""

    expiry: float = 60
    group_expiry: float = 86400
    capacity: int = 100
    channel_capacity: Capacities | None = None
    capacity_bytes: int = 1024 * 1024
    history: HistorySetting | None = None
    history_bytes: int = 64 * 1024 * 1024
    presence: PresenceSetting | None = None
    counted: Iterable[str] | None = None
    wake: Literal["direct", "future"] = "direct"


CompiledCapacities: TypeAlias = list[tuple[Matcher, int]]


def check_seconds(argument: str, value: float) -> float:
    """Return the value if it is a positive number of seconds that a clock can count to.

    Raises:
        ValueError: It is not; the error names the argument.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and 0 < value < math.inf):
        raise ValueError(f"{argument} must be a positive number of seconds, got {value!r}")
    if value > MAX_SECONDS:
        raise ValueError(f"{argument} must be at most {MAX_SECONDS:.0e} seconds, got {reprlib.repr(value)}")
    return value


def check_capacity(argument: str, value: int) -> int:
    """Return the value if it is a positive integer.

    Channels takes 0 for unlimited; no layer here is unbounded, so 0 is refused.

    Raises:
        ValueError: It is not; the error names the argument.
    """
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= sys.maxsize:
        return value
    raise ValueError(f"{argument} must be a positive integer, got {reprlib.repr(value)}")


def check_limit(limit: int) -> int:
    """Return how many messages may be received at once, as far as anybody can hold.

    Raises:
        ValueError: It is not a positive integer.
    """
    if not isinstance(limit, int) or limit < 1:
        raise ValueError(f"limit must be a positive integer, got {limit!r}")
    return min(limit, sys.maxsize)


class BaseChannelLayer:
    """The base of channel layers.

    Args:
        expiry: Seconds that an unread message is kept.
        capacity: How many messages a channel holds.
        channel_capacity: Other capacities, by glob or compiled pattern of the channel's name; the
            first match counts.

    Raises:
        ValueError: An argument is out of range; the error names it.
    """

    MAX_NAME_LENGTH: ClassVar[int] = 100
    """Characters that a name may have."""
    # Channels' text, which programs match on; that it says "< 100" is its history.
    invalid_name_error: ClassVar[str] = (
        "{} name must be a valid unicode string with length < 100 "
        "containing only ASCII alphanumerics, hyphens, underscores, or periods."
    )
    """What the error for a name says, with a place for the kind of name."""
    channel_name_regex: ClassVar[re.Pattern[str]] = re.compile(r"\A[a-zA-Z0-9\-_.]+(![a-zA-Z0-9\-_.]*)?\Z")
    """What the name of a channel matches."""
    group_name_regex: ClassVar[re.Pattern[str]] = re.compile(r"\A[a-zA-Z0-9\-_.]+\Z")
    """What the name of a group matches."""

    def __init__(
        self,
        expiry: float = LayerOptions.expiry,
        capacity: int = LayerOptions.capacity,
        channel_capacity: Capacities | None = LayerOptions.channel_capacity,
    ) -> None:
        self.expiry: float = check_seconds("expiry", expiry)
        self.capacity: int = check_capacity("capacity", capacity)
        self.channel_capacity: CompiledCapacities = self.compile_capacities(
            {} if channel_capacity is None else channel_capacity
        )

    def compile_capacities(
        self, channel_capacity: Capacities | Iterable[tuple[str | Matcher, int]]
    ) -> CompiledCapacities:
        """Turn globs into compiled patterns, in order; what is compiled already stays.

        Raises:
            ValueError: Not a mapping (or pairs, such as this method returns), a pattern that is
                neither a glob nor compiled, or a capacity that is not a positive integer.
        """
        if isinstance(channel_capacity, Mapping):
            pairs: Iterable[tuple[Any, int]] = channel_capacity.items()
        else:
            pairs = _pairs(channel_capacity)
        return [
            (_matcher(pattern), check_capacity(f"channel_capacity[{pattern!r}]", capacity))
            for pattern, capacity in pairs
        ]

    def get_capacity(self, channel: str) -> int:
        """Return the capacity of the first pattern that matches the channel, or the default."""
        for pattern, capacity in self.channel_capacity:
            if pattern.match(channel):
                return capacity
        return self.capacity

    def match_type_and_length(self, name: object) -> bool:
        """Tell whether this is text of at most ``MAX_NAME_LENGTH`` characters."""
        return isinstance(name, str) and len(name) <= self.MAX_NAME_LENGTH

    def require_valid_channel_name(self, name: str, receive: bool = False) -> bool:
        """Return True for the name of a channel.

        Args:
            name: The name.
            receive: Refuse the name of one specific channel: only the part up to ``!`` is given.

        Raises:
            TypeError: It is not one; the error says what is wrong with it, and where.
        """
        self._require(name, "Channel", self.channel_name_regex)
        if receive and "!" in name and not name.endswith("!"):
            raise TypeError(f"Specific channel names in receive() must end at the !. Got {name!r}")
        return True

    def require_valid_group_name(self, name: str) -> bool:
        """Return True for the name of a group.

        Raises:
            TypeError: It is not one; the error says what is wrong with it, and where.
        """
        self._require(name, "Group", self.group_name_regex)
        return True

    def valid_channel_names(self, names: list[str], receive: bool = False) -> bool:
        """Return True for a list of names of channels.

        Raises:
            AssertionError: Not a list, or an empty one.
            TypeError: One of the names is not valid.
        """
        if not isinstance(names, list) or not names:
            raise AssertionError(f"names must be a non-empty list, got {reprlib.repr(names)}")
        return all(self.require_valid_channel_name(name, receive=receive) for name in names)

    def non_local_name(self, name: str) -> str:
        """Return the name up to and including its ``!``, or the whole name if it has none."""
        local, mark, _ = name.partition("!")
        return local + mark

    def _require(self, name: str, kind: str, pattern: re.Pattern[str]) -> None:
        if not (self.match_type_and_length(name) and pattern.match(name)):
            fault = _fault(name, self.MAX_NAME_LENGTH, pattern)
            raise TypeError(f"{self.invalid_name_error.format(kind)} Got {fault}")

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        """Send a message to one channel, without blocking.

        Raises:
            ChannelFull: The channel is at its capacity; the message was not sent.
        """
        raise NotImplementedError("send() should be implemented in a channel layer")

    async def receive(self, channel: str) -> dict[str, Any]:
        """Wait for the next message on a channel. Cancelling this loses no message."""
        raise NotImplementedError("receive() should be implemented in a channel layer")

    async def new_channel(self) -> str:
        """Make the name of a channel that nobody else has."""
        raise NotImplementedError("new_channel() should be implemented in a channel layer")

    async def flush(self) -> None:
        """Drop all messages and all groups."""
        raise NotImplementedError("flush() not implemented (flush extension)")

    async def group_add(self, group: str, channel: str) -> bool | None:
        """Make a channel a member of a group, or renew its membership."""
        raise NotImplementedError("group_add() not implemented (groups extension)")

    async def group_discard(self, group: str, channel: str) -> None:
        """Take a channel out of a group; no error if it is not in it."""
        raise NotImplementedError("group_discard() not implemented (groups extension)")

    async def group_send(self, group: str, message: dict[str, Any]) -> object:
        """Send a message to every member of a group; drop it for the members that are full."""
        raise NotImplementedError("group_send() not implemented (groups extension)")

    def valid_channel_name(self, channel_name: str, receive: bool = False) -> bool:
        """Warn, and do as ``require_valid_channel_name``; as in Channels, ignore ``receive``."""
        warnings.warn(
            "valid_channel_name is deprecated, use require_valid_channel_name instead.",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.require_valid_channel_name(channel_name)

    def valid_group_name(self, group_name: str) -> bool:
        """Warn, and do as ``require_valid_group_name``."""
        warnings.warn(
            "valid_group_name is deprecated, use require_valid_group_name instead.",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.require_valid_group_name(group_name)


def _pairs(value: object) -> list[tuple[str | Matcher, int]]:
    if isinstance(value, list) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value):
        return value
    raise ValueError(
        f"channel_capacity must be a mapping of globs or compiled patterns to capacities, got {reprlib.repr(value)}"
    )


def _matcher(pattern: str | Matcher) -> Matcher:
    if isinstance(pattern, str):
        return re.compile(fnmatch.translate(pattern))
    if hasattr(pattern, "match") and not isinstance(getattr(pattern, "pattern", ""), bytes):
        return pattern
    raise ValueError(f"channel_capacity keys must be globs (str) or compiled patterns of str, got {pattern!r}")


def _fault(name: object, longest: int, pattern: re.Pattern[str]) -> str:
    """Say what is wrong with a name that did not pass."""
    if not isinstance(name, str):
        return f"{reprlib.repr(name)}, which is of type {type(name).__name__}"
    if not name:
        return "an empty name"
    if len(name) > longest:
        return f"{len(name)} characters, and at most {longest} fit"
    # No valid name goes on from a beginning that is not valid itself: the shortest one shows where.
    ends = range(1, len(name) + 1)
    position = next((end - 1 for end in ends if not pattern.match(name[:end])), None)
    if position is None:
        return repr(name)
    return f"{name!r}: character {name[position]!r} at position {position} is not allowed"
