"""The lists of those who are present, as one connection has them: each diff once, in order, and none missing."""

from collections.abc import Mapping
from typing import Any, Protocol

from headrace._layers.presences import Presence

__all__ = ["Following", "PresentLayer", "default_key"]


class PresentLayer(Protocol):
    """What is asked of the layer."""

    def channel_groups(self, channel: str) -> list[str]: ...
    async def group_discard(self, group: str, channel: str) -> None: ...
    async def presence_add(
        self, group: str, channel: str, *, key: str, meta: Mapping[str, Any] | None = None
    ) -> None: ...
    async def presence(self, group: str) -> Presence: ...
    def _presence_type(self, group: str) -> str | None: ...
    def _presence_types(self) -> frozenset[str]: ...


class Following:
    """The groups that a connection follows, and up to which version.

    Args:
        layer: Its layer, which has the setting ``presence``.
        channel: Its channel.

    Attributes:
        due: Groups that it is to enter, in order.
        has_begun: It has entered the groups that it was in when it was accepted.
    """

    __slots__ = ("_channel", "_layer", "_types", "_versions", "due", "has_begun")

    def __init__(self, layer: PresentLayer, channel: str) -> None:
        self._layer, self._channel = layer, channel
        self._types = layer._presence_types()
        self._versions: dict[str, int] = {}
        self.due: list[str] = []
        self.has_begun = False

    def begin(self) -> None:
        """Have it enter the groups that it is in now, and from now on those that it joins."""
        self.has_begun = True
        for group in self._layer.channel_groups(self._channel):
            self.joined(group)

    def joined(self, group: str) -> None:
        """Have it enter a group that it has joined, if the group tells who is present."""
        if self.has_begun and group not in self.due and self._layer._presence_type(group) is not None:
            self.due.append(group)

    def tells(self, message: object) -> bool:
        """Tell whether a message of the layer is one that says who is present."""
        return isinstance(message, Mapping) and message.get("type") in self._types and "previous" in message

    async def enter(self, group: str, key: str | None, meta: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """Show the connection in a group, under a key if it has one, and return the whole list.

        Returns:
            An event as the members get it; None if it has left the group meanwhile.
        """
        if group not in self._layer.channel_groups(self._channel):
            return None
        if key is not None:
            await self._layer.presence_add(group, self._channel, key=key, meta=meta)
        return await self._whole(group)

    async def admit(self, event: dict[str, Any]) -> dict[str, Any] | None:
        """Return what the connection is to be told, when it was sent a diff.

        Returns:
            The diff; the whole list, if a diff before it is missing; or None if it is in a list that was told already.
        """
        group, version = event["group"], event["version"]
        known = self._versions.get(group)
        if known is not None:
            if version <= known:
                return None
            if event["scope"] == "changes" and event["previous"] > known:
                return await self._whole(group)
        self._versions[group] = version
        return event

    async def _whole(self, group: str) -> dict[str, Any]:
        listed = await self._layer.presence(group)
        self._versions[group] = listed.version
        return {
            "type": self._layer._presence_type(group),
            "group": group,
            "scope": "counts" if listed.hidden else "full",
            "joins": listed.entries,
            "leaves": {},
            "online": [],
            "offline": [],
            "count": listed.count,
            "channels": listed.channels,
            "version": listed.version,
            "previous": listed.version,
        }


def default_key(scope: Mapping[str, Any]) -> str | None:
    """Return the primary key of the user of a connection as text; None if nobody is logged in."""
    key = getattr(scope.get("user"), "pk", None)
    return None if key is None else str(key)
