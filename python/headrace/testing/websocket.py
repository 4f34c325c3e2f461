"""Speak WebSocket to an ASGI application in a test, without a server."""

import json
from collections.abc import Callable, Iterable
from typing import Any, Self
from urllib.parse import unquote, urlparse

from headrace.exceptions import HeadraceError
from headrace.testing.application import ApplicationCommunicator
from headrace.typing import Message

__all__ = ["ConnectionRejected", "WebsocketCommunicator"]


class ConnectionRejected(HeadraceError):
    """The application refused the connection that ``async with`` was to open.

    Attributes:
        code: The close code that the application gave, 1000 if it gave none.
        reason: The reason that it gave, or an empty text.
    """

    def __init__(self, path: str, code: int, reason: str) -> None:
        because = f" ({reason!r})" if reason else ""
        super().__init__(f"the application refused the connection to {path!r} with code {code}{because}")
        self.code = code
        self.reason = reason


class WebsocketCommunicator(ApplicationCommunicator):
    """Runs an application with one WebSocket connection.

    ``async with WebsocketCommunicator(app, "/ws/") as ws`` connects, and raises ``ConnectionRejected`` if the
    application refuses. At the end the client disconnects with code 1000 (or with the code that the application
    closed with), the application ends, and its exception is raised unless it was raised before. In there a timeout
    leaves the application alone.

    Without the context everything is as in Channels, beginning with ``connect``.

    Attributes:
        response_headers: The headers that the application accepted with; None before that.
        subprotocol: The subprotocol that it chose; None if none.

    Args:
        application: An ASGI application, or a consumer class.
        path: The path with its query string; a whole URL is accepted, and what stands before the path ignored.
        headers: Pairs of bytes; the names in lower case.
        subprotocols: What the client offers.
        spec_version: The ``spec_version`` of the scope, which has none otherwise.
        cancel_on_timeout: As in ``ApplicationCommunicator``.

    Raises:
        TypeError: The path is not a str.
    """

    def __init__(
        self,
        application: Callable[..., Any],
        path: str,
        headers: Iterable[tuple[bytes, bytes]] | None = None,
        subprotocols: Iterable[str] | None = None,
        spec_version: str | None = None,
        *,
        cancel_on_timeout: bool | None = None,
    ) -> None:
        if not isinstance(path, str):
            raise TypeError(f"Expected str, got {type(path)}")
        parsed = urlparse(path)
        scope: dict[str, Any] = {
            "type": "websocket",
            "path": unquote(parsed.path),
            "query_string": parsed.query.encode("utf-8"),
            "headers": headers or [],
            "subprotocols": subprotocols or [],
        }
        if spec_version:
            scope["spec_version"] = spec_version
        super().__init__(application, scope, cancel_on_timeout=cancel_on_timeout)
        self.response_headers: Iterable[tuple[bytes, bytes]] | None = None
        self.subprotocol: str | None = None

    async def connect(self, timeout: float | None = 1) -> tuple[bool, Any]:
        """Open the connection.

        Args:
            timeout: Seconds to wait at most for the answer.

        Returns:
            ``(True, subprotocol)`` if the application accepts, ``(False, close code)`` if it refuses.

        Raises:
            AssertionError: The application answered with something else.
            TimeoutError: It did not answer in time.
            BaseException: What the application raised.
        """
        await self.send_input({"type": "websocket.connect"})
        response = await self.receive_output(timeout)
        if response["type"] == "websocket.close":
            return False, response.get("code", 1000)
        _require_type(response, "websocket.accept")
        self.response_headers = response.get("headers", [])
        self.subprotocol = response.get("subprotocol")
        return True, self.subprotocol

    async def send_to(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Send a frame to the application. Does not block.

        Differs from Channels: the frame may be empty.

        Raises:
            AssertionError: Not one of text and bytes was given, or it is something else.
            BaseException: What the application raised.
        """
        is_text, is_bytes = bool(text_data), bool(bytes_data)
        if not (is_text or is_bytes):
            is_text, is_bytes = text_data is not None, bytes_data is not None
        _require(is_text != is_bytes, "You must supply exactly one of text_data or bytes_data")
        if is_text:
            _require(isinstance(text_data, str), "The text_data argument must be a str")
            await self.send_input({"type": "websocket.receive", "text": text_data})
        else:
            _require(isinstance(bytes_data, bytes), "The bytes_data argument must be bytes")
            await self.send_input({"type": "websocket.receive", "bytes": bytes_data})

    async def send_json_to(self, data: Any) -> None:
        """Send a text frame of JSON. Does not block.

        Raises:
            TypeError, ValueError: It is nothing that JSON has.
            BaseException: What the application raised.
        """
        await self.send_to(text_data=json.dumps(data))

    async def receive_from(self, timeout: float | None = 1) -> str | bytes:
        """Wait for a frame of the application, and return its text or bytes.

        Differs from Channels: of ``text`` and ``bytes``, one may be None, as ASGI has it.

        Args:
            timeout: Seconds to wait at most.

        Raises:
            AssertionError: The application closed the connection instead, or sent no proper frame.
            TimeoutError: Nothing came in time.
            BaseException: What the application raised.
        """
        response = await self.receive_output(timeout)
        _require_type(response, "websocket.send")
        payloads = {key: response[key] for key in ("text", "bytes") if key in response}
        if len(payloads) == 2:
            payloads = {key: payload for key, payload in payloads.items() if payload is not None}
        _require(len(payloads) == 1, "The response needs exactly one of 'text' or 'bytes'")
        ((key, payload),) = payloads.items()
        if key == "text":
            _require(isinstance(payload, str), f"Text frame payload is not str, it is {type(payload)}")
        else:
            _require(isinstance(payload, bytes), f"Binary frame payload is not bytes, it is {type(payload)}")
        frame: str | bytes = payload
        return frame

    async def receive_json_from(self, timeout: float | None = 1) -> Any:
        """Wait for a text frame of the application, and return what its JSON stands for.

        Raises:
            ValueError: The text is not JSON.
            AssertionError, TimeoutError, BaseException: As ``receive_from``.
        """
        payload = await self.receive_from(timeout)
        _require(isinstance(payload, str), f"JSON data is not a text frame, it is {type(payload)}")
        return json.loads(payload)

    async def receive_close(self, timeout: float | None = 1) -> tuple[int, str]:
        """Wait for the application to close the connection, and return the code and the reason.

        Channels does not have this.

        Raises:
            AssertionError: The application sent something else.
            TimeoutError: Nothing came in time.
            BaseException: What the application raised.
        """
        response = await self.receive_output(timeout)
        _require_type(response, "websocket.close")
        return _code_and_reason(response)

    async def disconnect(self, code: int = 1000, timeout: float | None = 1, *, reason: str | None = None) -> None:
        """Go away, and wait until the application has ended.

        Args:
            code: The close code of the client.
            timeout: Seconds to wait at most; what happens then says ``wait``.
            reason: The client's reason, which the message has only if it is given. Channels does not have this.

        Raises:
            TimeoutError: As ``wait``.
            BaseException: What the application raised.
        """
        message: dict[str, Any] = {"type": "websocket.disconnect", "code": code}
        await self.send_input(message if reason is None else {**message, "reason": reason})
        await self.wait(timeout)

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        try:
            accepted, _ = await self.connect()
            if not accepted:
                raise ConnectionRejected(self.scope["path"], *_code_and_reason(self._output_queue.last))
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    def _farewell(self) -> Message:
        """As a server says it: with the application's own code if that has closed, and 1006 before it accepted."""
        last = self._output_queue.last
        code = last.get("code", 1000) if last.get("type") == "websocket.close" else 1000
        return {"type": "websocket.disconnect", "code": 1006 if self.response_headers is None else code}


def _require(condition: bool, otherwise: str) -> None:
    """Check as ``assert`` does, with ``python -O`` too."""
    if not condition:
        raise AssertionError(otherwise)


def _require_type(message: Message, expected: str) -> None:
    _require(message["type"] == expected, f"Expected type '{expected}', but was '{message['type']}'")


def _code_and_reason(close: Message) -> tuple[int, str]:
    return close.get("code", 1000), close.get("reason") or ""
