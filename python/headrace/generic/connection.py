"""What sync and async WebSocket consumers share: the shapes of their messages, and how a connection ends."""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, MutableMapping
from typing import Any, NoReturn

from headrace.consumer import AsyncConsumer
from headrace.exceptions import InvalidChannelLayerError
from headrace.typing import Message

__all__ = ["UNDECODABLE", "Connection"]

NO_CODE = 1005
ABNORMAL = 1006
UNDECODABLE = 1003
FAILED = 1011
OVERRUN = 1013
PATIENCE = 0.1
"""How long a server may take for a close before it is asked for no more messages."""
CLOSE_SECONDS = 5
"""How long a client that does not read may hold up the close."""
MAX_REASON = 123
"""Bytes that fit in the frame of a close."""


class Connection(AsyncConsumer):
    """What sync and async WebSocket consumers share: the shapes of messages, and how a connection ends."""

    groups: Iterable[str] | None = None

    _state = (*AsyncConsumer._state, "_accepted", "_code", "_failure")
    _accepted = False
    # The code that the connection was closed with, as far as it is known.
    _code: int | None = None
    # The code to close with after a failure.
    _failure = FAILED

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Make a consumer; arguments are accepted and ignored, as in Channels, but for a scope."""
        super().__init__(args[0] if args and isinstance(args[0], MutableMapping) else None)
        if self.groups is None:
            self.groups = []

    def _accept_message(self, subprotocol: str | None, headers: Iterable[tuple[bytes, bytes]] | None) -> Message:
        if subprotocol is not None and not isinstance(subprotocol, str):
            self._refuse("accept", "subprotocol must be a str or None", subprotocol)
        message: Message = {"type": "websocket.accept", "subprotocol": subprotocol}
        if headers:
            message["headers"] = pairs = list(headers) if isinstance(headers, Iterable) else [headers]
            if isinstance(headers, Mapping) or not all(map(_is_header, pairs)):
                self._refuse("accept", "headers must be pairs of bytes", headers)
        return message

    def _send_message(self, text_data: str | None, bytes_data: bytes | None) -> Message:
        if text_data is not None:
            if not isinstance(text_data, str):
                self._refuse("send", "text_data must be a str (bytes go into bytes_data)", text_data)
            return {"type": "websocket.send", "text": text_data}
        if bytes_data is None:
            raise ValueError("You must pass one of bytes_data or text_data")
        if not isinstance(bytes_data, bytes | bytearray | memoryview):
            self._refuse("send", "bytes_data must be bytes (text goes into text_data)", bytes_data)
        return {"type": "websocket.send", "bytes": bytes_data}

    def _close_message(self, code: int | bool | None, reason: str | None) -> Message:
        message: Message = {"type": "websocket.close"}
        if code is not None and code is not True:
            if not isinstance(code, int):
                self._refuse("close", "code must be an int", code)
            message["code"] = code
        if reason:
            if not isinstance(reason, str):
                self._refuse("close", "reason must be a str", reason)
            if len(reason.encode()) > MAX_REASON:
                raise ValueError(f"reason must have at most {MAX_REASON} bytes, got {len(reason.encode())}")
            message["reason"] = reason
        return message

    def _refuse(self, method: str, expected: str, got: object) -> NoReturn:
        raise TypeError(f"{type(self).__name__}.{method}(): {expected}, got {got!r}")

    def _note_closed(self, message: Message) -> None:
        self._closed = True
        self._code = message.get("code", 1000)

    def _code_of(self, message: Message) -> int:
        """Return the code that the connection ended with: the server's if it has one, else that of our own close."""
        code = message.get("code")
        if code is not None and code != NO_CODE:
            return int(code)
        return NO_CODE if self._code is None else self._code

    async def _send_close(self, message: Message) -> None:
        """Send a close; if it is held back, stop asking the server for messages meanwhile, as granian wants it."""
        intake = self._intake
        if intake is None:
            await self._emit(message)
            return
        closing = asyncio.ensure_future(self._emit(message))
        try:
            await asyncio.wait({closing}, timeout=PATIENCE)
            if not closing.done():
                await intake.pause()
            await closing
        except (OSError, RuntimeError) as error:
            intake.resume()
            await self._excuse(error)
        finally:
            closing.cancel()
            intake.resume()

    def _group_layer(self) -> Any:
        layer: Any = self.channel_layer
        if layer is not None and hasattr(layer, "group_add"):
            return layer
        raise InvalidChannelLayerError("BACKEND is unconfigured or doesn't support groups")

    def _frame_of(self, message: Message) -> Message:
        """Return the frame that a message from the layer stands for.

        Raises:
            ValueError: It holds neither text nor bytes where it should.
        """
        field = self._fields[message["type"]]
        payload = message.get(field or "text")
        if field is None and payload is None:
            payload = message.get("bytes")
        if isinstance(payload, str):
            return {"type": "websocket.send", "text": payload}
        if isinstance(payload, bytes):
            return {"type": "websocket.send", "bytes": payload}
        where = "'text' must be a str, or 'bytes' bytes" if field is None else f"{field!r} must be a str or bytes"
        raise ValueError(f"{type(self).__name__} forwards {message['type']!r}, in which {where}, got {message!r}")

    async def _excuse(self, error: Exception) -> None:
        """Go on after a send that failed because the client has gone; raise any other error again.

        The specification has servers raise an ``OSError`` then. Some raise a ``RuntimeError`` instead, and have the
        client's last message ready by then: a turn of the loop later it has been read.
        """
        if isinstance(error, OSError):
            self._closed = True
            return
        await asyncio.sleep(0)
        if not self._gone:
            raise error

    # What the dispatch calls.

    def _note_gone(self, message: Message) -> None:
        super()._note_gone(message)
        self._code = self._code_of(message)

    async def _report(self, error: Exception, message: Message) -> None:
        await super()._report(error, message)
        # The consumer goes on, and what it may fail of later is another matter.
        self._failure = FAILED

    def _forward(self, message: Message) -> Awaitable[None]:
        payload = message.get(self._fields[message["type"]] or "text")
        if payload.__class__ is str:
            return self._asgi_send({"type": "websocket.send", "text": payload})
        return self._asgi_send(self._frame_of(message))

    async def _excuses(self, error: Exception) -> bool:
        if isinstance(error, OSError | RuntimeError):
            try:
                await self._excuse(error)
            except type(error):
                return False
            self._drop_after_close()
            return True
        return False

    async def _close_failed(self) -> None:
        # Where there is no server, as in a test, the exception is all there is to see; so it is in Channels.
        if self._accepted and not self._closed and not self._gone and "asgi" in self.scope:
            self._code = self._failure
            await self._close_now({"type": "websocket.close", "code": self._failure})

    async def _dismisses_client(self) -> bool:
        # The client's fault and not the server's: its server is not to log a traceback for it.
        is_its_fault = self._failure == UNDECODABLE and self._accepted and not self._closed and not self._gone
        if not is_its_fault or "asgi" not in self.scope:
            return False
        self._code = UNDECODABLE
        if self._intake is not None:
            await self._intake.close()
        return await self._close_now({"type": "websocket.close", "code": UNDECODABLE})

    async def _close_overrun(self) -> None:
        await super()._close_overrun()
        self._code = OVERRUN
        if not await self._close_now({"type": "websocket.close", "code": OVERRUN}):
            # Daphne sends no code but 1000 and those from 3000 on.
            await self._close_now({"type": "websocket.close"})

    async def _close_now(self, message: Message) -> bool:
        """Close, even if the client does not read what it was sent before; tell whether the server took it."""
        self._closed = True
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._asgi_send(message)
        except TimeoutError:
            return True  # it is on its way, to a client that does not read
        except Exception:  # whatever a server raises then: there is nobody left to tell
            return False
        return True

    async def _finish(self) -> None:
        if self._has_begun:
            await self._leave(ABNORMAL if self._code is None else self._code)

    async def _leave(self, code: int) -> None:
        """Leave the groups of the class, and call ``disconnect``."""


def _is_header(pair: object) -> bool:
    return isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(part, bytes) for part in pair)
