"""Consumers whose clients come again: they get what they missed, or are told that nobody knows what that was."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from headrace._layers.registry import channel_layers
from headrace.exceptions import InvalidChannelLayerError, LayerUnavailable
from headrace.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)
from headrace.layers import InMemoryChannelLayer

if TYPE_CHECKING:
    from tests.consumer.conftest import Wire

    MakeWire = Callable[..., Wire]

SIZE = 10


@pytest.fixture
def layer() -> Iterator[InMemoryChannelLayer]:
    layer = InMemoryChannelLayer(history={"room.*": {"size": SIZE, "ttl": 300}})
    replaced = channel_layers.set("default", layer)
    yield layer
    if replaced is None:
        channel_layers.backends.pop("default", None)
    else:
        channel_layers.set("default", replaced)


class Room(AsyncJsonWebsocketConsumer):
    groups: tuple[str, ...] = ("room.a",)
    resume = True
    newest: ClassVar[int] = 0

    async def receive_json(self, content: Any, *args: Any) -> None:
        match content:
            case {"join": group}:
                await self.join_group(group, newest=self.newest)
            case {"say": numbers}:
                # Nothing of it can be served before this has ended.
                for number in numbers:
                    self.channel_layer.group_send_sync("room.a", {"type": "said", "text": f"message {number}"})
            case {"leave": group}:
                await self.channel_layer.group_discard(group, self.channel_name)
        await self.send_json({"at": self.position})

    async def said(self, event: dict[str, Any]) -> None:
        assert set(event) == {"type", "text"}
        await self.send_json({"text": event["text"], "at": self.position})

    async def resumed(self, group: str, complete: bool) -> None:
        await self.send_json({"resumed": group, "complete": complete, "at": self.position})

    async def disconnect(self, code: int) -> None:
        pass


class SyncRoom(JsonWebsocketConsumer):
    groups: tuple[str, ...] = ("room.a",)
    resume = True
    newest: ClassVar[int] = 0

    def receive_json(self, content: Any, *args: Any) -> None:
        match content:
            case {"join": group}:
                self.join_group(group, newest=self.newest)
            case {"say": numbers}:
                for number in numbers:
                    self.channel_layer.group_send_sync("room.a", {"type": "said", "text": f"message {number}"})
            case {"leave": group}:
                self.channel_layer.group_discard_sync(group, self.channel_name)
        self.send_json({"at": self.position})

    def said(self, event: dict[str, Any]) -> None:
        assert set(event) == {"type", "text"}
        self.send_json({"text": event["text"], "at": self.position})

    def resumed(self, group: str, complete: bool) -> None:
        self.send_json({"resumed": group, "complete": complete, "at": self.position})


both = pytest.mark.parametrize("kind", [Room, SyncRoom])


def frames(client: "Wire") -> list[dict[str, Any]]:
    return [json.loads(text) for text in client.texts]


def told(client: "Wire") -> list[Any]:
    """What a client was told, without positions."""
    return [{name: value for name, value in frame.items() if name != "at"} for frame in frames(client)]


def latest(client: "Wire") -> str:
    position: str = frames(client)[-1]["at"]
    return position


def texts(*numbers: int) -> list[dict[str, str]]:
    return [{"text": f"message {number}"} for number in numbers]


async def say(layer: InMemoryChannelLayer, *numbers: int, group: str = "room.a", **options: Any) -> None:
    for number in numbers:
        await layer.group_send(group, {"type": "said", "text": f"message {number}"}, **options)


async def opened(client: "Wire") -> None:
    client.connect()
    async with asyncio.timeout(20):
        while not client.sent:
            await asyncio.sleep(0)


async def visit(wire: "MakeWire", kind: type[Any], position: str | None = None, **scope: Any) -> "Wire":
    if position is not None:
        scope["query_string"] = f"x=1&resume={position}".encode()
    client = wire(kind.as_asgi(), **scope)
    await opened(client)
    return client


async def gone(client: "Wire") -> None:
    client.leave()
    await client.end()


@both
class TestResume:
    """What a client gets that says where it was."""

    async def test_what_was_missed_comes_first_then_resumed_then_what_is_live(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, kind: type[Any]
    ) -> None:
        client = await visit(wire, kind)
        await say(layer, 1, 2)
        await client.heard(2)
        await gone(client)
        await say(layer, 3, 4)
        client = await visit(wire, kind, latest(client))
        await say(layer, 5)
        await client.heard(4)
        assert told(client) == [*texts(3, 4), {"resumed": "room.a", "complete": True}, *texts(5)]
        await gone(client)

    async def test_a_client_that_has_heard_nothing_is_somewhere_too(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, kind: type[Any]
    ) -> None:
        """socket.io #5538: a session without a single event could not be recovered."""
        client = await visit(wire, kind)
        client.write("{}")
        await client.heard(1)
        await gone(client)
        for missed in (), (1, 2):
            await say(layer, *missed)
            client = await visit(wire, kind, latest(client))
            await client.heard(len(missed) + 1)
            assert told(client) == [*texts(*missed), {"resumed": "room.a", "complete": True}]
            await gone(client)

    async def test_a_second_break_loses_nothing(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, kind: type[Any]
    ) -> None:
        """socket.io #5419: what came while a client resumed was lost with the next break."""
        client = await visit(wire, kind)
        await say(layer, 1)
        await client.heard(1)
        await gone(client)
        for number in (2, 3, 4):
            await say(layer, number)
            client = await visit(wire, kind, latest(client))
            await client.heard(2)
            assert told(client) == [*texts(number), {"resumed": "room.a", "complete": True}]
            await gone(client)

    async def test_a_break_in_the_middle_of_a_replay_loses_nothing(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, kind: type[Any]
    ) -> None:
        client = await visit(wire, kind)
        await say(layer, 1)
        await client.heard(1)
        await gone(client)
        await say(layer, 2, 3, 4)
        client = await visit(wire, kind, latest(client))
        await client.heard(3)
        await gone(client)
        # The frame of message 3 has got lost.
        client = await visit(wire, kind, frames(client)[0]["at"])
        await client.heard(3)
        assert told(client) == [*texts(3, 4), {"resumed": "room.a", "complete": True}]
        await gone(client)

    async def test_more_than_is_kept_is_not_complete_and_nothing_of_it_comes(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, kind: type[Any]
    ) -> None:
        client = await visit(wire, kind)
        await say(layer, 0)
        await client.heard(1)
        await gone(client)
        await say(layer, *range(1, SIZE + 2))
        client = await visit(wire, kind, latest(client))
        await say(layer, 90)
        await client.heard(2)
        assert told(client) == [{"resumed": "room.a", "complete": False}, *texts(90)]
        await gone(client)
        # From there on all is known again.
        await say(layer, 91)
        for position in frames(client)[0]["at"], frames(client)[1]["at"]:
            missed = (90, 91) if position == frames(client)[0]["at"] else (91,)
            again = await visit(wire, kind, position)
            await again.heard(len(missed) + 1)
            assert told(again) == [*texts(*missed), {"resumed": "room.a", "complete": True}]
            await gone(again)

    async def test_a_client_that_says_nothing_is_told_nothing(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, kind: type[Any]
    ) -> None:
        await say(layer, 1)
        for query in b"", b"resume=", b"resume", b"resumed=1&a=resume=", b"&&=":
            client = await visit(wire, kind, query_string=query)
            await say(layer, 2)
            await client.heard(1)
            assert told(client) == texts(2)
            await gone(client)

    @pytest.mark.parametrize(
        "position",
        [
            *("null", "undefined", "%00", "0", "-", ".", "....", "resume", "\u00e4", "A" * 40, "A" * 41, "a" * 100_000),
            *("." * 100_000, "A.B." * 20, "{}", "[object Object]", "None", "-1", "1e999", "' or 1=1"),
        ],
        ids=repr,
    )
    async def test_what_is_no_position_is_not_complete(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, kind: type[Any], position: str
    ) -> None:
        await say(layer, 1)
        client = await visit(wire, kind, position)
        await say(layer, 2)
        await client.heard(2)
        assert told(client) == [{"resumed": "room.a", "complete": False}, *texts(2)]
        await gone(client)

    async def test_a_position_that_was_cut_or_changed_is_not_complete(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, kind: type[Any]
    ) -> None:
        client = await visit(wire, kind)
        await say(layer, 1)
        await client.heard(1)
        await gone(client)
        position = latest(client)
        await say(layer, 2)
        for forged in position[:-4], position[4:], position[::-1], position + "AAAA":
            again = await visit(wire, kind, forged)
            await again.heard(1)
            assert told(again) == [{"resumed": "room.a", "complete": False}]
            await gone(again)

    async def test_a_position_of_another_layer_is_not_complete(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, kind: type[Any]
    ) -> None:
        """centrifuge-go #159: after a restart of the server numbers begin anew, and mean other messages."""
        before = InMemoryChannelLayer(history={"room.*": {"size": SIZE, "ttl": 300}})
        await say(before, 1)
        await say(layer, 2, 3)
        client = await visit(wire, kind, await before.group_position("room.a"))
        await client.heard(1)
        assert told(client) == [{"resumed": "room.a", "complete": False}]
        await gone(client)

    async def test_only_groups_that_the_consumer_joins_are_looked_up(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, kind: type[Any]
    ) -> None:
        """GHSA-84j6-jc92-77jm: a token named the rooms that were read."""
        theirs = await layer.group_position("room.secret")
        mine = await layer.group_position("room.a")
        await say(layer, 1, group="room.secret")
        await say(layer, 2)
        for position, expected in (
            (f"{theirs}.{mine}", [*texts(2), {"resumed": "room.a", "complete": True}]),
            (theirs, [{"resumed": "room.a", "complete": False}]),
        ):
            client = await visit(wire, kind, position)
            await say(layer, 3, group="room.secret")
            await client.heard(len(expected))
            client.write("{}")
            await client.heard(len(expected) + 1)
            assert told(client) == [*expected, {}]
            await gone(client)

    async def test_a_position_holds_all_groups(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, kind: type[Any]
    ) -> None:
        several = type("Several", (kind,), {"groups": ["room.a", "room.b", "lobby"]})
        client = await visit(wire, several)
        await say(layer, 1)
        await say(layer, 2, group="room.b")
        await say(layer, 3, group="lobby")
        await client.heard(3)
        assert told(client) == texts(1, 2, 3)
        await gone(client)
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,40}\.[A-Za-z0-9_-]{1,40}", latest(client))
        await say(layer, 4)
        await say(layer, 5, group="room.b")
        await say(layer, 6, group="lobby")
        client = await visit(wire, several, latest(client))
        await client.heard(4)
        assert told(client) == [
            *texts(4),
            {"resumed": "room.a", "complete": True},
            *texts(5),
            {"resumed": "room.b", "complete": True},
        ]
        await gone(client)
        # The position of a message in the middle is that of all before it.
        client = await visit(wire, several, frames(client)[0]["at"])
        await client.heard(3)
        assert told(client) == [
            {"resumed": "room.a", "complete": True},
            *texts(5),
            {"resumed": "room.b", "complete": True},
        ]
        await gone(client)

    async def test_a_group_that_is_joined_later_is_resumed_then(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, kind: type[Any]
    ) -> None:
        client = await visit(wire, kind)
        client.write(json.dumps({"join": "room.b"}))
        await client.heard(1)
        await gone(client)
        await say(layer, 1, group="room.b")
        client = await visit(wire, kind, latest(client))
        await client.heard(1)
        client.write(json.dumps({"join": "room.b"}), json.dumps({"join": "room.b"}), json.dumps({"join": "lobby"}))
        await client.heard(6)
        resumed = {"resumed": "room.b", "complete": True}
        assert told(client)[0] == {"resumed": "room.a", "complete": True}
        assert [frame for frame in told(client) if frame] == [told(client)[0], *texts(1), resumed]
        await say(layer, 2, group="room.b")
        await client.heard(7)
        assert told(client)[6:] == texts(2)
        await gone(client)

    async def test_the_newest_come_to_those_who_were_never_here_or_too_long_ago(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, kind: type[Any]
    ) -> None:
        with_newest = type("WithNewest", (kind,), {"groups": (), "newest": 3})
        join = json.dumps({"join": "room.a"})
        await say(layer, *range(5))
        client = await visit(wire, with_newest)
        client.write(join)
        await client.heard(4)
        assert [frame for frame in told(client) if frame] == texts(2, 3, 4)
        await gone(client)
        position = latest(client)

        await say(layer, 5, 6)
        client = await visit(wire, with_newest, position)
        client.write(join)
        await client.heard(4)
        assert [frame for frame in told(client) if frame] == [*texts(5, 6), {"resumed": "room.a", "complete": True}]
        await gone(client)

        await say(layer, *range(7, 7 + SIZE))
        client = await visit(wire, with_newest, position)
        client.write(join)
        await client.heard(5)
        assert [frame for frame in told(client) if frame] == [
            {"resumed": "room.a", "complete": False},
            *texts(4 + SIZE, 5 + SIZE, 6 + SIZE),
        ]
        await gone(client)
        await say(layer, 50)
        client = await visit(wire, with_newest, latest(client))
        client.write(join)
        await client.heard(3)
        assert [frame for frame in told(client) if frame] == [*texts(50), {"resumed": "room.a", "complete": True}]
        await gone(client)

    async def test_what_was_excluded_moves_the_position_with_the_next_message(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, kind: type[Any]
    ) -> None:
        client = await visit(wire, kind)
        channel = layer.group_channels("room.a")
        await say(layer, 1, exclude=channel)
        await say(layer, 2)
        await client.heard(1)
        await gone(client)
        client = await visit(wire, kind, latest(client))
        await client.heard(1)
        assert told(client) == [{"resumed": "room.a", "complete": True}]
        await gone(client)

    @pytest.mark.parametrize(
        ("overflow", "heard", "missed"),
        [("drop_new", (1, 2, 3, 4), (5, 6, 9)), ("drop_old", (3, 4, 5, 6), (1, 2, 3, 4, 5, 6, 9))],
    )
    async def test_a_message_that_was_dropped_does_not_move_the_position(
        self,
        wire: "MakeWire",
        layer: InMemoryChannelLayer,
        kind: type[Any],
        overflow: str,
        heard: tuple[int, ...],
        missed: tuple[int, ...],
    ) -> None:
        """socket.io #5539: the position went past a message that its client never got."""
        limited = type("Limited", (kind,), {"overflow": overflow, "max_backlog": 4})
        client = await visit(wire, limited)
        client.write(json.dumps({"say": [1, 2, 3, 4, 5, 6]}))
        await client.heard(5)
        assert told(client)[1:] == texts(*heard)
        await say(layer, 9)
        await client.heard(6)
        await gone(client)
        client = await visit(wire, kind, latest(client))
        await client.heard(len(missed) + 1)
        assert told(client) == [*texts(*missed), {"resumed": "room.a", "complete": True}]
        await gone(client)

    async def test_a_group_without_history_has_no_position(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, kind: type[Any]
    ) -> None:
        plain = type("Plain", (kind,), {"groups": ("lobby",)})
        client = await visit(wire, plain, "x")
        await say(layer, 1, group="lobby")
        await client.heard(1)
        assert frames(client) == [{"text": "message 1", "at": None}]
        await gone(client)

    async def test_a_group_that_was_left_makes_room_for_another(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, kind: type[Any]
    ) -> None:
        client = await visit(wire, kind)
        for number in range(20):
            client.write(json.dumps({"join": f"room.{number}"}), json.dumps({"leave": f"room.{number}"}))
        await client.heard(40)
        assert len(latest(client).split(".")) == 2
        await gone(client)

    async def test_a_group_that_was_left_begins_anew(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, kind: type[Any]
    ) -> None:
        client = await visit(wire, kind)
        client.write(json.dumps({"leave": "room.a"}))
        await client.heard(1)
        await say(layer, 1)
        client.write(json.dumps({"join": "room.a"}))
        await client.heard(2)
        await gone(client)
        await say(layer, 2)
        client = await visit(wire, kind, latest(client))
        await client.heard(2)
        assert told(client) == [*texts(2), {"resumed": "room.a", "complete": True}]
        await gone(client)

    async def test_more_groups_than_a_position_holds_are_refused(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, kind: type[Any]
    ) -> None:
        client = await visit(wire, kind)
        client.write(*(json.dumps({"join": f"room.{number}"}) for number in range(15)))
        await client.heard(15)
        assert len(latest(client)) <= 656
        client.write(json.dumps({"join": "room.one more"}))
        error = await client.outcome()
        assert isinstance(error, TypeError | ValueError)

        client = await visit(wire, kind, latest(client))
        client.write(*(json.dumps({"join": f"room.{number}"}) for number in range(16)))
        error = await client.outcome()
        assert isinstance(error, ValueError)
        assert "keeps its position in 16 groups with history at most" in str(error)


