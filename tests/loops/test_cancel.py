"""A receiver is cancelled at every possible point: no message is lost, none comes twice, and the order is kept.

A receiver takes messages for ever, in each of the ways in which programs wait. A driver sends and cancels, each at a
turn of the loop of its choice, and tries all combinations: so the receiver is hit before its first step, while it
waits, between the hand-off and its resumption, after it, and on its way from one message to the next.
"""

import asyncio
import itertools
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import anyio
import pytest

from headrace.exceptions import ChannelEmpty
from headrace.layers import InMemoryChannelLayer

Take = Callable[[], Coroutine[Any, Any, None]]
Cancels = list[Callable[[], object]]
Way = Callable[[Take, Cancels], Coroutine[Any, Any, None]]
Plan = list[list[str]]

TURNS = 7
BURSTS: list[tuple[int, ...]] = [(turn,) * 3 for turn in range(TURNS)]
TRICKLES: list[tuple[int, ...]] = [(turn, turn + 1, turn + 2) for turn in range(TURNS - 2)]

# Debug mode changes nothing here but the time it takes.
swept = pytest.mark.asyncio(
    loop_factories=["asyncio", "uvloop", "foreign-tasks", *(["eager"] if sys.version_info >= (3, 12) else [])]
)


class OfTheTest(Exception):
    """What a sibling of the receiver fails with."""


# Each way starts to take and adds what cancels it. It returns when the receiver is gone.


async def task(take: Take, cancels: Cancels) -> None:
    """Cancel the receiving task itself."""
    receiving = asyncio.ensure_future(take())
    cancels.append(receiving.cancel)
    await asyncio.wait([receiving])


async def inner_await(take: Take, cancels: Cancels) -> None:
    """Cancel a task that awaits the receive some frames below."""

    async def outer() -> None:
        await take()

    await task(outer, cancels)


async def wait_for(take: Take, cancels: Cancels) -> None:
    """Cancel a task in ``asyncio.wait_for``."""

    async def outer() -> None:
        await asyncio.wait_for(take(), 3600)

    await task(outer, cancels)


async def timeout(take: Take, cancels: Cancels) -> None:
    """Let the time of ``asyncio.timeout`` be over."""
    with suppress(TimeoutError):
        async with asyncio.timeout(None) as scope:
            cancels.append(lambda: scope.reschedule(0))
            await take()


async def wait(take: Take, cancels: Cancels) -> None:
    """Cancel what ``asyncio.wait`` waits for, in the manner of Channels' dispatch."""
    receiving, other = asyncio.ensure_future(take()), asyncio.ensure_future(asyncio.Event().wait())
    cancels.append(receiving.cancel)
    await asyncio.wait([receiving, other], return_when=asyncio.FIRST_COMPLETED)
    other.cancel()


async def gather(take: Take, cancels: Cancels) -> None:
    """Cancel ``asyncio.gather``."""
    gathered = asyncio.gather(take(), asyncio.Event().wait())
    cancels.append(gathered.cancel)
    with suppress(asyncio.CancelledError):
        await gathered


async def shield(take: Take, cancels: Cancels) -> None:
    """Cancel a shielded receiver, which changes nothing, and then the one behind the shield."""
    receiving = asyncio.ensure_future(take())
    shielded = asyncio.shield(receiving)
    cancels.append(lambda: (shielded.cancel(), receiving.cancel()))
    await asyncio.wait([shielded, receiving])


async def task_group(take: Take, cancels: Cancels) -> None:
    """Cancel the owner of a TaskGroup."""

    async def owner() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(take())

    await task(owner, cancels)


