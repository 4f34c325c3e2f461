"""Consumers that are present in their groups: when they are shown, what they are told, and what ends it."""

import asyncio
import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from headrace._layers.registry import channel_layers
from headrace.exceptions import InvalidChannelLayerError, StopConsumer
from headrace.generic.websocket import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer
from headrace.layers import BaseChannelLayer, InMemoryChannelLayer
from headrace.testing import ManualClock

if TYPE_CHECKING:
    from tests.consumer.conftest import Wire

    MakeWire = Callable[..., Wire]

GROUP = "room.a"
INTERVAL = 0.5


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def layer(clock: ManualClock) -> Iterator[InMemoryChannelLayer]:
    layer = InMemoryChannelLayer(presence={"room.*": {"interval": INTERVAL, "linger": 0}}, capacity=2, clock=clock)
    replaced = channel_layers.set("default", layer)
    yield layer
    if replaced is None:
        channel_layers.backends.pop("default", None)
    else:
        channel_layers.set("default", replaced)


class Room(AsyncJsonWebsocketConsumer):
    groups: tuple[str, ...] = (GROUP,)
    presence = True

    async def receive_json(self, content: Any, *args: Any) -> None:
        match content:
            case {"join": group}:
                await self.join_group(group)
            case {"join_by_task": group}:
                self.task = asyncio.create_task(self.join_group(group))
                return
            case {"leave": group}:
                await self.channel_layer.group_discard(group, self.channel_name)
            case {"rename": name}:
                await self.channel_layer.presence_update(GROUP, self.channel_name, meta={"name": name})
            case {"fail": _}:
                raise ArithmeticError("as asked")
            case {"stop": _}:
                raise StopConsumer
        await self.send_json({"done": content})

    def presence_meta(self) -> dict[str, Any]:
        return {"name": self.scope["user"].name}

    async def presence_diff(self, event: dict[str, Any]) -> None:
        await self.send_json({name: event[name] for name in ("scope", "joins", "leaves", "count")})


class SyncRoom(JsonWebsocketConsumer):
    groups = (GROUP,)
    presence = True

    def presence_key(self) -> str:
        return f"sync-{self.scope['user'].pk}"

    def presence_diff(self, event: dict[str, Any]) -> None:
        self.send_json({name: event[name] for name in ("scope", "joins", "leaves", "count")})


def user(pk: int | None, name: str = "") -> SimpleNamespace:
    return SimpleNamespace(pk=pk, name=name)


def full(joins: dict[str, Any]) -> dict[str, Any]:
    return {"scope": "full", "joins": joins, "leaves": {}, "count": len(joins)}


async def said(wire: "Wire", frames: int) -> list[Any]:
    """Wait for so many frames; return all."""
    await wire.heard(frames)
    return [json.loads(text) for text in wire.texts]


async def test_it_is_shown_when_it_was_accepted(
    layer: InMemoryChannelLayer, clock: ManualClock, wire: "MakeWire"
) -> None:
    ann = wire(Room.as_asgi(), user=user(1, "Ann"))
    ann.connect()
    assert await said(ann, 1) == [full({})]
    clock.advance(INTERVAL)
    joined = {"scope": "changes", "joins": {"1": [{"name": "Ann"}]}, "leaves": {}, "count": 1}
    assert (await said(ann, 2))[1:] == [joined]
    bob = wire(Room.as_asgi(), user=user(2, "Bob"))
    bob.connect()
    assert await said(bob, 1) == [full({"1": [{"name": "Ann"}]})]
    clock.advance(INTERVAL)
    for one in (ann, bob):
        assert (await said(one, 3 if one is ann else 2))[-1]["joins"] == {"2": [{"name": "Bob"}]}
    bob.leave()
    await bob.end()
    clock.advance(INTERVAL)
    assert (await said(ann, 4))[3:] == [
        {"scope": "changes", "joins": {}, "leaves": {"2": [{"name": "Bob"}]}, "count": 1}
    ]
    ann.leave()
    await ann.end()


@pytest.mark.parametrize("end", ["leave", "fail", "stop", "cancel", "close_channel"])
async def test_whatever_ends_it_it_is_gone(
    layer: InMemoryChannelLayer, clock: ManualClock, wire: "MakeWire", end: str
) -> None:
    room = wire(Room.as_asgi(), user=user(1))
    room.connect()
    await room.heard(1)
    clock.advance(INTERVAL)
    assert layer.presence_count_sync(GROUP) == (1, 1)
    match end:
        case "leave":
            room.leave()
        case "fail":
            room.write('{"fail": 1}')
        case "stop":
            room.write('{"stop": 1}')
        case "cancel":
            room.task.cancel()
        case "close_channel":
            await layer.group_close(GROUP)
    await room.outcome()
    clock.advance(INTERVAL)
    assert layer.presence_count_sync(GROUP) == (0, 0)
    assert layer.stats().presence_entries == 0