@both
class TestSubprotocol:
    """A position among the subprotocols, which a page can set and which no log of a server has."""

    async def test_it_is_read_and_hidden_from_the_consumer(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, kind: type[Any]
    ) -> None:
        position = await layer.group_position("room.a")
        await say(layer, 1)
        for offered, accepted in (
            (["chat", f"resume.{position}"], "chat"),
            ([f"resume.{position}", "chat"], "chat"),
            ([f"resume.{position}"], f"resume.{position}"),
        ):
            client = await visit(wire, _choosing(kind), subprotocols=offered)
            await client.heard(2)
            assert client.sent[0]["subprotocol"] == accepted
            assert told(client) == [*texts(1), {"resumed": "room.a", "complete": True}]
            await gone(client)

    async def test_none_is_chosen_where_the_application_chooses_none_of_its_own(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, kind: type[Any]
    ) -> None:
        client = await visit(wire, kind, subprotocols=["chat", "resume.x"])
        await client.heard(1)
        assert client.sent[0]["subprotocol"] is None
        assert told(client) == [{"resumed": "room.a", "complete": False}]
        await gone(client)

    async def test_the_query_goes_before(self, wire: "MakeWire", layer: InMemoryChannelLayer, kind: type[Any]) -> None:
        client = await visit(wire, kind, await layer.group_position("room.a"), subprotocols=["resume.x"])
        await client.heard(1)
        assert told(client) == [{"resumed": "room.a", "complete": True}]
        await gone(client)

    async def test_one_without_a_position_is_none(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, kind: type[Any]
    ) -> None:
        client = await visit(wire, kind, subprotocols=["resume."])
        await say(layer, 1)
        await client.heard(1)
        assert told(client) == texts(1)
        await gone(client)


