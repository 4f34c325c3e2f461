"""Scripts for the communicators of Channels and of headrace alike: a program that prints what each step gave.

Usage: ``python scenarios.py channels`` or ``python scenarios.py headrace``.
"""

import asyncio
import functools
import importlib
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

Scenario = Callable[["Steps", Any], Awaitable[None]]
SCENARIOS: dict[str, Scenario] = {}


class Steps:
    """What the steps of a scenario returned or raised."""

    def __init__(self) -> None:
        self.outcomes: list[list[str]] = []

    async def __call__(self, step: Awaitable[Any] | Callable[[], Any]) -> Any:
        try:
            result = step() if callable(step) else await step
        except BaseException as error:
            self.outcomes.append([type(error).__name__, str(error)])
            return None
        shown = sorted(result.items()) if isinstance(result, dict) else result
        self.outcomes.append(["returned", repr(shown)])
        return result

    def note(self, value: object) -> None:
        self.outcomes.append(["noted", repr(value)])


def scenario(function: Scenario) -> Scenario:
    SCENARIOS[function.__name__] = function
    return function


async def websocket_app(scope: Any, receive: Any, send: Any) -> None:
    """Do what each frame says."""
    await receive()
    if scope["path"] == "/refuse":
        await send({"type": "websocket.close", **({"code": 4003} if scope["query_string"] else {})})
        return
    if scope["path"] == "/silent":
        await receive()
    if scope["path"] == "/wrong":
        await send({"type": "websocket.send", "text": "too early"})
    await send(
        {"type": "websocket.accept", **({"subprotocol": "b", "headers": [(b"x", b"y")]} if scope["headers"] else {})}
    )
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text")
        if text == "fail":
            raise ValueError("the application failed")
        if text == "end":
            return
        if text == "close":
            await send({"type": "websocket.close"})
        elif text == "nothing":
            continue
        elif text and text.startswith("{"):
            await send({"type": "websocket.send", **eval(text)})
        else:
            await send({**message, "type": "websocket.send"})


