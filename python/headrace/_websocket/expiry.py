"""When a connection ends by the clock: a time that its class says, or that is set while it lasts.

A connection that says no time has nothing of this: no timer, and nothing of its own.
"""

import asyncio
import datetime
import inspect
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from headrace._websocket.closing import CLOSE_TIMEOUT

__all__ = ["ExpiresAt", "Expiry", "of_instance"]

LOOK = 600.0
"""Seconds between two looks at the clock of the machine, which may have been set meanwhile."""

LATEST = 1e11
"""The latest time, in the year 5138; what is above it is in milliseconds."""

_SHOWN = 1e20
"""Larger numbers are not shown: they may have thousands of digits."""

_NAME = "expires_at"

_OF_HANDLERS = (["event"], ["message"])
"""What a handler of messages takes."""


class Expiry:
    """The end of one connection, and the timer that waits for it. The timer is of the connection's loop.

    Args:
        at: The end, as ``time.time()`` tells it; None for none.
        ask: The method that says it, if it is one: to be asked before anything is done.

    Attributes:
        at: The end.
        ask: The method, until a time is set in its place.
    """

    __slots__ = ("_due", "_loop", "_timer", "ask", "at")

    def __init__(self, at: float | None, ask: Callable[[], Any] | None = None) -> None:
        self.at = at
        self.ask = ask
        self._due: Callable[[], object] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, loop: asyncio.AbstractEventLoop, due: Callable[[], object]) -> None:
        """Have a function called in a loop when the time has come; callable from any thread."""
        self._loop, self._due = loop, due
        self._rearm()

    def set(self, at: float | None) -> None:
        """Set another time; callable from any thread."""
        self.at = at
        self._rearm()

    def is_over(self) -> bool:
        """Tell whether the time has come."""
        return self.at is not None and time.time() >= self.at

    async def is_due(self, ask: Callable[[Any], Awaitable[Any]]) -> bool:
        """Tell whether the time has come, also by the method that says it, which may say a later one by now.

        Args:
            ask: Calls the method, and returns what it says.

        Raises:
            TypeError, ValueError: It says no time.
        """
        if (method := self.ask) is not None:
            at = _checked("what expires_at() returns", await ask(method))
            if self.ask is not None:  # else one was set meanwhile
                self.at = at
                # One that is over has been told already.
                if not self.is_over():
                    self._rearm()
        return self.is_over()

    async def is_due_in_time(self, ask: Callable[[Any], Awaitable[Any]]) -> bool:
        """Do what ``is_due`` does; if the method fails it is due, and if it is late what it said last counts."""
        asking = asyncio.ensure_future(self.is_due(ask))
        # Not with a timeout around it: a method in a thread keeps its task, however it is cancelled.
        await asyncio.wait({asking}, timeout=CLOSE_TIMEOUT)
        if not asking.done():
            asking.cancel()
            return self.is_over()
        return asking.cancelled() or asking.exception() is not None or asking.result()

    def end(self) -> None:
        """Wait no longer: the connection has ended."""
        self._due = self.ask = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _rearm(self) -> None:
        loop = self._loop
        if loop is None:
            return
        if asyncio._get_running_loop() is loop:
            self._arm()
        else:
            with suppress(RuntimeError):  # the loop was closed, and the connection with it
                loop.call_soon_threadsafe(self._arm)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at, loop = self.at, self._loop
        if at is not None and at != math.inf and loop is not None and self._due is not None:
            self._timer = loop.call_later(min(max(at - time.time(), 0.0), LOOK), self._look)

    def _look(self) -> None:
        self._timer = None
        if not self.is_over():
            self._arm()
        elif self._due is not None:
            self._due()


