"""Socket servers over real servers of Redis and Valkey, configured as those of django_sockets are."""

import asyncio
import contextlib
import json
import re
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tests.support.cluster import Cluster
from tests.support.sentinel import Sentinels
from tests.support.serverless import Serverless
from tests.support.servers import Server
from tests.support.waiting import SECONDS, eventually

from headrace._sockets import backend
from headrace.exceptions import LayerUnavailable
from headrace.layers import RedisChannelLayer
from headrace.sockets import BaseSocketServer, Broadcaster

from .conftest import Client, has_ended

Hosts = list[Any]


@pytest.fixture(autouse=True)
async def _layers_are_closed() -> AsyncIterator[None]:
    """Close the layers that the test has made by its hosts."""
    before = set(backend._made)
    yield
    for key in set(backend._made) - before:
        layer: Any = backend._made.pop(key).backend.layer
        await layer.close()


@pytest.fixture
def config(redis_server: Server, redis_prefix: str) -> dict[str, Any]:
    return {"hosts": [{"address": redis_server.url}], "prefix": redis_prefix}


class Subscribed(BaseSocketServer):
    async def connect(self) -> None:
        await self.async_subscribe("news")
        await self.async_send("subscribed")


async def subscribed(**settings: Any) -> Client:
    client = Client()
    await client.connects(Subscribed, **settings)
    assert await client.hears(1) == ["subscribed"]
    return client


async def goes_round(config: dict[str, Any]) -> bool:
    """Broadcast to three topics from here and from what another process would be."""
    client, theirs = Client(), RedisChannelLayer(**other_process(config))
    server = client.meets(BaseSocketServer, config=config)
    topics: list[Any] = ["a", "room 1 / ä", uuid.uuid4()]
    for topic in topics:
        await server.async_subscribe(topic)
    mouths = [Broadcaster(config=config), Broadcaster(layer=theirs)]
    for mouth in mouths:
        await mouth.async_broadcast(topics, {"text": "msg:secret"})
        await asyncio.to_thread(mouth.broadcast, topics, [1])
        await mouth.async_flush(SECONDS)
    heard = await client.hears(12)
    await client.leaves()
    await theirs.close()
    return sorted(map(str, heard)) == sorted(map(str, [{"text": "msg:secret"}, [1]] * 6))


