"""A documented method that a subclass overrides is the one that is called; what nobody calls cannot be overridden."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from tests.support.waiting import SECONDS

from headrace import (
    AsyncWebsocketConsumer,
    BaseSocketServer,
    Broadcaster,
    SendReport,
    WebsocketConsumer,
    channel_layers,
)
from headrace.exceptions import ChannelFull
from headrace.layers import InMemoryChannelLayer, RedisChannelLayer
from headrace.testing import FaultyLayer, WebsocketCommunicator

MakeLayer = Callable[..., Any]
Settle = Callable[[Any], Awaitable[None]]

HELLO = {"type": "hello"}


class Groups:
    """A prefix for the groups of a tenant."""

    async def group_add(self, group: str, channel: str) -> None:
        await super().group_add(f"t1.{group}", channel)  # type: ignore[misc]

    async def group_discard(self, group: str, channel: str) -> None:
        await super().group_discard(f"t1.{group}", channel)  # type: ignore[misc]

    async def group_send(self, group: str, message: Mapping[str, Any], **options: Any) -> Any:
        return await super().group_send(f"t1.{group}", message, **options)  # type: ignore[misc]


class Messages:
    """Messages that are changed on their way."""

    async def send(self, channel: str, message: Mapping[str, Any]) -> None:
        await super().send(channel, {**message, "sent": "by the tenant"})  # type: ignore[misc]

    async def receive(self, channel: str) -> dict[str, Any]:
        return {**await super().receive(channel), "received": "by the tenant"}  # type: ignore[misc]

    async def new_channel(self, prefix: str = "t1") -> str:
        channel: str = await super().new_channel(prefix)  # type: ignore[misc]
        return channel


class Tenant(Groups, Messages):
    """Both."""


SENT, RECEIVED = {"sent": "by the tenant"}, {"received": "by the tenant"}


@pytest.fixture
def make(make_layer: MakeLayer) -> Callable[..., Any]:
    """Make layers of a subclass of the engine's class, from a class of overrides."""

    def make(overrides: type, **settings: Any) -> Any:
        layer = make_layer(**settings)
        layer.__class__ = type(overrides.__name__, (overrides, type(layer)), {})
        return layer

    return make


@pytest.fixture
def tenant(make: Callable[..., Any]) -> Any:
    """Give a layer that overrides all that there is to override."""
    return make(Tenant)


