"""Positions of broadcasts: what a broadcaster says of them, and what a subscription makes of them."""

import asyncio
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from headrace.layers import InMemoryChannelLayer
from headrace.sockets import BaseSocketServer, Broadcaster

if TYPE_CHECKING:
    from tests.sockets.conftest import Client

SIZE = 5
HISTORY = {"socket.t.room.*": {"size": SIZE, "ttl": 300}}
TOPIC = "room.a"


@pytest.fixture
def memory() -> InMemoryChannelLayer:
    return InMemoryChannelLayer(history=HISTORY)


@pytest.fixture
def broadcaster(memory: InMemoryChannelLayer) -> Broadcaster:
    return Broadcaster(layer=memory)


class Room(BaseSocketServer):
    """Sends what is broadcast with the position that its client has then."""

    topics: tuple[str, ...] = (TOPIC,)

    async def connect(self) -> None:
        for topic in self.topics:
            complete = await self.async_subscribe(topic, since=self.client_position or 0)
            await self.async_send({"subscribed": topic, "complete": complete, "at": self.position})

    async def async_handle_received_broadcast(self, channel: str, data: Any) -> None:
        await self.async_send({"data": data, "at": self.position})


async def told(client: "Client", count: int) -> list[Any]:
    return [{name: value for name, value in frame.items() if name != "at"} for frame in await client.hears(count)]


@pytest.fixture
async def visit(memory: InMemoryChannelLayer) -> Any:
    """Give ``await visit(position)``, a client that comes with it; all have gone at the end."""
    from tests.sockets.conftest import Client

    clients: list[Client] = []

    async def come(position: str | None = None, kind: type[BaseSocketServer] = Room, **scope: Any) -> Client:
        if position is not None:
            scope["query_string"] = f"resume={position}".encode()
        clients.append(Client(**scope))
        await clients[-1].connects(kind, layer=memory)
        return clients[-1]

    yield come
    for client in clients:
        if client.server.is_alive:
            await client.leaves()
    assert memory.stats().memberships == 0


Visit = Callable[..., Any]


class TestBroadcast:
    async def test_it_gives_the_position_of_one_topic_with_history(
        self, broadcaster: Broadcaster, memory: InMemoryChannelLayer
    ) -> None:
        first = broadcaster.broadcast(TOPIC, 1)
        assert first == await memory.group_position(f"socket.t.{TOPIC}")
        second = await broadcaster.async_broadcast(TOPIC, 2)
        assert second == await memory.group_position(f"socket.t.{TOPIC}")
        assert first != second
        assert broadcaster.stats().broadcasts == 2

    async def test_else_it_gives_none_as_in_django_sockets(self, broadcaster: Broadcaster) -> None:
        assert broadcaster.broadcast("elsewhere", 1) is None
        assert await broadcaster.async_broadcast("elsewhere", 1) is None
        assert broadcaster.broadcast([TOPIC, "room.b"], 1) is None
        assert await broadcaster.async_broadcast([TOPIC, "room.b"], 1) is None
        broadcaster.broadcast_many([TOPIC], 1)

    async def test_a_subclass_of_the_layer_that_sends_in_its_own_way_is_asked(self) -> None:
        class Own(InMemoryChannelLayer):
            async def group_send(self, group: str, message: Any, **options: Any) -> Any:
                sent.append(group)
                return await super().group_send(group, message, **options)

        sent: list[str] = []
        broadcaster = Broadcaster(layer=Own(history=HISTORY))
        assert broadcaster.broadcast(TOPIC, 1) is None
        await broadcaster.async_flush()
        assert await broadcaster.async_broadcast(TOPIC, 1) is not None
        assert sent == [f"socket.t.{TOPIC}"] * 2