def other_process(config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a layer that shares nothing but the server."""
    hosts, clustered = backend._servers(config["hosts"])
    return {**config, "hosts": hosts, **({"topology": "cluster"} if clustered else {})}


# Where the servers are.


async def test_one_server_by_its_address(config: dict[str, Any]) -> None:
    assert await goes_round(config)


async def test_several_servers_share_the_topics(
    start_redis: Callable[..., Server], redis_prefix: str, redis_server: Server
) -> None:
    hosts = [{"address": redis_server.url}, {"host": "127.0.0.1", "port": start_redis().port}]
    assert await goes_round({"hosts": hosts, "prefix": redis_prefix})


async def test_a_master_that_sentinels_know(redis_sentinels: Sentinels, redis_prefix: str) -> None:
    host = {"sentinels": redis_sentinels.addresses, "master_name": redis_sentinels.name}
    assert await goes_round({"hosts": [host], "prefix": redis_prefix})


@pytest.mark.parametrize("mark", ["cluster", "is_cluster"])
async def test_a_cluster_that_is_marked_as_one(redis_cluster: Cluster, redis_prefix: str, mark: str) -> None:
    host = {"address": redis_cluster.nodes[0].url, mark: True}
    assert await goes_round({"hosts": [host], "prefix": redis_prefix})


async def test_a_serverless_endpoint(redis_serverless: Serverless, redis_prefix: str) -> None:
    tls = {} if redis_serverless.tls is None else {"ssl_ca_certs": str(redis_serverless.ca)}
    host = {"address": redis_serverless.url, **tls}
    assert await goes_round({"hosts": [host], "prefix": redis_prefix})


async def test_a_server_that_speaks_tls(start_redis_tls: Callable[..., Server], redis_prefix: str) -> None:
    server = start_redis_tls()
    host = {"address": server.url, "ssl_ca_certs": str(server.ca)}
    assert await goes_round({"hosts": [host], "prefix": redis_prefix})


# One set of connections.


async def test_the_connections_of_a_process_do_not_grow_with_its_sockets(
    start_redis: Callable[..., Server],
) -> None:
    server = start_redis()
    hosts = [{"address": server.url}]

    def connections() -> int:
        return len([client for client in server.clients() if client.get("lib-name") or client.get("name")])

    clients = [await subscribed(hosts=hosts)]
    few = connections()
    clients += [await subscribed(hosts=[{"address": server.url}]) for _ in range(50)]
    for _ in range(20):
        Broadcaster(hosts=hosts).broadcast("news", 1)
    for client in clients:
        assert await client.hears(21) == ["subscribed", *[1] * 20]
    assert connections() == few
    assert few in (1, 2)
    for client in clients:
        await client.leaves()


async def test_a_broadcast_is_encoded_once_for_all_sockets_of_a_process(config: dict[str, Any]) -> None:
    calls: list[Any] = []

    def encoder(data: Any) -> str:
        calls.append(data)
        return json.dumps(data)

    clients = [await subscribed(config=config, ws_encoder=encoder) for _ in range(20)]
    calls.clear()
    await Broadcaster(config=config).async_broadcast("news", {"a": 1})
    for client in clients:
        assert await client.hears(2) == ["subscribed", {"a": 1}]
    assert calls == [{"a": 1}]
    for client in clients:
        await client.leaves()


async def test_a_subscription_does_not_expire(config: dict[str, Any], redis_server: Server) -> None:
    config |= {"group_expiry": 0.01}
    client = await subscribed(config=config)
    by_thread = Client()
    server = by_thread.meets(BaseSocketServer, config=config)
    await asyncio.to_thread(server.subscribe, "news")
    end = asyncio.get_running_loop().time() + 0.05
    while asyncio.get_running_loop().time() < end:
        await asyncio.sleep(0)
    await Broadcaster(config=config).async_broadcast("news", 1)
    assert await client.hears(2) == ["subscribed", 1]
    assert await by_thread.hears(1) == [1]
    for each in (client, by_thread):
        await each.leaves()


async def test_ten_mebibytes_arrive_in_one_piece(config: dict[str, Any]) -> None:
    client = await subscribed(config=config)
    data = {"payload": "x" * 10 * 1024 * 1024}
    await Broadcaster(config=config).async_broadcast("news", data)
    assert await client.hears(2) == ["subscribed", data]
    await client.leaves()


def test_a_script_without_a_loop_subscribes_and_broadcasts(config: dict[str, Any]) -> None:
    sent: list[Any] = []

    async def never() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(json.loads(message["text"]))

    server = BaseSocketServer({}, never, send, config=config)
    server.start_listeners()
    server.subscribe("news")
    for number in range(100):
        server.broadcast("news", number)
    server.flush(SECONDS)
    eventually(lambda: len(sent) == 100, "all have come")
    assert sent == list(range(100))
    server.unsubscribe("news")
    assert server.subscriptions == frozenset()
    server.__kill__()
    eventually(
        lambda: has_ended(server),
        "it has ended",
    )


async def test_in_a_loop_a_broadcast_comes_after_the_subscription_that_was_asked_for_before(
    config: dict[str, Any],
) -> None:
    class Eager(BaseSocketServer):
        async def connect(self) -> None:
            self.subscribe("own")
            self.broadcast("own", "first")
            self.unsubscribe("own")
            self.broadcast("own", "nobody")
            self.subscribe("own")
            self.broadcast("own", "last")

    client = Client()
    server = await client.connects(Eager, config=config)
    heard = await client.hears(1)
    while heard[-1] != "last":
        heard = await client.hears(len(heard) + 1)
    # What was on its way when the topic was left may be dropped, and what came before it was back may come.
    assert [each for each in ["first", "nobody", "last"] if each in heard] == heard
    await server.async_flush(SECONDS)
    await client.leaves()


async def test_threads_that_subscribe_while_the_socket_closes_leave_nothing_behind(config: dict[str, Any]) -> None:
    for _ in range(10):
        client = await subscribed(config=config)
        server: Any = client.server

        def subscribe(server: Any = server) -> None:
            with contextlib.suppress(Exception):
                for number in range(1000):
                    server.subscribe(number)

        thread = threading.Thread(target=subscribe)
        thread.start()
        while len(server.subscriptions) < 2:
            await asyncio.sleep(0)
        await client.leaves()
        await asyncio.to_thread(thread.join)
        assert server.layer.stats().memberships == 0


async def test_a_subscription_that_is_cancelled_does_not_undo_another_that_succeeds(
    start_redis: Callable[..., Server],
) -> None:
    redis = start_redis()
    config = {"hosts": [{"address": redis.url}]}
    client = Client()
    server = client.meets(BaseSocketServer, config=config)
    await server.async_subscribe("another")
    # So that no answer comes before the cancel.
    redis.pause()
    first, second = [asyncio.create_task(server.async_subscribe("news")) for _ in range(2)]
    for _ in range(3):
        await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    redis.resume()
    await second
    assert server.subscriptions == {"another", "news"}
    await Broadcaster(config=config).async_broadcast("news", 1)
    assert await client.hears(1) == [1]
    await client.leaves()


# When the server is away.


async def test_what_the_server_does_not_take_is_logged_counted_and_raised_by_flush(
    start_redis: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    server = start_redis()
    config = {"hosts": [{"address": server.url}], "send_timeout": 5}
    client = await subscribed(config=config)
    mouth, other = Broadcaster(config=config), Broadcaster(config=config)
    server.kill()
    await asyncio.to_thread(eventually, lambda: mouth.layer.stats().connection.state != "up", "the loss is noticed")
    for number in range(3):
        mouth.broadcast("news", number)
    with pytest.raises(LayerUnavailable, match="calls of Broadcaster that nobody waited for failed: 3; the latest"):
        await mouth.async_flush(SECONDS)
    assert (mouth.stats().failed, mouth.stats().pending) == (3, 0)
    # Another's are not this one's.
    await other.async_flush(SECONDS)
    await mouth.async_flush(SECONDS)
    with pytest.raises(LayerUnavailable):
        mouth.broadcast("news", 1)
    with pytest.raises(LayerUnavailable):
        await mouth.async_broadcast("news", 1)
    with pytest.raises(LayerUnavailable):
        await other.async_subscribe("elsewhere")
    with pytest.raises(LayerUnavailable):
        await asyncio.to_thread(other.subscribe, "elsewhere")
    assert other.subscriptions == frozenset()
    await asyncio.to_thread(eventually, lambda: re.search("nobody waited", caplog.text), "the failures are in the log")
    server.start()
    await asyncio.to_thread(eventually, lambda: mouth.layer.stats().connection.state == "up", "it is back")
    await mouth.async_broadcast("news", "again")
    assert await client.hears(2) == ["subscribed", "again"]
    await client.leaves()


@pytest.mark.complains
async def test_a_connect_that_cannot_subscribe_closes_with_1013(
    start_redis: Callable[..., Server],
) -> None:
    server = start_redis()
    config = {"hosts": [{"address": server.url}], "send_timeout": 0.2, "connect_timeout": 0.2}
    server.stop()
    client = Client()
    client.meets(Subscribed, config=config)
    client.gives("connect")
    await client.ends()
    assert client.sent == [{"type": "websocket.accept"}, {"type": "websocket.close", "code": 1013}]


def test_layers_that_nobody_uses_any_more_end_their_connections(redis_server: Server, redis_prefix: str) -> None:
    config = {"hosts": [{"address": redis_server.url}], "prefix": redis_prefix}
    ears = Broadcaster(config=config)
    ears.subscribe("news")
    before = len(redis_server.cli("CLIENT", "LIST").splitlines())
    for number in range(12):
        # What is no setting of its own makes the layers different.
        hosts = [{"address": redis_server.url, "client_name": object()}]
        Broadcaster(config={**config, "hosts": hosts}).broadcast("news", number)

    async def heard() -> list[Any]:
        return [(await ears.async_receive_broadcast())[1] for _ in range(12)]

    assert sorted(asyncio.run(asyncio.wait_for(heard(), SECONDS))) == list(range(12))
    eventually(
        lambda: len(redis_server.cli("CLIENT", "LIST").splitlines()) <= before + 2 * 5,
        "those of all but the last are gone",
    )
