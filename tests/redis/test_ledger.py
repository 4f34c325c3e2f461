"""Sends that nobody waits for: what became of them is kept in a ledger, and failures are told to the log."""

import asyncio
import logging
import re
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.signals import handled
from tests.support.waiting import SECONDS, eventually

from headrace._core import Ledger
from headrace.exceptions import InvalidMessage, LayerClosed, LayerUnavailable
from headrace.layers import RedisChannelLayer

MakeLayer = Callable[..., RedisChannelLayer]
HELLO = {"type": "test.hello"}
TIMEOUT = 2
# For how long after the loss of its server a layer takes what nobody waits for.
OUTAGE = 4
FAILED = re.compile(r"sends failed that nobody waited for: (\d+); the latest: (.*)")


@pytest.fixture
def proxy(start_proxy: Callable[[Server], Proxy], redis_server: Server) -> Proxy:
    """Stand between the layer and the server of all tests."""
    return start_proxy(redis_server)


@pytest.fixture
async def stalled(make_layer: MakeLayer, proxy: Proxy) -> RedisChannelLayer:
    """Give a layer that is connected, and hears nothing of its server until ``proxy.flow()``."""
    layer = make_layer(hosts=[proxy.url])
    await layer.connect()
    proxy.stall()
    return layer


@pytest.fixture
async def alone(start_redis: Callable[..., Server], make_layer: MakeLayer) -> RedisChannelLayer:
    """Give a layer whose server was there, and is gone, as the layer knows."""
    server = start_redis()
    layer = make_layer(hosts=[server.url], send_timeout=OUTAGE)
    await layer.connect()
    server.kill()
    await asyncio.to_thread(eventually, lambda: layer.stats().connection.state == "down", "it is noticed")
    return layer


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """Give how many failures each line of the log tells of, and the reason."""
    records = [record for record in caplog.records if record.name == "headrace.redis"]
    found = [FAILED.fullmatch(record.getMessage()) for record in records if record.levelno == logging.WARNING]
    return [(int(match[1]), match[2]) for match in found if match]


def told(caplog: pytest.LogCaptureFixture) -> int:
    """Count the failures that the log tells of."""
    return sum(count for count, _ in lines(caplog))


