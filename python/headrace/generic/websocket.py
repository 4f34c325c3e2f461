"""Consumers for WebSockets, with the API of ``channels.generic.websocket``.

All four have the same methods; those of the sync consumers are plain, and run in threads.

Differs from Channels: ``disconnect`` is called whatever ends the consumer (with 1006 if no code is known), and once;
arguments of the wrong kind are refused with an error that says so; over a real server a failed consumer closes with
1011, and with 1003 if the client sent what cannot be decoded.
"""

import json
from collections.abc import Iterable
from typing import Any, ClassVar

from asgiref.sync import async_to_sync

from headrace import _json_text as json_text
from headrace._dispatch import Shared
from headrace._websocket.codes import NOT_LOGGED_IN, UNSUPPORTED_DATA
from headrace.consumer import AsyncConsumer, SyncConsumer
from headrace.db import aclose_old_connections
from headrace.exceptions import AcceptConnection, DenyConnection, InvalidChannelLayerError, StopConsumer
from headrace.generic._connection import BaseWebsocketConsumer, SyncWebsocketSession
from headrace.generic._messages import send_message
from headrace.typing import Message

# Some only because Channels' module has them, and projects import them from there.
__all__ = [
    "AcceptConnection",
    "AsyncConsumer",
    "AsyncJsonWebsocketConsumer",
    "AsyncWebsocketConsumer",
    "DenyConnection",
    "InvalidChannelLayerError",
    "JsonWebsocketConsumer",
    "StopConsumer",
    "SyncConsumer",
    "WebsocketConsumer",
    "aclose_old_connections",
    "async_to_sync",
    "encode_once",
]

NO_TEXT = "No text section for incoming WebSocket frame!"


def encode_once(content: Any) -> str:
    """Encode JSON for a ``group_send`` whose receivers ``forward`` it: once for all of them.

    ``await layer.group_send(group, {"type": "chat.message", "text": encode_once(content)})`` with
    ``forward = {"chat.message"}`` on the consumers sends every client the same text.

    Raises:
        TypeError, ValueError: The content cannot be JSON.
    """
    return json.dumps(content)


