"""The engine contract: what ``rust/core/src/engine.rs`` promises, held against every engine on every loop.

A second engine comes under it by an entry in ``ENGINES``. No test knows which engine it has; a test that
needs something that not every engine has asks for the fixture of that name, and is skipped where it is lacking.
"""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest
import uvloop
from tests.support.binaries import KINDS, Binary, available, missing
from tests.support.cluster import Cluster
from tests.support.loops import USUAL, DebugLoop, NewLoop, loops_of
from tests.support.sentinel import Sentinels
from tests.support.servers import Server

from headrace.exceptions import ChannelEmpty, LayerClosed
from headrace.layers import InMemoryChannelLayer, RedisChannelLayer
from headrace.testing import ManualClock

MakeLayer = Callable[..., Any]


async def at_once(layer: Any) -> None:
    """Do nothing: what was sent has arrived."""


async def after_its_way(layer: Any) -> None:
    """Wait until what was sent has gone to the server, and come back from there."""
    await layer.close_pools()


@dataclass(frozen=True)
class Engine:
    """One way to carry messages, and what a test may ask of it.

    Attributes:
        name: What it is called in the names of the tests.
        make: Makes a layer of Channels' settings; it shares nothing with a layer made before.
        settle: Returns when everything sent through the layer so far is where it belongs.
        manual_clock: ``make`` takes ``clock``, a ``ManualClock``.
        sync: The layer can be used without a loop, by its methods that end in ``_sync``.
        any_value: Messages may hold whatever ``copy.deepcopy`` can copy, and tuples stay tuples.
        immediate: A send that does not have to wait lets no other task run.
        positional: The first of its settings, in their order.
        server: The kind of server that it needs; ``make`` takes its address as ``hosts``.
        topology: What it needs several of these servers for.
    """

    name: str
    make: MakeLayer
    settle: Callable[[Any], Awaitable[None]] = at_once
    manual_clock: bool = False
    sync: bool = False
    any_value: bool = False
    immediate: bool = False
    positional: tuple[str, ...] = ("expiry", "group_expiry", "capacity", "channel_capacity")
    server: str | None = None
    topology: Literal["sentinel", "cluster"] | None = None


def over(kind: str, topology: Literal["sentinel", "cluster"] | None = None) -> Engine:
    """Describe the engine that needs a server of this kind, or several of them."""

    def make(*, strict: bool = True, **settings: Any) -> RedisChannelLayer:
        if not strict:
            raise ValueError("what travels is always strict")
        # Sentinels are told by their addresses.
        if topology == "cluster":
            settings["topology"] = topology
        return RedisChannelLayer(prefix=f"t{uuid.uuid4().hex}", **settings)

    positional = ("hosts", "prefix", "expiry", "group_expiry", "capacity", "channel_capacity")
    return Engine(
        topology or kind, make, after_its_way, sync=True, positional=positional, server=kind, topology=topology
    )


