"""Replies of the server: each is for one task or one thread, and may be left alone."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable

import pytest
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.waiting import SECONDS

from headrace import SendReport
from headrace.layers import RedisChannelLayer

MakeLayer = Callable[..., RedisChannelLayer]
HELLO: dict[str, object] = {"type": "test.hello"}


@pytest.fixture
async def stalled(
    make_layer: MakeLayer, start_proxy: Callable[[Server], Proxy], redis_server: Server
) -> tuple[RedisChannelLayer, Proxy]:
    """Give a layer that is connected, and hears nothing of its server until ``proxy.flow()``."""
    proxy = start_proxy(redis_server)
    layer = make_layer(hosts=[proxy.url])
    await layer.connect()
    proxy.stall()
    return layer, proxy


def counts(report: SendReport) -> tuple[int | None, int, int]:
    return report.processes, report.delivered_here, report.dropped_full


async def test_a_task_and_a_thread_get_the_same_outcome(layer: RedisChannelLayer) -> None:
    channel = await layer.new_channel()
    assert counts(await layer._engine.send(channel, HELLO)) == (1, 0, 0)
    reply = layer._engine.send(channel, HELLO)
    assert counts(await asyncio.to_thread(reply.wait)) == (1, 0, 0)
    assert counts(await layer._engine.send("queue", HELLO)) == (0, 1, 0)


async def test_a_reply_that_came_before_is_there(layer: RedisChannelLayer) -> None:
    channel = await layer.new_channel()
    reply = layer._engine.send(channel, HELLO)
    await layer.receive(channel)
    await layer.close_pools()
    assert counts(await reply) == (1, 0, 0)


async def test_a_reply_is_taken_once(layer: RedisChannelLayer) -> None:
    reply = layer._engine.connect()
    await reply
    with pytest.raises(RuntimeError, match="this reply was taken before"):
        await reply
    with pytest.raises(RuntimeError, match="this reply was taken before"):
        reply.wait()


async def test_one_waits_at_a_time(stalled: tuple[RedisChannelLayer, Proxy]) -> None:
    layer, proxy = stalled
    reply = layer._engine.send("queue", HELLO)
    first = asyncio.ensure_future(reply)
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="one task or thread at a time"):
        await reply
    with pytest.raises(RuntimeError, match="one task or thread at a time"):
        reply.wait(0)
    proxy.flow()
    assert counts(await first) == (0, 1, 0)


async def test_a_thread_waits_as_long_as_it_says(stalled: tuple[RedisChannelLayer, Proxy]) -> None:
    layer, proxy = stalled
    reply = layer._engine.send("queue", HELLO)
    with pytest.raises(TimeoutError, match="there was no answer in time"):
        reply.wait(0.01)
    with pytest.raises(ValueError, match="-1"):
        reply.wait(-1)
    proxy.flow()
    assert counts(reply.wait(SECONDS)) == (0, 1, 0)


async def test_a_task_that_was_cancelled_leaves_the_reply(stalled: tuple[RedisChannelLayer, Proxy]) -> None:
    layer, proxy = stalled
    reply = layer._engine.send("queue", HELLO)
    task = asyncio.ensure_future(reply)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(RuntimeError, match="the wait for this reply was ended before"):
        await reply
    proxy.flow()
    thread = threading.Thread(target=reply.wait, args=(SECONDS,))
    thread.start()
    await asyncio.to_thread(thread.join)
    with pytest.raises(RuntimeError, match="this reply was taken before"):
        reply.wait(0)


async def test_a_task_that_nobody_has_any_more_is_collected(stalled: tuple[RedisChannelLayer, Proxy]) -> None:
    layer, proxy = stalled
    reply = layer._engine.send("queue", HELLO)
    known = weakref.ref(task := asyncio.ensure_future(reply))
    await asyncio.sleep(0)
    del task, reply
    proxy.flow()
    await layer.close_pools()
    await asyncio.sleep(0)
    gc.collect()
    assert known() is None