class AsyncWebsocketConsumer(BaseWebsocketConsumer):
    """A WebSocket whose methods are coroutines. Override ``connect``, ``receive`` and ``disconnect``."""

    async def websocket_connect(self, message: Message) -> None:
        """Open the connection: join the groups of the class, then let ``connect`` decide.

        Raises:
            InvalidChannelLayerError: There are groups, and no channel layer that has groups.
        """
        session = self._headrace
        session.has_begun = True
        await session.join(self)
        try:
            await self.connect()
        except AcceptConnection:
            await self.accept()
        except DenyConnection:
            await self.close()

    async def connect(self) -> None:
        """Decide on a new connection: ``accept`` or ``close`` it. Accepts."""
        await self.accept()

    async def join_group(self, group: str, *, newest: int = 0) -> None:
        """Join a group. With ``resume`` its client gets what it has missed of it first, or is told that it cannot.

        Args:
            group: The group.
            newest: How many of its newest messages to get first, where the client does not say what it has, or nobody
                knows what it has missed; of a group that the layer keeps a ``history`` of.

        Raises:
            InvalidChannelLayerError: There is no channel layer that has groups.
            ValueError: The layer keeps no history of the group, and ``newest`` is given; or the client would have to
                keep the positions of more than 16 groups.
            TypeError: The name is not valid, or ``newest`` is no number.
            LayerUnavailable, LayerClosed: As the layer's ``group_add``; the group was not joined.
        """
        await self._headrace.join_group(self, group, newest)

    async def resumed(self, group: str, complete: bool) -> None:
        """Learn that the client has what it missed of a group, if it came with a position: to be overridden.

        Called once for each group with history that ``groups`` or ``join_group`` joins, behind the missed messages and
        before those that come later.

        Args:
            group: The group.
            complete: It got all of them. False if nobody knows what it has missed: none of it was sent then, and the
                application has to read its state anew. Also False if some were lost on the way here.
        """

    async def accept(
        self, subprotocol: str | None = None, headers: Iterable[tuple[bytes, bytes]] | None = None
    ) -> None:
        """Accept the connection.

        Args:
            subprotocol: One of those that the client offered.
            headers: More headers for the response, as pairs of bytes.

        Raises:
            TypeError: An argument is of the wrong kind.
        """
        session = self._headrace
        await session.send(self, session.accept_message(subprotocol, headers))
        session.accepted = session.answered = True

    async def websocket_receive(self, message: Message) -> None:
        """Pass a frame to ``receive``, as ``text_data`` or as ``bytes_data``; the other is not passed."""
        text = message.get("text")
        if text is not None:
            await self.receive(text_data=text)
        else:
            await self.receive(bytes_data=message["bytes"])

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Take a frame of the client: to be overridden. Only the argument that came is passed."""

    async def send(  # type: ignore[override]  # of a frame and not of a message, as in Channels
        self, text_data: str | None = None, bytes_data: bytes | str | None = None, close: bool | int = False
    ) -> None:
        """Send a frame to the client.

        Dropped and counted if the connection has ended; waits while the server holds its senders back.

        Args:
            text_data: Text.
            bytes_data: Bytes, if there is no text; of a str its UTF-8.
            close: Close the connection afterwards; a number is the code.

        Raises:
            ValueError: There is neither text nor bytes.
            TypeError: An argument is of the wrong kind.
            ConnectionClosed: The connection has ended, and ``raise_after_close`` is set or the grace period is over.
        """
        session = self._headrace
        if text_data.__class__ is str:
            message: Message = {"type": "websocket.send", "text": text_data}
        else:
            message = send_message(session.shared.name, text_data, bytes_data)
        if close:
            session.close_message(close, None)  # refused now, if it is
        if session.closed:
            session.drop_after_close(self)
        else:
            try:
                await self.base_send(message)
            except (OSError, RuntimeError) as error:
                await session.excuse(error)
                session.drop_after_close(self)
        if close:
            await self.close(close)

    async def close(self, code: int | bool | None = None, reason: str | None = None) -> None:
        """Close the connection, or refuse it if it was not accepted. Does nothing if it has ended.

        Args:
            code: The code of the close; None or True for the server's own.
            reason: A text of at most 123 bytes.

        Raises:
            TypeError, ValueError: An argument is of the wrong kind.
        """
        session = self._headrace
        message = session.close_message(code, reason)
        if not session.closed:
            session.note_closed(message)
            await session.send_close(self, message)

    async def websocket_disconnect(self, message: Message) -> None:
        """Leave the groups of the class, call ``disconnect``, and end the consumer."""
        session = self._headrace
        await session.leave(self, session.note_disconnect(self, message))
        raise StopConsumer

    async def disconnect(self, code: int) -> None:
        """Take leave: to be overridden. Called once when the connection has ended, for whatever reason."""

    async def on_idle(self) -> None:
        """React to a client that has been silent for ``idle_timeout``: close the connection."""
        await self.close()

    async def on_expire(self) -> None:
        """React to ``expires_at``: close the connection with 4401. Override it to send a message first.

        It is called in its turn, as a handler is. Set ``expires_at`` here to go on. What is left open is closed with
        4401, also if this raises, which is told to ``on_error``, or has not ended ten seconds after its time.
        """
        await self.close(NOT_LOGGED_IN)

    async def on_drain(self) -> None:
        """Take leave before the process ends: to be overridden, say to send a last message.

        It is called in its turn, as a handler is, at a random moment of the ``spread`` of ``headrace.drain``. Then the
        connection is closed with 1012, unless this has closed it; also if this raises, which is told to ``on_error``,
        or has not ended in time.
        """


class WebsocketConsumer(BaseWebsocketConsumer, SyncConsumer):
    """A WebSocket whose methods are plain, and run in threads. Override ``connect``, ``receive`` and ``disconnect``.

    Its methods are those of ``AsyncWebsocketConsumer``, for handlers' threads and any other but the event loop's own.
    """

    _headrace: ClassVar[Shared[SyncWebsocketSession]] = Shared(SyncWebsocketSession)

    def websocket_connect(self, message: Message) -> None:
        """Open the connection: join the groups of the class, then let ``connect`` decide."""
        session = self._headrace
        session.has_begun = True
        session.join_sync(self)
        try:
            session.call(self.connect)
        except AcceptConnection:
            self.accept()
        except DenyConnection:
            self.close()

    def connect(self) -> None:
        """Decide on a new connection: ``accept`` or ``close`` it. Accepts."""
        self.accept()

    def join_group(self, group: str, *, newest: int = 0) -> None:
        """Join a group; see ``AsyncWebsocketConsumer.join_group``."""
        session = self._headrace
        session.in_loop(session.join_group, self, group, newest)

    def resumed(self, group: str, complete: bool) -> None:
        """Learn that the client has what it missed of a group; see ``AsyncWebsocketConsumer.resumed``."""

    def accept(self, subprotocol: str | None = None, headers: Iterable[tuple[bytes, bytes]] | None = None) -> None:
        """Accept the connection; see ``AsyncWebsocketConsumer.accept``."""
        session = self._headrace
        session.send_sync(self, session.accept_message(subprotocol, headers))
        session.accepted = session.answered = True

    def websocket_receive(self, message: Message) -> None:
        """Pass a frame to ``receive``, as ``text_data`` or as ``bytes_data``; the other is not passed."""
        text = message.get("text")
        if text is not None:
            self._headrace.call(self.receive, text_data=text)
        else:
            self._headrace.call(self.receive, bytes_data=message["bytes"])

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Take a frame of the client: to be overridden. Only the argument that came is passed."""

    def send(  # type: ignore[override]  # of a frame and not of a message, as in Channels
        self, text_data: str | None = None, bytes_data: bytes | str | None = None, close: bool | int = False
    ) -> None:
        """Send a frame to the client; see ``AsyncWebsocketConsumer.send``."""
        session = self._headrace
        message = send_message(session.shared.name, text_data, bytes_data)
        if close:
            session.close_message(close, None)  # refused now, if it is
        try:
            session.send_sync(self, message)
        except (OSError, RuntimeError) as error:
            session.in_loop(session.excuse, error)
            session.drop_after_close(self)
        if close:
            self.close(close)

    def close(self, code: int | bool | None = None, reason: str | None = None) -> None:
        """Close the connection, or refuse it; see ``AsyncWebsocketConsumer.close``."""
        session = self._headrace
        message = session.close_message(code, reason)
        if not session.closed:
            session.note_closed(message)
            if session.incoming is None:
                self.base_send(message)
            else:
                session.in_loop(session.send_close, self, message)

    def websocket_disconnect(self, message: Message) -> None:
        """Leave the groups of the class, call ``disconnect``, and end the consumer."""
        session = self._headrace
        session.leave_sync(self, session.note_disconnect(self, message))
        raise StopConsumer

    def disconnect(self, code: int) -> None:
        """Take leave: to be overridden. Called once when the connection has ended, for whatever reason."""

    def on_idle(self) -> None:  # type: ignore[override]  # the sync twin
        """React to a client that has been silent for ``idle_timeout``: close the connection."""
        self.close()

    def on_expire(self) -> None:
        """React to ``expires_at``: close the connection with 4401; see ``AsyncWebsocketConsumer.on_expire``."""
        self.close(NOT_LOGGED_IN)

    def on_drain(self) -> None:
        """Take leave before the process ends: to be overridden; see ``AsyncWebsocketConsumer.on_drain``."""


