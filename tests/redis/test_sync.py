"""The layer from code without a loop: threads, signal handlers, tasks of a worker."""

import asyncio
import signal
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from tests.support.peers import Peer
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.signals import handled
from tests.support.waiting import SECONDS, eventually

from headrace import SendReport
from headrace.exceptions import ChannelEmpty, ChannelFull, LayerUnavailable
from headrace.layers import RedisChannelLayer

MakeLayer = Callable[..., RedisChannelLayer]
MakePeer = Callable[..., Peer]


def in_a_thread(call: Callable[[], Any]) -> Any:
    """Call it where no loop is, and give its result; the loop here stands still meanwhile."""
    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(call()))
    thread.start()
    thread.join(SECONDS)
    return result[0]


async def test_a_thread_without_a_loop_sends_to_other_processes(layer: RedisChannelLayer, make_peer: MakePeer) -> None:
    peer = make_peer()
    channel = peer.call("new_channel")
    peer.call("group_add", "room", channel)
    assert in_a_thread(lambda: layer.send_sync(channel, {"n": 1})) is None
    assert in_a_thread(lambda: layer.group_send_sync("room", {"n": 2})).delivered_here == 0
    assert [peer.call("receive", channel)["n"] for _ in range(2)] == [1, 2]


async def test_many_threads_at_once(layer: RedisChannelLayer, make_peer: MakePeer) -> None:
    peer = make_peer(capacity=5000)
    channel = peer.call("new_channel")
    peer.collect(channel)

    def send(first: int) -> None:
        for number in range(first, first + 100):
            layer.send_sync(channel, {"n": number})

    threads = [threading.Thread(target=send, args=(1000 * index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    eventually(lambda: len(peer.collected(channel)) == 800, "all came")
    came = [message["n"] for message in peer.collected(channel)]
    for index in range(8):
        assert [n for n in came if n // 1000 == index] == list(range(1000 * index, 1000 * index + 100))


async def test_a_thread_with_a_running_loop_sends(layer: RedisChannelLayer) -> None:
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    layer.send_sync(channel, {"n": 1})
    assert layer.group_send_sync("room", {"n": 2}).delivered_here == 1
    assert [(await layer.receive(channel))["n"] for _ in range(2)] == [1, 2]


async def test_a_signal_handler_sends(layer: RedisChannelLayer, make_peer: MakePeer) -> None:
    peer = make_peer()
    channel = peer.call("new_channel")
    sent: list[Any] = []

    def handler(_number: int, _frame: object) -> None:
        layer.send_sync(channel, {"n": 1})
        layer.send_sync(channel, {"n": 2}, confirm=True)
        sent.append(layer.send_many_sync([("work", {"n": 3})]))

    with handled(signal.SIGUSR1, handler):
        # Also while the thread is in a call of the layer that waits.
        timer = threading.Timer(0.05, signal.raise_signal, (signal.SIGUSR1,))
        timer.start()
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(layer.receive_sync, "empty", 0.3)
        timer.join()
        signal.raise_signal(signal.SIGUSR1)
    assert [report.delivered_here for report in sent] == [1, 1]
    assert [peer.call("receive", channel)["n"] for _ in range(4)] == [1, 2, 1, 2]
    assert peer.call("receive_many", "work", 5) == [{"n": 3}] * 2


async def test_a_report_counts_the_processes(layer: RedisChannelLayer, make_peer: MakePeer) -> None:
    def processes() -> int | None:
        return layer.group_send_sync("room", {}, confirm=True).processes

    assert processes() == 0
    peers = [make_peer() for _ in range(3)]
    for peer in peers:
        for _ in range(2):
            peer.call("group_add", "room", peer.call("new_channel"))
    assert processes() == 3
    here = await layer.new_channel()
    await layer.group_add("room", here)
    assert processes() == (await layer.group_send("room", {})).processes == 4
    report = await layer.group_send_many([("room", {}), ("nobody", {})])
    assert (report.delivered, report.delivered_here, report.processes) == (None, 1, 4)
    channel = peers[0].call("new_channel")
    # One is for a process that is another one, one for this, and one for nobody in particular.
    report = layer.send_many_sync([(channel, {}), (here, {}), ("work", {})])
    assert report == SendReport(None, 0, 0, delivered_here=2, processes=2)
    peers[0].kill()
    eventually(lambda: layer.send_many_sync([(channel, {})]).processes == 0, "it is gone")


async def test_what_was_not_waited_for_is_not_known(layer: RedisChannelLayer) -> None:
    await layer.group_add("room", await layer.new_channel())
    report = layer.group_send_sync("room", {})
    assert (report.delivered, report.delivered_here, report.processes) == (None, 1, None)


async def test_a_full_queue_is_told_of(make_layer: MakeLayer) -> None:
    layer = make_layer(capacity=1)
    layer.send_sync("work", {})
    with pytest.raises(ChannelFull):
        layer.send_sync("work", {})


async def test_not_waiting_takes_no_round_trip(
    start_proxy: Callable[[Server], Proxy], make_layer: MakeLayer, redis_server: Server
) -> None:
    proxy = start_proxy(redis_server)
    layer = make_layer(hosts=[proxy.url])
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    # Nothing is heard from the server, and nobody waits for that.
    proxy.stall()
    for number in range(10):
        layer.send_sync(channel, {"n": number})
        layer.group_send_sync("room", {"n": number})
    proxy.flow()
    assert [(await layer.receive(channel))["n"] for _ in range(20)] == [n // 2 for n in range(20)]


async def test_what_the_server_does_not_take_in_time_is_counted(
    start_redis: Callable[..., Server], make_layer: MakeLayer
) -> None:
    server = start_redis()
    layer = make_layer(hosts=[server.url], send_timeout=5)
    channel = await layer.new_channel()
    server.kill()
    for _ in range(3):
        layer.send_sync(channel, {})
    layer.group_send_sync("room", {})
    await asyncio.to_thread(eventually, lambda: layer.stats().connection.unsent == 4, "they are given up")
    with pytest.raises(LayerUnavailable):
        layer.send_sync(channel, {}, confirm=True)
    with pytest.raises(LayerUnavailable):
        layer.group_send_sync("room", {}, confirm=True)
    with pytest.raises(LayerUnavailable):
        layer.send_sync("work", {})
    # Now that it is known to be away.
    with pytest.raises(LayerUnavailable, match="no server could be reached"):
        layer.send_sync(channel, {})
    with pytest.raises(LayerUnavailable, match="no server could be reached"):
        layer.group_send_sync("room", {})
    assert layer.stats().connection.unsent == 9
    server.start()
    await asyncio.to_thread(eventually, lambda: layer.stats().connection.state == "up", "it is back")
    layer.send_sync(channel, {"n": 1})
    assert await layer.receive(channel) == {"n": 1}


async def test_groups_are_joined_and_left_without_a_loop(layer: RedisChannelLayer, make_peer: MakePeer) -> None:
    peer = make_peer()
    theirs, ours = peer.call("new_channel"), await layer.new_channel()
    for channel in (ours, theirs, "work"):
        in_a_thread(partial(layer.group_add_sync, "room", channel))
    # Of a queue the other processes hear a moment later.
    eventually(lambda: "work" in peer.call("group_channels", "room"), "it is known there")
    assert peer.call("group_send_sync", "room", {"n": 1}, confirm=True)["processes"] == 2
    assert await layer.receive(ours) == peer.call("receive", theirs) == await layer.receive("work") == {"n": 1}
    for channel in (ours, theirs, "work"):
        in_a_thread(partial(layer.group_discard_sync, "room", channel))
    assert layer.group_channels("room") == []
    assert peer.call("channel_groups", theirs) == []


def test_a_thread_makes_channels_and_adds_them_to_groups(layer: RedisChannelLayer, make_peer: MakePeer) -> None:
    peer = make_peer()
    # Whoever is first waits until messages of others can come.
    channel = in_a_thread(layer.new_channel_sync)
    in_a_thread(partial(layer.group_add_sync, "room", channel))
    peer.call("group_send", "room", {"n": 1})
    peer.call("send", channel, {"n": 2})
    assert [layer.receive_sync(channel, SECONDS)["n"] for _ in range(2)] == [1, 2]


def test_no_channel_is_made_while_the_server_is_away(start_redis: Callable[..., Server], make_layer: MakeLayer) -> None:
    server = start_redis()
    layer = make_layer(hosts=[server.url], send_timeout=5)
    server.stop()
    with pytest.raises(LayerUnavailable, match=r"(?i)no server could be reached: 127\.0\.0\.1:\d+: connection refused"):
        layer.new_channel_sync()
    server.start()
    channel = eventually(lambda: layer.stats().connection.state == "up" and layer.new_channel_sync(), "it is back")
    assert channel
    server.stop()
    with pytest.raises(LayerUnavailable):
        layer.group_add_sync("room", channel)
    assert layer.group_channels("room") == []


async def test_a_process_that_only_sends_makes_one_connection_set(
    start_proxy: Callable[[Server], Proxy], make_layer: MakeLayer, redis_server: Server
) -> None:
    proxy = start_proxy(redis_server)
    layer = make_layer(hosts=[proxy.url])
    for _ in range(20):
        in_a_thread(lambda: layer.group_send_sync("room", {}, confirm=True))
        in_a_thread(lambda: asyncio.run(layer.group_send("room", {})))
    # One to write, one to listen; and one that was needed at first, to ask what kind of server it is.
    assert proxy.connections == 2
    assert proxy.accepted <= 3


def watchers() -> int:
    """Count the threads that listen to what connections say."""
    return [thread.name for thread in threading.enumerate()].count("headrace-notices")


def test_a_layer_that_only_makes_a_channel_has_a_watcher(make_layer: Callable[..., RedisChannelLayer]) -> None:
    # Those of layers that were closed before may be about to end.
    eventually(lambda: watchers() == 0, "there is none")
    make_layer(wire="channels_redis").new_channel_sync()
    assert watchers() == 1


def test_threads_that_use_a_layer_first_at_the_same_time_start_one_watcher(layer: RedisChannelLayer) -> None:
    ready = threading.Barrier(8)

    def send() -> None:
        ready.wait(SECONDS)
        layer.group_send_sync("room", {})

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)

    # Those of layers that were closed before may be about to end.
    eventually(lambda: watchers() == 1, "there is one")


async def test_connecting_and_flushing_from_a_thread_are_done_when_they_return(
    make_layer: Callable[..., RedisChannelLayer],
) -> None:
    layer = make_layer()
    await asyncio.to_thread(layer.connect_sync)
    assert layer.stats().connection.state == "up"
    await layer.send("work", {})
    await asyncio.to_thread(layer.flush_sync)
    with pytest.raises(ChannelEmpty):
        layer.receive_nowait("work")
    await asyncio.to_thread(layer.close_sync)
    assert layer.stats().connection.state == "closed"