async def failing_sibling(take: Take, cancels: Cancels) -> None:
    """Let a sibling in a TaskGroup fail."""
    fail = asyncio.Event()

    async def sibling() -> None:
        await fail.wait()
        raise OfTheTest

    cancels.append(fail.set)
    with suppress(BaseExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(take())
            group.create_task(sibling())


async def anyio_group(take: Take, cancels: Cancels) -> None:
    """Cancel an anyio task group."""
    async with anyio.create_task_group() as group:
        cancels.append(group.cancel_scope.cancel)
        group.start_soon(take)


async def anyio_scope(take: Take, cancels: Cancels) -> None:
    """Cancel an anyio scope."""
    with anyio.move_on_after(3600) as scope:
        cancels.append(scope.cancel)
        await take()


async def anyio_deadline(take: Take, cancels: Cancels) -> None:
    """Let the deadline of an anyio scope pass."""
    with anyio.move_on_after(3600) as scope:
        cancels.append(lambda: setattr(scope, "deadline", float("-inf")))
        await take()


WAYS = [
    *(task, inner_await, wait_for, timeout, wait, gather, shield, task_group, failing_sibling),
    *(anyio_group, anyio_scope, anyio_deadline),
]


def waiter(layer: InMemoryChannelLayer, received: list[int], channel: str = "channel") -> Take:
    """Make what receives for ever, and notes each message as soon as it has it."""

    async def take() -> None:
        while True:
            received.append((await layer.receive(channel))["n"])

    return take


def plans(schedules: list[tuple[int, ...]]) -> Iterator[tuple[Plan, int]]:
    """Say what to do at each turn: every schedule of sends with every moment of the cancellation."""
    for sends, cancel, cancel_first in itertools.product(schedules, range(TURNS), (False, True)):
        turns: Plan = [["send"] * sends.count(turn) for turn in range(TURNS)]
        turns[cancel].insert(0 if cancel_first else len(turns[cancel]), "cancel")
        yield turns, len(sends)


async def follow(turns: Plan, send: Callable[[], object], cancel: Callable[[], object]) -> None:
    """Do at each turn of the loop what the plan says."""
    for turn in turns:
        for action in turn:
            if action == "send":
                send()
            else:
                cancel()
        await asyncio.sleep(0)


async def play(way: Way, take: Take, turns: Plan, send: Callable[[], object]) -> None:
    """Run the receiver in one way by one plan; end when the receiver is gone."""
    cancels: Cancels = []
    running = asyncio.ensure_future(way(take, cancels))

    def cancel() -> None:
        stop = cancels[0] if cancels else running.cancel
        stop()

    await follow(turns, send, cancel)
    await asyncio.wait([running])


def rest(layer: InMemoryChannelLayer, channel: str = "channel") -> list[int]:
    """Take what a channel still holds."""
    messages = []
    with suppress(ChannelEmpty):
        while True:
            messages.append(layer.receive_nowait(channel)["n"])
    return messages


def sender(layer: InMemoryChannelLayer) -> Callable[[], None]:
    """Make what sends the next number."""
    numbers = itertools.count()
    return lambda: layer.send_sync("channel", {"n": next(numbers)})


def group_sender(layer: InMemoryChannelLayer) -> Callable[[], object]:
    """Make what sends the next number to the group."""
    numbers = itertools.count()
    return lambda: layer.group_send_sync("group", {"n": next(numbers)})


def threaded(thread: ThreadPoolExecutor, send: Callable[[], None]) -> Callable[[], None]:
    """Make what sends from another thread, and returns when that is done."""
    return lambda: thread.submit(send).result()


def noting(inbox: AsyncIterator[Any], received: list[int]) -> Take:
    """Make what iterates over an inbox for ever, and notes each message as soon as it has it."""

    async def take() -> None:
        async for message in inbox:
            received.append(message["n"])

    return take


@swept
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_a_cancelled_receiver_took_a_message_or_left_it_in_its_place(
    layer: InMemoryChannelLayer, way: Way
) -> None:
    for turns, count in plans(BURSTS + TRICKLES):
        received: list[int] = []
        await play(way, waiter(layer, received), turns, sender(layer))
        assert received + rest(layer) == list(range(count)), turns
        assert layer.stats().waiters == 0, turns
    assert layer.stats().returned > 0, "no plan cancelled between the hand-off and the resumption"


@swept
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_an_inbox_that_is_left_and_taken_up_again_goes_on_where_it_was(
    layer: InMemoryChannelLayer, way: Way
) -> None:
    for turns, count in plans(BURSTS):
        received: list[int] = []
        async with layer.subscription("group") as inbox:
            await play(way, noting(inbox, received), turns, group_sender(layer))
            layer.group_send_sync("group", {"n": count})
            while len(received) <= count:
                received.append((await anext(inbox))["n"])
        assert received == list(range(count + 1)), turns


@swept
@pytest.mark.parametrize("way", [task, wait_for, timeout, anyio_scope], ids=lambda way: way.__name__)
async def test_messages_from_another_thread_are_not_lost_either(layer: InMemoryChannelLayer, way: Way) -> None:
    with ThreadPoolExecutor(1) as thread:
        for turns, count in plans(BURSTS):
            received: list[int] = []
            await play(way, waiter(layer, received), turns, threaded(thread, sender(layer)))
            assert received + rest(layer) == list(range(count)), turns


@swept
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_the_next_in_line_gets_what_a_cancelled_receiver_leaves(layer: InMemoryChannelLayer, way: Way) -> None:
    for turns, count in plans(BURSTS):
        first: list[int] = []
        second: list[int] = []
        other = asyncio.ensure_future(waiter(layer, second)())
        await play(way, waiter(layer, first), turns, sender(layer))
        layer.send_sync("channel", {"n": count})
        while len(first) + len(second) <= count:
            await asyncio.sleep(0)
        other.cancel()
        await asyncio.wait([other])
        assert sorted(first + second) == list(range(count + 1)), turns
        assert layer.stats().depth == layer.stats().waiters == 0, turns


async def test_a_receiver_may_wait_again_after_it_caught_its_cancellation(layer: InMemoryChannelLayer) -> None:
    received: list[int] = []
    take = waiter(layer, received)

    async def stubborn() -> None:
        with suppress(asyncio.CancelledError):
            await take()
        await take()

    for turns, count in plans(BURSTS):
        received.clear()
        running = asyncio.ensure_future(stubborn())
        await asyncio.sleep(0)
        await follow(turns, sender(layer), running.cancel)
        while len(received) < count:
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])
        assert received == list(range(count)), turns


