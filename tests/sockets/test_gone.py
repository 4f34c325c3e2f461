"""The client has gone and a hook goes on: for the grace period, of which the test skips parts."""

import asyncio
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from headrace._sockets.incoming import LONG
from headrace._websocket.closing import CLEAN_UP_TIMEOUT
from headrace._websocket.read_ahead import READ_AHEAD
from headrace.exceptions import ConnectionClosed
from headrace.layers import InMemoryChannelLayer
from headrace.sockets import BaseSocketServer

if TYPE_CHECKING:
    from tests.sockets.conftest import Client

GRACE = 1000
"""So long that only what a test skips counts."""

SECONDS = 60
"""More than any of these waits takes, unless something is wrong."""


class Room(BaseSocketServer):
    """Ticks, or waits for its gate, where it is told to."""

    grace_period = GRACE
    at_connect = ""

    def configure(self) -> None:
        self.log: list[Any] = []
        self.begun = 0
        self.gate = threading.Event()

    async def do(self, order: str) -> None:
        self.begun += 1
        try:
            while order and not self.gate.is_set():
                if order == "tick":
                    await self.async_send("tick")
                await asyncio.sleep(0.001)
        except BaseException as error:
            self.log.append(type(error).__name__)
            raise
        self.gate.clear()
        if order:
            self.log.append(f"{order} done")

    async def connect(self) -> None:
        await self.do(self.at_connect)

    async def receive(self, data: Any) -> None:
        await self.do(data)

    async def disconnect(self, code: int) -> None:
        await self.async_send("bye")
        self.log.append(code)


class PlainRoom(Room):
    """The same in threads."""

    def tick(self, order: str) -> None:
        self.begun += 1
        try:
            while order and not self.gate.wait(0.001):
                if order == "tick":
                    self.send("tick")
        except BaseException as error:
            self.log.append(type(error).__name__)
            raise
        self.gate.clear()
        if order:
            self.log.append(f"{order} done")

    def connect(self) -> None:  # type: ignore[override]  # hooks are of either kind
        self.tick(self.at_connect)

    def receive(self, data: Any) -> None:  # type: ignore[override]
        self.tick(data)

    def disconnect(self, code: int) -> None:  # type: ignore[override]
        self.send("bye")
        self.log.append(code)


ROOMS: dict[str, type[Any]] = {"async": Room, "plain": PlainRoom}
either_way = pytest.mark.parametrize("way", ROOMS)

Skip = Callable[[float], None]


@pytest.fixture
async def skip(monkeypatch: pytest.MonkeyPatch) -> Skip:
    """Give ``skip(seconds)``, which puts the loop's time forward."""
    loop = asyncio.get_running_loop()
    time, ahead = loop.time, [0.0]
    monkeypatch.setattr(loop, "time", lambda: time() + ahead[0])

    def put_forward(seconds: float) -> None:
        ahead[0] += seconds

    return put_forward


