"""Channels that are full: ``max_backlog`` and ``overflow``."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.loops import cancels_after_a_group_failed

from headrace._layers.registry import channel_layers
from headrace.consumer import AsyncConsumer, consumer_stats
from headrace.exceptions import ChannelFull, InvalidChannelLayerError
from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.layers import InMemoryChannelLayer
from headrace.testing import settle

if TYPE_CHECKING:
    from tests.consumer.conftest import Wire

    MakeWire = Callable[..., Wire]


class Slow(AsyncWebsocketConsumer):
    """Sends each message to a client that may not read."""

    groups = ("all",)
    max_backlog = 3

    async def note(self, event: dict[str, Any]) -> None:
        await self.send(text_data=str(event["n"]))

    async def other(self, event: dict[str, Any]) -> None:
        await self.send(text_data=f"other {event['n']}")

    async def disconnect(self, code: int) -> None:
        self.code = code


async def stuck(client: "Wire", layer: InMemoryChannelLayer) -> None:
    """Connect, and let a handler wait in a send that does not return."""
    client.connect()
    await settle()
    client.open.clear()
    await layer.group_send("all", {"type": "note", "n": 0})
    await settle()


async def flood(layer: InMemoryChannelLayer, *kinds: str) -> None:
    """Send messages that are numbered from 1."""
    for n, kind in enumerate(kinds, start=1):
        await layer.group_send("all", {"type": kind, "n": n})


class TestPolicies:
    """What a full channel does."""

    @pytest.mark.parametrize(
        ("overflow", "texts", "dropped"),
        [
            ("drop_new", ["0", "1", "2"], (3, 0)),
            ("drop_old", ["0", "4", "5"], (0, 3)),
            ("coalesce", ["0", "5"], (0, 4)),
        ],
    )
    async def test_it_is_full_by_its_bytes_too(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, overflow: str, texts: list[str], dropped: tuple[int, int]
    ) -> None:
        # A note takes about 180 bytes, and the first of them does not count.
        settings = {"max_backlog": None, "max_backlog_bytes": 200, "overflow": overflow}
        client = wire(type("Here", (Slow,), settings)())
        await stuck(client, layer)
        await flood(layer, *["note"] * 5)
        stats = layer.stats()
        assert (stats.dropped_full, stats.dropped_replaced) == dropped
        assert stats.full_by_bytes > 0
        assert stats.bytes < 400
        client.open.set()
        await settle()
        assert client.texts == texts
        client.leave()
        await client.end()

    @pytest.mark.parametrize(
        ("overflow", "texts", "dropped"),
        [
            ("drop_new", ["0", "1", "2", "3"], (2, 0)),
            ("drop_old", ["0", "3", "4", "5"], (0, 2)),
            ("coalesce", ["0", "4", "5"], (0, 3)),
        ],
    )
    async def test_the_rest_is_dropped_and_counted(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, overflow: str, texts: list[str], dropped: tuple[int, int]
    ) -> None:
        client = wire(type("Here", (Slow,), {"overflow": overflow})())
        await stuck(client, layer)
        await flood(layer, *["note"] * 5)
        client.open.set()
        await settle()
        stats = layer.stats()
        assert client.texts == texts
        assert (stats.dropped_full, stats.dropped_replaced) == dropped
        assert stats.sent == stats.delivered + stats.depth + stats.dropped_expired + stats.dropped_replaced
        client.leave()
        await client.end()

    async def test_coalesce_gives_up_messages_of_the_same_type_when_full(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        client = wire(type("Here", (Slow,), {"overflow": "coalesce"})())
        await stuck(client, layer)
        await flood(layer, "note", "other", "note", "note")
        client.open.set()
        await settle()
        assert client.texts == ["0", "other 2", "4"]
        assert layer.stats().dropped_replaced == 2
        client.leave()
        await client.end()

    async def test_a_direct_send_to_a_full_channel_still_says_so(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        consumer = Slow()
        client = wire(consumer)
        await stuck(client, layer)
        await flood(layer, *["note"] * 3)
        with pytest.raises(ChannelFull):
            await layer.send(consumer.channel_name, {"type": "note", "n": 9})
        client.open.set()
        client.leave()
        await client.end()

    async def test_without_a_backlog_of_its_own_the_layers_capacity_counts(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        class Here(Slow):
            max_backlog = None  # type: ignore[assignment]  # the default
            overflow = "drop_old"

        consumer = Here()
        client = wire(consumer)
        await stuck(client, layer)
        assert layer.channel_stats(consumer.channel_name).capacity == layer.capacity
        client.open.set()
        client.leave()
        await client.end()

    async def test_each_consumer_has_its_own_backlog(self, wire: "MakeWire", layer: InMemoryChannelLayer) -> None:
        slow, fast = wire(Slow()), wire(Slow())
        fast.connect()
        await stuck(slow, layer)
        for n in range(1, 11):
            await layer.group_send("all", {"type": "note", "n": n})
            await settle()
        assert fast.texts == [str(n) for n in range(11)]
        slow.open.set()
        await settle()
        assert slow.texts == ["0", "1", "2", "3"]
        for client in (slow, fast):
            client.leave()
            await client.end()


class TestClose:
    """``overflow = "close"``."""

    @pytest.mark.parametrize("concurrency", [1, 2])
    async def test_a_client_that_does_not_keep_up_is_closed_with_1013(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, concurrency: int
    ) -> None:
        class Here(Slow):
            overflow = "close"

        Here.concurrency = concurrency
        consumer = Here()
        client = wire(consumer)
        await stuck(client, layer)
        if concurrency == 2:
            await layer.group_send("all", {"type": "note", "n": 0})
            await settle()
            await layer.group_send("all", {"type": "note", "n": 0})
            await settle()
        await flood(layer, *["note"] * 4)
        await settle()
        client.open.set()
        await client.end()
        assert client.sent[1:] == [{"type": "websocket.close", "code": 1013}]
        assert consumer.code == 1013
        assert consumer_stats(Here).closed_overrun == 1

    async def test_a_bare_consumer_is_closed_too(self, wire: "MakeWire", layer: InMemoryChannelLayer) -> None:
        class Bare(AsyncConsumer):
            channel_layer_alias = "default"
            max_backlog, overflow = 3, "close"

            async def websocket_connect(self, message: Any) -> None:
                await self.send({"type": "websocket.accept"})
                await layer.group_add("all", self.channel_name)

            async def note(self, event: dict[str, Any]) -> None:
                await self.send({"type": "websocket.send", "text": str(event["n"])})

        client = wire(Bare())
        await stuck(client, layer)
        await flood(layer, *["note"] * 4)
        await settle()
        client.open.set()
        await client.end()
        assert client.sent[1:] == [{"type": "websocket.close", "code": 1013}]
        assert consumer_stats(Bare).closed_overrun == 1

    async def test_even_if_the_server_never_takes_the_close(
        self, wire: "MakeWire", layer: InMemoryChannelLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("headrace._websocket.closing.CLOSE_TIMEOUT", 0.01)

        class Here(Slow):
            overflow = "close"

        consumer = Here()
        client = wire(consumer)
        await stuck(client, layer)
        await flood(layer, *["note"] * 4)
        await client.end()
        assert consumer.code == 1013
        assert [message["type"] for message in client.sent] == ["websocket.accept"]

    async def test_a_full_channel_that_its_consumer_works_off_is_full_all_the_same(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        class Here(Slow):
            overflow = "close"

        client = wire(Here())
        client.connect()
        await settle()
        await flood(layer, *["note"] * 3)
        await settle()
        assert client.texts == ["1", "2", "3"]
        await flood(layer, *["note"] * 6)
        await client.end()
        assert client.sent[-1] == {"type": "websocket.close", "code": 1013}

    async def test_a_handler_that_floods_its_own_channel_is_closed(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        class Here(Slow):
            overflow = "close"

            async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
                await flood(layer, *["note"] * 5)

        client = wire(Here())
        client.connect("flood")
        await client.end()
        assert client.sent[-1] == {"type": "websocket.close", "code": 1013}

    async def test_a_handler_that_floods_its_own_channel_and_stops_is_not_cancelled(
        self, wire: "MakeWire", layer: InMemoryChannelLayer
    ) -> None:
        from headrace.exceptions import StopConsumer

        class Here(Slow):
            overflow = "close"

            async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
                await flood(layer, *["note"] * 5)
                raise StopConsumer

        client = wire(Here())
        client.connect("flood")
        await client.end()
        assert not client.task.cancelled()

    async def test_after_a_group_of_tasks_that_failed(self, wire: "MakeWire", layer: InMemoryChannelLayer) -> None:
        """On Python 3.11 that leaves a cancel counted that has been dealt with."""
        if cancels_after_a_group_failed():
            pytest.skip("Python 3.12 cancels a task again after a group of eager tasks in it has failed")

        async def fail() -> None:
            raise LookupError

        class Here(Slow):
            overflow = "close"

            async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
                with suppress(ExceptionGroup):
                    async with asyncio.TaskGroup() as group:
                        group.create_task(fail())

        consumer = Here()
        client = wire(consumer)
        client.connect("x")
        await settle()
        client.open.clear()
        await layer.group_send("all", {"type": "note", "n": 0})
        await settle()
        await flood(layer, *["note"] * 4)
        client.open.set()
        await client.end()
        assert consumer.code == 1013

    async def test_a_cancel_that_comes_with_it_goes_first(self, wire: "MakeWire", layer: InMemoryChannelLayer) -> None:
        class Here(Slow):
            overflow = "close"

        consumer = Here()
        client = wire(consumer)
        await stuck(client, layer)
        await flood(layer, *["note"] * 4)
        client.task.cancel()
        assert isinstance(await client.outcome(), asyncio.CancelledError)
        assert consumer.code in (1006, 1013)

    async def test_a_send_from_another_thread_closes_it(self, wire: "MakeWire", layer: InMemoryChannelLayer) -> None:
        class Here(Slow):
            overflow = "close"

        consumer = Here()
        client = wire(consumer)
        await stuck(client, layer)

        def send() -> None:
            for n in range(5):
                layer.group_send_sync("all", {"type": "note", "n": n})

        thread = threading.Thread(target=send)
        thread.start()
        thread.join()
        client.open.set()
        await client.end()
        assert consumer.code == 1013


class TestOfOthers:
    """A layer whose mailboxes are out of reach."""

    async def test_a_limit_over_another_layer_is_refused_and_leaves_nothing(self, wire: "MakeWire") -> None:
        from channels.layers import InMemoryChannelLayer as Theirs

        theirs: Any = Theirs()
        channel_layers.set("default", theirs)
        client = wire(Slow())
        client.connect()
        error = await client.outcome()
        assert isinstance(error, InvalidChannelLayerError)
        assert "max_backlog" in str(error)

    async def test_without_a_layer_nothing_can_be_full(self, wire: "MakeWire") -> None:
        class Here(AsyncWebsocketConsumer):
            channel_layer_alias = "nowhere"
            max_backlog = 3

        client = wire(Here())
        client.connect()
        await settle()
        client.leave()
        await client.end()
        assert client.sent == [{"type": "websocket.accept", "subprotocol": None}]
