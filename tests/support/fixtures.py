"""The fixtures that start servers: a plugin of pytest, loaded by ``tests/conftest.py``.

Who uses one is marked ``redis``. It is run with the preferred server, and skipped where there is none; with ``--deep``
it is run with each server that there is, and skipped for a kind that is missing.
"""

import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import pytest
from tests.support.binaries import KINDS, Binary, available, missing
from tests.support.certificates import Authority
from tests.support.cluster import Cluster
from tests.support.proxy import Proxy
from tests.support.sentinel import Sentinels
from tests.support.serverless import Serverless
from tests.support.servers import Server

Share = Callable[[Callable[[Binary], AbstractContextManager[Any]], Binary], Any]


def binaries(*, deep: bool) -> list[Any]:
    """List what to run a test with: each server, and for each kind that is missing a skip with the reason.

    Args:
        deep: Each of them, and not the first alone.
    """
    there = available()
    lacking = [kind for kind in KINDS if kind not in {binary.name for binary in there}]
    each = [
        *(pytest.param(binary, id=str(binary)) for binary in there),
        *(pytest.param(None, id=kind, marks=pytest.mark.skip(reason=missing(kind))) for kind in lacking),
    ]
    return each if deep else each[:1]


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Say which servers a test is run with that asks for one."""
    if "redis_binary" in metafunc.fixturenames:
        deep = metafunc.config.getoption("--deep", False)
        metafunc.parametrize("redis_binary", binaries(deep=deep), indirect=True, scope="session")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark who needs a server, before it is chosen by marks."""
    for item in items:
        if "redis_binary" in getattr(item, "fixturenames", ()):
            item.add_marker("redis")


@pytest.fixture(scope="session")
def redis_binary(request: pytest.FixtureRequest) -> Binary:
    """Give the servers that ``pytest_generate_tests`` names."""
    binary: Binary = request.param
    return binary


@pytest.fixture(scope="session")
def share_redis() -> Iterator[Share]:
    """Start one for all tests, when the first asks for it; whatever the order in which tests take turns."""
    with ExitStack() as stack:
        shared: dict[tuple[Any, Binary], Any] = {}

        def share(make: Callable[[Binary], AbstractContextManager[Any]], binary: Binary) -> Any:
            if (make, binary) not in shared:
                shared[make, binary] = stack.enter_context(make(binary))
            return shared[make, binary]

        yield share


@pytest.fixture
def redis_server(redis_binary: Binary, share_redis: Share) -> Server:
    """Give the server of all tests: what one leaves there has its ``redis_prefix``; to break one, it starts its own."""
    server: Server = share_redis(Server, redis_binary)
    return server


@pytest.fixture
def redis_prefix() -> str:
    """Make up what the test's names begin with, on a server that it shares."""
    return f"t{uuid.uuid4().hex}"


@pytest.fixture
def start_redis(redis_binary: Binary) -> Iterator[Callable[..., Server]]:
    """Start servers for the test alone, with the options of ``Server``."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Server(redis_binary, **options))


@pytest.fixture(scope="session")
def authority() -> Authority:
    """Give who issues the certificates of the tests."""
    return Authority()


@pytest.fixture
def start_redis_tls(
    redis_binary: Binary, start_redis: Callable[..., Server], authority: Authority
) -> Callable[..., Server]:
    """Start servers that speak TLS; the test is skipped where the server was built without."""
    if not redis_binary.tls:
        pytest.skip(missing(redis_binary.name, tls=True))
    return lambda **options: start_redis(tls=authority, **options)


@pytest.fixture
def redis_sentinels(redis_binary: Binary, share_redis: Share) -> Sentinels:
    """Give the sentinels of all tests, with a master and a replica, as whole as at the start."""
    sentinels: Sentinels = share_redis(Sentinels, redis_binary)
    sentinels.heal()
    return sentinels


@pytest.fixture
def redis_cluster(redis_binary: Binary, share_redis: Share) -> Cluster:
    """Give the cluster of all tests, as whole as at the start, but a slot or a master may be elsewhere."""
    cluster: Cluster = share_redis(Cluster, redis_binary)
    cluster.heal()
    return cluster


@pytest.fixture(scope="session")
def make_serverless(authority: Authority) -> Callable[..., Serverless]:
    """Make the serverless server of a binary, with the options of ``Serverless``; with TLS, unless it has none."""
    return lambda binary, **options: Serverless(binary, tls=authority if binary.tls else None, **options)


@pytest.fixture
def redis_serverless(
    redis_binary: Binary, share_redis: Share, make_serverless: Callable[..., Serverless]
) -> Serverless:
    """Give the serverless server of all tests; nothing was denied on it yet."""
    server: Serverless = share_redis(make_serverless, redis_binary)
    server.ask("ACL", "LOG", "RESET")
    return server


@pytest.fixture
def start_proxy() -> Iterator[Callable[[Server], Proxy]]:
    """Start proxies before servers."""
    with ExitStack() as stack:
        yield lambda server: stack.enter_context(Proxy(server.port))
