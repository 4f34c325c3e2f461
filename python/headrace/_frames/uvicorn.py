"""uvicorn's protocol for WebSockets, with the extension ``headrace.frames``."""

import asyncio
import logging
import socket
from collections.abc import Coroutine, Sequence
from typing import Any

import uvicorn
from websockets.exceptions import NegotiationError
from websockets.extensions.base import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.typing import ExtensionParameter

from headrace._core import FrameWriter
from headrace._frames.extension import EXTENSION

try:
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
except ModuleNotFoundError as missing:
    raise ImportError(
        f"headrace.uvicorn does not know the WebSockets of uvicorn {uvicorn.__version__}: there is no {missing.name}; "
        "install a uvicorn from 0.40 on"
    ) from None

__all__ = ["DeflateFactory", "WebSocketProtocol", "check_shape"]

_logger = logging.getLogger("headrace.frames")

_METHODS = ("__init__", "connection_lost", "on_task_complete", "receive", "run_asgi", "send")
"""What is called or overridden of uvicorn's class."""

_ATTRIBUTES = ("conn", "transport", "writable")
"""What is used of its instances, which have it from the beginning."""

_STATE = "_state" if hasattr(ServerProtocol(), "_state") else "state"
"""What says whether a WebSocket is open; ``state`` is a property in Python, which costs more than to make a frame."""

_WRITTEN_TO = {
    "asyncio.selector_events": {"_SelectorSocketTransport"},
    "uvloop.loop": {"TCPTransport", "UnixTransport"},
}
"""The transports that write what they are given to a socket as it is, by the modules of their classes."""


def check_shape(protocol: Any) -> None:
    """Refuse a class of uvicorn's that is not what it was.

    Raises:
        ImportError: It lacks something; the error says what, and which uvicorn to install.
    """
    missing = [f"{name}()" for name in _METHODS if name not in vars(protocol)]
    if not missing:
        missing = [name for name in _ATTRIBUTES if name not in protocol.__init__.__code__.co_names]
    if missing:
        raise ImportError(
            f"headrace.uvicorn does not know the WebSockets of uvicorn {uvicorn.__version__}: "
            f"{protocol.__name__} has no {', no '.join(missing)}; install a newer headrace, or a uvicorn from 0.40 to "
            "0.54, or leave headrace's protocol out: without it everything works, at uvicorn's own price"
        )


check_shape(WebSocketsSansIOProtocol)

_LEAST_WINDOW_BITS = 9

ABORT_SECONDS = 10
"""Seconds that a client may take nothing of what is left for it when its application has returned."""


class DeflateFactory(ServerPerMessageDeflateFactory):
    """permessage-deflate whose messages are each compressed by themselves, so that all clients may get the same.

    Args:
        like: The one whose settings count otherwise.
    """

    def __init__(self, like: ServerPerMessageDeflateFactory) -> None:
        vars(self).update(vars(like))
        self.server_no_context_takeover = True

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> tuple[list[ExtensionParameter], PerMessageDeflate]:
        """Accept or decline what a client offers.

        Raises:
            NegotiationError: It is declined: also a window of 8 bits, which zlib cannot make. websockets below 17 has
                accepted it, and made one of 9.
        """
        answer, deflate = super().process_request_params(params, accepted_extensions)
        if deflate.local_max_window_bits < _LEAST_WINDOW_BITS:
            raise NegotiationError("unsupported server_max_window_bits = 8, use 9")
        return answer, deflate


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's own protocol for WebSockets, which writes ready-made frames too.

    ``uvicorn app:application --ws headrace.uvicorn:WebSocketProtocol``, or ``uvicorn.Config(ws=WebSocketProtocol)``.
    uvicorn's settings hold. It needs the package ``websockets``, which the extra ``headrace[uvicorn]`` has.
    """

    _headrace_frames: FrameWriter | None = None
    _headrace_abort: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Make the protocol of a connection; the arguments are uvicorn's."""
        super().__init__(*args, **kwargs)
        self.conn.available_extensions = [
            DeflateFactory(factory) if isinstance(factory, ServerPerMessageDeflateFactory) else factory
            for factory in self.conn.available_extensions or ()
        ]

    def run_asgi(self) -> Coroutine[Any, Any, None]:
        """Run the application, which finds the extension in its scope."""
        try:
            self._offer_frames()
        except Exception:
            # uvicorn calls this while it reads: an exception would leave it with a connection that nobody ends.
            _logger.exception("a WebSocket is served without headrace.frames, because that failed")
        return super().run_asgi()

    def _offer_frames(self) -> None:
        negotiated = self.conn.extensions
        if all(isinstance(extension, PerMessageDeflate) for extension in negotiated):
            window_bits = _window_bits(negotiated[0]) if len(negotiated) == 1 else None
            self._headrace_frames = FrameWriter(
                self.send, self.transport, self.conn, _STATE, OPEN, _descriptor(self.transport), window_bits
            )
            extensions: Any = self.scope["extensions"]
            extensions[EXTENSION] = self._headrace_frames

    def on_task_complete(self, task: "asyncio.Task[None]") -> None:
        """Note that the application has returned: what is left for a client that does not read is not kept for ever."""
        super().on_task_complete(task)
        if left := self.transport.get_write_buffer_size():
            self._abort_later(left)

    def _abort_later(self, left: int) -> None:
        self._headrace_abort = self.loop.call_later(ABORT_SECONDS, self._abort_unless_read, left)

    def _abort_unless_read(self, before: int) -> None:
        """End the connection, unless its client has taken some of what was left."""
        self._headrace_abort = None
        left = self.transport.get_write_buffer_size()
        if left >= before:
            self.transport.abort()
        elif left:
            self._abort_later(left)

    def pause_writing(self) -> None:
        """Hold back all who send: the client does not read."""
        self.writable.clear()
        if self._headrace_frames is not None:
            self._headrace_frames.hold()

    def resume_writing(self) -> None:
        """Let them send again."""
        if self._headrace_frames is not None:
            self._headrace_frames.go_on()
        self.writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the connection has ended; the socket is closed next."""
        if self._headrace_frames is not None:
            self._headrace_frames.end()
        if self._headrace_abort is not None:
            self._headrace_abort.cancel()
            self._headrace_abort = None
        super().connection_lost(exc)
        # A transport that was lost while it held back resumes nobody.
        self.writable.set()


def _window_bits(deflate: Any) -> int | None:
    """Return the window that a compressed frame is made for, or None if what was compressed before matters."""
    bits: int = deflate.local_max_window_bits
    return bits if deflate.local_no_context_takeover else None


def _descriptor(transport: asyncio.Transport) -> int | None:
    """Return the descriptor of a transport's socket, if it can be written to past the transport."""
    kind = type(transport)
    if kind.__name__ not in _WRITTEN_TO.get(kind.__module__, ()):
        return None
    own: socket.socket | None = transport.get_extra_info("socket")
    if own is None or own.type != socket.SOCK_STREAM or transport.get_extra_info("sslcontext") is not None:
        return None
    descriptor = own.fileno()
    return descriptor if descriptor >= 0 else None
