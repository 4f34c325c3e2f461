"""What is broadcast, as it travels: JSON text that most sockets pass on as it is.

It is encoded once, by whoever broadcasts it, and not by each socket that gets it. Data that JSON cannot hold and a
layer can, which is bytes, travels as msgpack, for servers with an encoder of their own. In both forms it is one value
that cannot be changed, so that a thousand receivers share it.
"""

import json
from collections.abc import Callable
from typing import Any

from headrace._core import pack, unpack
from headrace._json_text import decode
from headrace._sockets.topics import group_of
from headrace.exceptions import MessageTooLarge

__all__ = [
    "Encoder",
    "broadcast_message",
    "data_of",
    "decode",
    "encode",
    "encoded",
    "frame",
    "frame_of",
    "passes_text",
]

Encoder = Callable[[Any], str | bytes]
"""Turns data into what a frame holds."""


encode = json.JSONEncoder(allow_nan=False).encode
"""As ``json.dumps``, but for NaN and the infinities, which that writes as no other parser of JSON reads."""


def broadcast_message(topic: str, payload: dict[str, Any]) -> dict[str, Any]:
    """Return the message that a layer carries; its type is the group, so that ``"coalesce"`` goes by topics."""
    return {"type": group_of(topic), "topic": topic, **payload}


def encoded(data: Any, limit: int) -> dict[str, Any]:
    """Encode data, as the part of a message that holds it.

    Args:
        data: What JSON can hold, or msgpack.
        limit: How many bytes it may take.

    Raises:
        TypeError: It holds what neither can; the error has the path.
        ValueError: It holds itself, NaN or an infinity, or is nested too deep.
        MessageTooLarge: It takes more bytes than the limit.
    """
    try:
        text = encode(data)
    except TypeError:
        return {"packed": _packed(data, limit)}
    except RecursionError:
        raise ValueError("data cannot be broadcast: it is nested too deep") from None
    except ValueError as error:
        raise ValueError(f"data cannot be broadcast: {error}") from None
    if len(text) > limit:
        raise MessageTooLarge(
            f"data takes {len(text)} bytes as JSON, and a message may have {limit}; send less, or set max_message_bytes"
        )
    return {"text": text}


def _packed(data: Any, limit: int) -> bytes:
    try:
        return pack({"data": data}, limit)
    except TypeError as error:
        reason = str(error).replace("message['data']", "data").partition("; a strict layer")[0]
        raise TypeError(f"data cannot be broadcast: {reason}; give what JSON can hold, or bytes in it") from None


def data_of(message: dict[str, Any]) -> Any:
    """Return the data of a message, in containers of its own."""
    text = message.get("text")
    return unpack(message["packed"])["data"] if text is None else json.loads(text)


def passes_text(encoder: Encoder, is_bytes: bool) -> bool:
    """Tell whether JSON goes to a client as the text that it came as."""
    return (encoder is encode or encoder is json.dumps) and not is_bytes


# The last message that was encoded otherwise than it came, with its encoder: what the sockets of a topic get one after
# the other is encoded for the first of them.
_latest: tuple[object, object, str | bytes] = (None, None, "")


def frame_of(message: dict[str, Any], encoder: Encoder, is_bytes: bool) -> dict[str, Any]:
    """Return the frame for a client; whatever the encoder raises is raised."""
    global _latest  # noqa: PLW0603  # any thread may replace it as a whole
    payload = message.get("text")
    if payload is None:
        payload = message["packed"]
    elif passes_text(encoder, is_bytes):
        return {"type": "websocket.send", "text": payload}
    of, by, content = _latest
    if of is not payload or by is not encoder:
        content = encoder(data_of(message))
        _latest = (payload, encoder, content)
    return frame(content, is_bytes)


def frame(content: str | bytes, is_bytes: bool) -> dict[str, Any]:
    """Return the frame of what an encoder returned: text, or bytes.

    Raises:
        TypeError: It returned neither.
    """
    if isinstance(content, str):
        return {"type": "websocket.send", "bytes": content.encode()} if is_bytes else _text(content)
    if isinstance(content, bytes | bytearray | memoryview):
        return {"type": "websocket.send", "bytes": bytes(content)} if is_bytes else _text(bytes(content).decode())
    raise TypeError(f"ws_encoder must return str or bytes, returned {type(content).__name__}")


def _text(content: str) -> dict[str, Any]:
    return {"type": "websocket.send", "text": content}
