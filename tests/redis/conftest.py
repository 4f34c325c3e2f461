"""What the tests of the Redis layer share: layers here and in other processes, on one server, under one prefix."""

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from tests.support.peers import Peer, Peers
from tests.support.servers import Server
from tests.support.traffic import PATIENT
from tests.support.waiting import eventually

from headrace.layers import RedisChannelLayer

MakeLayer = Callable[..., RedisChannelLayer]
MakePeer = Callable[..., Peer]

# By so many seconds a layer may be wrong about the time at the server: half of what the answer took that told it.
_WRONG = 0.5


@pytest.fixture
async def make_layer(redis_server: Server, redis_prefix: str) -> AsyncIterator[MakeLayer]:
    """Make layers in this process, which are closed when the test is over.

    They wait longer for their server than they would by default: it may be busy with other tests.
    """
    layers: list[RedisChannelLayer] = []
    usual = {"hosts": [redis_server.url], "prefix": redis_prefix, "send_timeout": PATIENT}

    def make(**settings: Any) -> RedisChannelLayer:
        layer = RedisChannelLayer(**{**usual, **settings})
        layers.append(layer)
        return layer

    yield make
    for layer in layers:
        await layer.close()


@pytest.fixture
async def layer(make_layer: MakeLayer) -> RedisChannelLayer:
    """Give a layer with the default settings."""
    return make_layer()


@pytest.fixture(scope="session")
def peers() -> Iterator[Peers]:
    """Start the processes of all tests, when the first asks for one."""
    peers = Peers()
    yield peers
    peers.close()


@pytest.fixture
def make_peer(redis_server: Server, redis_prefix: str, peers: Peers) -> Iterator[MakePeer]:
    """Make layers in other processes, each in one of its own, which are closed when the test is over."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(
            peers.peer(**{"hosts": [redis_server.url], "prefix": redis_prefix, **settings})
        )


@pytest.fixture
def pass_time(redis_server: Server) -> Callable[[float], None]:
    """Wait until so many seconds have passed for the server, which says when messages expire, and as layers know it."""

    def now() -> float:
        seconds, microseconds = map(int, redis_server.cli("TIME"))
        return seconds + microseconds / 1e6

    def wait(seconds: float) -> None:
        end = now() + seconds + _WRONG
        eventually(lambda: now() > end, f"{seconds} s have passed for the server")

    return wait


@pytest.fixture(autouse=True)
def _no_complaints(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test in which anything logged an error, such as an exception that nobody looked at."""
    yield
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
