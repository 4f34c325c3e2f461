import asyncio
import gc
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from tests.support.waiting import SECONDS

from headrace._sockets.loop import background_loop
from headrace._sockets.mailbox import TopicMailbox
from headrace.exceptions import ConnectionClosed, LayerClosed, MessageTooLarge
from headrace.layers import InMemoryChannelLayer
from headrace.sockets import Broadcaster

TOPIC = UUID("12345678-1234-5678-1234-567812345678")


async def heard(broadcaster: Broadcaster) -> tuple[str, Any]:
    return await asyncio.wait_for(broadcaster.async_receive_broadcast(), SECONDS)


class SlowToJoin(TopicMailbox):
    """A mailbox whose join takes some turns of the loop, as one over a network does."""

    async def join(self, topic: str, since: str | int | None = None) -> bool | None:
        for _ in range(3):
            await asyncio.sleep(0)
        return await super().join(topic, since)


def hear_one(broadcaster: Broadcaster) -> tuple[str, Any]:
    """Receive as a program without a loop of its own can."""
    return asyncio.run(heard(broadcaster))


@pytest.fixture
def ears(memory: InMemoryChannelLayer) -> Broadcaster:
    return Broadcaster(layer=memory)


@pytest.fixture
def mouth(memory: InMemoryChannelLayer) -> Broadcaster:
    return Broadcaster(layer=memory)


def test_a_plain_program_subscribes_and_broadcasts(ears: Broadcaster, mouth: Broadcaster) -> None:
    ears.subscribe("news")
    mouth.broadcast("news", {"a": (1, 2)})
    assert hear_one(ears) == ("news", {"a": [1, 2]})


def test_whoever_broadcasts_to_a_topic_of_its_own_hears_it_too(ears: Broadcaster) -> None:
    ears.subscribe("news")
    ears.broadcast("news", 1)
    assert hear_one(ears) == ("news", 1)


async def test_in_a_loop_what_is_called_later_comes_later(memory: InMemoryChannelLayer) -> None:
    slow = SlowToJoin(memory)
    ears = Broadcaster(layer=memory)
    ears._headrace_hub.mailbox = slow
    ears.subscribe("a")
    ears.broadcast("a", 1)
    ears.unsubscribe("a")
    ears.broadcast("a", 2)
    ears.subscribe("a")
    await ears.async_broadcast("a", 3)
    assert [await heard(ears), await heard(ears)] == [("a", 1), ("a", 3)]


@pytest.mark.parametrize("given", [["a", 7, TOPIC], ("a", 7, TOPIC), {"a", 7, TOPIC}])
async def test_one_broadcast_goes_to_several_topics(ears: Broadcaster, mouth: Broadcaster, given: Any) -> None:
    for topic in ("a", "7", str(TOPIC)):
        await ears.async_subscribe(topic)
    ways: list[Any] = [mouth.broadcast, mouth.broadcast_many]
    for way in ways:
        way(given, "x")
    for way in (mouth.async_broadcast, mouth.async_broadcast_many):
        await way(given, "x")
    got = [await heard(ears) for _ in range(12)]
    assert sorted(got) == sorted([("a", "x"), ("7", "x"), (str(TOPIC), "x")] * 4)
    assert mouth.stats().broadcasts == 12


async def test_topics_that_no_group_could_be_named_after_come_back_as_they_were(ears: Broadcaster) -> None:
    topics = ["", "room 1", "ärger/\n\0", "x" * 1000, "socket.t.a", "!", "a" * 80, "a" * 81]
    for topic in topics:
        await ears.async_subscribe(topic)
    for topic in topics:
        await ears.async_broadcast(topic, topic)
    assert [await heard(ears) for _ in topics] == [(topic, topic) for topic in topics]
    assert ears.subscriptions == set(topics)


async def test_nothing_more_comes_of_a_topic_that_was_left(ears: Broadcaster) -> None:
    for topic in ("a", "b"):
        await ears.async_subscribe(topic)
    ears.broadcast("a", "before")
    await ears.async_unsubscribe("a")
    ears.broadcast("a", "after")
    ears.broadcast("b", 1)
    assert await heard(ears) == ("b", 1)
    assert ears.stats().dropped_unsubscribed == 1
    ears.unsubscribe("b")
    ears.unsubscribe("never")
    assert ears.subscriptions == frozenset()
    assert ears.layer.stats().memberships == 0


async def test_to_subscribe_twice_is_to_subscribe_once(ears: Broadcaster) -> None:
    await ears.async_subscribe("a")
    ears.subscribe("a")
    ears.broadcast("a", 1)
    ears.broadcast("a", 2)
    assert [await heard(ears), await heard(ears)] == [("a", 1), ("a", 2)]