class AsyncJsonWebsocketConsumer(AsyncWebsocketConsumer):
    """A WebSocket whose frames are JSON. Override ``receive_json`` instead of ``receive``."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any) -> None:
        """Decode a frame and pass it to ``receive_json``.

        Raises:
            ValueError: The frame has no text, or no JSON; it closes the connection with 1003.
        """
        if not text_data:
            self._headrace.failure = UNSUPPORTED_DATA
            raise ValueError(NO_TEXT)
        try:
            content = await self.decode_json(text_data)
        except (ValueError, RecursionError):  # a decoder of one's own may be recursive
            self._headrace.failure = UNSUPPORTED_DATA
            raise
        await self.receive_json(content, **kwargs)

    async def receive_json(self, content: Any, *args: Any, **kwargs: Any) -> None:
        """Take the content of a frame of the client: to be overridden, with ``content`` alone or with more."""

    async def send_json(self, content: Any, close: bool | int = False) -> None:
        """Send JSON to the client, in a text frame; see ``send``."""
        await self.send(text_data=await self.encode_json(content), close=close)

    @classmethod
    async def encode_json(cls, content: Any) -> str:
        """Encode what ``send_json`` sends."""
        return json.dumps(content)

    @classmethod
    async def decode_json(cls, text_data: str) -> Any:
        """Decode a frame.

        Differs from Channels: NaN and the infinities are no JSON, and nesting that is too deep is a ``ValueError``.
        """
        return json_text.decode(text_data)


class JsonWebsocketConsumer(WebsocketConsumer):
    """A WebSocket whose frames are JSON. Override ``receive_json`` instead of ``receive``."""

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any) -> None:
        """Decode a frame and pass it to ``receive_json``.

        Raises:
            ValueError: The frame has no text, or no JSON; it closes the connection with 1003.
        """
        if not text_data:
            self._headrace.failure = UNSUPPORTED_DATA
            raise ValueError(NO_TEXT)
        try:
            content = self.decode_json(text_data)
        except (ValueError, RecursionError):  # a decoder of one's own may be recursive
            self._headrace.failure = UNSUPPORTED_DATA
            raise
        self._headrace.call(self.receive_json, content, **kwargs)

    def receive_json(self, content: Any, *args: Any, **kwargs: Any) -> None:
        """Take the content of a frame of the client: to be overridden, with ``content`` alone or with more."""

    def send_json(self, content: Any, close: bool | int = False) -> None:
        """Send JSON to the client, in a text frame; see ``send``."""
        self.send(text_data=self.encode_json(content), close=close)

    @classmethod
    def encode_json(cls, content: Any) -> str:
        """Encode what ``send_json`` sends."""
        return json.dumps(content)

    @classmethod
    def decode_json(cls, text_data: str) -> Any:
        """Decode a frame.

        Differs from Channels: NaN and the infinities are no JSON, and nesting that is too deep is a ``ValueError``.
        """
        return json_text.decode(text_data)