async def until(condition: Callable[[], Any]) -> None:
    """Let threads and tasks run until something is so."""
    for _ in range(SECONDS * 1000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise TimeoutError


def opened(client: "Client", way: str, at_connect: str = "", **settings: Any) -> Any:
    """Connect to a room."""
    own_class = type("Here", (ROOMS[way],), {"at_connect": at_connect, **settings})
    server: Any = client.meets(own_class)
    client.gives("connect")
    return server


async def leaves(client: "Client", skip: Skip, code: int = 1001) -> None:
    """Let the client go, and wait until the server knows it: when its hook has been at work for long."""
    client.gives("disconnect", code=code)
    skip(LONG)
    await until(lambda: client.server._headrace_connection.outgoing.grace.timer)


@either_way
async def test_a_hook_that_sends_without_end_ends_and_disconnect_is_called_once(
    client: "Client", skip: Skip, way: str
) -> None:
    server = opened(client, way, "tick")
    await client.hears(3)
    await leaves(client, skip, 4001)
    skip(GRACE / 2)
    await client.hears(len(client.heard) + 3)
    assert server.log == []
    skip(GRACE / 2)
    await client.ends()
    # A thread is told by its next send, a coroutine where it waits.
    assert server.log == ["ConnectionClosed" if way == "plain" else "CancelledError", 4001]
    assert "bye" not in client.heard
    assert server.stats().errors == 0


@either_way
async def test_a_hook_of_a_frame_ends_too_and_what_came_behind_is_dropped(
    client: "Client", skip: Skip, way: str
) -> None:
    server = opened(client, way)
    client.says("tick")
    client.says("never")
    await client.hears(3)
    await leaves(client, skip)
    skip(GRACE)
    await client.ends()
    assert server.log[1:] == [1001]
    assert server.begun == 2
    assert (server.stats().received, server.stats().unhandled) == (2, 1)


@either_way
async def test_a_hook_of_a_client_that_cannot_be_read_any_more_ends(
    client: "Client", skip: Skip, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = client.incoming.get

    async def receive() -> Any:
        if (message := await get()) is None:
            raise ValueError("of the server")
        return message

    monkeypatch.setattr(client.incoming, "get", receive)
    server = opened(client, way, "tick")
    await client.hears(3)
    client.incoming.put_nowait(None)
    skip(LONG)
    await until(lambda: server._headrace_connection.outgoing.grace.timer)
    skip(GRACE)
    await client.ends()
    assert server.log[1:] == [1005]


@either_way
async def test_a_hook_with_more_to_read_than_is_read_ahead_ends_by_its_sends(
    client: "Client", skip: Skip, way: str
) -> None:
    """The client's last message is behind the others, but the ASGI server refuses what is sent."""
    server = opened(client, way, "tick")
    await client.hears(3)
    for _ in range(2 * READ_AHEAD):
        client.says("")
    skip(LONG)
    await until(lambda: client.incoming.qsize() == READ_AHEAD)
    client.broken = OSError("gone")
    await until(lambda: server.stats().dropped_after_close)
    client.gives("disconnect", code=1001)
    skip(GRACE)
    await client.ends()
    assert server.log == ["ConnectionClosed", 1005]


@either_way
async def test_a_hook_that_ends_in_time_is_not_disturbed(client: "Client", skip: Skip, way: str) -> None:
    server = opened(client, way)
    for _ in range(3):
        client.says("wait")
    client.gives("disconnect", code=4001)
    for n in range(3):
        begun = n + 2
        await until(lambda: server.begun == begun)  # noqa: B023  # called at once
        skip(LONG)
        await until(lambda: server._headrace_connection.outgoing.grace.timer)
        # Each hook has the whole of it.
        skip(GRACE * 0.6)
        await asyncio.sleep(0)
        server.gate.set()
    await client.ends()
    assert server.log == [*["wait done"] * 3, 4001]
    assert server.stats().received == 3


@either_way
async def test_what_was_read_ahead_is_handled_and_reading_goes_on(client: "Client", skip: Skip, way: str) -> None:
    server = opened(client, way)
    client.says("wait")
    await until(lambda: server.begun == 2)
    for _ in range(READ_AHEAD + 2):
        client.says("")
    skip(LONG)
    await until(lambda: client.incoming.qsize() == 2)
    server.gate.set()
    await until(lambda: server.begun == READ_AHEAD + 4)
    client.says("")
    await until(lambda: server.begun == READ_AHEAD + 5)
    await client.leaves(4001)
    assert server.log == ["wait done", 4001]


@either_way
async def test_a_message_that_comes_after_a_long_hook_is_not_lost(client: "Client", skip: Skip, way: str) -> None:
    """The reader has asked for it during the hook, and gets it afterwards."""
    server = opened(client, way)
    client.says("wait")
    await until(lambda: server.begun == 2)
    skip(LONG)
    await until(lambda: server._headrace_connection.incoming._reading)
    server.gate.set()
    await until(lambda: server.log)
    client.says("")
    await until(lambda: server.begun == 3)
    server.close(4002)
    await client.ends()
    assert server.log == ["wait done", 4002]


@either_way
async def test_the_grace_period_may_be_without_end(client: "Client", skip: Skip, way: str) -> None:
    server = opened(client, way, "tick", grace_period=None)
    await client.hears(3)
    client.gives("disconnect", code=4001)
    skip(LONG)
    await until(
        lambda: (
            server._headrace_connection.incoming._reading is not None
            and server._headrace_connection.incoming._reading.done()
        )
    )
    skip(10 * GRACE)
    await client.hears(len(client.heard) + 3)
    server.gate.set()
    await client.ends()
    assert server.log == ["tick done", 4001]


@pytest.mark.complains
async def test_a_hook_that_does_not_end_is_reported(
    client: "Client", skip: Skip, caplog: pytest.LogCaptureFixture
) -> None:
    class Deaf(Room):
        async def connect(self) -> None:
            try:
                await self.do("wait")
            except asyncio.CancelledError:
                await self.do("wait")

    server = client.meets(Deaf)
    client.gives("connect")
    await until(lambda: server.begun == 1)
    await leaves(client, skip)
    skip(GRACE)
    await until(lambda: server.begun == 2)
    assert caplog.messages == []
    skip(CLEAN_UP_TIMEOUT)
    await until(lambda: caplog.messages)
    assert caplog.messages == ["<Deaf at /ws/>: its client has gone, and its hook did not end in 10 s after its cancel"]
    server.gate.set()
    await client.ends()
    assert server.log == ["CancelledError", "wait done", 1001]


async def test_a_cancel_of_somebody_else_goes_on(client: "Client", skip: Skip) -> None:
    server = opened(client, "async", "wait")
    await until(lambda: server.begun)
    await leaves(client, skip)
    server._headrace_connection.incoming.task.cancel()
    skip(GRACE)
    await client.ends()
    assert server._headrace_connection.incoming.task.cancelled()
    assert server.log == ["CancelledError", 1001]


@either_way
async def test_what_ones_own_task_or_thread_sends_is_dropped_and_then_raises(
    client: "Client", memory: InMemoryChannelLayer, skip: Skip, way: str
) -> None:
    server = await client.connects(ROOMS[way], layer=memory)
    await client.leaves()

    async def send() -> None:
        if way == "async":
            await server.async_send("late")
        else:
            await asyncio.to_thread(server.send, "late")

    dropped = server.stats().dropped_after_close
    await send()
    skip(GRACE / 2)
    await send()
    assert server.stats().dropped_after_close == dropped + 2
    skip(GRACE / 2)
    with pytest.raises(ConnectionClosed, match=f" ended more than its grace_period of {GRACE} s ago"):
        await send()
    # Where a loop runs a plain call is done later, but refused at once.
    with pytest.raises(ConnectionClosed):
        server.send("late")


@pytest.mark.complains
async def test_a_handler_of_broadcasts_that_ignores_its_cancel_does_not_keep_the_connection(
    client: "Client", memory: InMemoryChannelLayer, skip: Skip, caplog: pytest.LogCaptureFixture
) -> None:
    class Deaf(Room):
        async def connect(self) -> None:
            await self.async_subscribe("all")

        async def async_handle_received_broadcast(self, channel: str, data: Any) -> None:
            try:
                await self.do("wait")
            except asyncio.CancelledError:
                await self.do("wait")

    server = await client.connects(Deaf, layer=memory)
    await until(lambda: server.subscriptions)
    await server.async_broadcast("all", 1)
    await until(lambda: server.begun == 1)
    client.gives("disconnect", code=4001)
    await until(lambda: server.begun == 2)
    skip(CLEAN_UP_TIMEOUT)
    await client.ends()
    assert server.log == ["CancelledError", 4001]
    assert "ignores its cancel" in caplog.text
    server.gate.set()
    await until(lambda: (task := server._headrace_connection.closing.delivering) is not None and task.done())


def test_the_default_is_five_seconds() -> None:
    assert BaseSocketServer.grace_period == 5


@pytest.mark.parametrize("value", [0, -1, "5", True])
def test_a_grace_period_is_a_positive_number_or_none(value: Any) -> None:
    with pytest.raises(ValueError, match=r"Here\.grace_period must be"):
        type("Here", (BaseSocketServer,), {"grace_period": value})


@either_way
async def test_no_more_is_asked_for_when_so_many_bytes_were_read_ahead(client: "Client", skip: Skip, way: str) -> None:
    server = opened(client, way, read_ahead_bytes=1000)
    client.says("wait")
    await until(lambda: server.begun == 2)
    for _ in range(6):
        client.says("a" * 600)
    skip(LONG)
    await until(lambda: client.incoming.qsize() <= 4)
    await asyncio.sleep(0)
    assert client.incoming.qsize() == 4
    server.gate.set()
    for begun in range(3, 9):
        await until(lambda: server.begun == begun)  # noqa: B023  # called at once
        server.gate.set()
    await client.leaves()
    assert server.stats().received == 7


async def test_what_was_read_ahead_is_let_go_when_the_grace_period_is_over(client: "Client", skip: Skip) -> None:
    """A hook in a thread goes on, and cannot be cancelled."""
    server = opened(client, "plain")
    for order in ("wait", "x", "y"):
        client.says(order)
    await until(lambda: server.begun == 2)
    await leaves(client, skip)
    assert server.stats().unhandled == 0
    skip(GRACE)
    await until(lambda: server.stats().unhandled == 2)
    assert server.log == []
    server.gate.set()
    await client.ends()
    assert (server.stats().unhandled, server.stats().received) == (2, 3)
