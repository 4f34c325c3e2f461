"""uvicorn's protocol for WebSockets, with the extension ``headrace.frames``."""

import asyncio
import socket
from collections.abc import Coroutine
from typing import Any

import uvicorn
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from headrace._core import FrameWriter
from headrace._frames.extension import EXTENSION

try:
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
except ModuleNotFoundError as missing:
    raise ImportError(
        f"headrace.uvicorn does not know the WebSockets of uvicorn {uvicorn.__version__}: there is no {missing.name}; "
        "install a uvicorn from 0.40 on"
    ) from None

__all__ = ["WebSocketProtocol", "check_shape"]

_METHODS = ("__init__", "connection_lost", "receive", "run_asgi", "send")
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


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's own protocol for WebSockets, which writes ready-made frames too.

    ``uvicorn app:application --ws headrace.uvicorn:WebSocketProtocol``, or ``uvicorn.Config(ws=WebSocketProtocol)``.
    uvicorn's settings hold. It needs the package ``websockets``, which the extra ``headrace[uvicorn]`` has.
    """

    _headrace_frames: FrameWriter | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Make the protocol of a connection; the arguments are uvicorn's."""
        super().__init__(*args, **kwargs)
        for factory in self.conn.available_extensions or ():
            if isinstance(factory, ServerPerMessageDeflateFactory):
                # Each message is compressed by itself, so that all clients may get the same.
                factory.server_no_context_takeover = True

    def run_asgi(self) -> Coroutine[Any, Any, None]:
        """Run the application, which finds the extension in its scope."""
        negotiated = self.conn.extensions
        if all(isinstance(extension, PerMessageDeflate) for extension in negotiated):
            window_bits = _window_bits(negotiated[0]) if len(negotiated) == 1 else None
            self._headrace_frames = FrameWriter(
                self.send, self.transport, self.conn, _STATE, OPEN, _descriptor(self.transport), window_bits
            )
            extensions: Any = self.scope["extensions"]
            extensions[EXTENSION] = self._headrace_frames
        return super().run_asgi()

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