def in_a_thread(call: Callable[[], Any]) -> Any:
    """Run a call in a thread without an event loop, and wait for it without giving this loop a turn."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
    thread.start()
    thread.join(SECONDS)
    return results[0]


class Room(AsyncWebsocketConsumer):
    groups = ("room",)

    async def say(self, event: dict[str, Any]) -> None:
        await self.send(text_data=f"{event.get('received')}")


class SyncRoom(WebsocketConsumer):
    groups = ("room",)

    def say(self, event: dict[str, Any]) -> None:
        self.send(text_data=f"{event.get('received')}")


@pytest.mark.parametrize("overrides", [Groups, Tenant])
@pytest.mark.parametrize("consumer", [Room, SyncRoom])
async def test_consumers_join_and_receive_as_the_subclass_says(
    make: Callable[..., Any], consumer: Any, overrides: type
) -> None:
    layer = make(overrides)
    channel_layers.set("default", layer)
    async with WebsocketCommunicator(consumer.as_asgi(), "/") as client:
        assert layer.group_count("t1.room") == 1
        await layer.group_send("room", {"type": "say"})
        assert await client.receive_from(SECONDS) == str(RECEIVED.get("received") if overrides is Tenant else None)
    assert layer.group_count("t1.room") == 0
    channel_layers.backends.pop("default")


@pytest.mark.parametrize("overrides", [Groups, Tenant])
async def test_subscriptions_join_and_receive_as_the_subclass_says(make: Callable[..., Any], overrides: type) -> None:
    layer = make(overrides)
    received = RECEIVED if overrides is Tenant else {}
    subscription = layer.subscription("room")
    async with subscription as inbox:
        await layer.group_send("room", HELLO)
        assert await anext(inbox) == HELLO | received
        reader = asyncio.ensure_future(anext(inbox))
        await asyncio.sleep(0)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        reader = asyncio.ensure_future(anext(inbox, "ended"))
        while not layer.channel_stats(inbox.channel).waiters:
            await asyncio.sleep(0)
    assert await reader == "ended"
    assert await anext(inbox, "ended") == "ended"
    assert layer.group_count("t1.room") == 0


class Counter(BaseSocketServer):
    async def connect(self) -> None:
        await self.async_subscribe("news")

    def receive(self, data: Any) -> None:
        topics = ["news"]
        if "unsubscribe" in data:
            self.unsubscribe("news")
            self.subscribe("other")
            topics.append("other")
        self.broadcast(topics, data)


@pytest.mark.parametrize("overrides", [Groups, Tenant])
async def test_sockets_subscribe_and_broadcast_as_the_subclass_says(
    make: Callable[..., Any], overrides: type, settle: Callable[[Any], Any]
) -> None:
    layer = make(overrides)
    async with WebsocketCommunicator(Counter.as_asgi(layer=layer), "/") as client:
        assert await in_time(lambda: layer.group_count("t1.socket.t.news") == 1)
        await client.send_json_to({"n": 1})
        assert await client.receive_json_from(SECONDS) == {"n": 1}
        await client.send_json_to({"n": 2, "unsubscribe": True})
        assert (await client.receive_json_from(SECONDS))["n"] == 2
        assert layer.group_count("t1.socket.t.news") == 0
        assert layer.group_count("t1.socket.t.other") == 1
    assert layer.group_count("t1.socket.t.other") == 0


async def in_time(ask: Callable[[], bool]) -> bool:
    """Give the loop turns until it is so."""
    async with asyncio.timeout(SECONDS):
        while not ask():
            await asyncio.sleep(0.001)
    return True


@pytest.mark.parametrize("overrides", [Groups, Tenant])
async def test_broadcasters_do_so_in_loops_and_in_threads(make: Callable[..., Any], overrides: type) -> None:
    layer = make(overrides)
    ears, mouth = Broadcaster(layer=layer), Broadcaster(layer=layer)
    await ears.async_subscribe("a")
    await asyncio.to_thread(ears.subscribe, "b")
    ears.subscribe("c")
    await ears.async_flush(SECONDS)
    assert {layer.group_count(f"t1.socket.t.{topic}") for topic in "abc"} == {1}
    await mouth.async_broadcast("a", 1)
    await asyncio.to_thread(mouth.broadcast, "b", 2)
    await mouth.async_flush(SECONDS)
    mouth.broadcast("c", 3)
    await mouth.async_flush(SECONDS)
    heard = [await asyncio.wait_for(ears.async_receive_broadcast(), SECONDS) for _ in range(3)]
    assert heard == [("a", 1), ("b", 2), ("c", 3)]
    await ears.async_unsubscribe("a")
    await asyncio.to_thread(ears.unsubscribe, "b")
    ears.unsubscribe("c")
    await ears.async_flush(SECONDS)
    assert {layer.group_count(f"t1.socket.t.{topic}") for topic in "abc"} == {0}
    assert ears.subscriptions == frozenset()


async def test_the_sync_twins_run_what_the_subclass_says(tenant: Any) -> None:
    channel = in_a_thread(tenant.new_channel_sync)
    assert channel.startswith("t1.")
    assert in_a_thread(lambda: tenant.new_channel_sync("mine")).startswith("mine.")
    in_a_thread(lambda: tenant.group_add_sync("room", channel))
    assert tenant.channel_groups(channel) == ["t1.room"]
    assert in_a_thread(lambda: tenant.group_send_sync("room", HELLO)).delivered_here == 1
    in_a_thread(lambda: tenant.send_sync(channel, HELLO, True))
    assert in_a_thread(lambda: tenant.receive_sync(channel, SECONDS)) == HELLO | RECEIVED
    assert in_a_thread(lambda: tenant.receive_sync(channel, SECONDS)) == HELLO | SENT | RECEIVED
    in_a_thread(lambda: tenant.group_discard_sync("room", channel))
    assert tenant.channel_groups(channel) == []

    def too_late() -> str:
        with pytest.raises(TimeoutError, match=r"no message on .* in 0\.01 seconds"):
            tenant.receive_sync(channel, 0.01)
        return "told"

    assert in_a_thread(too_late) == "told"


async def test_those_for_several_messages_run_what_the_subclass_says(make: Callable[..., Any], settle: Settle) -> None:
    layer = make(Tenant, capacity=2)
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    report = await layer.group_send_many([("room", HELLO), ("nobody", HELLO)])
    assert (report.delivered_here, report.dropped_full) == (1, 0)
    assert (await layer.group_send_many([("room", HELLO)], exclude=channel)).delivered_here == 0
    assert await layer.receive_many(channel, 2) == [HELLO | RECEIVED]
    report = await layer.send_many([(channel, HELLO)] * 2)
    assert (report.delivered_here, report.dropped_full) == (2, 0)
    await settle(layer)
    report = await layer.send_many([(channel, HELLO)])
    assert (report.delivered_here, report.dropped_full) == (0, 1)
    assert await layer.receive_many(channel, 9) == [HELLO | SENT | RECEIVED]
    for most in (0, "1"):
        with pytest.raises(ValueError, match="limit must be a positive integer"):
            await layer.receive_many(channel, most)
    with pytest.raises(TypeError, match="override receive_nowait"):
        layer.receive_nowait(channel)


async def test_what_a_group_send_does_not_report_is_not_known(make: Callable[..., Any]) -> None:
    class Silent:
        async def group_send(self, group: str, message: Mapping[str, Any]) -> Any:
            report = await super().group_send(group, message)  # type: ignore[misc]
            return None if group == "silent" else report

    layer = make(Silent)
    channel = await layer.new_channel()
    for group in ("room", "silent"):
        await layer.group_add(group, channel)
    report = await layer.group_send_many([("silent", HELLO), ("room", HELLO)])
    assert (report.delivered, report.processes) == (None, None)
    assert (report.delivered_here, report.dropped_full) == (1, 0)
    assert await layer.group_send_many([]) == SendReport(0, 0, 0, processes=0)


async def test_the_sync_twins_for_several_messages_run_what_the_subclass_says(tenant: Any, settle: Settle) -> None:
    channel = await tenant.new_channel()
    await tenant.group_add("room", channel)
    report = in_a_thread(lambda: tenant.group_send_many_sync([("room", HELLO), ("nobody", HELLO)]))
    assert report.delivered_here == 1
    report = in_a_thread(lambda: tenant.send_many_sync([(channel, HELLO)]))
    assert report.delivered_here == 1
    await settle(tenant)
    assert in_a_thread(lambda: tenant.receive_many_sync(channel, 9, SECONDS)) == [HELLO | RECEIVED]
    assert in_a_thread(lambda: tenant.receive_many_sync(channel, 9, SECONDS)) == [HELLO | SENT | RECEIVED]
    with pytest.raises(TimeoutError, match=r"no message on .* in 0\.01 seconds"):
        await asyncio.to_thread(tenant.receive_many_sync, channel, 9, 0.01)


async def test_the_twins_of_flush_and_close_run_what_the_subclass_says(make: Callable[..., Any]) -> None:
    called: list[str] = []

    class Told:
        async def flush(self) -> None:
            called.append("flush")
            await super().flush()  # type: ignore[misc]

        async def close(self) -> None:
            called.append("close")
            await super().close()  # type: ignore[misc]

        async def send_many(self, pairs: Any) -> Any:
            called.append("send_many")
            return await super().send_many(pairs)  # type: ignore[misc]

    layer = make(Told)
    assert in_a_thread(lambda: layer.send_many_sync([])).delivered_here == 0
    in_a_thread(layer.flush_sync)
    in_a_thread(layer.close_sync)
    assert called == ["send_many", "flush", "close"]


async def test_a_twin_says_that_it_would_block_the_loop(tenant: Any) -> None:
    with pytest.raises(RuntimeError, match=r"Tenant overrides group_add\(\), .* await group_add\(\)"):
        tenant.group_add_sync("room", "channel")


async def test_a_close_is_the_subclass_s_own(make: Callable[..., Any]) -> None:
    closed: list[str] = []

    class Closing:
        def close_channel(self, channel: str) -> None:
            closed.append(channel)
            super().close_channel(channel)  # type: ignore[misc]

    layer = make(Closing)
    channel_layers.set("default", layer)
    async with layer.subscription("room") as inbox:
        pass
    async with WebsocketCommunicator(Room.as_asgi(), "/"):
        (channel,) = layer.group_channels("room")
    async with WebsocketCommunicator(Counter.as_asgi(layer=layer), "/"):
        assert await in_time(lambda: layer.group_count("socket.t.news") == 1)
        (of_socket,) = layer.group_channels("socket.t.news")
    assert {inbox.channel, channel, of_socket} == set(closed)
    channel_layers.backends.pop("default")


LAYERS = [InMemoryChannelLayer, RedisChannelLayer]


@pytest.mark.parametrize("base", LAYERS)
@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("get_capacity", "channel_capacity"),
        ("compile_capacities", "channel_capacity"),
        ("MAX_NAME_LENGTH", "names that fit"),
        ("channel_name_regex", "names that fit"),
        ("group_name_regex", "names that fit"),
        ("invalid_name_error", "names that fit"),
        ("match_type_and_length", "names that fit"),
        ("require_valid_channel_name", "names that fit"),
        ("require_valid_group_name", "names that fit"),
        ("valid_channel_name", "names that fit"),
        ("valid_channel_names", "names that fit"),
        ("valid_group_name", "names that fit"),
        ("non_local_name", "names that fit"),
    ],
)
def test_what_is_decided_natively_cannot_be_overridden(base: type, name: str, instead: str) -> None:
    with pytest.raises(TypeError, match=rf"Mine overrides {name}, which is not called: .*{instead}"):
        type("Mine", (base,), {name: 200})
    mixin = type("Mixin", (), {name: 200})
    with pytest.raises(TypeError, match=f"Mine overrides {name}"):
        type("Mine", (mixin, base), {})


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("serialize", "symmetric_encryption_keys"),
        ("deserialize", "symmetric_encryption_keys"),
        ("client_prefix", "prefix"),
        ("create_pool", "hosts"),
        ("connection", "hosts"),
        ("consistent_hash", "ring"),
        ("receive_single", "override receive"),
    ],
)
def test_what_channels_redis_calls_and_this_layer_does_not_is_refused(name: str, instead: str) -> None:
    with pytest.raises(TypeError, match=rf"Mine overrides {name}, which is not called: .*{instead}"):
        type("Mine", (RedisChannelLayer,), {name: lambda self: None})
    # In the process nothing has that name.
    assert type("Mine", (InMemoryChannelLayer,), {name: lambda self: None})


@pytest.mark.parametrize("base", LAYERS)
@pytest.mark.parametrize("name", ["send", "receive", "new_channel", "group_add", "group_discard", "group_send"])
def test_a_twin_alone_cannot_be_overridden(base: Any, name: str) -> None:
    async def own(self: Any) -> None: ...

    def own_twin(self: Any) -> None: ...

    twin = f"{name}_sync"
    with pytest.raises(TypeError, match=rf"Mine overrides {twin}\(\) alone.*: override {name}\(\)"):
        type("Mine", (base,), {twin: own_twin})
    both = type("Both", (base,), {name: own, twin: own_twin})
    assert getattr(both, twin) is own_twin
    derived = type("Derived", (both,), {name: own})
    assert getattr(derived, twin) is not own_twin
    with pytest.raises(TypeError, match=rf"Late overrides {twin}\(\) alone"):
        type("Late", (derived,), {twin: own_twin})


def test_a_class_that_adds_something_is_left_alone() -> None:
    class Mine(InMemoryChannelLayer):
        extra = 1

        def helper(self) -> int:
            return self.extra

    layer = Mine()
    layer.send_sync("channel", HELLO)
    assert layer.receive_nowait("channel") == HELLO
    assert (layer.helper(), Mine.send_sync) == (1, InMemoryChannelLayer.send_sync)


async def test_what_is_broadcast_meets_the_faults_of_a_layer() -> None:
    layer = FaultyLayer()
    ears, mouth = Broadcaster(layer=layer), Broadcaster(layer=layer)
    await ears.async_subscribe("news")
    with layer.faults.drop("*") as fault:
        mouth.broadcast("news", 1)
    assert fault.count == 1
    mouth.broadcast("news", 2)
    assert await asyncio.wait_for(ears.async_receive_broadcast(), SECONDS) == ("news", 2)


async def test_a_subclass_of_the_layer_with_faults_may_override_what_that_one_does() -> None:
    class Tagged(FaultyLayer):
        async def send(self, channel: str, message: Mapping[str, Any]) -> None:
            await super().send(channel, {**message, "tag": 1})

    layer = Tagged(capacity=1)
    await layer.send("channel", HELLO)
    with pytest.raises(ChannelFull):
        await asyncio.to_thread(layer.send_sync, "channel", HELLO)
    assert layer.receive_nowait("channel") == HELLO | {"tag": 1}
