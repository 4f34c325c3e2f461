"""The communicator for HTTP."""

import asyncio
from collections.abc import Iterable
from typing import Any, cast

import pytest

from headrace.testing import HttpCommunicator, settle
from headrace.typing import Receive, Scope, Send


async def describe(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with what the request was."""
    body, more = b"", True
    while more:
        message = await receive()
        assert message["type"] == "http.request"
        body += message["body"]
        more = message.get("more_body", False)
    headers = [(b"x-path", scope["path"].encode()), (b"x-query", scope["query_string"]), *scope["headers"]]
    await send({"type": "http.response.start", "status": 201, "headers": headers})
    await send({"type": "http.response.body", "body": scope["method"].encode() + b" ", "more_body": True})
    await send({"type": "http.response.body", "body": body})


def answering(*messages: dict[str, Any]) -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for message in messages:
            await send(message)

    return app


async def test_a_request_gets_its_whole_response() -> None:
    communicator = HttpCommunicator(
        describe, "post", "http://host:80/a%20b/?c=d%20e#f", body=b"body", headers=[(b"x-mine", b"1")]
    )
    assert await communicator.get_response() == {
        "status": 201,
        "headers": [(b"x-path", b"/a b/"), (b"x-query", b"c=d%20e"), (b"x-mine", b"1")],
        "body": b"POST body",
    }
    await communicator.wait()


def test_the_scope_is_that_of_channels_and_has_no_asgi_key() -> None:
    communicator = HttpCommunicator(describe, "GET", "/test/?foo=bar")
    assert communicator.scope == {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": "/test/",
        "query_string": b"foo=bar",
        "headers": [],
    }


def test_a_body_that_is_not_bytes_is_refused_and_nothing_is_left_to_clean_up() -> None:
    with pytest.raises(AssertionError, match="The body argument must be bytes, it is <class 'str'>"):
        HttpCommunicator(describe, "POST", "/", body=cast(bytes, "text"))


async def test_the_body_of_a_request_can_come_in_parts() -> None:
    communicator = HttpCommunicator(describe, "PUT", "/")
    await communicator.send_body(b"one ", more_body=True)
    await communicator.send_body(b"two")
    assert (await communicator.get_response())["body"] == b"PUT one two"


async def test_the_body_of_a_response_can_be_read_as_it_comes() -> None:
    proceed = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await proceed.wait()
        await send({"type": "http.response.body", "body": b"last"})

    communicator = HttpCommunicator(app, "GET", "/events")
    assert await communicator.get_response_start() == {"status": 200, "headers": []}
    parts = communicator.stream_body()
    assert await anext(parts) == b"first"
    assert await communicator.receive_nothing(timeout=0)
    proceed.set()
    assert [part async for part in parts] == [b"last"]


async def test_a_body_that_is_left_out_is_empty() -> None:
    app = answering({"type": "http.response.start", "status": 204}, {"type": "http.response.body"})
    assert await HttpCommunicator(app, "GET", "/").get_response() == {"status": 204, "headers": [], "body": b""}


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([{"type": "http.response.body"}], "Expected type 'http.response.start', but was 'http.response.body'"),
        (
            [{"type": "http.response.start", "status": 200}, {"type": "websocket.close"}],
            "Expected type 'http.response.body', but was 'websocket.close'",
        ),
        (
            [{"type": "http.response.start", "status": 200}, {"type": "http.response.body", "body": "text"}],
            "The body of the response must be bytes, it is <class 'str'>",
        ),
    ],
)
async def test_an_answer_that_is_no_response_fails(messages: Iterable[dict[str, Any]], text: str) -> None:
    with pytest.raises(AssertionError, match=text):
        await HttpCommunicator(answering(*messages), "GET", "/").get_response()


async def test_the_context_tells_the_application_that_the_client_is_gone() -> None:
    received: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"1", "more_body": True})
        while not received or received[-1] != "http.disconnect":
            received.append((await receive())["type"])

    async with HttpCommunicator(app, "GET", "/events") as communicator:
        await communicator.get_response_start()
        assert await anext(communicator.stream_body()) == b"1"
    assert received == ["http.request", "http.disconnect"]
    assert communicator.future.done()


async def test_what_the_application_raises_is_raised_at_once() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        raise ValueError("the application failed")

    communicator = HttpCommunicator(app, "GET", "/")
    with pytest.raises(ValueError, match="the application failed"):
        await communicator.get_response(timeout=None)


async def test_a_starlette_application_answers() -> None:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def endpoint(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"{request.path_params['name']} {request.query_params['q']}")

    app = Starlette(routes=[Route("/hello/{name}", endpoint)])
    response = await HttpCommunicator(app, "GET", "/hello/ada?q=1").get_response()
    assert (response["status"], response["body"]) == (200, b"ada 1")


async def test_many_requests_run_at_once() -> None:
    communicators = [HttpCommunicator(describe, "GET", f"/{n}") for n in range(20)]
    responses = await asyncio.gather(*(each.get_response() for each in communicators))
    assert [dict(response["headers"])[b"x-path"] for response in responses] == [b"/%d" % n for n in range(20)]
    await settle()