class ExpiresAt:
    """The attribute ``expires_at``: of a class what it says, of an instance what was set, which its timer follows.

    Args:
        otherwise: What the class says: a time, a method, or None.
        watch: Called with an instance and its ``Expiry`` when a time is set for the first time; has it watched, if the
            instance is served.
    """

    def __init__(self, otherwise: Any, watch: Callable[[Any, Expiry], None]) -> None:
        self.otherwise = otherwise
        self._watch = watch

    def __get__(self, instance: object | None, owner: type) -> Any:
        expiry = None if instance is None else of_instance(instance)
        if expiry is not None and expiry.ask is None:
            return expiry.at
        otherwise = self.otherwise
        return otherwise.__get__(instance, owner) if hasattr(otherwise, "__get__") else otherwise

    def __set__(self, instance: object, at: float | None) -> None:
        _checked(f"{type(instance).__name__}.{_NAME}", at)
        expiry = of_instance(instance)
        if expiry is None:
            expiry = vars(instance)[_NAME] = Expiry(at)
            self._watch(instance, expiry)
        else:
            expiry.ask = None
            expiry.set(at)

    def of_subclass(self, owner: type) -> None:
        """Put what a subclass says in a descriptor of its own, if it says anything.

        Raises:
            TypeError, ValueError: It is neither a time, nor None, nor a method that takes nothing, nor a handler of
                messages, whose parameter has to be called ``event`` or ``message``.
        """
        says = inspect.getattr_static(owner, _NAME)
        if isinstance(says, ExpiresAt):
            return
        is_method = callable(says) or hasattr(says, "__get__")
        if is_method and (needed := _needed_by(says)):
            if needed in _OF_HANDLERS:
                return  # a handler of a message of that type, which was there before the setting
            raise TypeError(
                f"{owner.__name__}.{_NAME} must be a time, None, or a method that takes nothing, got one that takes "
                f"{', '.join(needed)}; that of a handler of messages has to be called 'event' or 'message'"
            )
        if not is_method:
            _checked(f"{owner.__name__}.{_NAME}", says)
        setattr(owner, _NAME, ExpiresAt(says.fget if isinstance(says, property) else says, self._watch))

    def begin(self, instance: object) -> Expiry | None:
        """Return the end of an instance that is about to be served; None if there is none to wait for."""
        expiry = of_instance(instance)
        if expiry is None and self.otherwise is not None:
            said = self.__get__(instance, type(instance))
            expiry = vars(instance)[_NAME] = Expiry(None, said) if callable(said) else Expiry(said)
        return expiry


def of_instance(instance: object) -> Expiry | None:
    """Return what was set for an instance, if anything was."""
    expiry: Expiry | None = vars(instance).get(_NAME)
    return expiry


def _needed_by(says: Any) -> list[str]:
    """Name the arguments without which a method cannot be called, beside its instance."""
    if isinstance(says, property):
        return []
    function = getattr(says, "__func__", says)
    try:
        bound = inspect.signature(function)
    except (TypeError, ValueError):
        return []  # one that is written in C need not tell
    required = [
        parameter.name
        for parameter in bound.parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    return required[0 if isinstance(says, staticmethod) else 1 :]


def _checked(name: str, at: Any) -> float | None:
    """Return a time as ``time.time()`` tells it, or None.

    Raises:
        TypeError: It is of another type.
        ValueError: It is not a number, or one of milliseconds.
    """
    if at is None:
        return None
    expected = f"{name} must be a time in seconds, as time.time() tells it, or None"
    if isinstance(at, datetime.datetime):
        raise TypeError(f"{expected}, got a datetime; write .timestamp() behind it")
    if not isinstance(at, int | float) or isinstance(at, bool):
        raise TypeError(f"{expected}, got {at!r}")
    if isinstance(at, float) and math.isnan(at):
        raise ValueError(f"{expected}, got {at!r}")
    if abs(at) > LATEST and abs(at) != math.inf:
        got = f"{at!r}, which is" if abs(at) < _SHOWN else "a number"
        raise ValueError(f"{expected}, got {got} thousands of years away: is it in milliseconds?")
    return at