async def test_one_that_is_refused_is_never_shown(
    layer: InMemoryChannelLayer, clock: ManualClock, wire: "MakeWire"
) -> None:
    class Refusing(Room):
        async def connect(self) -> None:
            await self.close()

    room = wire(Refusing.as_asgi(), user=user(1))
    room.connect()
    room.leave()
    await room.end()
    clock.advance(INTERVAL)
    assert layer.stats().presence_diffs == 0
    assert room.texts == []


@pytest.mark.parametrize("scope", [{}, {"user": SimpleNamespace(pk=None, name="")}])
async def test_whoever_has_no_key_sees_and_is_not_shown(
    layer: InMemoryChannelLayer, clock: ManualClock, wire: "MakeWire", scope: dict[str, Any]
) -> None:
    class Anonymous(Room):
        def presence_meta(self) -> Any:
            return None

    other, anonymous = wire(Room.as_asgi(), user=user(1, "Ann")), wire(Anonymous.as_asgi(), **scope)
    anonymous.connect()
    assert await said(anonymous, 1) == [full({})]
    other.connect()
    await other.heard(1)
    clock.advance(INTERVAL)
    assert (await said(anonymous, 2))[1]["joins"] == {"1": [{"name": "Ann"}]}
    assert layer.presence_count_sync(GROUP) == (1, 1)
    for one in (other, anonymous):
        one.leave()
        await one.end()


async def test_a_sync_consumer_does_the_same(layer: InMemoryChannelLayer, clock: ManualClock, wire: "MakeWire") -> None:
    room = wire(SyncRoom.as_asgi(), user=user(7))
    room.connect()
    assert await said(room, 1) == [full({})]
    clock.advance(INTERVAL)
    assert (await said(room, 2))[1]["joins"] == {"sync-7": [{}]}
    room.leave()
    await room.end()


@pytest.mark.parametrize("join", ["join", "join_by_task"])
async def test_groups_that_are_joined_later(
    layer: InMemoryChannelLayer, clock: ManualClock, wire: "MakeWire", join: str
) -> None:
    room = wire(Room.as_asgi(), user=user(1, "Ann"))
    room.connect()
    await room.heard(1)
    room.write(json.dumps({join: "room.b"}))
    told = await said(room, 3 if join == "join" else 2)
    assert told[-1] == full({})
    clock.advance(INTERVAL)
    assert layer.presence_count_sync("room.b") == (1, 1)
    room.write('{"leave": "room.b"}')
    await room.heard(len(told) + 3)
    clock.advance(INTERVAL)
    assert layer.presence_count_sync("room.b") == (0, 0)
    assert layer.presence_count_sync(GROUP) == (1, 1)
    room.leave()
    await room.end()


async def test_one_that_missed_a_diff_gets_the_whole_list(
    layer: InMemoryChannelLayer, clock: ManualClock, wire: "MakeWire"
) -> None:
    room = wire(Room.as_asgi(), user=user(1, "Ann"))
    room.connect()
    await room.heard(1)
    clock.advance(INTERVAL)
    await room.heard(2)
    others = [await layer.new_channel() for _ in range(6)]
    # The consumer has no turn meanwhile: it waits for the first, and its mailbox holds two.
    for number, channel in enumerate(others):
        layer.presence_add_sync(GROUP, channel, key=f"other{number}")
        clock.advance(INTERVAL)
    assert layer.stats().dropped_full > 0
    told = await said(room, 5)
    assert [frame["joins"] for frame in told[2:]] == [{f"other{number}": [{}]} for number in range(3)]
    layer.close_channel(others[0])
    clock.advance(INTERVAL)
    everybody = {"1": [{"name": "Ann"}], **{f"other{number}": [{}] for number in range(1, 6)}}
    assert (await said(room, 6))[5] == full(everybody)
    layer.close_channel(others[1])
    clock.advance(INTERVAL)
    assert (await said(room, 7))[6]["leaves"] == {"other1": [{}]}
    for channel in others[2:]:
        layer.close_channel(channel)
    room.leave()
    await room.end()
    clock.advance(INTERVAL)


