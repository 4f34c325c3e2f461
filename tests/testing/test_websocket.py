"""The communicator for WebSocket, as Channels has it, and as a context."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, ClassVar, cast
from urllib.parse import unquote

import pytest

from headrace.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from headrace.layers import InMemoryChannelLayer, channel_layers
from headrace.paths import path
from headrace.routing import URLRouter
from headrace.testing import ConnectionRejected, FaultyLayer, WebsocketCommunicator, settle
from headrace.typing import Message, Receive, Scope, Send


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Accept with the first subprotocol, send frames back, close at "close", fail at "fail"."""
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept", "subprotocol": next(iter(scope["subprotocols"]), None)})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") == "fail":
            raise ValueError("the application failed")
        if message.get("text") == "close":
            await send({"type": "websocket.close", "code": 4001, "reason": "asked to"})
        else:
            await send({**message, "type": "websocket.send"})


class Recorder:
    """An application that keeps what it receives; ``answers`` are sent one after each."""

    def __init__(self, *answers: Message) -> None:
        self.answers = list(answers)
        self.received: list[Message] = []
        self.scope: Scope = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        while not self.received or self.received[-1]["type"] != "websocket.disconnect":
            self.received.append(await receive())
            if self.answers:
                await send(self.answers.pop(0))


ACCEPT = {"type": "websocket.accept"}


async def test_frames_go_in_and_out_as_in_channels() -> None:
    communicator = WebsocketCommunicator(echo, "/testws/")
    assert await communicator.connect() == (True, None)
    await communicator.send_to(text_data="hello")
    assert await communicator.receive_from() == "hello"
    await communicator.send_to(bytes_data=b"w\0\0\0")
    assert await communicator.receive_from() == b"w\0\0\0"
    await communicator.send_json_to({"hello": ["world", 1, None]})
    assert await communicator.receive_json_from() == {"hello": ["world", 1, None]}
    await communicator.disconnect()
    assert communicator.future.done()


def test_the_scope_is_that_of_channels_and_has_no_asgi_key() -> None:
    communicator = WebsocketCommunicator(echo, "/a%20b/?c=%20", [(b"x", b"y")], ["chat"], "2.3")
    assert communicator.scope == {
        "type": "websocket",
        "path": "/a b/",
        "query_string": b"c=%20",
        "headers": [(b"x", b"y")],
        "subprotocols": ["chat"],
        "spec_version": "2.3",
    }
    assert WebsocketCommunicator(echo, "/").scope == {
        "type": "websocket",
        "path": "/",
        "query_string": b"",
        "headers": [],
        "subprotocols": [],
    }


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("user:pass@example.com:8080/p/a/t/h?query=string#hash", None),
        ("wss://user:pass@example.com:8080/p/a/t/h?query=string#hash", "/p/a/t/h"),
        ("ws://www.example.com/%E9%A6%96%E9%A1%B5/index.php?foo=%E9%A6%96", "/首页/index.php"),
    ],
)
async def test_a_whole_url_is_accepted(url: str, path: str | None) -> None:
    app = Recorder(ACCEPT)
    communicator = WebsocketCommunicator(app, url)
    assert await communicator.connect() == (True, None)
    await communicator.disconnect()
    assert app.scope["path"] == unquote(app.scope["path"])
    assert isinstance(app.scope["query_string"], bytes)
    assert path is None or app.scope["path"] == path


@pytest.mark.parametrize("path", [b"/ws/", None, 5])
def test_a_path_that_is_not_text_is_refused_and_nothing_is_left_to_clean_up(path: object) -> None:
    with pytest.raises(TypeError, match=f"Expected str, got {type(path)}"):
        WebsocketCommunicator(echo, cast(str, path))


async def test_the_answer_of_the_application_is_known_after_connecting() -> None:
    app = Recorder({**ACCEPT, "subprotocol": "chat", "headers": [(b"x", b"y")]})
    communicator = WebsocketCommunicator(app, "/", subprotocols=["chat"])
    assert (communicator.response_headers, communicator.subprotocol) == (None, None)
    assert await communicator.connect() == (True, "chat")
    assert (communicator.response_headers, communicator.subprotocol) == ([(b"x", b"y")], "chat")
    await communicator.disconnect()


@pytest.mark.parametrize(("close", "code"), [({}, 1000), ({"code": 4003}, 4003)])
async def test_a_refused_connection_tells_its_code(close: dict[str, Any], code: int) -> None:
    communicator = WebsocketCommunicator(Recorder({"type": "websocket.close", **close}), "/")
    assert await communicator.connect() == (False, code)
    assert communicator.response_headers is None
    await communicator.disconnect()


