"""The server's end of a connection, and a layer of its own for each test."""

import asyncio
import gc
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from tests.support.loops import ALL, USUAL, NewLoop

from headrace._layers.registry import channel_layers
from headrace.layers import InMemoryChannelLayer
from headrace.testing import settle

# What depends on how a loop resumes its tasks.
ON_EVERY_LOOP = ("test_attendant.py", "test_cancel.py", "test_order.py", "test_turns.py")


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, NewLoop]:
    """Run some of the tests on each kind of event loop."""
    return ALL if item.path.name in ON_EVERY_LOOP else USUAL


class Wire:
    """Runs an application as a server would, and keeps what it sends.

    Args:
        app: The application.
        scope: What to add to the scope. A server's has "asgi"; that of a communicator has not, as here.
    """

    def __init__(self, app: Callable[..., Any], **scope: Any) -> None:
        self.app = app
        self.scope: dict[str, Any] = {"type": "websocket", "path": "/ws/", "subprotocols": [], **scope}
        self.sent: list[Any] = []
        self.incoming: asyncio.Queue[Any] = asyncio.Queue()
        # Clear it to make the application's sends wait.
        self.open = asyncio.Event()
        self.open.set()
        # Raised by every send.
        self.broken: Exception | None = None
        self.task: asyncio.Task[None] = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        await self.app(self.scope, self._receive, self._send)

    async def _receive(self) -> Any:
        item = await self.incoming.get()
        if isinstance(item, BaseException):
            raise item
        return item

    async def _send(self, message: Any) -> None:
        await self.open.wait()
        if self.broken is not None:
            raise self.broken
        self.sent.append(message)

    @property
    def texts(self) -> list[Any]:
        """The frames among what was sent."""
        return [message.get("text", message.get("bytes")) for message in self.sent if message["type"].endswith(".send")]

    def say(self, *items: Any) -> None:
        """Let the server say something, or fail with an exception."""
        for item in items:
            self.incoming.put_nowait(item)

    def connect(self, *texts: str) -> None:
        """Open the connection, and send frames."""
        self.say({"type": "websocket.connect"})
        self.write(*texts)

    def write(self, *texts: str) -> None:
        """Let the client send frames."""
        self.say(*({"type": "websocket.receive", "text": text} for text in texts))

    def leave(self, code: int = 1001) -> None:
        """Let the client go."""
        self.say({"type": "websocket.disconnect", "code": code})

    async def heard(self, frames: int) -> None:
        """Wait until so many frames were sent."""
        async with asyncio.timeout(20):
            while len(self.texts) < frames:
                await asyncio.sleep(0)

    async def end(self) -> None:
        """Wait until the application has ended; raise what it raised."""
        async with asyncio.timeout(20):
            await self.task

    async def outcome(self) -> BaseException | None:
        """Wait until the application has ended; return what it raised."""
        try:
            await self.end()
        except BaseException as error:
            return error
        return None


@pytest.fixture
def layer() -> Iterator[InMemoryChannelLayer]:
    """Give a fresh layer, which is the default one."""
    layer = InMemoryChannelLayer()
    replaced = channel_layers.set("default", layer)
    yield layer
    if replaced is None:
        channel_layers.backends.pop("default", None)
    else:
        channel_layers.set("default", replaced)


@pytest.fixture(autouse=True)
async def _nothing_left(layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture) -> Any:
    """Fail a test that leaves a task, a channel, a membership or a waiter behind, or a complaint of asyncio."""
    before = asyncio.all_tasks()
    yield
    await settle()
    assert {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()} == set()
    stats = layer.stats()
    assert (stats.channels, stats.groups, stats.memberships, stats.waiters, stats.depth) == (0, 0, 0, 0, 0)
    gc.collect()
    complaints = [record for record in caplog.records if record.name == "asyncio" and record.levelno >= logging.WARNING]
    assert [record.getMessage() for record in complaints] == []


@pytest.fixture
async def wire() -> Any:
    """Give ``wire(app)``, which starts an application; those that still run at the end of the test are cancelled."""
    wires: list[Wire] = []

    def make(app: Callable[..., Any], **scope: Any) -> Wire:
        wires.append(Wire(app, **scope))
        return wires[-1]

    yield make
    left = [wire.task for wire in wires if not wire.task.done()]
    for task in left:
        task.cancel()
    if left:
        # A handler in a thread cannot be cancelled: one that a failed test has left would be waited for without end.
        await asyncio.wait(left, timeout=20)


@pytest.fixture
async def forward_to(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give ``await forward_to(seconds)``, which sets the loop's time, counted from the beginning of the test."""
    loop = asyncio.get_running_loop()
    begin, late = loop.time(), [0.0]
    monkeypatch.setattr(loop, "time", lambda: begin + late[0])

    async def move(seconds: float) -> None:
        late[0] = seconds
        await settle()

    return move