async def test_an_update_is_told_to_all(layer: InMemoryChannelLayer, clock: ManualClock, wire: "MakeWire") -> None:
    room = wire(Room.as_asgi(), user=user(1, "Ann"))
    room.connect()
    await room.heard(1)
    clock.advance(INTERVAL)
    room.write('{"rename": "Anna"}')
    await room.heard(3)
    clock.advance(INTERVAL)
    told = (await said(room, 4))[3]
    assert (told["leaves"], told["joins"]) == ({"1": [{"name": "Ann"}]}, {"1": [{"name": "Anna"}]})
    room.leave()
    await room.end()


async def test_one_without_a_handler_is_present_all_the_same(
    layer: InMemoryChannelLayer, clock: ManualClock, wire: "MakeWire"
) -> None:
    class Silent(AsyncJsonWebsocketConsumer):
        groups = (GROUP,)
        presence = True

        async def receive_json(self, content: Any, *args: Any) -> None:
            await self.send_json(content)

    room = wire(Silent.as_asgi(), user=user(1))
    room.connect("1")
    await room.heard(1)
    clock.advance(INTERVAL)
    assert layer.presence_count_sync(GROUP) == (1, 1)
    room.write("2")
    assert await said(room, 2) == [1, 2]
    room.leave()
    await room.end()


@pytest.mark.parametrize("hook", ["presence_key", "presence_meta"])
async def test_a_hook_that_fails_is_told_to_on_error(
    layer: InMemoryChannelLayer, clock: ManualClock, wire: "MakeWire", hook: str
) -> None:
    errors: list[Any] = []

    async def on_error(self: Any, exc: Exception, message: Any) -> None:
        errors.append((exc, message))

    async def failing(self: Any) -> Any:
        raise ArithmeticError("as asked")

    failing_room: Any = type("FailingRoom", (Room,), {hook: failing, "on_error": on_error})
    room = wire(failing_room.as_asgi(), user=user(1))
    room.connect('{"rename": "x"}')
    assert await said(room, 1) == [{"done": {"rename": "x"}}]
    ((error, message),) = errors
    assert isinstance(error, ArithmeticError)
    assert message == {"type": "presence", "group": GROUP}
    room.leave()
    await room.end()


async def test_a_bad_key_says_what_is_wrong(layer: InMemoryChannelLayer, wire: "MakeWire") -> None:
    class Numbered(Room):
        def presence_key(self) -> int:
            return 7

    room = wire(Numbered.as_asgi(), user=user(1))
    room.connect()
    error = await room.outcome()
    assert isinstance(error, TypeError)
    assert "key of a presence must be text (str)" in str(error)


async def test_it_goes_with_resume(clock: ManualClock, wire: "MakeWire") -> None:
    layer = InMemoryChannelLayer(
        presence={"room.*": {"interval": INTERVAL}}, history={"room.*": {"size": 5, "ttl": 60}}, clock=clock
    )
    channel_layers.set("default", layer)

    class Both(Room):
        resume = True

        async def said(self, event: dict[str, Any]) -> None:
            await self.send_json({"text": event["text"], "has_position": self.position is not None})

    room = wire(Both.as_asgi(), user=user(1, "Ann"))
    room.connect()
    await room.heard(1)
    await layer.group_send(GROUP, {"type": "said", "text": "hello"})
    assert (await said(room, 2))[1] == {"text": "hello", "has_position": True}
    clock.advance(INTERVAL)
    assert (await said(room, 3))[2]["joins"] == {"1": [{"name": "Ann"}]}
    room.leave()
    await room.end()


def test_settings_that_do_not_go_together() -> None:
    with pytest.raises(TypeError, match=r"Two\.presence needs a concurrency of 1"):
        type("Two", (Room,), {"concurrency": 2})
    with pytest.raises(TypeError, match=r"Odd\.presence must be True or False, got 'yes'"):
        type("Odd", (Room,), {"presence": "yes"})
    # A method of that name was there before the setting.
    assert type("Old", (AsyncJsonWebsocketConsumer,), {"presence": lambda self, event: None})


async def test_a_layer_that_tells_nobody_is_refused(wire: "MakeWire") -> None:
    class Other(BaseChannelLayer):
        async def new_channel(self) -> str:
            return "other!1"

        async def group_add(self, group: str, channel: str) -> None: ...

    for layer, text in ((InMemoryChannelLayer(), "has no setting 'presence'"), (Other(), "needs a channel layer of")):
        channel_layers.set("default", layer)
        room = wire(Room.as_asgi(), user=user(1))
        room.connect()
        error = await room.outcome()
        assert isinstance(error, InvalidChannelLayerError)
        assert text in str(error)