ENGINES = [
    Engine("memory", InMemoryChannelLayer, manual_clock=True, sync=True, any_value=True, immediate=True),
    Engine(
        "memory-future",
        lambda **settings: InMemoryChannelLayer(**settings, wake="future"),
        manual_clock=True,
        sync=True,
        any_value=True,
        immediate=True,
    ),
    *map(over, KINDS),
    over(KINDS[0], "sentinel"),
    over(KINDS[0], "cluster"),
]


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, NewLoop]:
    """Run an asynchronous test of the contract on each kind of event loop, or on one if it is marked so.

    On a loop in debug mode with ``--deep`` alone: the tests of ``tests/loops`` are always run on that one too.
    """
    debug = {"debug": DebugLoop} if item.config.getoption("--deep", False) else {}
    return loops_of(item, {**USUAL, **debug, "uvloop": uvloop.new_event_loop})


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the second server and the topologies, and run less on them, unless with ``--deep``.

    On asyncio's loop alone, as no server knows the loop of its client; and without what says nothing about servers.
    """
    for item in items:
        if _is_beside_the_first_server(item):
            item.add_marker("another_server")
    if config.getoption("--deep", False):
        return
    left_out = [item for item in items if item.get_closest_marker("another_server") and not _adds_something(item)]
    items[:] = [item for item in items if not item.get_closest_marker("another_server") or _adds_something(item)]
    config.hook.pytest_deselected(items=left_out)


def _params(item: pytest.Item) -> Mapping[str, Any]:
    return item.callspec.params if hasattr(item, "callspec") else {}


def _is_beside_the_first_server(item: pytest.Item) -> bool:
    engine = _params(item).get("engine")
    if not isinstance(engine, Engine) or engine.server is None:
        return False
    first = next((binary.name for binary in available()), KINDS[0])
    return engine.topology is not None or engine.server != first


def _adds_something(item: pytest.Item) -> bool:
    on_asyncio = _params(item).get("_asyncio_loop_factory") in (None, USUAL["asyncio"])
    return on_asyncio and not item.get_closest_marker("one_server")


def _param(engine: Engine) -> Any:
    """Have one process run all tests of a topology, which takes long to start."""
    marks = [] if engine.topology is None else [pytest.mark.xdist_group(f"contract-{engine.name}")]
    return pytest.param(engine, id=engine.name, marks=marks)


@pytest.fixture(params=map(_param, ENGINES))
def engine(request: pytest.FixtureRequest) -> Engine:
    """Give each engine in turn."""
    engine: Engine = request.param
    return engine


@pytest.fixture
def clock(engine: Engine) -> ManualClock:
    """Give a clock that stands still, to be passed to ``make_layer``."""
    if not engine.manual_clock:
        pytest.skip(f"{engine.name} takes no clock")
    return ManualClock()


@pytest.fixture
def sync(engine: Engine) -> None:
    """Ask for an engine that can be used without a loop."""
    if not engine.sync:
        pytest.skip(f"{engine.name} needs an event loop")


@pytest.fixture
def any_value(engine: Engine) -> None:
    """Ask for an engine whose messages may hold any value that can be copied."""
    if not engine.any_value:
        pytest.skip(f"{engine.name} carries the types of the specification alone")


@pytest.fixture
def immediate(engine: Engine) -> None:
    """Ask for an engine whose sends let no receiver run in between, so that a message can be caught on its way."""
    if not engine.immediate:
        pytest.skip(f"a receiver has its message before a send to {engine.name} is done")


# Not those that the tests of tests/redis break and heal.
def _own_sentinels(binary: Binary) -> Sentinels:
    return Sentinels(binary)


def _own_cluster(binary: Binary) -> Cluster:
    return Cluster(binary)


@pytest.fixture
def hosts(engine: Engine, share_redis: Callable[[Any, Binary], Any]) -> list[Any] | None:
    """Start the servers that the engine needs, if it needs any, and give their addresses as its setting has them."""
    if engine.server is None:
        return None
    binary = next((binary for binary in available() if engine.topology or binary.name == engine.server), None)
    if binary is None:
        pytest.skip(missing(engine.server))
    if engine.topology == "sentinel":
        sentinels = share_redis(_own_sentinels, binary)
        return [{"sentinels": sentinels.addresses, "master_name": sentinels.name}]
    if engine.topology == "cluster":
        return [share_redis(_own_cluster, binary).nodes[0].url]
    return [share_redis(Server, binary).url]


@pytest.fixture
async def make_layer(engine: Engine, hosts: list[Any] | None) -> AsyncIterator[MakeLayer]:
    """Make layers, which are closed when the test is over."""
    layers: list[Any] = []

    def make(**settings: Any) -> Any:
        if hosts is not None:
            settings["hosts"] = hosts
        layer = engine.make(**settings)
        layers.append(layer)
        return layer

    yield make
    for layer in layers:
        await layer.close()


@pytest.fixture
async def layer(make_layer: MakeLayer) -> Any:
    """Give a layer with the default settings."""
    return make_layer()


@pytest.fixture
def settle(engine: Engine) -> Callable[[Any], Awaitable[None]]:
    """Wait until everything sent through a layer so far is where it belongs."""
    return engine.settle


@pytest.fixture
def drain(engine: Engine) -> Callable[[Any, str], Awaitable[list[dict[str, Any]]]]:
    """Take all that a channel holds, in order, without waiting for more."""

    async def drain(layer: Any, channel: str) -> list[dict[str, Any]]:
        await engine.settle(layer)
        messages: list[dict[str, Any]] = []
        while True:
            try:
                messages.append(layer.receive_nowait(channel))
            except ChannelEmpty:
                return messages

    return drain


@pytest.fixture
async def receivers() -> AsyncIterator[Callable[..., Awaitable[list[asyncio.Task[Any]]]]]:
    """Start tasks that receive, one message each, and return them in their order in the line, all waiting."""
    started: list[asyncio.Task[Any]] = []

    async def start(layer: Any, channel: str, count: int = 1) -> list[asyncio.Task[Any]]:
        tasks: list[asyncio.Task[Any]] = []
        for _ in range(count):
            waiting = layer.channel_stats(channel).waiters
            tasks.append(asyncio.ensure_future(layer.receive(channel)))
            while layer.channel_stats(channel).waiters == waiting:
                await asyncio.sleep(0)
        started.extend(tasks)
        return tasks

    yield start
    for task in started:
        task.cancel()
    for outcome in await asyncio.gather(*started, return_exceptions=True):
        if isinstance(outcome, Exception) and not isinstance(outcome, LayerClosed):
            raise outcome


@pytest.fixture(autouse=True)
def _no_complaints(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test in which asyncio logged an error, such as an exception that nobody looked at."""
    yield
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
