"""The calls of a socket server's hooks: where each runs, and what becomes of an exception."""

import inspect
import logging
import sys
from typing import Any

from headrace._dispatch import call_in_thread
from headrace._sockets.hooks import Hooks, Server
from headrace._sockets.incoming import Incoming
from headrace.exceptions import ConnectionClosed, LayerUnavailable

__all__ = ["HookCalls"]

_logger = logging.getLogger("headrace.sockets")


class HookCalls:
    """Calls the hooks of one socket server.

    Args:
        server: The server, by a weak reference.
        hooks: What is known of the hooks of its class.
        incoming: The way from its client.

    Attributes:
        server: The server.
        hooks: What is known of them.
        incoming: The way from its client.
        errors: Hooks that have failed, or have not ended in time.
    """

    __slots__ = ("errors", "hooks", "incoming", "server")

    def __init__(self, server: Server, hooks: Hooks, incoming: Incoming) -> None:
        self.server = server
        self.hooks = hooks
        self.incoming = incoming
        self.errors = 0

    async def call(self, name: str, *arguments: Any) -> Any:
        """Call a hook by its name; see ``call_method``."""
        return await self.call_method(getattr(self.server, name), *arguments)

    async def call_method(self, hook: Any, *arguments: Any) -> Any:
        """Call a method of the server: here if it is a coroutine function or of the base class, else in a thread."""
        if inspect.iscoroutinefunction(hook):
            return await hook(*arguments)
        if getattr(hook, "__func__", None) in self.hooks.unchanged:
            result = hook(*arguments)
        else:
            result = await call_in_thread(not self.server.thread_sensitive, hook, *arguments)
        return await result if inspect.isawaitable(result) else result

    async def attempt(self, name: str, *arguments: Any) -> None:
        """Call a hook; what it raises is logged and counted."""
        try:
            await self.call(name, *arguments)
        except Exception:
            self.note_error(name)

    def note_error(self, hook: str) -> bool:
        """Log and count what a hook has raised; but that its send was refused is the end, and no error."""
        error, outgoing = sys.exception(), self.incoming.outgoing
        if isinstance(error, ConnectionClosed) and outgoing.is_overdue():
            self.incoming.note_departure()
            return False
        self.errors += 1
        if isinstance(error, LayerUnavailable):
            _logger.error("%r: %s() failed, because headrace's channel layer is away: %s", outgoing.hub, hook, error)
            return True
        # One traceback is enough: a client could fill the log.
        _logger.error("%r: %s() failed: %r", outgoing.hub, hook, error, exc_info=self.errors == 1)
        return True
