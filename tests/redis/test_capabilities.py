"""A server that lacks what the layer needs, or does not allow it, is told of at once and in words that help."""

import asyncio
from collections.abc import Callable

import pytest
from tests.support.binaries import Binary
from tests.support.cluster import Cluster
from tests.support.servers import Server
from tests.support.traffic import Fleet, exchange, member
from tests.support.waiting import SECONDS

from headrace.exceptions import LayerUnavailable

MESSAGE = {"type": "number", "number": 1}


def without(command: str) -> dict[str, str]:
    """Give the option of a server that has no such command, as one that is too old."""
    return {"rename-command": f'{command} ""'}


async def test_a_server_too_old_for_queues_still_has_groups(start_redis: Callable[..., Server]) -> None:
    server = start_redis(options=without("LMOVE"))
    async with Fleet([server.url], "asgi") as fleet:
        here, there = fleet.layer(), fleet.layer()
        for _ in range(2):
            with pytest.raises(LayerUnavailable, match=r"no command LMOVE: Redis 6\.2 and newer") as error:
                await asyncio.wait_for(there.receive("work"), SECONDS)
            assert isinstance(error.value.__cause__, PermissionError)
        with pytest.raises(LayerUnavailable, match="LMOVE"):
            await there.receive_many("work", 10)
        assert there.channel_stats("work").waiters == 0
        channel = await member(there, "room")
        await here.group_send("room", MESSAGE)
        assert await there.receive(channel) == MESSAGE


@pytest.mark.parametrize(("command", "ways"), [("SUBSCRIBE", ["connect", "new_channel"]), ("HGETALL", ["group_send"])])
async def test_a_command_that_was_taken_away_is_named(
    start_redis: Callable[..., Server], command: str, ways: list[str]
) -> None:
    server = start_redis(options=without(command))
    async with Fleet([server.url], "asgi", send_timeout=5) as fleet:
        layer = fleet.layer()
        arguments = {"group_send": ("room", MESSAGE)}
        for way in ways:
            with pytest.raises(LayerUnavailable, match=f"no command {command}: it may have been renamed"):
                await getattr(layer, way)(*arguments.get(way, ()))


@pytest.mark.parametrize("command", ["lmove", "rpush", "publish", "subscribe"])
async def test_a_command_that_the_user_may_not_run_is_named(start_redis: Callable[..., Server], command: str) -> None:
    server = start_redis(users={"app": f"on >secret ~* &* +@all -{command}"})
    async with Fleet([server.url_for(("app", "secret"))], "asgi", send_timeout=5) as fleet:
        layer = fleet.layer()
        ways = {
            "lmove": lambda: layer.receive("work"),
            "rpush": lambda: layer.send("work", MESSAGE),
            "publish": lambda: layer.group_send("room", MESSAGE),
            "subscribe": layer.connect,
        }
        with pytest.raises(LayerUnavailable, match=rf"(?i)NOPERM.*{command}.*docs/how-to/redis\.md"):
            await asyncio.wait_for(ways[command](), SECONDS)


async def test_keys_and_channels_that_the_user_may_not_touch_are_told_of(start_redis: Callable[..., Server]) -> None:
    server = start_redis(users={"app": "on >secret ~other:* &other:* +@all"})
    async with Fleet([server.url_for(("app", "secret"))], "asgi", send_timeout=5) as fleet:
        layer = fleet.layer()
        with pytest.raises(LayerUnavailable, match="NOPERM"):
            await layer.connect()
        with pytest.raises(LayerUnavailable, match="NOPERM"):
            await layer.send("work", MESSAGE)


async def test_a_cluster_without_sharded_channels_says_so_and_works_with_resp_2(redis_binary: Binary) -> None:
    with Cluster(redis_binary, options=without("SSUBSCRIBE")) as cluster:
        url = cluster.nodes[0].url
        async with Fleet([url], "asgi", topology="cluster", send_timeout=5) as fleet:
            with pytest.raises(LayerUnavailable, match=r"no command SSUBSCRIBE: Redis 7\.0 and newer"):
                await fleet.layer().connect()
        async with Fleet([{"address": url, "protocol": 2}], "asgi", topology="cluster") as fleet:
            await exchange(fleet)


async def test_a_cluster_that_is_called_a_single_server_says_so(redis_cluster: Cluster, redis_prefix: str) -> None:
    async with Fleet([redis_cluster.nodes[0].url], redis_prefix, topology="single") as fleet:
        layer = fleet.layer()
        outcomes = await asyncio.gather(*(layer.send(f"work-{n}", MESSAGE) for n in range(20)), return_exceptions=True)
        said = {str(outcome) for outcome in outcomes if isinstance(outcome, LayerUnavailable)}
        assert said
        assert all('set the topology to "cluster"' in text for text in said)


async def test_a_cluster_is_found_out_by_itself(redis_cluster: Cluster, redis_prefix: str) -> None:
    async with Fleet([redis_cluster.nodes[0].url], redis_prefix) as fleet:
        await exchange(fleet)


async def test_a_single_server_that_is_called_a_cluster_says_so(start_redis: Callable[..., Server]) -> None:
    async with Fleet([start_redis().url], "asgi", topology="cluster", send_timeout=5) as fleet:
        with pytest.raises(LayerUnavailable, match="cluster support disabled"):
            await fleet.layer().connect()
