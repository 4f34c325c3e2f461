"""The extension ``headrace.frames`` of a scope, as an application looks at it."""

from typing import Any

from headrace.typing import Frames, Scope, Send

__all__ = ["EXTENSION", "frames_of"]

EXTENSION = "headrace.frames"
"""Its key in the extensions of a scope."""

_STARLETTE = ("starlette._exception_handler", "wrap_app_handling_exceptions.<locals>.wrapped_app.<locals>.sender")
"""The module and the name of a function that passes each message of a WebSocket on as it is."""


def frames_of(scope: Scope, send: Send) -> Frames | None:
    """Return what writes frames to the client of a scope, if its server offers that.

    Not where the server's ``send`` was replaced by another function: that is to see each message.

    Args:
        scope: The connection's.
        send: What the application was given.
    """
    frames: Frames | None = (scope.get("extensions") or {}).get(EXTENSION)
    if frames is None or _within_starlette(send) != frames.send:
        return None
    return frames


def _within_starlette(send: Any) -> Any:
    """Return the ``send`` that Starlette was given, which is interested in the responses of HTTP alone."""
    while (getattr(send, "__module__", None), getattr(send, "__qualname__", None)) == _STARLETTE:
        cells = dict(zip(send.__code__.co_freevars, send.__closure__ or (), strict=False))
        if "send" not in cells:
            return send
        send = cells["send"].cell_contents
    return send
