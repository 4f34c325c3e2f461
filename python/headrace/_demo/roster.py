"""Who is in a room, in all processes.

A layer of one process knows all members of a group, and this process their names. One that connects processes knows its
own members, and those that are plain names, wherever they joined. So there each visitor has a plain name in a second
group, to which nobody sends, and the visitor's own name stands in it.
"""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass

from headrace.layers import InMemoryChannelLayer, RedisChannelLayer
from headrace.typing import ChannelLayer

__all__ = ["SHOWN", "Layer", "Roster", "Visitor"]

Layer = InMemoryChannelLayer | RedisChannelLayer

SHOWN = 100
"""How many of the people in a room are listed at most."""

# A channel's name has fewer than 100 characters; three bytes take four.
_MOST_BYTES = 54


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody in a room."""

    id: str
    name: str


class Roster:
    """Who is where, by a layer."""

    def __init__(self, layer: ChannelLayer) -> None:
        self._layer = layer
        self._several = isinstance(layer, RedisChannelLayer)
        # By channel; for a layer of one process.
        self._here: dict[str, Visitor] = {}

    def count(self, group: str) -> int:
        """Count who is in a room. News of another process may still be on its way."""
        return self._layer.group_count(self._list(group))

    def people(self, group: str) -> list[dict[str, str]]:
        """List who is in a room by name, up to `SHOWN` of them."""
        channels = self._layer.group_channels(self._list(group))
        known = [_read(channel) if self._several else self._here.get(channel) for channel in channels]
        people = sorted((visitor for visitor in known if visitor is not None), key=lambda each: (each.name, each.id))
        return [asdict(visitor) for visitor in people[:SHOWN]]

    async def enter(self, group: str, visitor: Visitor, channel: str) -> None:
        """Put a visitor on the list, or keep it there."""
        if self._several:
            await self._layer.group_add(self._list(group), _written(visitor))
        else:
            self._here[channel] = visitor

    async def leave(self, group: str, visitor: Visitor, channel: str) -> None:
        """Take a visitor off the list."""
        if self._several:
            await self._layer.group_discard(self._list(group), _written(visitor))
        else:
            self._here.pop(channel, None)

    def _list(self, group: str) -> str:
        return f"{group}.roster" if self._several else group


def _written(visitor: Visitor) -> str:
    """Return the plain name of a visitor; of a long name it has the beginning."""
    name = visitor.name.encode()
    if len(name) > _MOST_BYTES:
        name = name[: _MOST_BYTES - 3].decode(errors="ignore").encode() + "\N{HORIZONTAL ELLIPSIS}".encode()
    return f"visitor.{visitor.id}.{base64.urlsafe_b64encode(name).decode().rstrip('=')}"


def _read(channel: str) -> Visitor | None:
    """Read what `_written` wrote; None if it is something else."""
    kind, _, rest = channel.partition(".")
    number, _, name = rest.partition(".")
    if kind != "visitor":
        return None
    try:
        return Visitor(number, base64.urlsafe_b64decode(name + "=" * (-len(name) % 4)).decode())
    except ValueError:
        return None
