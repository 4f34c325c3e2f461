"""Socket servers as ASGI applications, and what a class of them may say."""

import asyncio
import functools
from typing import Any

import pytest
from tests.support.waiting import SECONDS

from headrace.sockets import BaseSocketServer

from .conftest import Client


async def test_as_asgi_serves_a_connection_until_it_ends(client: Client) -> None:
    class Echo(BaseSocketServer):
        async def receive(self, data: Any) -> None:
            await self.async_send(data)

    for application in (Echo.as_asgi(), Echo.as_asgi, Echo.as_asgi(subprotocol=None)):
        client = Client()
        serving = asyncio.ensure_future(application(client.scope, client.incoming.get, client.send))
        client.gives("connect")
        client.says({"a": 1})
        assert await client.hears(1) == [{"a": 1}]
        client.gives("disconnect", code=1000)
        async with asyncio.timeout(SECONDS):
            await serving


async def test_what_servers_are_made_with_is_given_once(client: Client) -> None:
    application = BaseSocketServer.as_asgi(subprotocol="chat")
    assert repr(application) == "BaseSocketServer.as_asgi()"
    client.gives("connect")
    client.gives("disconnect")
    await application(client.scope, client.incoming.get, client.send)
    assert client.sent == [{"type": "websocket.accept", "subprotocol": "chat"}]


async def test_a_scope_of_another_protocol_is_refused(client: Client) -> None:
    with pytest.raises(ValueError, match="BaseSocketServer is for WebSockets, got a scope of type 'http'"):
        await BaseSocketServer.as_asgi()({"type": "http"}, client.incoming.get, client.send)


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ({"hots": [1]}, TypeError, "got an unexpected keyword argument 'hots'"),
        ({"max_backlog": 3}, TypeError, "max_backlog is an attribute of the class"),
        ({"hosts": 5}, ValueError, "hosts must be a list of servers"),
        ({"allow_memory": False}, ValueError, "hosts are not given and allow_memory is False"),
        ({"ws_encoder": 5}, TypeError, "ws_encoder must be a function of the data, got 5"),
        ({"ws_decoder": "x"}, TypeError, "ws_decoder must be a function of the data, got 'x'"),
        ({"subprotocol": 5}, TypeError, "subprotocol must be a str or None, got 5"),
    ],
)
def test_what_servers_cannot_be_made_with_is_told_before_a_client_comes(
    arguments: dict[str, Any], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        BaseSocketServer.as_asgi(**arguments)


async def test_a_class_may_say_what_its_servers_are_made_with(client: Client) -> None:
    class Own(BaseSocketServer):
        config = {"capacity": 7}  # noqa: RUF012  # as a user writes it
        subprotocol = "chat"

    client.scope["subprotocols"] = ["talk", "chat"]
    server = await client.connects(Own)
    assert server.layer.capacity == 7
    assert client.sent == [{"type": "websocket.accept", "subprotocol": "chat"}]
    assert BaseSocketServer(client.scope, client.incoming.get, client.send).layer is not server.layer


@pytest.mark.parametrize(
    "offered", [{}, {"subprotocols": []}, {"subprotocols": ["talk"]}], ids=["none", "empty", "other"]
)
async def test_a_subprotocol_that_was_not_offered_is_sent_with_a_warning(
    caplog: pytest.LogCaptureFixture, offered: dict[str, Any]
) -> None:
    client = Client(**offered)
    await client.connects(BaseSocketServer, subprotocol="chat")
    assert client.sent == [{"type": "websocket.accept", "subprotocol": "chat"}]
    assert "subprotocol 'chat', which its client did not offer" in caplog.text


@pytest.mark.parametrize(
    ("name", "hook", "wanted"),
    [
        ("authorize", lambda self, scope: True, r"authorize\(self\)"),
        ("connect", lambda: None, r"connect\(self\)"),
        ("receive", lambda self: None, r"receive\(self, data\)"),
        ("receive", lambda self, data, *, kind: None, r"receive\(self, data\)"),
        ("receive", staticmethod(lambda: None), r"receive\(self, data\)"),
        ("receive", None, r"receive\(self, data\)"),
        ("on_bad_message", lambda self, error: None, r"on_bad_message\(self, raw, error\)"),
        ("on_error", lambda self, error: None, r"on_error\(self, error, data\)"),
        ("async_handle_received_broadcast", lambda self, data: None, r"received_broadcast\(self, channel, data\)"),
        ("configure", lambda self, hosts: None, r"configure\(self\)"),
        ("disconnect", lambda self, code, reason: None, "take the code, or nothing"),
    ],
)
def test_a_hook_that_cannot_be_called_is_told_when_the_class_is_made(name: str, hook: Any, wanted: str) -> None:
    with pytest.raises(TypeError, match=rf"Wrong\.{name} must .*{wanted}"):
        type("Wrong", (BaseSocketServer,), {name: hook})


class Responder:
    """Can be called, and is no function."""

    def __call__(self, data: Any) -> None: ...


@pytest.mark.parametrize(
    "hook",
    [
        lambda self, data: None,
        lambda *args, **kwargs: None,
        staticmethod(lambda data: None),
        classmethod(lambda cls, data, kind="chat": None),
        functools.partial(print, "got"),
        Responder(),
        dict.update,
    ],
    ids=["plain", "any", "static", "class", "partial", "object", "builtin"],
)
def test_a_hook_of_any_kind_that_can_be_called_is_taken(hook: Any) -> None:
    right: Any = type("Right", (BaseSocketServer,), {"receive": hook})
    assert right.receive is not BaseSocketServer.receive


def test_configure_is_a_plain_function() -> None:
    async def configure(self: Any) -> None: ...

    with pytest.raises(TypeError, match=r"Wrong\.configure must be a plain function"):
        type("Wrong", (BaseSocketServer,), {"configure": configure})


async def test_a_coroutine_of_a_thread_that_fails_is_logged(
    client: Client, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    request.node.add_marker("complains")
    server = await client.connects(BaseSocketServer)

    async def fails() -> None:
        raise LookupError("nothing there")

    future = await asyncio.to_thread(server.run_async, fails())
    with pytest.raises(LookupError):
        await asyncio.wrap_future(future)
    assert "a coroutine of run_async() failed" in caplog.text


def test_as_asgi_takes_a_whole_connection() -> None:
    with pytest.raises(TypeError, match="takes no positional arguments, or scope, receive and send"):
        BaseSocketServer.as_asgi({})  # type: ignore[call-overload]
