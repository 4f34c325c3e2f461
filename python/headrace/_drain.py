"""The end of a process that has WebSockets: each is told at a moment of its own, and no other comes.

Guaranteed: from the moment that ``drain`` is called no new WebSocket is let in, and when it has returned each one that
was there has ended, or has been cut off. Those of all event loops of the process are told, each in its own.
"""

import asyncio
import functools
import logging
import math
import random
import signal
import weakref
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Protocol

from asgiref.sync import markcoroutinefunction

from headrace._forks import call_in_child
from headrace._signals import TakenOver, take_over
from headrace.typing import Application, Receive, Scope, Send

__all__ = ["drain", "drain_on_sigterm", "has_ended", "is_draining", "let_in_again", "lives"]

DRAIN_SECONDS, DRAIN_SPREAD = 20.0, 10.0
"""The defaults of ``drain``."""

LEAVE_SECONDS = 5.0
"""Seconds that connections which were cut off have for their ``disconnect()``."""

_LOOK = 0.02
"""Seconds between two looks at who is left."""

_logger = logging.getLogger("headrace.drain")


class _Living(Protocol):
    """A WebSocket that is served here."""

    def own_loop(self) -> asyncio.AbstractEventLoop: ...

    def begin_drain(self) -> None:
        """Call its hook; in its loop."""

    def cut_off_drain(self, seconds: float) -> None:
        """End it, because the time for the hook is over; in its loop."""


class _State:
    """What is true of this process."""

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """Know nothing yet: also in the child of a fork, which has inherited no connection."""
        # Weakly: the loop of some may have been abandoned, and they end when nothing has them.
        self.living: set[weakref.ref[_Living]] = set()
        # One for all connections, for the sake of their memory.
        self.forget = self.living.discard
        self.is_draining = False


_state = _State()
call_in_child(_state.begin_anew)


def lives(connection: _Living) -> None:
    """Note that a WebSocket is served, until ``has_ended``."""
    _state.living.add(weakref.ref(connection, _state.forget))


def has_ended(connection: _Living) -> None:
    """Note that it is served no more; no error if it was not."""
    _state.living.discard(weakref.ref(connection))


def is_draining() -> bool:
    """Tell whether ``drain`` was called in this process: it will end soon, and takes no WebSockets any more."""
    return _state.is_draining


def let_in_again() -> None:
    """Take WebSockets again, in a process that goes on: that of tests."""
    _state.is_draining = False


async def drain(seconds: float = DRAIN_SECONDS, spread: float | None = None) -> None:
    """End all WebSockets of this process, as its clients had better come back one after the other.

    New ones are refused from now on: with 503 where the server can, else as a failed handshake. Each one that is there
    has a random moment within ``spread``: what was sent to it before is handled, and then its ``on_drain`` called. What
    ``on_drain`` leaves open is closed with 1012, and so is what has not ended in ``seconds``: its handler is cancelled,
    and ``disconnect(1012)`` called.

    HTTP requests are served on. Cancelling it leaves those open that have not been told yet; no others are let in.

    Args:
        seconds: How long it may take until the last has ended; then five more are left for ``disconnect``.
        spread: Seconds over which they are told; None for ten, or for all of ``seconds`` where that is less.

    Raises:
        TypeError, ValueError: A time is no number of seconds, or ``spread`` is longer than ``seconds``.
    """
    spread = _spread_of(seconds, spread)
    _state.is_draining = True
    loop = asyncio.get_running_loop()
    began = loop.time()
    left = list(_state.living)
    if left:
        _logger.info("%d WebSockets are drained over %s s", len(left), spread)
    random.shuffle(left)
    for index, connection in enumerate(left):
        # One in each part of the time, at a random moment of it: as random as it looks to one of them, and no bursts.
        moment = began + spread * (index + random.random()) / len(left)
        # Nobody waits for the moment of one that has gone.
        await _ended([connection], moment)
        if connection in _state.living and (living := connection()) is not None:
            _in_loop(living, living.begin_drain)
            # Who is behind the times is so one after the other.
            await asyncio.sleep(0)
    await _ended(left, began + seconds)
    if late := [connection for connection in left if connection in _state.living]:
        _logger.warning("%d of %d WebSockets were not drained in %s s and are cut off", len(late), len(left), seconds)
        for connection in late:
            if (living := connection()) is not None:
                _in_loop(living, living.cut_off_drain, seconds)
        await _ended(late, loop.time() + LEAVE_SECONDS)