async def hanging_app(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await asyncio.Event().wait()


async def http_app(scope: Any, receive: Any, send: Any) -> None:
    request = await receive()
    if scope["path"] == "/fail":
        raise ValueError("the application failed")
    if scope["path"] == "/wrong":
        await send({"type": "http.response.body", "body": b""})
    start = {"type": "http.response.start", "status": 200}
    await send({**start, "headers": scope["headers"]} if scope["headers"] else start)
    await send({"type": "http.response.body", "body": scope["method"].encode(), "more_body": True})
    await send({"type": "http.response.body", "body": request["body"] + scope["query_string"]})


class ClassApp:
    """An application of the older form."""

    def __init__(self, scope: Any) -> None:
        self.scope = scope

    async def __call__(self, receive: Any, send: Any) -> None:
        await websocket_app(self.scope, receive, send)


@scenario
async def frames(do: Steps, testing: Any) -> None:
    ws = testing.WebsocketCommunicator(websocket_app, "/path?x=1", [(b"a", b"b")], ["a", "b"], "2.3")
    do.note(ws.scope)
    do.note(ws.response_headers)
    await do(ws.connect())
    do.note(ws.response_headers)
    await do(ws.send_to(text_data="hello"))
    await do(ws.receive_from())
    await do(ws.send_to(bytes_data=b"hello"))
    await do(ws.receive_from())
    await do(ws.send_json_to({"a": [1, None]}))
    await do(ws.send_to(text_data='{"text": "[1]"}'))
    await do(ws.receive_nothing())
    await do(ws.disconnect())


@scenario
async def json_frames(do: Steps, testing: Any) -> None:
    ws = testing.WebsocketCommunicator(websocket_app, "/")
    await do(ws.connect())
    for payload in ('{"text": "[1, 2]"}', '{"text": "no"}', '{"bytes": b"[]"}'):
        await do(ws.send_to(text_data=payload))
        await do(ws.receive_json_from())
    await do(ws.disconnect())


@scenario
async def wrong_arguments(do: Steps, testing: Any) -> None:
    for path in (b"/", None, 5):
        await do(functools.partial(testing.WebsocketCommunicator, websocket_app, path))
    ws = testing.WebsocketCommunicator(websocket_app, "/")
    await do(ws.connect())
    for arguments in ((), ("x", b"x"), ("", b""), (b"x",), (None, "x"), ("", b"x"), ("x", b""), (5,)):
        await do(ws.send_to(*arguments))
    await do(ws.disconnect())


@scenario
async def wrong_frames(do: Steps, testing: Any) -> None:
    ws = testing.WebsocketCommunicator(websocket_app, "/")
    await do(ws.connect())
    for frame in ('{"text": b"x"}', '{"bytes": "x"}', '{"text": "x", "bytes": b"x"}', "{}", '{"text": None}', "close"):
        await do(ws.send_to(text_data=frame))
        await do(ws.receive_from())
    await do(ws.disconnect(code=1001))


@scenario
async def refused(do: Steps, testing: Any) -> None:
    for path in ("/refuse", "/refuse?code", "/wrong"):
        ws = testing.WebsocketCommunicator(websocket_app, path)
        await do(ws.connect())
        await do(ws.disconnect())


@scenario
async def application_ends(do: Steps, testing: Any) -> None:
    ws = testing.WebsocketCommunicator(websocket_app, "/")
    await do(ws.connect())
    await do(ws.send_to(text_data="end"))
    await do(ws.wait())
    await do(ws.send_to(text_data="hello"))
    await do(ws.receive_from(timeout=0.05))
    await do(ws.disconnect())
    await do(ws.stop)


@scenario
async def application_fails(do: Steps, testing: Any) -> None:
    ws = testing.WebsocketCommunicator(websocket_app, "/")
    await do(ws.connect())
    await do(ws.send_to(text_data="fail"))
    await do(ws.receive_from(timeout=0.05))
    await do(ws.receive_from(timeout=0.05))
    await do(ws.send_to(text_data="hello"))
    await do(ws.receive_nothing())
    await do(ws.wait())
    await do(ws.stop)
    await do(lambda: ws.stop(exceptions=False))
    await do(ws.disconnect())


@scenario
async def timeout_and_disconnect(do: Steps, testing: Any) -> None:
    ws = testing.WebsocketCommunicator(websocket_app, "/")
    await do(ws.connect())
    await do(ws.send_to(text_data="nothing"))
    await do(ws.receive_from(timeout=0.05))
    do.note(ws.future.cancelled())
    await do(ws.receive_nothing())
    await do(ws.send_to(text_data="hello"))
    await do(ws.wait())
    await do(ws.stop)
    await do(ws.disconnect())


@scenario
async def timeout_while_connecting(do: Steps, testing: Any) -> None:
    ws = testing.WebsocketCommunicator(websocket_app, "/silent")
    await do(ws.connect(timeout=0.05))
    do.note(ws.future.cancelled())


@scenario
async def application_hangs(do: Steps, testing: Any) -> None:
    ws = testing.WebsocketCommunicator(hanging_app, "/")
    await do(ws.connect())
    await do(ws.disconnect(timeout=0.05))
    do.note(ws.future.cancelled())
    await do(ws.wait())


@scenario
async def stopped(do: Steps, testing: Any) -> None:
    ws = testing.WebsocketCommunicator(websocket_app, "/")
    await do(ws.stop)
    await do(ws.connect())
    await do(ws.stop)
    await do(ws.wait())
    await do(ws.stop)


@scenario
async def queues(do: Steps, testing: Any) -> None:
    communicator = testing.ApplicationCommunicator(websocket_app, {"type": "x", "path": "/", "headers": []})
    await do(communicator.input_queue.put({"type": "websocket.connect"}))
    do.note(communicator.future.done())
    await do(communicator.output_queue.get())
    await do(communicator.receive_nothing(0.02, 0.01))
    await do(communicator.send_input({"type": "websocket.disconnect"}))
    await do(communicator.wait())
    do.note(communicator.future.done())
    do.note(communicator.application is websocket_app)


@scenario
async def older_application(do: Steps, testing: Any) -> None:
    ws = testing.WebsocketCommunicator(ClassApp, "/")
    await do(ws.connect())
    await do(ws.send_to(text_data="hello"))
    await do(ws.receive_from())
    await do(ws.disconnect())


@scenario
async def urls(do: Steps, testing: Any) -> None:
    for url in ("wss://u:p@host:80/p%20q/?a=%20#f", "u:p@host/p?q=1#h", "", "?a", "//host/x", "/a;b?c"):
        do.note(testing.WebsocketCommunicator(websocket_app, url).scope)
        do.note(testing.HttpCommunicator(http_app, "get", url).scope)


@scenario
async def responses(do: Steps, testing: Any) -> None:
    for arguments in (("get", "/x?y"), ("POST", "/", b"body"), ("PUT", "/", b"", [(b"x", b"y")]), ("GET", "/wrong")):
        http = testing.HttpCommunicator(http_app, *arguments)
        do.note((http.scope, http.body, http.sent_request))
        result = await do(http.get_response())
        do.note((sorted(result or ()), http.sent_request))
    await do(lambda: testing.HttpCommunicator(http_app, "POST", "/", "text"))
    http = testing.HttpCommunicator(http_app, "GET", "/fail")
    await do(http.get_response(timeout=0.05))


async def play(testing: Any) -> dict[str, list[list[str]]]:
    outcomes = {}
    for name, function in SCENARIOS.items():
        steps = Steps()
        await function(steps, testing)
        outcomes[name] = steps.outcomes
    return outcomes


def main(package: str) -> None:
    if package == "channels":
        from django.conf import settings

        settings.configure()
    print(json.dumps(asyncio.run(play(importlib.import_module(f"{package}.testing")))))


if __name__ == "__main__":
    main(sys.argv[1])