def _choosing(kind: type[Any]) -> type[Any]:
    """A consumer that takes the first subprotocol that is offered, as many do."""

    async def connect(self: Any) -> None:
        offered = self.scope["subprotocols"]
        await self.accept(offered[0] if offered else None)

    def connect_sync(self: Any) -> None:
        offered = self.scope["subprotocols"]
        self.accept(offered[0] if offered else None)

    return type("Choosing", (kind,), {"connect": connect_sync if kind._sync else connect})


async def test_a_group_that_a_task_joins_is_told_before_the_position_moves(
    wire: "MakeWire", layer: InMemoryChannelLayer
) -> None:
    """A break between the two frames would lose the message otherwise."""
    consumers: list[Room] = []

    class Idle(Room):
        async def connect(self) -> None:
            await self.accept()
            consumers.append(self)

    begin = await layer.group_position("room.a"), await layer.group_position("room.b")
    client = await visit(wire, Idle, ".".join(map(str, begin)))
    await client.heard(1)
    assert frames(client)[0] == {"resumed": "room.a", "complete": True, "at": begin[0]}
    await say(layer, 1)
    # The message waits, and the consumer has not had its turn yet.
    await consumers[0].join_group("room.b")
    await client.heard(3)
    assert told(client)[1:] == [{"resumed": "room.b", "complete": True}, *texts(1)]
    assert frames(client)[1]["at"] == ".".join(map(str, begin))
    await gone(client)