async def _ended(connections: "list[weakref.ref[_Living]]", deadline: float) -> None:
    """Wait until they have ended, or the time is over."""
    loop = asyncio.get_running_loop()
    while (left := deadline - loop.time()) > 0 and not _state.living.isdisjoint(connections):
        await asyncio.sleep(min(_LOOK, left))


def _in_loop(connection: _Living, call: Callable[..., object], *arguments: object) -> None:
    loop = connection.own_loop()
    if loop is asyncio.get_running_loop():
        call(*arguments)
    else:
        with suppress(RuntimeError):  # the loop was closed, and the connection with it
            loop.call_soon_threadsafe(call, *arguments)


def _spread_of(seconds: float, spread: float | None) -> float:
    """Return the spread, which may be left to us.

    Raises:
        TypeError, ValueError: A time is wrong.
    """
    for name, value in (("seconds", seconds), ("spread", 0 if spread is None else spread)):
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise TypeError(f"{name} must be a number of seconds, got {value!r}")
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a number of seconds that is not negative, got {value!r}")
    if spread is None:
        return float(min(DRAIN_SPREAD, seconds))
    if spread > seconds:
        raise ValueError(f"spread must be no longer than seconds, got spread={spread!r} and seconds={seconds!r}")
    return float(spread)


def drain_on_sigterm(
    application: Application, seconds: float = DRAIN_SECONDS, spread: float | None = None
) -> Application:
    """Return an application that drains its process at SIGTERM, before its server hears of that.

    Put it around everything else, where the server looks for the application. It takes SIGTERM over in the lifespan's
    startup, or with the first connection where there is no lifespan: a server that gets the signal itself closes all
    sockets at once. When the drain is over the signal is passed on; a second SIGTERM is passed on at once. SIGINT is
    left alone.

    Args:
        application: The application.
        seconds: As for ``drain``.
        spread: As for ``drain``.

    Raises:
        TypeError, ValueError: The application cannot be called, or a time is wrong.
    """
    if not callable(application):
        raise TypeError(f"application must be an ASGI application, got {application!r}")
    _spread_of(seconds, spread)
    return _DrainedApplication(application, seconds, spread)


class _Watch:
    """SIGTERM in one event loop: it is taken over, and drains.

    Args:
        drain: Drains the process.

    Attributes:
        is_connected: A connection has come.
    """

    def __init__(self, drain: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.is_connected = False
        self._drain = drain
        self._taken: TakenOver | None = None
        self._draining: asyncio.Task[None] | None = None

    def take_over(self) -> None:
        """Take the signal over, or once more from who has taken it meanwhile."""
        try:
            self._taken = take_over(signal.SIGTERM, self._signalled, self._taken)
        except ValueError:
            _logger.warning("drain_on_sigterm() needs an event loop in the main thread; SIGTERM is not drained here")

    def _signalled(self) -> None:
        """Drain; if that is under way, end at once."""
        if self._draining is None:
            self._draining = asyncio.get_running_loop().create_task(self._drain())
            self._draining.add_done_callback(self._drained)
        else:
            self._draining.cancel()

    def _drained(self, draining: "asyncio.Task[None]") -> None:
        if not draining.cancelled() and (error := draining.exception()) is not None:
            _logger.error("the drain failed: %r", error, exc_info=error)
        if self._taken is not None:
            self._taken.pass_on()


class _DrainedApplication:
    """What ``drain_on_sigterm`` returns.

    Attributes:
        application: The application.
    """

    def __init__(self, application: Application, seconds: float, spread: float | None) -> None:
        self.application = application
        self._drain = functools.partial(drain, seconds, spread)
        # A process may run its server again, in another loop.
        self._watches: dict[asyncio.AbstractEventLoop, _Watch] = {}
        # As far as an object can: who asks it is told that it is to be awaited.
        markcoroutinefunction(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watch = self._watches.get(loop := asyncio.get_running_loop())
        if watch is None:
            self._watches = {known: each for known, each in self._watches.items() if not known.is_closed()}
            watch = self._watches[loop] = _Watch(self._drain)
        if not watch.is_connected:
            watch.is_connected = scope["type"] != "lifespan"
            # Once more with the first connection: a server may set its own handler behind the lifespan's startup.
            watch.take_over()
        await self.application(scope, receive, send)

    def __repr__(self) -> str:
        return f"drain_on_sigterm({self.application!r})"
