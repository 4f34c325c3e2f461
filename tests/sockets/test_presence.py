"""Sockets that are present in their topics: when they are shown, what they are told, and what ends it."""

import asyncio
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from tests.sockets.conftest import Client

from headrace.exceptions import InvalidChannelLayerError
from headrace.layers import InMemoryChannelLayer
from headrace.sockets import BaseSocketServer
from headrace.testing import ManualClock

TOPIC = "room.a"
GROUP = f"socket.t.{TOPIC}"
INTERVAL = 0.5


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def memory(clock: ManualClock) -> InMemoryChannelLayer:
    presence = {"socket.t.room.*": {"interval": INTERVAL, "linger": 0}}
    return InMemoryChannelLayer(presence=presence, capacity=2, clock=clock)


class Room(BaseSocketServer):
    presence = True

    async def connect(self) -> None:
        await self.async_subscribe(TOPIC)

    async def receive(self, data: Any) -> None:
        match data:
            case {"subscribe": topic}:
                await self.async_subscribe(topic)
            case {"unsubscribe": topic}:
                await self.async_unsubscribe(topic)
        await self.async_send({"done": data})

    async def presence_meta(self) -> dict[str, Any]:
        return {"name": self.scope["user"].name}

    async def presence_diff(self, event: dict[str, Any]) -> None:
        await self.async_send({name: event[name] for name in ("topic", "scope", "joins", "leaves")})


class PlainRoom(BaseSocketServer):
    """The same with plain hooks, which run in threads."""

    presence = True

    def connect(self) -> None:
        self.subscribe(TOPIC)

    def presence_key(self) -> str:
        return f"plain-{self.scope['user'].pk}"

    def presence_diff(self, event: dict[str, Any]) -> None:
        self.send({name: event[name] for name in ("topic", "scope", "joins", "leaves")})


def full(joins: dict[str, Any], topic: str = TOPIC) -> dict[str, Any]:
    return {"topic": topic, "scope": "full", "joins": joins, "leaves": {}}


def client_of(pk: int, name: str = "") -> Client:
    return Client(user=SimpleNamespace(pk=pk, name=name, is_authenticated=True))


@pytest.mark.parametrize(("kind", "key", "meta"), [(Room, "1", {"name": "Ann"}), (PlainRoom, "plain-1", {})])
async def test_it_is_shown_when_it_has_subscribed(
    memory: InMemoryChannelLayer, clock: ManualClock, kind: type[BaseSocketServer], key: str, meta: Any
) -> None:
    client = client_of(1, "Ann")
    await client.connects(kind, layer=memory)
    assert await client.hears(1) == [full({})]
    clock.advance(INTERVAL)
    joined = {"topic": TOPIC, "scope": "changes", "joins": {key: [meta]}, "leaves": {}}
    assert (await client.hears(2))[1] == joined
    assert memory.presence_count_sync(GROUP) == (1, 1)
    await client.leaves()
    clock.advance(INTERVAL)
    assert memory.presence_count_sync(GROUP) == (0, 0)
    assert memory.stats().presence_entries == 0


async def test_each_is_told_of_the_other(memory: InMemoryChannelLayer, clock: ManualClock) -> None:
    ann, bob = client_of(1, "Ann"), client_of(2, "Bob")
    await ann.connects(Room, layer=memory)
    await ann.hears(1)
    clock.advance(INTERVAL)
    await bob.connects(Room, layer=memory)
    assert await bob.hears(1) == [full({"1": [{"name": "Ann"}]})]
    clock.advance(INTERVAL)
    assert (await ann.hears(3))[2]["joins"] == (await bob.hears(2))[1]["joins"] == {"2": [{"name": "Bob"}]}
    await bob.leaves()
    clock.advance(INTERVAL)
    assert (await ann.hears(4))[3]["leaves"] == {"2": [{"name": "Bob"}]}
    await ann.leaves()


async def test_topics_that_come_and_go(memory: InMemoryChannelLayer, clock: ManualClock) -> None:
    client = client_of(1, "Ann")
    await client.connects(Room, layer=memory)
    await client.hears(1)
    client.says({"subscribe": "room.b"})
    client.says({"subscribe": "elsewhere"})
    frames = await client.hears(4)
    assert full({}, "room.b") in frames
    clock.advance(INTERVAL)
    await client.hears(6)
    assert memory.presence_count_sync("socket.t.room.b") == (1, 1)
    client.says({"unsubscribe": "room.b"})
    await client.hears(7)
    clock.advance(INTERVAL)
    assert memory.presence_count_sync("socket.t.room.b") == (0, 0)
    await client.leaves()


async def test_one_that_missed_a_diff_gets_the_whole_list(memory: InMemoryChannelLayer, clock: ManualClock) -> None:
    client = client_of(1, "Ann")
    await client.connects(Room, layer=memory)
    await client.hears(1)
    clock.advance(INTERVAL)
    await client.hears(2)
    others = [await memory.new_channel() for _ in range(6)]
    # The socket has no turn meanwhile: it waits for the first, and its mailbox holds two.
    for number, channel in enumerate(others):
        memory.presence_add_sync(GROUP, channel, key=f"other{number}")
        clock.advance(INTERVAL)
    assert memory.stats().dropped_full > 0
    assert [frame["joins"] for frame in (await client.hears(5))[2:]] == [{f"other{n}": [{}]} for n in range(3)]
    memory.close_channel(others[0])
    clock.advance(INTERVAL)
    everybody = {"1": [{"name": "Ann"}], **{f"other{number}": [{}] for number in range(1, 6)}}
    assert (await client.hears(6))[5] == full(everybody)
    await client.leaves()


@pytest.mark.complains
@pytest.mark.parametrize("hook", ["presence_key", "presence_meta", "presence_diff"])
async def test_a_hook_that_fails_is_logged_and_counted(
    memory: InMemoryChannelLayer, clock: ManualClock, hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    failed = asyncio.Event()

    async def failing(self: Any, *_event: Any) -> Any:
        failed.set()
        raise ArithmeticError("as asked")

    client = client_of(1)
    kind: Any = type("Failing", (Room,), {hook: failing})
    server = await client.connects(kind, layer=memory)
    await asyncio.wait_for(failed.wait(), 60)
    client.says(1)
    assert {"done": 1} in await client.hears(1)
    assert server.stats().errors == 1
    assert "as asked" in caplog.text
    await client.leaves()


async def test_a_layer_that_tells_nobody_is_refused() -> None:
    with pytest.raises(InvalidChannelLayerError, match="Room has presence = True, and its layer has no setting"):
        client_of(1).meets(Room, layer=InMemoryChannelLayer())


async def test_the_setting_may_be_in_the_configuration() -> None:
    client = client_of(1, "Ann")
    # Servers with one configuration share a layer, in which Ann would still be shown to the next test.
    presence = {"socket.t.*": {"interval": 0.01}, f"only.{uuid4().hex}": {}}
    await client.connects(Room, config={"presence": presence}, allow_memory=True)
    frames = await client.hears(2)
    assert frames[1]["joins"] == {"1": [{"name": "Ann"}]}
    await client.leaves()


def test_settings_that_do_not_go() -> None:
    with pytest.raises(TypeError, match=r"Odd\.presence must be True or False, got 1"):
        type("Odd", (Room,), {"presence": 1})
    with pytest.raises(TypeError, match=r"presence_diff must be a function that can be called as presence_diff\(self"):
        type("Short", (Room,), {"presence_diff": lambda self: None})