class ManualTimeLoop(asyncio.SelectorEventLoop):
    """A loop whose timers go off when a test says so."""

    now = 0.0

    def time(self) -> float:
        """Tell the time of the test."""
        return self.now

    def wait_ten_seconds(self) -> None:
        """Make it ten seconds later."""
        self.now += 10


async def after_wait_for(take: Take) -> None:
    """Wait for ten seconds at most, by ``wait_for``."""
    with suppress(TimeoutError):
        await asyncio.wait_for(take(), 10)


async def after_timeout(take: Take) -> None:
    """Wait for ten seconds at most, by ``timeout``."""
    with suppress(TimeoutError):
        async with asyncio.timeout(10):
            await take()


async def after_move_on(take: Take) -> None:
    """Wait for ten seconds at most, by anyio."""
    with anyio.move_on_after(10):
        await take()


@pytest.mark.parametrize("way", [after_wait_for, after_timeout, after_move_on], ids=lambda way: way.__name__)
def test_a_timer_that_goes_off_at_any_moment_loses_nothing(
    layer: InMemoryChannelLayer, way: Callable[[Take], Awaitable[None]]
) -> None:
    async def run(turns: Plan, received: list[int]) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ManualTimeLoop)
        running = asyncio.ensure_future(way(waiter(layer, received)))
        await follow(turns, sender(layer), loop.wait_ten_seconds)
        loop.wait_ten_seconds()
        await asyncio.wait([running])

    with asyncio.Runner(loop_factory=ManualTimeLoop) as runner:
        for turns, count in plans(BURSTS + TRICKLES):
            received: list[int] = []
            runner.run(run(turns, received))
            assert received + rest(layer) == list(range(count)), turns
            assert layer.stats().waiters == 0