async def test_an_answer_that_is_neither_fails() -> None:
    communicator = WebsocketCommunicator(Recorder({"type": "websocket.send", "text": "x"}), "/")
    with pytest.raises(AssertionError, match=r"Expected type 'websocket\.accept', but was 'websocket\.send'"):
        await communicator.connect()


# What is sent.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text_data": "x"}, {"text": "x"}),
        ({"bytes_data": b"x"}, {"bytes": b"x"}),
        ({"text_data": ""}, {"text": ""}),
        ({"bytes_data": b""}, {"bytes": b""}),
        ({"text_data": "", "bytes_data": b"x"}, {"bytes": b"x"}),
        ({"text_data": "x", "bytes_data": b""}, {"text": "x"}),
    ],
)
async def test_a_frame_reaches_the_application(arguments: dict[str, Any], message: Message) -> None:
    app = Recorder(ACCEPT)
    async with WebsocketCommunicator(app, "/") as ws:
        await ws.send_to(**arguments)
    assert app.received[1] == {"type": "websocket.receive", **message}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "You must supply exactly one of text_data or bytes_data"),
        ({"text_data": "x", "bytes_data": b"x"}, "You must supply exactly one of text_data or bytes_data"),
        ({"text_data": "", "bytes_data": b""}, "You must supply exactly one of text_data or bytes_data"),
        ({"text_data": b"x"}, "The text_data argument must be a str"),
        ({"text_data": 0}, "The text_data argument must be a str"),
        ({"bytes_data": "x"}, "The bytes_data argument must be bytes"),
    ],
)
async def test_what_is_no_frame_is_refused(arguments: dict[str, Any], text: str) -> None:
    async with WebsocketCommunicator(echo, "/") as ws:
        with pytest.raises(AssertionError, match=text):
            await ws.send_to(**arguments)
        assert await ws.receive_nothing(timeout=0)


async def test_what_json_does_not_have_is_refused() -> None:
    async with WebsocketCommunicator(echo, "/") as ws:
        with pytest.raises(TypeError):
            await ws.send_json_to(object())


async def test_a_disconnect_has_its_code_and_a_reason_if_given() -> None:
    plain, reasoned = Recorder(ACCEPT), Recorder(ACCEPT)
    for app, arguments in ((plain, {}), (reasoned, {"code": 4000, "reason": "enough"})):
        communicator = WebsocketCommunicator(app, "/")
        await communicator.connect()
        await communicator.disconnect(**cast(dict[str, Any], arguments))
    assert plain.received[-1] == {"type": "websocket.disconnect", "code": 1000}
    assert reasoned.received[-1] == {"type": "websocket.disconnect", "code": 4000, "reason": "enough"}


# What is received.


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"type": "websocket.close"}, "Expected type 'websocket.send', but was 'websocket.close'"),
        ({"type": "websocket.send"}, "The response needs exactly one of 'text' or 'bytes'"),
        ({"type": "websocket.send", "text": "x", "bytes": b"x"}, "The response needs exactly one of 'text' or 'bytes'"),
        ({"type": "websocket.send", "text": None, "bytes": None}, "The response needs exactly one"),
        ({"type": "websocket.send", "text": b"x"}, "Text frame payload is not str, it is <class 'bytes'>"),
        ({"type": "websocket.send", "bytes": "x"}, "Binary frame payload is not bytes, it is <class 'str'>"),
    ],
)
async def test_what_is_no_frame_fails(message: Message, text: str) -> None:
    async with WebsocketCommunicator(Recorder(ACCEPT, message), "/") as ws:
        await ws.send_to(text_data="go")
        with pytest.raises(AssertionError, match=text):
            await ws.receive_from()


@pytest.mark.parametrize(("text", "data"), [("x", None), (None, b"x")])
async def test_one_of_text_and_bytes_may_be_none(text: str | None, data: bytes | None) -> None:
    async with WebsocketCommunicator(
        Recorder(ACCEPT, {"type": "websocket.send", "text": text, "bytes": data}), "/"
    ) as ws:
        await ws.send_to(text_data="go")
        assert await ws.receive_from() == (text or data)


async def test_json_in_a_binary_frame_fails() -> None:
    async with WebsocketCommunicator(echo, "/") as ws:
        await ws.send_to(bytes_data=b"{}")
        with pytest.raises(AssertionError, match="JSON data is not a text frame, it is <class 'bytes'>"):
            await ws.receive_json_from()
        await ws.send_to(text_data="{")
        with pytest.raises(ValueError, match="Expecting"):
            await ws.receive_json_from()


async def test_a_close_is_received_with_its_code_and_reason() -> None:
    async with WebsocketCommunicator(echo, "/") as ws:
        await ws.send_to(text_data="close")
        assert await ws.receive_close() == (4001, "asked to")


async def test_a_close_without_either_has_the_defaults() -> None:
    async with WebsocketCommunicator(Recorder(ACCEPT, {"type": "websocket.close"}), "/") as ws:
        await ws.send_to(text_data="go")
        assert await ws.receive_close() == (1000, "")


