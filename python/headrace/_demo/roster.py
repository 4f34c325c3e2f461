"""How many are in a room, in all processes.

A layer of one process knows all members of a group. One that connects processes knows its own, and those members that
are plain names, wherever they joined. So there each visitor has a plain name in a second group, to which nobody sends.
"""

from headrace.layers import InMemoryChannelLayer, RedisChannelLayer
from headrace.typing import ChannelLayer

__all__ = ["Layer", "Roster"]

Layer = InMemoryChannelLayer | RedisChannelLayer


class Roster:
    """Who is where, by a layer."""

    def __init__(self, layer: ChannelLayer) -> None:
        self._layer = layer
        self._several = isinstance(layer, RedisChannelLayer)

    def count(self, group: str) -> int:
        """Count who is in a room. News of another process may still be on its way."""
        return self._layer.group_count(f"{group}.roster" if self._several else group)

    async def enter(self, group: str, visitor: str) -> None:
        """Put a visitor on the list, or keep it there."""
        if self._several:
            await self._layer.group_add(f"{group}.roster", f"visitor.{visitor}")

    async def leave(self, group: str, visitor: str) -> None:
        """Take a visitor off the list."""
        if self._several:
            await self._layer.group_discard(f"{group}.roster", f"visitor.{visitor}")
