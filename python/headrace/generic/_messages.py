"""The messages that a WebSocket consumer sends; an argument of the wrong kind is refused with an error that says so."""

from collections.abc import Iterable, Mapping
from typing import NoReturn

from headrace._layers.close_message import MAX_REASON
from headrace._websocket.codes import may_close_with
from headrace.typing import Message

__all__ = ["accept_message", "close_message", "forwarded_message", "send_message"]


def accept_message(name: str, subprotocol: str | None, headers: Iterable[tuple[bytes, bytes]] | None) -> Message:
    """Return what accepts a connection; ``name`` is that of the consumer's class.

    Raises:
        TypeError: An argument is of the wrong kind.
    """
    if subprotocol is not None and not isinstance(subprotocol, str):
        _refuse(f"{name}.accept", "subprotocol must be a str or None", subprotocol)
    message: Message = {"type": "websocket.accept", "subprotocol": subprotocol}
    if headers:
        message["headers"] = pairs = list(headers) if isinstance(headers, Iterable) else [headers]
        if isinstance(headers, Mapping) or not all(map(_is_header, pairs)):
            _refuse(f"{name}.accept", "headers must be pairs of bytes", headers)
    return message


def send_message(name: str, text_data: str | None, bytes_data: bytes | str | None) -> Message:
    """Return what sends a frame.

    Raises:
        ValueError: There is neither text nor bytes.
        TypeError: An argument is of the wrong kind.
    """
    if text_data is not None:
        if not isinstance(text_data, str):
            _refuse(f"{name}.send", "text_data must be a str (bytes go into bytes_data)", text_data)
        return {"type": "websocket.send", "text": text_data}
    if bytes_data is None:
        raise ValueError("You must pass one of bytes_data or text_data")
    if isinstance(bytes_data, str):
        # As Channels' documentation has it.
        return {"type": "websocket.send", "bytes": bytes_data.encode()}
    if not isinstance(bytes_data, bytes | bytearray | memoryview):
        _refuse(f"{name}.send", "bytes_data must be bytes", bytes_data)
    return {"type": "websocket.send", "bytes": bytes_data}


def close_message(name: str, code: int | bool | None, reason: str | None, is_open: bool) -> Message:
    """Return what closes a connection, or refuses one that is not open yet.

    Raises:
        TypeError, ValueError: An argument is of the wrong kind.
    """
    message: Message = {"type": "websocket.close"}
    if code is not None and code is not True:
        if not isinstance(code, int):
            _refuse(f"{name}.close", "code must be an int", code)
        # Before accept() it refuses the handshake, and the server makes a status of it; of 0 it makes 1000.
        if is_open and code and not may_close_with(code):
            raise ValueError(
                f"{name}.close(): a WebSocket cannot be closed with code {code}: take 1000, or one of your own from "
                "3000 to 4999"
            )
        message["code"] = code
    if reason:
        if not isinstance(reason, str):
            _refuse(f"{name}.close", "reason must be a str", reason)
        if len(reason.encode()) > MAX_REASON:
            raise ValueError(f"reason must have at most {MAX_REASON} bytes, got {len(reason.encode())}")
        message["reason"] = reason
    return message


def forwarded_message(name: str, message: Message, field: str | None) -> Message:
    """Return what sends the frame that a message from the layer holds.

    Args:
        name: The name of the consumer's class.
        message: The message.
        field: The field that holds the frame; None for ``text`` or else ``bytes``.

    Raises:
        ValueError: It holds neither text nor bytes where it should.
    """
    payload = message.get(field or "text")
    if field is None and payload is None:
        payload = message.get("bytes")
    if isinstance(payload, str):
        return {"type": "websocket.send", "text": payload}
    if isinstance(payload, bytes):
        return {"type": "websocket.send", "bytes": payload}
    where = "'text' must be a str, or 'bytes' bytes" if field is None else f"{field!r} must be a str or bytes"
    raise ValueError(f"{name} forwards {message['type']!r}, in which {where}, got {message!r}")


def _refuse(method: str, expected: str, got: object) -> NoReturn:
    raise TypeError(f"{method}(): {expected}, got {got!r}")


def _is_header(pair: object) -> bool:
    return isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(part, bytes) for part in pair)
