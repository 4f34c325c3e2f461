"""Speak HTTP to an ASGI application in a test, without a server."""

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any
from urllib.parse import unquote, urlparse

from headrace.testing.application import ApplicationCommunicator
from headrace.typing import Message

__all__ = ["HttpCommunicator"]


class HttpCommunicator(ApplicationCommunicator):
    """Runs an application with one HTTP request.

    ``get_response`` does it all. For bodies in parts use ``send_body``, then ``get_response_start`` and
    ``stream_body``, which Channels does not have.

    Args:
        application: An ASGI application, or a consumer class.
        method: The request's method, in either case.
        path: The path with its query string; a whole URL is accepted, and what stands before the path ignored.
        body: The request's body.
        headers: Pairs of bytes; the names in lower case.
        cancel_on_timeout: As in ``ApplicationCommunicator``.

    Raises:
        AssertionError: The body is not bytes.
    """

    def __init__(
        self,
        application: Callable[..., Any],
        method: str,
        path: str,
        body: bytes = b"",
        headers: Iterable[tuple[bytes, bytes]] | None = None,
        *,
        cancel_on_timeout: bool | None = None,
    ) -> None:
        parsed = urlparse(path)
        scope: dict[str, Any] = {
            "type": "http",
            "http_version": "1.1",
            "method": method.upper(),
            "path": unquote(parsed.path),
            "query_string": parsed.query.encode("utf-8"),
            "headers": headers or [],
        }
        _require_bytes("The body argument", body)
        self.body = body
        self.sent_request: bool = False
        super().__init__(application, scope, cancel_on_timeout=cancel_on_timeout)

    async def get_response(self, timeout: float | None = 1) -> dict[str, Any]:
        """Send the request if it was not sent, and wait for the whole response.

        Args:
            timeout: Seconds to wait at most for each part of it.

        Returns:
            A dict of ``status``, ``headers`` and ``body``.

        Raises:
            AssertionError: The application sent something else.
            TimeoutError: A part did not come in time.
            BaseException: What the application raised.
        """
        response = await self.get_response_start(timeout)
        response["body"] = b"".join([chunk async for chunk in self.stream_body(timeout)])
        return response

    async def send_body(self, body: bytes, more_body: bool = False) -> None:
        """Send a part of the request's body in place of the body given at first.

        Raises:
            AssertionError: It is not bytes.
            BaseException: What the application raised.
        """
        _require_bytes("The body argument", body)
        self.sent_request = True
        await self.send_input({"type": "http.request", "body": body, "more_body": more_body})

    async def get_response_start(self, timeout: float | None = 1) -> dict[str, Any]:
        """Send the request if it was not sent, and wait for the response's ``status`` and ``headers``.

        Raises:
            AssertionError, TimeoutError, BaseException: As ``get_response``.
        """
        if not self.sent_request:
            self.sent_request = True
            await self.send_input({"type": "http.request", "body": self.body})
        start = await self._receive("http.response.start", timeout)
        response = {key: value for key, value in start.items() if key != "type"}
        response.setdefault("headers", [])
        return response

    async def stream_body(self, timeout: float | None = 1) -> AsyncIterator[bytes]:
        """Give the parts of the response's body as the application sends them, to the last.

        Args:
            timeout: Seconds to wait at most for each.

        Raises:
            AssertionError, TimeoutError, BaseException: As ``get_response``.
        """
        more_body = True
        while more_body:
            chunk = await self._receive("http.response.body", timeout)
            body = chunk.get("body", b"")
            _require_bytes("The body of the response", body)
            yield body
            more_body = chunk.get("more_body", False)

    async def _receive(self, expected: str, timeout: float | None) -> Message:
        message = await self.receive_output(timeout)
        if message["type"] != expected:
            raise AssertionError(f"Expected type {expected!r}, but was {message['type']!r}")
        return message

    def _farewell(self) -> Message:
        return {"type": "http.disconnect"}


def _require_bytes(what: str, value: object) -> None:
    if not isinstance(value, bytes):
        raise AssertionError(f"{what} must be bytes, it is {type(value)}")
