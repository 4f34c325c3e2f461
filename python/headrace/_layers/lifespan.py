"""What a server does with an application's channel layers before it serves, and after it."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, overload

from headrace._layers.registry import channel_layers
from headrace.typing import Receive, Scope, Send

__all__ = ["lifespan"]


@overload
def lifespan(app: object = None, /) -> AbstractAsyncContextManager[None]: ...
@overload
async def lifespan(scope: Scope, receive: Receive, send: Send, /) -> None: ...
def lifespan(*arguments: Any) -> Any:
    """Connect all configured channel layers before an application serves, and close them after it.

    It fits where a framework wants a lifespan, ``FastAPI(lifespan=headrace.lifespan)``, and is itself an application
    for ``ProtocolTypeRouter({"lifespan": headrace.lifespan, ...})``. Afterwards ``get_channel_layer()`` makes a new
    layer. One that was handed to ``configure()``, or set by a test, is connected, and not closed.

    Args:
        arguments: An application, which is not used; or scope, receive and send of a server's ``lifespan``.

    Raises:
        LayerUnavailable: A layer's server could not be reached in time. With the three arguments of a server nothing is
            raised: the server is told that the start has failed, and why.
    """
    return _serve(*arguments) if len(arguments) == 3 else _connected()


@asynccontextmanager
async def _connected() -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for alias in channel_layers.configs:
            layer: Any = channel_layers[alias]
            # Channels' layers have no connect(), and those of channels_redis no close().
            close = getattr(layer, "close", None) or getattr(layer, "close_pools", None)
            if close is not None and not channel_layers.is_given(alias, layer):
                stack.push_async_callback(close)
                stack.callback(channel_layers.forget, alias, layer)
            if hasattr(layer, "connect"):
                await layer.connect()
        yield


async def _serve(scope: Scope, receive: Receive, send: Send) -> None:
    """Speak the lifespan protocol of ASGI."""
    if scope["type"] != "lifespan":
        raise ValueError(f"headrace.lifespan answers scopes of type 'lifespan', got {scope['type']!r}")
    await receive()
    started = False
    try:
        async with _connected():
            started = True
            await send({"type": "lifespan.startup.complete"})
            await receive()
    except Exception as error:
        kind = "shutdown" if started else "startup"
        await send({"type": f"lifespan.{kind}.failed", "message": f"{type(error).__name__}: {error}"})
    else:
        await send({"type": "lifespan.shutdown.complete"})
