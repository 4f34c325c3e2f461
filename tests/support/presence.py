"""Members that keep the list of who is present as they are told of it, and notice what is told twice or wrongly."""

import asyncio
from typing import Any, Self

from tests.support.traffic import soon

from headrace.layers import RedisChannelLayer

GROUP = "room"


def presence(*, linger: float = 0, interval: float = 0.05, limit: int = 1000) -> dict[str, Any]:
    """Give the setting of a layer all of whose rooms have a presence."""
    return {"room*": {"type": "presence.diff", "interval": interval, "linger": linger, "max": limit}}


async def enter(layer: RedisChannelLayer, key: str, group: str = GROUP, **meta: Any) -> str:
    """Have a new channel be present; give it."""
    channel = await layer.new_channel()
    await layer.presence_add(group, channel, key=key, meta=meta)
    return channel


async def listed(layer: RedisChannelLayer, group: str = GROUP) -> dict[str, int]:
    """Give how many entries each key has in the list of a layer."""
    found = await layer.presence(group)
    return {key: len(metas) for key, metas in found.entries.items()}


async def lists(layer: RedisChannelLayer, expected: dict[str, int], group: str = GROUP) -> None:
    """Wait until the list of a layer is this."""
    got: dict[str, int] = {}
    try:
        async with asyncio.timeout(60):
            while (got := await listed(layer, group)) != expected:
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"the list stays {got}, expected {expected}") from None


class Watcher:
    """A member that has the list, and changes it by what it is told.

    Attributes:
        channel: The channel of the member.
        entries: The metas of each key.
        events: What it was told: "+" and a key for each entry that joined, "-" and a key for each that left.
        turns: The same of keys: "+" for online, "-" for offline.
    """

    def __init__(self, layer: RedisChannelLayer, group: str = GROUP) -> None:
        self.entries: dict[str, list[Any]] = {}
        self.events: list[str] = []
        self.turns: list[str] = []
        self._layer, self._group = layer, group
        self._version = 0

    async def __aenter__(self) -> Self:
        self.channel = await self._layer.new_channel()
        await self._layer.group_add(self._group, self.channel)
        found = await self._layer.presence(self._group)
        self.entries = {key: list(metas) for key, metas in found.entries.items()}
        self._version = found.version
        self._task = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._task.cancel()
        try:
            await self._task
        except asyncio.CancelledError:
            self._layer.close_channel(self.channel)

    async def _listen(self) -> None:
        while True:
            event = await self._layer.receive(self.channel)
            if event["type"] == "presence.diff":
                self._told(event)

    def _told(self, event: dict[str, Any]) -> None:
        if event["version"] <= self._version:
            return
        if event["previous"] != self._version or event["scope"] != "changes":
            raise ValueError(f"it does not follow on version {self._version}: {event}")
        self._version = event["version"]
        for key, metas in event["leaves"].items():
            for meta in metas:
                self.entries[key].remove(meta)
                self.events.append(f"-{key}")
        for key, metas in event["joins"].items():
            self.entries.setdefault(key, []).extend(metas)
            self.events.extend(f"+{key}" for _ in metas)
        self.entries = {key: metas for key, metas in self.entries.items() if metas}
        self.turns += [f"+{key}" for key in event["online"]] + [f"-{key}" for key in event["offline"]]
        if event["count"] != len(self.entries):
            raise ValueError(f"it has {self.entries}, and was told {event}")

    @property
    def counts(self) -> dict[str, int]:
        """How many entries each key has."""
        if self._task.done():
            self._task.result()
        return {key: len(metas) for key, metas in self.entries.items()}

    async def has(self, expected: dict[str, int]) -> None:
        """Wait until the list is this."""
        await soon(lambda: self.counts == expected, f"{expected} are present")