class TestSubscribe:
    async def test_what_was_missed_comes_before_what_is_live(self, broadcaster: Broadcaster, visit: Visit) -> None:
        client = await visit()
        await broadcaster.async_broadcast(TOPIC, 1)
        frames = await client.hears(2)
        assert [frame.get("data") for frame in frames] == [None, 1]
        await client.leaves()
        await broadcaster.async_broadcast(TOPIC, 2)
        await broadcaster.async_broadcast(TOPIC, 3)
        for position, missed in (frames[0]["at"], [1, 2, 3]), (frames[1]["at"], [2, 3]):
            client = await visit(position)
            data = [frame["data"] for frame in await told(client, len(missed) + 1) if "data" in frame]
            assert data == missed
            assert {"subscribed": TOPIC, "complete": True} in await told(client, 1)
            await broadcaster.async_broadcast("elsewhere", 0)
            await client.leaves()

    async def test_the_newest_come_first(self, broadcaster: Broadcaster) -> None:
        for number in range(4):
            broadcaster.broadcast(TOPIC, number)
        assert await broadcaster.async_subscribe(TOPIC, since=2) is True
        broadcaster.broadcast(TOPIC, 4)
        assert [(await broadcaster.async_receive_broadcast())[1] for _ in range(3)] == [2, 3, 4]
        other = Broadcaster(layer=broadcaster.layer)
        assert await other.async_subscribe(TOPIC, since=broadcaster.position) is True
        broadcaster.broadcast(TOPIC, 5)
        assert await other.async_receive_broadcast() == (TOPIC, 5)

    async def test_an_empty_topic_has_a_position_too(
        self, broadcaster: Broadcaster, visit: Visit, memory: InMemoryChannelLayer
    ) -> None:
        class Newest(Room):
            async def connect(self) -> None:
                complete = await self.async_subscribe(TOPIC, since=self.client_position or 3)
                await self.async_send({"complete": complete, "at": self.position})

        here = await memory.group_position(f"socket.t.{TOPIC}")
        (greeting,) = await (await visit(kind=Newest)).hears(1)
        assert greeting == {"complete": True, "at": here}
        for number in range(4):
            await broadcaster.async_broadcast(TOPIC, number)
        client = await visit(greeting["at"], kind=Newest)
        assert [frame.get("data") for frame in await client.hears(5)] == [None, 0, 1, 2, 3]
        # What comes first is before any position until it has come.
        assert (await (await visit(kind=Newest)).hears(1))[0]["at"] is None
        in_thread = Broadcaster(layer=InMemoryChannelLayer(history=HISTORY))
        assert await asyncio.to_thread(in_thread.subscribe, TOPIC, 3) is True
        assert in_thread.position == await in_thread.layer.group_position(f"socket.t.{TOPIC}")

    async def test_what_nobody_knows_is_not_complete(self, broadcaster: Broadcaster, visit: Visit) -> None:
        position = broadcaster.broadcast(TOPIC, 0)
        assert position is not None
        for number in range(SIZE + 1):
            broadcaster.broadcast(TOPIC, number)
        foreign = await Broadcaster(layer=InMemoryChannelLayer(history=HISTORY)).async_broadcast(TOPIC, 0)
        for forged in (position, foreign, position[:-3], "null", "x" * 100_000, "%ff", "."):
            client = await visit(forged)
            assert await told(client, 1) == [{"subscribed": TOPIC, "complete": False}]
            broadcaster.broadcast(TOPIC, 9)
            assert (await told(client, 2))[1:] == [{"data": 9}]
            await client.leaves()
            # From there on all is known.
            again = await visit((await client.hears(2))[1]["at"])
            assert await told(again, 1) == [{"subscribed": TOPIC, "complete": True}]
            await again.leaves()

    async def test_a_position_of_another_topic_shows_nothing(self, broadcaster: Broadcaster, visit: Visit) -> None:
        secret = broadcaster.broadcast("room.secret", 0)
        broadcaster.broadcast("room.secret", 1)
        client = await visit(secret)
        assert await told(client, 1) == [{"subscribed": TOPIC, "complete": False}]

    async def test_one_position_holds_several_topics(self, broadcaster: Broadcaster, visit: Visit) -> None:
        class Both(Room):
            topics = (TOPIC, "room.b")

        client = await visit(kind=Both)
        (_, frame) = await client.hears(2)
        await client.leaves()
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,40}\.[A-Za-z0-9_-]{1,40}", frame["at"])
        broadcaster.broadcast_many([TOPIC, "room.b"], 1)
        client = await visit(frame["at"], kind=Both)
        assert [frame["data"] for frame in await told(client, 4) if "data" in frame] == [1, 1]

    async def test_in_a_thread(self, broadcaster: Broadcaster, memory: InMemoryChannelLayer) -> None:
        position = broadcaster.broadcast(TOPIC, 1)
        broadcaster.broadcast(TOPIC, 2)

        def subscribe() -> list[Any]:
            other = Broadcaster(layer=memory)
            return [other, other.subscribe(TOPIC, since=position), other.subscribe("elsewhere"), other.position]

        other, complete, nothing, before = await asyncio.to_thread(subscribe)
        assert (complete, nothing, before) == (True, None, position)
        assert await other.async_receive_broadcast() == (TOPIC, 2)
        assert other.position == await memory.group_position(f"socket.t.{TOPIC}")

    async def test_in_an_event_loop_it_is_done_a_moment_later(
        self, broadcaster: Broadcaster, memory: InMemoryChannelLayer
    ) -> None:
        other = Broadcaster(layer=memory)
        broadcaster.broadcast(TOPIC, 1)
        assert other.subscribe(TOPIC, since=1) is None
        assert await other.async_receive_broadcast() == (TOPIC, 1)

    @pytest.mark.parametrize(
        ("since", "error", "expected"),
        [
            (True, TypeError, "since must be a position (str), a number of messages (int) or None, got True"),
            (1.5, TypeError, "since must be a position"),
            (b"x", TypeError, "since must be a position"),
            (-1, ValueError, "since must be a number of messages of at least 0, got -1"),
        ],
    )
    async def test_what_is_no_position_and_no_number_is_refused_at_once(
        self, broadcaster: Broadcaster, since: Any, error: type[Exception], expected: str
    ) -> None:
        for subscribe in broadcaster.subscribe, broadcaster.async_subscribe:
            with pytest.raises(error, match=re.escape(expected)):
                await asyncio.ensure_future(answered(subscribe(TOPIC, since=since)))
        assert broadcaster.subscriptions == frozenset()

    @pytest.mark.parametrize("since", ["", "x", 0, 3])
    async def test_a_topic_without_history_is_refused(self, broadcaster: Broadcaster, since: Any) -> None:
        with pytest.raises(ValueError, match="history"):
            await broadcaster.async_subscribe("elsewhere", since=since)
        assert (broadcaster.subscriptions, broadcaster.position) == (frozenset(), None)

    async def test_more_topics_than_a_position_holds_are_refused(self, broadcaster: Broadcaster) -> None:
        for number in range(16):
            await broadcaster.async_subscribe(f"room.{number}", since=0)
        with pytest.raises(ValueError, match="keeps its position in 16 groups with history at most"):
            await broadcaster.async_subscribe("room.more", since=0)
        await broadcaster.async_unsubscribe("room.0")
        assert await broadcaster.async_subscribe("room.more", since=0) is True
        assert broadcaster.position is not None
        assert len(broadcaster.position) <= 656

    async def test_what_a_full_mailbox_has_dropped_does_not_move_the_position(
        self, broadcaster: Broadcaster, visit: Visit
    ) -> None:
        class Small(Room):
            max_backlog = 2

            async def receive(self, data: Any) -> None:
                for number in data:
                    self.broadcast(TOPIC, number)

        client = await visit(kind=Small)
        await client.hears(1)
        client.open.clear()
        # The first is on its way, two wait, and the fourth is dropped.
        for number in range(4):
            broadcaster.broadcast(TOPIC, number)
            if number == 0:
                async with asyncio.timeout(10):
                    while client.server.layer.channel_stats(client.server._headrace_hub.mailbox.inbox.channel).depth:
                        await asyncio.sleep(0)
        client.open.set()
        await client.hears(4)
        broadcaster.broadcast(TOPIC, 4)
        assert [frame["data"] for frame in (await client.hears(5))[1:]] == [0, 1, 2, 4]
        position = client.heard[-1]["at"]
        await client.leaves()
        client = await visit(position)
        assert [frame["data"] for frame in await told(client, 3) if "data" in frame] == [3, 4]