async def test_a_frame_where_a_close_is_expected_fails() -> None:
    async with WebsocketCommunicator(echo, "/") as ws:
        await ws.send_to(text_data="hello")
        with pytest.raises(AssertionError, match=r"Expected type 'websocket\.close', but was 'websocket\.send'"):
            await ws.receive_close()


def test_the_checks_hold_without_assertions() -> None:
    program = """
import asyncio
from headrace.testing import WebsocketCommunicator

async def app(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send"})
    await receive()

async def main():
    async with WebsocketCommunicator(app, "/") as ws:
        for work in (ws.send_to(), ws.receive_from()):
            try:
                await work
            except AssertionError as error:
                print(error)

asyncio.run(main())
"""
    run = subprocess.run([sys.executable, "-O", "-c", program], capture_output=True, text=True, timeout=50, check=False)
    assert (run.stderr, run.stdout.splitlines()) == (
        "",
        [
            "You must supply exactly one of text_data or bytes_data",
            "The response needs exactly one of 'text' or 'bytes'",
        ],
    )


# Timeouts.


async def test_a_timeout_and_then_a_disconnect_raises_cancelled_error_as_in_channels() -> None:
    communicator = WebsocketCommunicator(Recorder(ACCEPT), "/testws/")
    assert await communicator.connect() == (True, None)
    await communicator.send_to(text_data="hello")
    with pytest.raises(TimeoutError):
        await communicator.receive_from(timeout=0.01)
    with pytest.raises(asyncio.CancelledError):
        await communicator.disconnect()


async def test_a_timeout_in_the_context_leaves_the_connection_as_it_is() -> None:
    async with WebsocketCommunicator(echo, "/") as ws:
        with pytest.raises(TimeoutError):
            await ws.receive_from(timeout=0.01)
        await ws.send_to(text_data="hello")
        assert await ws.receive_from() == "hello"


# The context.


async def test_the_context_connects_and_disconnects() -> None:
    app = Recorder(ACCEPT)
    async with WebsocketCommunicator(app, "/ws/") as ws:
        assert isinstance(ws, WebsocketCommunicator)
        assert [message["type"] for message in app.received] == ["websocket.connect"]
    assert app.received[-1] == {"type": "websocket.disconnect", "code": 1000}
    assert ws.future.done()


async def test_the_context_disconnects_once() -> None:
    app = Recorder(ACCEPT)
    async with WebsocketCommunicator(app, "/ws/") as ws:
        await ws.disconnect(code=4000)
    assert [message["type"] for message in app.received] == ["websocket.connect", "websocket.disconnect"]


@pytest.mark.parametrize("read", [True, False])
async def test_the_context_disconnects_with_the_code_that_the_application_closed_with(read: bool) -> None:
    app = Recorder(ACCEPT, {"type": "websocket.close", "code": 4005})
    async with WebsocketCommunicator(app, "/ws/") as ws:
        await ws.send_to(text_data="go")
        await settle()
        if read:
            assert await ws.receive_close() == (4005, "")
    assert app.received[-1] == {"type": "websocket.disconnect", "code": 4005}


async def test_a_refused_context_raises_with_the_code_and_ends_the_application() -> None:
    app = Recorder({"type": "websocket.close", "code": 4003, "reason": "members only"})
    communicator = WebsocketCommunicator(app, "/ws/")
    with pytest.raises(ConnectionRejected) as caught:
        async with communicator:
            pytest.fail("entered")
    assert (caught.value.code, caught.value.reason) == (4003, "members only")
    assert str(caught.value) == "the application refused the connection to '/ws/' with code 4003 ('members only')"
    assert app.received[-1] == {"type": "websocket.disconnect", "code": 1006}
    assert communicator.future.done()


async def test_an_application_that_fails_to_connect_fails_the_context() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("the application failed")

    with pytest.raises(ValueError, match="the application failed"):
        async with WebsocketCommunicator(app, "/ws/"):
            pytest.fail("entered")


async def test_the_context_raises_what_the_application_raised_at_its_end() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await receive()
        raise ValueError("in the clean-up")

    with pytest.raises(ValueError, match="in the clean-up"):
        async with WebsocketCommunicator(app, "/ws/"):
            pass


async def test_a_failure_that_the_test_saw_is_not_raised_again() -> None:
    async with WebsocketCommunicator(echo, "/ws/") as ws:
        await ws.send_to(text_data="fail")
        with pytest.raises(ValueError, match="the application failed"):
            await ws.receive_from(timeout=None)


