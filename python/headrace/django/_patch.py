"""Channels' unchanged consumers without a hop to another thread, and without two tasks, for every message.

Before each handler Channels awaits ``aclose_old_connections()``, which goes to the thread of thread-sensitive work to
close old database connections there. ``apply()`` puts a function in its place that goes there only while one is open,
and another in the place of ``await_many_dispatch``: see ``headrace.django._dispatch``. ``channels.db`` and
``channels.utils`` themselves stay as they are: who calls the functions there gets Channels' own. The consumers'
``__call__`` goes through ``headrace.django._handshake``.
"""

import functools
import inspect
import sys
from collections.abc import Awaitable, Callable
from importlib import import_module
from types import ModuleType
from typing import Any

from asgiref.sync import markcoroutinefunction

from headrace import _db
from headrace._settings import installed
from headrace.django._dispatch import await_many_dispatch
from headrace.django._handshake import serve
from headrace.typing import Receive, Scope, Send

__all__ = ["aclose_old_connections", "apply", "revert"]

_MODULES = ("channels.consumer", "channels.generic.websocket", "channels.generic.http")

# What was in the modules and the class before, and what is there while the patch is applied.
_originals: dict[tuple[ModuleType | type, str], tuple[Any, Any]] = {}

# channels.db's own, to tell whether a test has replaced it.
_closing: Any = None


def apply() -> None:
    """Replace what is patched wherever Channels has it, once; without Channels do nothing."""
    global _closing  # noqa: PLW0603  # belongs to the patch, of which there is one in a process
    if not installed("channels"):
        return
    _db.watch_connections()
    for module in map(import_module, _MODULES):
        _replace(module, "aclose_old_connections", lambda _original: aclose_old_connections)
        _replace(module, "await_many_dispatch", lambda original: functools.partial(await_many_dispatch, original))
    _replace(sys.modules["channels.consumer"].AsyncConsumer, "__call__", _call)
    _closing = _closing or sys.modules["channels.db"].close_old_connections


def revert() -> None:
    """Put back what was there; do nothing if the patch is not applied."""
    while _originals:
        (owner, name), (original, replacement) = _originals.popitem()
        if vars(owner).get(name) is replacement:
            setattr(owner, name, original)


def _replace(owner: ModuleType | type, name: str, make: Callable[[Any], Any]) -> None:
    original = vars(owner).get(name)
    if original is not None and (owner, name) not in _originals:
        replacement = make(original)
        _originals[owner, name] = original, replacement
        setattr(owner, name, replacement)


def _call(original: Any) -> Any:
    @functools.wraps(original)
    def call(consumer: Any, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if type(consumer).__call__ is call:
            return serve(original, consumer, scope, receive, send)
        # Its own way to be called may have its own way with exceptions.
        called: Awaitable[None] = original(consumer, scope, receive, send)
        return called

    # A coroutine function would be one more to resume for each message.
    return markcoroutinefunction(call)


async def aclose_old_connections() -> None:
    """Close old connections as Channels does, but only if one is open: see ``headrace._db``.

    Where ``channels.db.close_old_connections`` is replaced, as Channels' testing communicators do, that is called.
    """
    _db.enter_consumer()
    if not _db.connections_open():
        return
    channels_db = sys.modules["channels.db"]
    if inspect.unwrap(channels_db.close_old_connections) is inspect.unwrap(_closing):
        await _db.aclose_old_connections()
    else:
        await channels_db.aclose_old_connections()