class TestClientPosition:
    async def test_it_is_in_the_query_or_a_subprotocol(self, memory: InMemoryChannelLayer) -> None:
        for scope, position in (
            ({"query_string": b"a=1&resume=abc.d"}, "abc.d"),
            ({"subprotocols": ["chat", "resume.abc.d"]}, "abc.d"),
            ({"query_string": b"resume=x", "subprotocols": ["resume.y"]}, "x"),
            ({"query_string": b"resume=", "subprotocols": ["resume."]}, None),
            ({}, None),
        ):
            assert Room({"type": "websocket", **scope}, None, None, layer=memory).client_position == position

    @pytest.mark.parametrize(
        ("offered", "accepted"),
        [(["resume.x"], "resume.x"), (["chat", "resume.x"], None), (["chat"], None), ([], None)],
    )
    async def test_a_subprotocol_that_is_the_only_one_is_accepted(
        self, visit: Visit, offered: list[str], accepted: str | None
    ) -> None:
        client = await visit(subprotocols=offered)
        assert client.sent[0] == {"type": "websocket.accept", **({"subprotocol": accepted} if accepted else {})}

    async def test_names_of_a_project_stay_its_own(self, visit: Visit, broadcaster: Broadcaster) -> None:
        class Own(BaseSocketServer):
            async def connect(self) -> None:
                self.position = self.client_position = (1, 2)  # type: ignore[assignment,misc]
                await self.async_subscribe(TOPIC)
                await self.async_send([self.position, self.client_position])

        client = await visit(kind=Own)
        assert await client.hears(1) == [[[1, 2], [1, 2]]]


async def answered(result: Any) -> Any:
    return await result if asyncio.iscoroutine(result) else result
