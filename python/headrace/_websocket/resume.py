"""Where the client of one connection is in the history of its groups: what it says of that, and what it is told.

A token names one position for each group, with dots between them. It comes from the client, so it may be anything: what
is no position is passed by, one of another group is never looked up, and only groups that the server joins are asked
for at all.

Guaranteed: the position of a group is that of the latest message before which none was lost here. A message that the
mailbox has dropped, or that may have been missed while the process was cut off from its server, stays in front of it,
with all that came later, until the client resumes or leaves.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace._core import position_mark, position_place
from headrace.exceptions import LayerClosed
from headrace.typing import Scope

__all__ = [
    "MOST_GROUPS",
    "POSITION",
    "Progress",
    "Replaceable",
    "Told",
    "check_since",
    "dropped_of",
    "echoed",
    "part_of",
    "position_of_client",
    "without_position",
]

POSITION = "__headrace_position__"
"""The key of a message that has its position."""

MOST_GROUPS = 16
"""Groups whose positions one token holds."""

MOST_CHARACTERS = MOST_GROUPS * 41
"""Characters of a token: a position has at most 40, and there is a dot between two."""

_ARGUMENT = b"resume="
_SUBPROTOCOL = "resume."


def position_of_client(scope: Scope) -> str | None:
    """Return the token that a client gives, in the query or else among its subprotocols; None if there is none."""
    for argument in scope.get("query_string", b"").split(b"&"):
        if argument.startswith(_ARGUMENT) and len(argument) > len(_ARGUMENT):
            return str(argument[len(_ARGUMENT) :], "ascii", "replace")
    offered = (each for each in scope.get("subprotocols") or () if each.startswith(_SUBPROTOCOL))
    return next((each[len(_SUBPROTOCOL) :] for each in offered if len(each) > len(_SUBPROTOCOL)), None)


def check_since(since: object) -> Any:
    """Return what messages are wanted behind.

    Raises:
        TypeError: It is neither a position nor a number of messages.
        ValueError: It is a number below 0.
    """
    if since is None or isinstance(since, str):
        return since
    if isinstance(since, bool) or not isinstance(since, int):
        raise TypeError(f"since must be a position (str), a number of messages (int) or None, got {since!r}")
    if since < 0:
        raise ValueError(f"since must be a number of messages of at least 0, got {since}")
    return since


def part_of(token: str, group: str) -> str:
    """Return the position of a group in a token; of one that has none what no layer takes for one."""
    return _positions_in(token).get(position_mark(group), "")


if TYPE_CHECKING:
    Replaceable = property
else:

    class Replaceable(property):
        """A property that an attribute of the instance may replace: a project may have one of that name."""

        def __set_name__(self, owner: type, name: str) -> None:
            self._name = name

        def __get__(self, instance: object, owner: type | None = None) -> object:
            if instance is not None and self._name in vars(instance):
                return vars(instance)[self._name]
            return super().__get__(instance, owner)

        def __set__(self, instance: object, value: object) -> None:
            vars(instance)[self._name] = value


def without_position(scope: Scope) -> Scope:
    """Return a scope in which no subprotocol is a token: an application that chooses the first finds its own."""
    offered = scope.get("subprotocols") or ()
    kept = [each for each in offered if not each.startswith(_SUBPROTOCOL)]
    return scope if len(kept) == len(offered) else {**scope, "subprotocols": kept}


def echoed(scope: Scope) -> str | None:
    """Return the subprotocol to accept with if the application chooses none, and the client offers tokens alone.

    A browser gives up if it has offered subprotocols and none of them is chosen.
    """
    offered: Sequence[str] = scope.get("subprotocols") or ()
    return offered[0] if offered and all(each.startswith(_SUBPROTOCOL) for each in offered) else None


@dataclass(frozen=True, slots=True)
class Told:
    """That all which a client has missed of a group is behind it.

    Attributes:
        group: The group.
        complete: It got everything.
    """

    group: str
    complete: bool


class _Place:
    """Where a client is in one group.

    Attributes:
        group: The group.
        position: What its client is to say when it comes again; None until that is known.
        epoch: The stream of the latest message; None before there is one.
        number: Its number in the stream.
        end: The number of the last message that was missed, while those are on their way; else None.
        is_whole: None of these was lost.
        is_held: A message was lost here, so that the position stays before it.
        is_joining: The layer has not said yet that the group was joined.
        dropped: What had been lost when a number was missing the last time.
    """

    __slots__ = ("dropped", "end", "epoch", "group", "is_held", "is_joining", "is_whole", "number", "position")

    def __init__(self, group: str, position: str | None, dropped: int) -> None:
        self.group = group
        self.position = position
        self.dropped = dropped
        place = None if position is None else position_place(position)
        self.epoch: int | None = None
        self.number = 0
        if place is not None:
            _, self.epoch, self.number = place
        self.end: int | None = None
        self.is_whole, self.is_held, self.is_joining = True, False, True


class Progress:
    """How far the client of one connection has come, in each of its groups.

    Args:
        token: What the client says; None if it says nothing, because it is here for the first time.
        dropped: Counts what may have been lost until now: by the mailbox of the connection, or by the process.

    Attributes:
        resumes: The client says where it was.
        due: What is to be told before the next message.
    """

    __slots__ = ("_dropped", "_in_hand", "_places", "_said", "_text", "due", "resumes")

    def __init__(self, token: str | None, dropped: Callable[[], int]) -> None:
        self.resumes = token is not None
        self.due: list[Told] = []
        self._said = _positions_in(token or "")
        self._places: dict[int, _Place] = {}
        self._dropped = dropped
        # Whose message is being handled.
        self._in_hand: _Place | None = None
        # Until something changes.
        self._text: str | None = None

    def said(self, group: str) -> str | None:
        """Return the position of a group that the client gives."""
        return self._said.get(position_mark(group))

    def has(self, group: str) -> bool:
        """Tell whether a group was joined."""
        return position_mark(group) in self._places

    def keep(self, groups: Sequence[str]) -> None:
        """Forget all groups but these and those that are being joined: the others have been left."""
        kept = {position_mark(group) for group in groups}
        for mark in self._places.keys() - kept:
            if not self._places[mark].is_joining:
                del self._places[mark]
                self._text = None

    def joining(self, group: str, position: str | None) -> None:
        """Note that a group is being joined, before any message of it can come.

        Args:
            group: The group.
            position: Where its messages begin: what it is sent comes behind it. None if that is not known.

        Raises:
            ValueError: There is no room for another one.
        """
        mark = position_mark(group)
        if mark not in self._places and len(self._places) >= MOST_GROUPS:
            raise ValueError(
                f"a connection keeps its position in {MOST_GROUPS} groups with history at most, and this would be one "
                "more: leave one before, or join it without a position"
            )
        self._places[mark] = _Place(group, position, self._dropped())
        self._text = None

    def joined(self, group: str, position: str | None, end: str, complete: bool) -> None:
        """Note that a group was joined.

        Args:
            group: The group.
            position: Where its client was, if the layer was asked to go on there.
            end: Where the group was before it was joined: what its client has missed ends there.
            complete: Whether that is on its way.
        """
        place, found = self._places[position_mark(group)], position_place(end)
        if position is not None and not complete and place.position == position:
            # Nobody can go on from there, and nothing has come yet.
            self._places[position_mark(group)] = place = _Place(group, end, place.dropped)
            self._text = None
        place.is_joining = False
        if not self.resumes:
            return
        if complete and found is not None and place.epoch == found[1] and place.number < found[2]:
            place.end = found[2]
        else:
            self.due.append(Told(group, complete))

    def left(self, group: str) -> None:
        """Forget a group."""
        self._places.pop(position_mark(group), None)
        self._text = None

    def arrived(self, position: str) -> bool:
        """Note that a message has come, but do not move to it yet; what is to be told before it is due then.

        Returns:
            Whether it is of a group that is known here.
        """
        found = position_place(position)
        place = None if found is None else self._places.get(found[0])
        if found is None or place is None:
            return False
        _, epoch, number = found
        if place.epoch is not None and (epoch, number) != (place.epoch, place.number + 1):
            self._look_for_loss(place)
        if place.end is not None and (epoch != place.epoch or number > place.end):
            # The last of what was missed has not come.
            self._tell(place, False)
        place.epoch, place.number = epoch, number
        self._in_hand = place
        return True

    def advance(self, position: str) -> None:
        """Move to the message that has arrived last: it is about to be handled."""
        place = self._in_hand
        if place is not None and not place.is_held:
            place.position, self._text = position, None

    def handled(self) -> None:
        """Note that the message has been handled; what is to be told after it is due then."""
        place, self._in_hand = self._in_hand, None
        if place is not None and place.end is not None and place.number >= place.end:
            self._tell(place, place.is_whole)

    def _tell(self, place: _Place, complete: bool) -> None:
        place.end = None
        self.due.append(Told(place.group, complete))

    def _look_for_loss(self, place: _Place) -> None:
        """Hold the position if the number that is missing may be that of a message that was lost.

        A number may be missing for good: the message was sent with ``exclude``.
        """
        before, place.dropped = place.dropped, self._dropped()
        place.is_held = place.is_held or place.dropped != before
        # What is replayed is for all.
        place.is_whole = False

    def text(self) -> str | None:
        """Return what the client is to say when it comes again; None if it is in no group with history."""
        if self._text is None:
            self._text = ".".join(place.position for place in self._places.values() if place.position) or None
        return self._text


def _positions_in(token: str) -> dict[int, str]:
    """Return the positions of a token by the marks of their groups; what is none is passed by."""
    if len(token) > MOST_CHARACTERS:
        return {}
    parts = token.split(".", MOST_GROUPS)[:MOST_GROUPS]
    return {place[0]: part for part in parts if (place := position_place(part)) is not None}


def dropped_of(layer: Any, channel: str) -> int:
    """Count what the mailbox of a channel has lost, and how often the process may have missed messages for good."""
    try:
        stats = layer.channel_stats(channel)
    except LayerClosed:
        return 0
    lost: int = stats.dropped_full + stats.dropped_expired + stats.dropped_replaced
    unhealed: int = layer._unhealed()
    return lost + unhealed