class TestClass:
    """What a class is refused for, and what a class without ``resume`` keeps."""

    @pytest.mark.parametrize(
        ("attributes", "error", "expected"),
        [
            (
                {"forward": {"said"}},
                TypeError,
                "Odd.resume does not go with forward: a frame that is sent as it is has",
            ),
            ({"concurrency": 2}, TypeError, "Odd.resume needs a concurrency of 1"),
            ({"resume": "yes"}, TypeError, "Odd.resume must be True or False, got 'yes'"),
            ({"resume": None}, TypeError, "Odd.resume must be True or False, got None"),
            (
                {"groups": [f"room.{number}" for number in range(17)]},
                ValueError,
                "Odd.resume goes with at most 16 groups, got 17",
            ),
        ],
    )
    def test_what_does_not_go_with_it(self, attributes: dict[str, Any], error: type[Exception], expected: str) -> None:
        with pytest.raises(error, match=f"^{re.escape(expected)}"):
            type("Odd", (Room,), attributes)

    @pytest.mark.parametrize("kind", [AsyncWebsocketConsumer, WebsocketConsumer])
    async def test_names_of_a_project_stay_its_own(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, kind: type[Any]
    ) -> None:
        def resume(self: Any, event: Any) -> None:
            self.position = (1, 2)
            self.send(text_data=str(self.position))

        async def resume_async(self: Any, event: Any) -> None:
            self.position = (1, 2)
            await self.send(text_data=str(self.position))

        here = type("Here", (kind,), {"groups": ["room.a"], "resume": resume if kind._sync else resume_async})
        client = await visit(wire, here, "x")
        await layer.group_send("room.a", {"type": "resume"})
        await client.heard(1)
        assert client.texts == ["(1, 2)"]
        await gone(client)

    async def test_a_consumer_without_it_joins_with_the_newest(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        class Plain(AsyncWebsocketConsumer):
            async def connect(self) -> None:
                await self.join_group("room.a", newest=2)
                await self.join_group("lobby")
                await self.accept()

            async def said(self, event: dict[str, Any]) -> None:
                await self.send(text_data=f"{event['text']} {self.position}")

        await say(layer, 1, 2, 3)
        client = await visit(wire, Plain, "x")
        await say(layer, 4)
        await say(layer, 5, group="lobby")
        await client.heard(4)
        assert client.texts == [f"message {number} None" for number in (2, 3, 4, 5)]
        await gone(client)

    async def test_another_s_layer_is_refused(self, wire: "MakeWire") -> None:
        class Foreign:
            async def new_channel(self) -> str:
                return "foreign"

            async def group_add(self, group: str, channel: str) -> None:
                raise AssertionError("nothing is joined")

            async def receive(self, channel: str) -> dict[str, Any]:
                nothing: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
                return await nothing

        foreign: Any = Foreign()
        replaced: Any = channel_layers.set("default", foreign)
        try:
            client = wire(Room.as_asgi())
            client.connect()
            error = await client.outcome()
        finally:
            channel_layers.set("default", replaced)
        assert isinstance(error, InvalidChannelLayerError)
        assert "Room has resume = True, which needs a channel layer of headrace, got Foreign" in str(error)


class TestResumed:
    """When ``resumed`` is called, and what becomes of its errors."""

    async def test_not_before_connect_has_ended(self, wire: "MakeWire", layer: InMemoryChannelLayer) -> None:
        class Late(Room):
            groups = ()

            async def connect(self) -> None:
                await self.join_group("room.a")
                await say(layer, 1)
                for _ in range(10):
                    await asyncio.sleep(0)
                await self.accept()
                await self.send_json({"hello": True})

        client = await visit(wire, Late, await layer.group_position("room.a"))
        await client.heard(3)
        assert told(client) == [{"hello": True}, {"resumed": "room.a", "complete": True}, *texts(1)]
        await gone(client)

    async def test_of_a_group_that_a_task_joins(self, wire: "MakeWire", layer: InMemoryChannelLayer) -> None:
        class Tasked(Room):
            groups = ()

            async def connect(self) -> None:
                await self.accept()
                self.task = asyncio.ensure_future(self.join_group("room.a"))

        client = await visit(wire, Tasked, await layer.group_position("room.a"))
        await client.heard(1)
        assert told(client) == [{"resumed": "room.a", "complete": True}]
        await gone(client)

    async def test_not_of_a_connection_that_was_refused(self, wire: "MakeWire", layer: InMemoryChannelLayer) -> None:
        class Refusing(Room):
            async def connect(self) -> None:
                await self.close()

        client = await visit(wire, Refusing, "x")
        await gone(client)
        assert client.texts == []

    async def test_what_it_raises_is_told_to_on_error(self, wire: "MakeWire", layer: InMemoryChannelLayer) -> None:
        class Failing(Room):
            async def resumed(self, group: str, complete: bool) -> None:
                raise RuntimeError("not today")

            async def on_error(self, exc: Exception, message: Any) -> None:
                await self.send_json({"error": str(exc), "message": message})

        client = await visit(wire, Failing, "x")
        await say(layer, 1)
        await client.heard(2)
        assert told(client) == [
            {"error": "not today", "message": {"type": "resumed", "group": "room.a"}},
            *texts(1),
        ]
        await gone(client)

    async def test_a_plain_function_is_named_in_the_error(self, wire: "MakeWire", layer: InMemoryChannelLayer) -> None:
        class Plain(Room):
            def resumed(self, group: str, complete: bool) -> None:  # type: ignore[override]  # the mistake
                pass

        client = wire(Plain.as_asgi(), query_string=b"resume=x")
        client.connect()
        error = await client.outcome()
        assert isinstance(error, TypeError)
        assert "Plain: resumed is not a coroutine function" in str(error)

    async def test_a_group_joined_past_the_consumer_is_told_of_once(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Past(Room):
            groups = ()

            async def connect(self) -> None:
                await self.channel_layer.group_add("room.a", self.channel_name)
                await self.accept()

        client = await visit(wire, Past)
        await say(layer, 1, 2)
        await client.heard(2)
        assert frames(client) == [{"text": f"message {number}", "at": None} for number in (1, 2)]
        assert [record.getMessage() for record in caplog.records] == [
            "Past has resume = True and got a message of type 'said' of a group that it joined by the layer's "
            "group_add: such a group is not resumed; use self.join_group(group)"
        ]
        await gone(client)

    async def test_a_join_that_fails_leaves_no_position(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Going(Room):
            async def on_error(self, exc: Exception, message: Any) -> None:
                await self.send_json({"error": str(exc), "at": self.position})

        client = await visit(wire, Going)
        client.write("{}")
        await client.heard(1)

        async def group_add(self: Any, group: str, channel: str, since: Any = None) -> None:
            raise LayerUnavailable("away")

        with monkeypatch.context() as patch:
            patch.setattr(InMemoryChannelLayer, "group_add", group_add)
            client.write(json.dumps({"join": "room.b"}))
            await client.heard(2)
        client.write(json.dumps({"join": "room.b"}))
        await client.heard(3)
        before, failed, after = frames(client)
        assert failed == {"error": "away", "at": before["at"]}
        assert after["at"].startswith(before["at"] + ".")
        await gone(client)