class TestAnswers:
    async def test_a_send_is_pending_until_its_answer_comes(self, stalled: RedisChannelLayer, proxy: Proxy) -> None:
        ledger = Ledger()
        for _ in range(3):
            stalled._group_send_unattended("room", HELLO, ledger)
        assert (ledger.pending, ledger.failed) == (3, 0)
        assert ledger.settle(0) is False
        assert ledger.settle(0.01) is False
        assert ledger.pending == 3
        proxy.flow()
        assert ledger.settle(SECONDS) is True
        assert (ledger.pending, ledger.failed, ledger.fault()) == (0, 0, None)
        assert repr(ledger) == "<Ledger: 0 pending, 0 failed>"

    def test_a_ledger_without_sends_is_settled(self) -> None:
        assert Ledger().settle(0) is True
        assert Ledger().settle(float("inf")) is True

    @pytest.mark.parametrize("timeout", [-1, float("nan")])
    def test_a_timeout_that_is_no_time_is_refused(self, timeout: float) -> None:
        with pytest.raises(ValueError, match="seconds"):
            Ledger().settle(timeout)

    async def test_what_is_sent_arrives_in_order(self, layer: RedisChannelLayer) -> None:
        channel, ledger = await layer.new_channel(), Ledger()
        await layer.group_add("room", channel)
        for number in range(50):
            layer._group_send_unattended("room", {"n": number}, ledger)
        assert ledger.settle(SECONDS)
        assert [(await layer.receive(channel))["n"] for _ in range(50)] == list(range(50))

    def test_threads_share_a_ledger(self, layer: RedisChannelLayer) -> None:
        ledger, ready = Ledger(), threading.Barrier(8)
        settled: list[bool] = []

        def send() -> None:
            ready.wait(SECONDS)
            for number in range(100):
                layer._group_send_unattended("room", {"n": number}, ledger)
            settled.append(ledger.settle(SECONDS))

        threads = [threading.Thread(target=send) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        assert settled == [True] * 8
        assert (ledger.pending, ledger.failed) == (0, 0)
        assert layer.stats().connection.published >= 800

    async def test_several_threads_wait_at_once(self, stalled: RedisChannelLayer, proxy: Proxy) -> None:
        ledger = Ledger()
        stalled._group_send_unattended("room", HELLO, ledger)
        waits = [asyncio.create_task(asyncio.to_thread(ledger.settle, SECONDS)) for _ in range(4)]
        short = [asyncio.to_thread(ledger.settle, 0.05) for _ in range(2)]
        assert await asyncio.gather(*short) == [False, False]
        assert not any(wait.done() for wait in waits)
        proxy.flow()
        assert await asyncio.gather(*waits) == [True] * 4

    async def test_the_exception_of_a_signal_handler_ends_the_wait(
        self, stalled: RedisChannelLayer, proxy: Proxy
    ) -> None:
        class Interrupt(Exception):
            pass

        def interrupt(_number: int, _frame: object) -> None:
            raise Interrupt

        ledger = Ledger()
        stalled._group_send_unattended("room", HELLO, ledger)
        with handled(signal.SIGUSR1, interrupt):
            timer = threading.Timer(0.05, signal.raise_signal, (signal.SIGUSR1,))
            timer.start()
            with pytest.raises(Interrupt):
                ledger.settle(SECONDS)
            timer.join()
        assert ledger.pending == 1
        proxy.flow()
        assert ledger.settle(SECONDS)

    async def test_queues_in_the_group_are_not_waited_for(self, make_layer: MakeLayer, proxy: Proxy) -> None:
        layer, ledger = make_layer(hosts=[proxy.url], capacity=1), Ledger()
        await layer.group_add("jobs", "work")
        proxy.stall()
        for number in range(3):
            layer._group_send_unattended("jobs", {"n": number}, ledger)
        assert ledger.pending == 3
        proxy.flow()
        assert ledger.settle(SECONDS)
        # A full queue is counted by the layer, and is no failure of a group_send.
        assert (ledger.failed, layer.stats().connection.queue_full) == (0, 2)
        assert await layer.receive("work") == {"n": 0}


class TestFailures:
    async def test_a_server_that_is_gone_fails_each_send_in_time(self, alone: RedisChannelLayer) -> None:
        ledger = Ledger()
        for _ in range(5):
            alone._group_send_unattended("room", HELLO, ledger)
        assert ledger.pending == 5
        assert await asyncio.to_thread(ledger.settle, SECONDS)
        assert (ledger.pending, ledger.failed) == (0, 5)
        assert alone.stats().connection.unsent == 5
        fault = ledger.fault()
        assert isinstance(fault, LayerUnavailable)
        assert "no server could be reached" in str(fault)
        assert isinstance(fault.__cause__, ConnectionError)
        assert repr(ledger) == "<Ledger: 0 pending, 5 failed>"

    async def test_a_server_that_does_not_answer_is_named_as_that(
        self, start_redis: Callable[..., Server], make_layer: MakeLayer
    ) -> None:
        server = start_redis()
        layer, ledger = make_layer(hosts=[server.url], send_timeout=TIMEOUT), Ledger()
        await layer.connect()
        server.pause()
        layer._group_send_unattended("room", HELLO, ledger)
        assert await asyncio.to_thread(ledger.settle, SECONDS)
        server.resume()
        fault = ledger.fault()
        assert ledger.failed == 1
        assert isinstance(fault, LayerUnavailable)
        assert isinstance(fault.__cause__, TimeoutError)

    async def test_what_failed_stays_counted_when_the_server_is_back(
        self, start_redis: Callable[..., Server], make_layer: MakeLayer
    ) -> None:
        server = start_redis()
        layer, ledger = make_layer(hosts=[server.url], send_timeout=TIMEOUT), Ledger()
        await layer.connect()
        server.stop()
        layer._group_send_unattended("room", HELLO, ledger)
        assert await asyncio.to_thread(ledger.settle, SECONDS)
        server.start()
        await asyncio.to_thread(eventually, lambda: layer.stats().connection.state == "up", "it is back")
        layer._group_send_unattended("room", HELLO, ledger)
        assert await asyncio.to_thread(ledger.settle, SECONDS)
        assert (ledger.pending, ledger.failed) == (0, 1)

    async def test_failures_are_logged_once_in_one_line_a_look(
        self, alone: RedisChannelLayer, caplog: pytest.LogCaptureFixture
    ) -> None:
        one, other = Ledger(), Ledger()
        for _ in range(200):
            alone._group_send_unattended("room", HELLO, one)
            alone._group_send_unattended("room", HELLO, other)
        for ledger in (one, other):
            assert await asyncio.to_thread(ledger.settle, SECONDS)
        assert (one.failed, other.failed) == (200, 200)
        await asyncio.to_thread(eventually, lambda: told(caplog) >= 400, "all are told")
        # Those of one look are in one line: the sends were all given up within a moment.
        assert told(caplog) == 400
        assert len(lines(caplog)) <= 10
        assert all("no server could be reached" in reason for _, reason in lines(caplog))
        # The next sender is told itself.
        with pytest.raises(LayerUnavailable, match="no server could be reached"):
            alone._group_send_unattended("room", HELLO, one)
        assert (one.pending, one.failed) == (0, 200)
        assert alone.stats().connection.unsent == 401

    async def test_a_failure_is_logged_though_its_ledger_is_gone(
        self, alone: RedisChannelLayer, caplog: pytest.LogCaptureFixture
    ) -> None:
        alone._group_send_unattended("room", HELLO, Ledger())
        await asyncio.to_thread(eventually, lambda: told(caplog), "it is told")
        assert told(caplog) == 1

    async def test_sends_without_a_ledger_are_logged_as_well(
        self, alone: RedisChannelLayer, caplog: pytest.LogCaptureFixture
    ) -> None:
        for _ in range(200):
            alone.group_send_sync("room", HELLO)
        await asyncio.to_thread(eventually, lambda: told(caplog) >= 200, "they are told of")
        assert told(caplog) == 200
        assert len(lines(caplog)) <= 10

    async def test_sends_whose_sender_is_told_are_not_logged(
        self, alone: RedisChannelLayer, caplog: pytest.LogCaptureFixture
    ) -> None:
        with pytest.raises(LayerUnavailable):
            await alone.group_send("room", HELLO)
        with pytest.raises(LayerUnavailable):
            await asyncio.to_thread(alone.group_send_sync, "room", HELLO, confirm=True)
        with pytest.raises(LayerUnavailable):
            alone.group_send_sync("room", HELLO)
        assert alone.stats().connection.unsent == 3
        await alone.close()
        assert told(caplog) == 0

    async def test_what_is_refused_at_once_is_not_entered(self, layer: RedisChannelLayer) -> None:
        ledger = Ledger()
        refused: list[tuple[Any, Any]] = [("not a group", HELLO), ("room", {"n": {1}}), ("room", [])]
        for group, message in refused:
            with pytest.raises((TypeError, InvalidMessage)):
                layer._group_send_unattended(group, message, ledger)
        assert (ledger.pending, ledger.failed) == (0, 0)
        assert ledger.settle(0)


class TestEnds:
    async def test_a_layer_that_is_closed_answers_for_what_it_could_not_send(
        self, stalled: RedisChannelLayer, caplog: pytest.LogCaptureFixture
    ) -> None:
        ledger = Ledger()
        for _ in range(3):
            stalled._group_send_unattended("room", HELLO, ledger)
        await stalled.close()
        assert await asyncio.to_thread(ledger.settle, SECONDS)
        assert (ledger.pending, ledger.failed) == (0, 3)
        assert isinstance(ledger.fault(), LayerClosed)
        await asyncio.to_thread(eventually, lambda: told(caplog) == 3, "they are told")
        with pytest.raises(LayerClosed):
            stalled._group_send_unattended("room", HELLO, ledger)
        assert (ledger.pending, ledger.failed) == (0, 3)

    async def test_a_layer_that_is_dropped_answers_as_well(self, redis_server: Server, proxy: Proxy) -> None:
        layer, ledger = RedisChannelLayer([proxy.url]), Ledger()
        await layer.connect()
        proxy.stall()
        layer._group_send_unattended("room", HELLO, ledger)
        del layer
        assert await asyncio.to_thread(ledger.settle, SECONDS)
        assert (ledger.pending, ledger.failed) == (0, 1)

    def test_the_layer_outlives_its_ledgers_and_they_outlive_it(self, redis_server: Server) -> None:
        layer, ledger = RedisChannelLayer([redis_server.url]), Ledger()
        layer._group_send_unattended("room", HELLO, Ledger())
        layer._group_send_unattended("room", HELLO, ledger)
        assert ledger.settle(SECONDS)
        asyncio.run(layer.close())
        del layer
        assert (ledger.pending, ledger.failed) == (0, 0)