async def test_a_receive_that_is_cancelled_loses_nothing(ears: Broadcaster) -> None:
    await ears.async_subscribe("a")
    task = asyncio.create_task(ears.async_receive_broadcast())
    await asyncio.sleep(0)
    ears.broadcast("a", 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await heard(ears) == ("a", 1)


def test_many_threads_broadcast_at_once(memory: InMemoryChannelLayer) -> None:
    ears, mouth = Broadcaster(config={"capacity": 10_000}), Broadcaster(config={"capacity": 10_000})
    ears.subscribe("a")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: mouth.broadcast("a", number), range(1000)))

    async def all_of_them() -> list[Any]:
        return [(await heard(ears))[1] for _ in range(1000)]

    assert sorted(asyncio.run(all_of_them())) == list(range(1000))
    assert mouth.stats().broadcasts == 1000


def test_what_does_not_fit_is_counted(memory: InMemoryChannelLayer) -> None:
    ears = Broadcaster(config={"capacity": 3})
    ears.subscribe("a")
    for number in range(5):
        ears.broadcast("a", number)
    stats = ears.stats()
    assert (stats.topics, stats.broadcasts, stats.depth, stats.dropped_full) == (1, 5, 3, 2)
    assert hear_one(ears) == ("a", 0)
    assert ears.stats().delivered == 1


@pytest.mark.parametrize("topic", [None, b"a", 1.5, True, ["a", None]])
async def test_what_is_no_topic_is_refused_at_the_call(mouth: Broadcaster, topic: Any) -> None:
    for send in (mouth.broadcast, mouth.async_broadcast):
        with pytest.raises(TypeError, match="a topic must be a str, an int or a UUID"):
            await _answer(send(topic, 1))
    for join in (mouth.subscribe, mouth.async_subscribe, mouth.unsubscribe, mouth.async_unsubscribe):
        with pytest.raises(TypeError, match="a topic must be a str, an int or a UUID"):
            await _answer(join(topic))
    assert mouth.stats().broadcasts == 0


async def _answer(result: Any) -> Any:
    return await result if asyncio.iscoroutine(result) else result


async def test_many_are_a_list_and_not_one(mouth: Broadcaster) -> None:
    for call in (mouth.broadcast_many, mouth.async_broadcast_many):
        with pytest.raises(TypeError, match="channels must be a list, tuple or set of topics, got a str"):
            await _answer(call("ab", 1))


@pytest.mark.parametrize("data", [{1}, object(), {"a": [1j]}])
async def test_data_that_cannot_be_carried_is_refused_at_the_call(ears: Broadcaster, data: Any) -> None:
    await ears.async_subscribe("a")
    for call in (ears.broadcast, ears.async_broadcast):
        with pytest.raises(TypeError, match=r"data cannot be broadcast: data.* is not serialisable"):
            await _answer(call("a", data))
    assert ears.stats().depth == 0


def test_data_that_is_too_large_is_refused_at_the_call() -> None:
    mouth = Broadcaster(config={"max_message_bytes": 2048})
    mouth.broadcast("a", "x" * 2000)
    with pytest.raises(MessageTooLarge, match="data takes 2102 bytes as JSON, and a message may have 2048"):
        mouth.broadcast("a", "x" * 2100)


async def test_ten_mebibytes_arrive_in_one_piece(ears: Broadcaster) -> None:
    await ears.async_subscribe("a")
    data = {"payload": "x" * 10 * 1024 * 1024}
    await ears.async_broadcast("a", data)
    assert await heard(ears) == ("a", data)


@pytest.mark.parametrize("data", ["msg:secret", {"type": "websocket.close"}, "msg:pubsub.1", {"text": "x"}, ""])
async def test_data_that_looks_like_a_marker_is_just_data(ears: Broadcaster, data: Any) -> None:
    await ears.async_subscribe("a")
    await ears.async_broadcast("a", data)
    assert await heard(ears) == ("a", data)


def test_nothing_is_left_of_a_broadcaster_that_nobody_has(memory: InMemoryChannelLayer) -> None:
    ears = Broadcaster(layer=memory)
    ears.subscribe("a")
    ears.broadcast("a", 1)
    assert (memory.stats().memberships, memory.stats().depth) == (1, 1)
    del ears
    gc.collect()
    assert (memory.stats().memberships, memory.stats().depth) == (0, 0)


async def test_a_closed_layer_says_so_at_once(memory: InMemoryChannelLayer, mouth: Broadcaster) -> None:
    await memory.close()
    for call in (mouth.broadcast, mouth.async_broadcast):
        with pytest.raises(LayerClosed):
            await _answer(call("a", 1))
    with pytest.raises(LayerClosed):
        await mouth.async_subscribe("a")
    assert mouth.subscriptions == frozenset()