async def test_the_context_reports_an_application_that_does_not_end() -> None:
    cleaned = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    communicator = WebsocketCommunicator(app, "/ws/")
    await communicator.__aenter__()
    with pytest.raises(TimeoutError, match=r"did not end within 0\.01 s of 'websocket\.disconnect'"):
        await communicator.aclose(timeout=0.01)
    assert cleaned == [True]
    await communicator.__aexit__(None, None, None)


async def test_many_connections_are_open_at_once() -> None:
    async def talk(number: int) -> str | bytes:
        async with WebsocketCommunicator(echo, f"/{number}") as ws:
            await ws.send_to(text_data=str(number))
            return await ws.receive_from()

    assert await asyncio.gather(*(talk(number) for number in range(50))) == [str(number) for number in range(50)]


async def test_a_starlette_application_answers() -> None:
    from starlette.applications import Starlette
    from starlette.routing import WebSocketRoute
    from starlette.websockets import WebSocket, WebSocketDisconnect

    async def endpoint(websocket: WebSocket) -> None:
        if websocket.query_params.get("token") != "right":
            await websocket.close(4001, "no token")
            return
        await websocket.accept("chat", [(b"x", b"y")])
        try:
            while True:
                await websocket.send_json({"you said": await websocket.receive_json()})
        except WebSocketDisconnect as gone:
            codes.append(gone.code)

    codes: list[int] = []
    app = Starlette(routes=[WebSocketRoute("/ws/{room}", endpoint)])
    async with WebsocketCommunicator(app, "/ws/lobby?token=right", subprotocols=["chat"]) as ws:
        assert (ws.subprotocol, ws.response_headers) == ("chat", [(b"x", b"y")])
        await ws.send_json_to([1])
        assert await ws.receive_json_from() == {"you said": [1]}
    assert codes == [1000]
    with pytest.raises(ConnectionRejected, match="4001"):
        async with WebsocketCommunicator(app, "/ws/lobby"):
            pytest.fail("entered")


# Consumers.


class Chat(AsyncWebsocketConsumer):
    groups = ("room",)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data == "fail":
            raise ValueError("the consumer failed")
        if isinstance(self.channel_layer, InMemoryChannelLayer):
            await self.channel_layer.group_send("room", {"type": "chat.message", "text": text_data})

    async def chat_message(self, event: Message) -> None:
        await self.send(text_data=event["text"])


class Polite(WebsocketConsumer):
    codes: ClassVar[list[int]] = []

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.send(text_data=f"you said {text_data}")

    def disconnect(self, code: int) -> None:
        self.codes.append(code)


@pytest.fixture
def layer() -> Iterator[FaultyLayer]:
    layer = FaultyLayer()
    replaced = channel_layers.set("default", layer)
    yield layer
    channel_layers.backends.pop("default")
    if replaced is not None:
        channel_layers.set("default", replaced)


@pytest.mark.parametrize(
    "app",
    [Chat, Chat.as_asgi(), Chat(), URLRouter([path("ws/", Chat.as_asgi())])],
    ids=["class", "app", "object", "router"],
)
async def test_consumers_and_routers_are_applications(app: Any, layer: FaultyLayer) -> None:
    async with WebsocketCommunicator(app, "/ws/") as ws:
        await ws.send_to(text_data="hello")
        assert await ws.receive_from() == "hello"
        assert layer.group_count("room") == 1
        assert await ws.receive_nothing(timeout=0)
    assert layer.stats().memberships == 0


async def test_a_sync_consumer_is_an_application() -> None:
    Polite.codes.clear()
    async with WebsocketCommunicator(Polite, "/ws/") as ws:
        await ws.send_to(text_data="hello")
        assert await ws.receive_from() == "you said hello"
    assert Polite.codes == [1000]


async def test_what_a_consumer_raises_is_raised(layer: FaultyLayer) -> None:
    async with WebsocketCommunicator(Chat, "/ws/") as ws:
        await ws.send_to(text_data="fail")
        with pytest.raises(ValueError, match="the consumer failed"):
            await ws.receive_from(timeout=None)
    assert layer.stats().memberships == 0


async def test_a_consumer_that_is_full_misses_what_others_get(layer: FaultyLayer) -> None:
    async with WebsocketCommunicator(Chat, "/ws/") as first:
        (channel,) = layer.group_channels("room")
        async with WebsocketCommunicator(Chat, "/ws/") as second:
            with layer.faults.fill(channel) as fault:
                await second.send_to(text_data="hello")
                assert await second.receive_from() == "hello"
            assert fault.count == 1
            assert await first.receive_nothing(timeout=0)


async def test_a_late_message_reaches_the_consumers_when_it_is_released(layer: FaultyLayer) -> None:
    async with WebsocketCommunicator(Chat, "/ws/") as ws:
        layer.faults.hold("room")
        await ws.send_to(text_data="hello")
        assert await ws.receive_nothing(timeout=0)
        layer.faults.release()
        assert await ws.receive_from() == "hello"
