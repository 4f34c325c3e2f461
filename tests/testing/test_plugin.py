"""The fixtures, in a pytest of their own: each test here writes a test file and runs it."""

import subprocess
import sys
from importlib.metadata import entry_points

import pytest

pytest_plugins = ["pytester"]

# Of a package that is installed, pytest finds the plugin itself.
LOAD = [] if entry_points(group="pytest11", name="headrace") else ["-p", "headrace.testing._plugin"]
AUTO = ["-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"]

APP = """
import asyncio
import pytest
from headrace import ChannelFull, get_channel_layer
from headrace.testing import ConnectionRejected, FaultyLayer, WebsocketCommunicator

gone = []

async def app(scope, receive, send):
    await receive()
    if scope["path"] == "/refused":
        await send({"type": "websocket.close", "code": 4003})
        return
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        if message["text"] == "fail":
            raise ValueError("the application failed")
        await send({**message, "type": "websocket.send"})
    gone.append((scope["path"], message["code"]))
"""

DRAIN = """
from headrace import AsyncWebsocketConsumer, drain, is_draining
from headrace.testing import undo_drain

class Polite(AsyncWebsocketConsumer):
    async def on_drain(self):
        await self.send(text_data="back in a moment")

@pytest.mark.parametrize("number", [1, 2])
async def test_a_drain_ends_with_the_test(headrace_websocket, headrace_drain, number):
    assert not is_draining()
    ws = await headrace_websocket(Polite, "/ws/")
    draining = asyncio.create_task(headrace_drain(seconds=60, spread=0))
    assert await ws.receive_from(60) == "back in a moment"
    assert (await ws.receive_output(60))["code"] == 1012
    await draining
    assert is_draining()
    with pytest.raises(ConnectionRejected):
        await headrace_websocket(Polite, "/ws/")

async def test_so_does_one_in_the_context(headrace_layer):
    assert not is_draining()
    with pytest.raises(RuntimeError), undo_drain():
        await drain(1)
        assert is_draining()
        raise RuntimeError
    assert not is_draining()
"""

LAYER = """
layers = []

@pytest.mark.parametrize("number", [1, 2])
async def test_the_layer_is_fresh(headrace_layer, number):
    assert type(headrace_layer) is FaultyLayer
    assert get_channel_layer() is headrace_layer
    await headrace_layer.send("a", {"type": "hello"})
    assert headrace_layer.stats().depth == 1
    assert headrace_layer not in layers
    layers.append(headrace_layer)

def test_the_layer_is_gone_after_the_test():
    assert len(layers) == 2
    assert get_channel_layer() not in layers

@pytest.mark.headrace_layer(capacity=1, expiry=5)
async def test_the_marker_has_the_settings(headrace_layer, headrace_clock):
    await headrace_layer.send("a", {"type": "hello"})
    with pytest.raises(ChannelFull):
        await headrace_layer.send("a", {"type": "hello"})
    headrace_clock.advance(4)
    assert headrace_layer.channel_stats("a").depth == 1
    headrace_clock.advance(2)
    await headrace_layer.send("a", {"type": "hello"})

async def test_the_faults_are_those_of_the_layer(headrace_faults, headrace_layer):
    headrace_faults.fill("a")
    with pytest.raises(ChannelFull):
        await get_channel_layer().send("a", {"type": "hello"})

def test_a_test_needs_no_loop(headrace_layer, headrace_faults, headrace_clock):
    headrace_layer.send_sync("a", {"type": "hello"})
    headrace_clock.advance(1000)
    assert headrace_layer.stats().depth == 0
"""

WEBSOCKET = """
async def test_a_connection_is_open_while_the_test_runs(headrace_websocket):
    first = await headrace_websocket(app, "/first")
    second = await headrace_websocket(app, "/second", subprotocols=["chat"])
    assert isinstance(first, WebsocketCommunicator)
    await first.send_to(text_data="hello")
    assert await first.receive_from() == "hello"
    with pytest.raises(TimeoutError):
        await second.receive_from(timeout=0.01)
    with pytest.raises(ConnectionRejected, match="4003"):
        await headrace_websocket(app, "/refused")
    assert gone == []

def test_the_connections_were_closed_last_one_first():
    assert gone == [("/second", 1000), ("/first", 1000)]

async def test_the_layer_comes_with_it(headrace_websocket, request):
    assert type(get_channel_layer()) is FaultyLayer

class TestInClass:
    @pytest.mark.parametrize("number", [1, 2])
    async def test_a_method_has_connections_too(self, headrace_websocket, number):
        ws = await headrace_websocket(app, f"/{number}")
        await ws.disconnect(code=4000 + number)
        assert gone[-1] == (f"/{number}", 4000 + number)
"""

FAILING = """
async def test_an_application_that_fails_unseen_fails_the_test(headrace_websocket):
    ws = await headrace_websocket(app, "/")
    await ws.send_to(text_data="fail")

async def test_a_failure_of_the_test_comes_first(headrace_websocket):
    ws = await headrace_websocket(app, "/")
    await ws.send_to(text_data="fail")
    raise KeyError("of the test")

def test_needs_a_loop(headrace_websocket):
    pass
"""


def run(pytester: pytest.Pytester, source: str, *options: str) -> pytest.RunResult:
    pytester.makepyfile(APP + source)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "-W", "error", "--strict-markers", *LOAD, *options)


def test_a_drain_is_undone(pytester: pytest.Pytester) -> None:
    run(pytester, DRAIN, *AUTO).assert_outcomes(passed=3)


def test_the_layer_the_clock_and_the_faults_are_fresh_in_each_test(pytester: pytest.Pytester) -> None:
    run(pytester, LAYER, *AUTO).assert_outcomes(passed=6)


def test_connections_are_closed_at_the_end_of_the_test(pytester: pytest.Pytester) -> None:
    run(pytester, WEBSOCKET, *AUTO).assert_outcomes(passed=5)


def test_what_the_test_did_not_see_fails_it(pytester: pytest.Pytester) -> None:
    result = run(pytester, FAILING, *AUTO)
    result.assert_outcomes(failed=2, errors=1)
    result.stdout.fnmatch_lines_random(
        [
            "*ValueError: the application failed",
            "*KeyError: 'of the test'",
            "*the application ended with ValueError('the application failed')",
            "*headrace_websocket needs a test that is a coroutine function (async def)",
        ]
    )


def test_the_fixtures_work_in_the_strict_mode_of_pytest_asyncio(pytester: pytest.Pytester) -> None:
    mark = "\npytestmark = pytest.mark.asyncio\n"
    source = mark + WEBSOCKET.replace("\ndef test", "\nasync def test")
    run(pytester, source, "-o", "asyncio_mode=strict", *AUTO[2:]).assert_outcomes(passed=5)


def test_the_fixtures_work_with_anyio(pytester: pytest.Pytester) -> None:
    backend = """
pytestmark = pytest.mark.anyio

@pytest.fixture
def anyio_backend():
    return "asyncio"
"""
    run(pytester, backend + WEBSOCKET, "-p", "no:asyncio").assert_outcomes(passed=5)
    failing = FAILING.rpartition("def test_needs_a_loop")[0]
    run(pytester, backend + failing, "-p", "no:asyncio").assert_outcomes(failed=2)


def test_loading_the_plugin_imports_no_framework() -> None:
    program = (
        "import sys, headrace.testing._plugin; "
        "print({'django', 'channels.testing', 'daphne', 'anyio', 'uvicorn', 'starlette'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False)
    assert (result.stderr, result.stdout) == ("", "set()\n")