def test_a_mailbox_that_was_closed_while_it_joined_is_in_no_group(memory: InMemoryChannelLayer) -> None:
    ears = Broadcaster(layer=memory)
    mailbox, add = ears._headrace_hub.mailbox, memory.group_add_sync

    def closed_meanwhile(group: str, channel: str, since: str | int | None = None) -> bool | None:
        mailbox.close()
        return add(group, channel, since)

    memory.group_add_sync = closed_meanwhile  # type: ignore[method-assign]
    with pytest.raises(ConnectionClosed):
        ears.subscribe("a")
    assert memory.stats().memberships == 0


class Gated(InMemoryChannelLayer):
    """A layer that puts somebody in a group when it is told to, or fails."""

    def __init__(self) -> None:
        super().__init__()
        self.gates: list[asyncio.Future[None]] = []

    async def group_add(self, group: str, channel: str, since: str | int | None = None) -> bool | None:
        self.gates.append(asyncio.get_running_loop().create_future())
        await self.gates[-1]
        return await super().group_add(group, channel, since)


async def _joins(layer: Gated, ears: Broadcaster, count: int) -> "list[asyncio.Task[bool | None]]":
    before = len(layer.gates)
    joins = [asyncio.ensure_future(ears.async_subscribe("a")) for _ in range(count)]
    while len(layer.gates) < before + count:
        await asyncio.sleep(0)
    return joins


@pytest.mark.parametrize("first", [0, 1])
async def test_of_two_joins_the_one_that_succeeds_counts(first: int) -> None:
    layer = Gated()
    ears = Broadcaster(layer=layer)
    joins = await _joins(layer, ears, 2)
    for which in (first, 1 - first):
        if which:
            layer.gates[which].set_exception(ConnectionError("of the test"))
        else:
            layer.gates[which].set_result(None)
        await asyncio.wait({joins[which]})
    assert isinstance(joins[1].exception(), ConnectionError)
    assert (ears.subscriptions, layer.stats().memberships) == (frozenset("a"), 1)
    (again,) = await _joins(layer, ears, 1)
    layer.gates[2].set_exception(ConnectionError("of the test"))
    with pytest.raises(ConnectionError):
        await again
    assert ears.subscriptions == frozenset("a")


async def test_a_topic_that_cannot_be_joined_is_not_subscribed_to() -> None:
    layer = Gated()
    ears = Broadcaster(layer=layer)
    joins = await _joins(layer, ears, 2)
    for gate in layer.gates:
        gate.set_exception(ConnectionError("of the test"))
    await asyncio.wait(joins)
    assert all(isinstance(join.exception(), ConnectionError) for join in joins)
    assert (ears.subscriptions, layer.stats().memberships) == (frozenset(), 0)


async def test_a_topic_that_was_left_while_it_was_joined_is_left() -> None:
    layer = Gated()
    ears = Broadcaster(layer=layer)
    (left,) = await _joins(layer, ears, 1)
    await ears.async_unsubscribe("a")
    layer.gates[0].set_result(None)
    await left
    assert (ears.subscriptions, layer.stats().memberships) == (frozenset(), 0)
    (earlier,) = await _joins(layer, ears, 1)
    await ears.async_unsubscribe("a")
    (later,) = await _joins(layer, ears, 1)
    layer.gates[1].set_exception(ConnectionError("of the test"))
    layer.gates[2].set_result(None)
    await asyncio.wait({earlier, later})
    assert (ears.subscriptions, layer.stats().memberships) == (frozenset("a"), 1)


# What nobody waits for.


def test_flush_returns_when_there_is_nothing_to_wait_for(mouth: Broadcaster) -> None:
    mouth.broadcast("a", 1)
    mouth.flush(SECONDS)
    assert (mouth.stats().pending, mouth.stats().failed) == (0, 0)


async def test_flush_is_not_for_the_thread_of_a_loop(mouth: Broadcaster) -> None:
    with pytest.raises(RuntimeError, match="use 'await async_flush"):
        mouth.flush(SECONDS)
    await mouth.async_flush(SECONDS)


@pytest.mark.parametrize("timeout", [0, -1, "1"])
def test_flush_takes_seconds(mouth: Broadcaster, timeout: Any) -> None:
    with pytest.raises(ValueError, match="timeout must be a positive number of seconds"):
        mouth.flush(timeout)


