"""An inbox whose messages are handled by a function while its task stays parked."""

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

import pytest

from headrace import InMemoryChannelLayer, LayerClosed

NAME: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody's")


class Attended:
    """A task at an inbox, and what reached it and its attendant."""

    def __init__(self, layer: InMemoryChannelLayer) -> None:
        self.layer = layer
        self.inbox = layer._core.inbox("c")
        self.attended: list[Any] = []
        self.received: list[Any] = []
        self.contexts: set[str] = set()
        # Numbers that the attendant leaves to the task.
        self.left: set[int] = set()
        # What else the attendant does.
        self.also: Callable[[Any], object] = lambda message: None
        self.task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        NAME.set("the task's")
        self.inbox.attend(self._attend)
        async for message in self.inbox:
            self.received.append(message)

    def _attend(self, message: Any) -> Any:
        self.contexts.add(NAME.get())
        self.attended.append(message["n"])
        self.also(message)
        if message["n"] == -1:
            raise ValueError("no")
        return ("left", message["n"]) if message["n"] in self.left else None

    async def send(self, *numbers: int) -> None:
        """Send, and let the loop run until the task waits again or has ended."""
        for number in numbers:
            self.layer.send_sync("c", {"n": number})
        await self.settled()

    async def settled(self) -> None:
        """Wait until the task is in line for the next message, or has ended."""
        while not self.task.done() and not self.layer.stats().waiters:
            await asyncio.sleep(0)


@pytest.fixture
async def attended() -> Any:
    """Give a task that has received one message the ordinary way, and waits: so it is known how to resume it."""
    attended = Attended(InMemoryChannelLayer())
    await attended.settled()
    await attended.send(0)
    assert (attended.received, attended.attended) == ([{"n": 0}], [])
    attended.received.clear()
    yield attended
    attended.task.cancel()
    await asyncio.wait([attended.task])


async def test_the_task_stays_where_it_is(attended: Attended) -> None:
    await attended.send(1, 2)
    await attended.send(3)
    assert (attended.attended, attended.received) == ([1, 2, 3], [])
    stats = attended.layer.stats()
    assert (stats.sent, stats.delivered, stats.waiters, stats.depth) == (4, 4, 1, 0)


async def test_it_runs_in_the_context_of_the_task(attended: Attended) -> None:
    await attended.send(1)
    assert attended.contexts == {"the task's"}


async def test_what_it_leaves_is_what_the_task_gets(attended: Attended) -> None:
    attended.left = {2}
    await attended.send(1, 2, 3)
    assert attended.received == [("left", 2), {"n": 3}]
    await attended.send(4)
    assert attended.attended == [1, 2, 4]


async def test_what_it_raises_is_raised_in_the_task(attended: Attended) -> None:
    await attended.send(-1)
    with pytest.raises(ValueError, match="no"):
        await attended.task
    assert attended.layer.stats().waiters == 0


async def test_who_is_called_away_goes_first(attended: Attended) -> None:
    attended.inbox.call_away()
    await attended.send(1)
    assert (attended.received[0], attended.attended) == (None, [])
    assert attended.received[1:] == [{"n": 1}]


async def test_a_call_with_a_message_on_its_way_leaves_the_message_to_the_task(attended: Attended) -> None:
    attended.layer.send_sync("c", {"n": 1})
    attended.inbox.call_away()
    await attended.settled()
    assert (attended.received, attended.attended) == ([{"n": 1}, None], [])


async def test_a_cancelled_task_loses_no_message(attended: Attended) -> None:
    attended.layer.send_sync("c", {"n": 1})
    attended.task.cancel()
    await asyncio.wait([attended.task])
    assert (attended.attended, attended.received) == ([], [])
    assert attended.layer.receive_nowait("c") == {"n": 1}


async def test_a_message_that_it_sends_itself_is_attended_to_as_well(attended: Attended) -> None:
    def echo(message: Any) -> None:
        if message["n"] < 200:
            attended.layer.send_sync("c", {"n": message["n"] + 1})

    attended.also = echo
    await attended.send(1)
    while attended.layer.stats().depth:
        await attended.settled()
    # In one go it attends to a limited number, so that others have their turn; the rest the task gets itself.
    numbers = attended.attended + [message["n"] for message in attended.received]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))


async def test_closing_the_layer_in_it_ends_the_wait(attended: Attended) -> None:
    attended.also = lambda _message: attended.layer._core.close()
    attended.layer.send_sync("c", {"n": 1})
    with pytest.raises(LayerClosed):
        await attended.task


async def test_the_layer_that_wakes_by_futures_resumes_the_task() -> None:
    attended = Attended(InMemoryChannelLayer(wake="future"))
    await attended.settled()
    await attended.send(0)
    await attended.send(1)
    assert (attended.attended, attended.received) == ([], [{"n": 0}, {"n": 1}])
    attended.task.cancel()
    await asyncio.wait([attended.task])