@pytest.mark.complains
async def test_what_fails_later_is_logged_counted_and_raised_once_by_flush(
    memory: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    ears = Broadcaster(layer=memory)
    await ears.async_subscribe("a")
    await memory.close()
    ears.subscribe("b")
    with pytest.raises(RuntimeError, match="calls of Broadcaster that nobody waited for failed: 1; the latest"):
        await ears.async_flush(SECONDS)
    assert re.search("a call of Broadcaster that nobody waited for failed: LayerClosed", caplog.text)
    assert (ears.stats().failed, ears.stats().pending) == (1, 0)
    await ears.async_flush(SECONDS)


async def test_flush_tells_that_something_is_still_on_its_way(memory: InMemoryChannelLayer) -> None:
    ears, gate = Broadcaster(layer=memory), asyncio.Event()
    ears._headrace_hub.later.begin(gate.wait, asyncio.get_running_loop())
    with pytest.raises(TimeoutError, match="calls of Broadcaster that are still on their way: 1"):
        await ears.async_flush(0.01)
    assert ears.stats().pending == 1
    gate.set()
    await ears.async_flush(SECONDS)


# Where what has to wait is done.


async def test_a_coroutine_runs_in_the_loop_that_runs_or_else_in_the_background(mouth: Broadcaster) -> None:
    async def where() -> int:
        return threading.get_ident()

    task = mouth.run_async(where())
    assert isinstance(task, asyncio.Task)
    assert await task == threading.get_ident()
    future = await asyncio.to_thread(mouth.run_async, where())
    assert await asyncio.wrap_future(future) != threading.get_ident()


def test_a_loop_that_is_given_and_nobody_runs_is_run_in_a_thread(memory: InMemoryChannelLayer) -> None:
    loop = asyncio.new_event_loop()
    mouth = Broadcaster(layer=memory, loop=loop)

    async def which() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    assert mouth.run_async(which()).result(SECONDS) is loop
    thread = next(each for each in threading.enumerate() if each.name == "headrace-sockets-loop")
    loop.call_soon_threadsafe(loop.stop)
    thread.join(SECONDS)
    loop.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_the_child_of_a_fork_begins_with_nothing_and_broadcasts(memory: InMemoryChannelLayer) -> None:
    ears = Broadcaster(layer=memory)
    ears.subscribe("a")
    ears.broadcast("a", "of the parent")
    child = os.fork()
    if not child:
        try:
            ears.broadcast("a", "to nobody")
            clean = (ears.subscriptions, ears.stats().broadcasts, ears.stats().topics) == (frozenset(), 1, 0)
            ears.subscribe("a")
            ears.broadcast("a", "of the child")
            ears.flush(SECONDS)
            clean = clean and hear_one(ears) == ("a", "of the child")
            os._exit(0 if clean else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert hear_one(ears) == ("a", "of the parent")


# Nobody there.


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "headrace.sockets"]


def test_a_broadcast_that_no_socket_can_hear_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    layer = InMemoryChannelLayer()
    for _ in range(2):
        Broadcaster(layer=layer).broadcast("news", 1)
    (warning,) = warnings_of(caplog)
    assert "no socket of this process listens" in warning
    assert "DJANGO_SOCKETS_CONFIG" in warning


async def test_an_awaited_one_is_warned_of_too(caplog: pytest.LogCaptureFixture) -> None:
    layer = InMemoryChannelLayer()
    await Broadcaster(layer=layer).async_broadcast(["news", "sport"], 1)
    await Broadcaster(layer=layer).async_broadcast("news", 1)
    assert len(warnings_of(caplog)) == 1


async def test_where_somebody_listens_or_has_listened_nobody_is_warned(caplog: pytest.LogCaptureFixture) -> None:
    layer = InMemoryChannelLayer()
    ears, mouth = Broadcaster(layer=layer), Broadcaster(layer=layer)
    await ears.async_subscribe("sport")
    mouth.broadcast("news", 1)
    await ears.async_unsubscribe("sport")
    await mouth.async_broadcast("news", 2)
    assert warnings_of(caplog) == []


# Loops that end.


class Slow(InMemoryChannelLayer):
    """A layer that takes its time to put somebody in a group."""

    async def group_add(self, group: str, channel: str, since: str | int | None = None) -> None:
        await asyncio.Event().wait()


@pytest.mark.complains
@pytest.mark.parametrize("closed", [True, False])
def test_what_the_end_of_a_loop_cuts_off_is_counted_and_holds_up_nothing(closed: bool) -> None:
    broadcaster = Broadcaster(layer=Slow())

    async def leave_something() -> None:
        broadcaster.subscribe("own")
        broadcaster.broadcast("news", 1)
        await asyncio.sleep(0)

    if closed:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(leave_something())
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # as asyncio.gather does
        loop.close()
    else:
        asyncio.run(leave_something())
    broadcaster.broadcast("news", 2)
    assert broadcaster.stats().broadcasts == 1
    with pytest.raises(RuntimeError, match=r"failed: 2; the latest: its event loop"):
        broadcaster.flush()
    broadcaster.flush()


def test_a_signal_handler_may_broadcast_whatever_it_interrupts(memory: InMemoryChannelLayer) -> None:
    broadcaster = Broadcaster(layer=memory)
    with broadcaster._headrace_hub.later.lock:
        broadcaster.broadcast("news", 1)
        broadcaster._headrace_hub.later.begin(partial(asyncio.sleep, 0), background_loop())
    broadcaster.flush()
