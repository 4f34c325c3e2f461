"""What headrace keeps of a consumer: all of it under one name, ``_headrace``, so that every other name is its author's.

On a class ``_headrace`` is what its instances share, on an instance it is the instance's own.
"""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, ClassVar, Generic, TypeVar, overload

from asgiref.sync import SyncToAsync, async_to_sync

from headrace._dispatch.counters import Counters
from headrace._dispatch.handlers import Handlers
from headrace._dispatch.incoming import Incoming
from headrace._dispatch.settings import (
    GRACE_SECONDS,
    check_settings,
    forwarded_fields,
    presents_of,
    rate_of,
    resumes_of,
    setting,
)
from headrace._dispatch.threads import call_in_thread, uses_pool
from headrace._websocket.closing import send_close, tell_closed
from headrace._websocket.codes import POLICY_VIOLATION, TRY_AGAIN_LATER
from headrace._websocket.grace import GracePeriod
from headrace._websocket.rate import Rate
from headrace.exceptions import ConnectionClosed
from headrace.typing import Message, Receive, Send

__all__ = ["Session", "Shared", "SyncSession"]

_logger = logging.getLogger("headrace.consumer")


class Session:
    """What headrace keeps of one consumer, and does for it.

    It does not refer to the consumer, which would be a cycle: what needs the consumer is given it.

    Attributes:
        shared: What the consumers of its class share.
        incoming: What comes in for it; None until it serves a connection.
        asgi_send: The server's; set when it serves a connection.
        loop: The loop that it is served in; None until then.
        serving: Between the beginning and the end of a connection.
        closed: The connection has ended, from whichever side: nothing can be sent, and the layer is not listened to.
        gone: The client is known to have gone; its last message may have to wait for a handler.
        has_begun: There is something that has to be finished, whatever ends the consumer.
        grace: The grace period of what still works when the connection has ended; made when it begins.
        pooled: Handlers run in the pool of threads.
    """

    __slots__ = (
        *("asgi_send", "closed", "gone", "grace", "has_begun", "incoming"),
        *("loop", "pooled", "serving", "shared"),
    )

    may_resume: ClassVar[bool] = False
    """Whether there is a client that could have been here before."""

    asgi_send: Callable[[Any], Awaitable[None]]

    def __init__(self, shared: "Shared[Any]") -> None:
        self.shared = shared
        self.incoming: Incoming | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.serving = self.closed = self.gone = self.has_begun = self.pooled = False
        self.grace: GracePeriod | None = None

    def open(self, consumer: Any, send: Send) -> None:
        """Prepare to serve a connection, in its loop."""
        self.attach(send)
        consumer.base_send = send

    def attach(self, send: Send) -> None:
        """Note where a connection is served."""
        self.asgi_send = send
        self.loop = asyncio.get_running_loop()

    async def emit(self, consumer: Any, message: Mapping[str, Any]) -> None:
        """Send, whether it can be sent or not."""
        await consumer.base_send(message)

    async def send(self, consumer: Any, message: Mapping[str, Any]) -> None:
        """Send, unless the connection has ended."""
        if self.closed:
            self.drop_after_close(consumer)
            return
        await consumer.base_send(message)

    def drop_after_close(self, consumer: Any) -> None:
        """Count a message that cannot be sent, or raise for it.

        Raises:
            ConnectionClosed: ``raise_after_close`` is set, or the grace period is over.
        """
        if self.is_overdue(consumer):
            raise ConnectionClosed(
                f"the connection of {type(consumer).__name__} ended more than its grace_period of "
                f"{self.grace_seconds(consumer)} s ago; end what still sends to it, in disconnect() at the latest"
            )
        if setting(consumer, "raise_after_close", False):
            raise ConnectionClosed(f"the connection of {type(consumer).__name__} has ended; nothing can be sent to it")
        self.shared.counters.add(dropped_after_close=1)

    def is_overdue(self, consumer: Any) -> bool:
        """Tell whether the grace period is over; it begins with the first send that is dropped, if not before."""
        if not self.closed or self.loop is None:
            return False
        return self.need_grace().is_over(self.loop.time(), self.grace_seconds(consumer))

    def need_grace(self) -> GracePeriod:
        """Return the grace period, which may begin now. An idle consumer has none: it would be its memory."""
        if self.grace is None:
            self.grace = GracePeriod()
        return self.grace

    def grace_seconds(self, consumer: Any) -> float | None:
        """Return the grace period in seconds, or None if there is no limit."""
        grace: float | None = setting(consumer, "grace_period", GRACE_SECONDS)
        return grace

    def begin_leaving(self) -> None:
        """Note that ``disconnect`` is about to be called: what it sends is dropped, however long ago the end was."""
        self.has_begun = False
        if self.grace is not None:
            self.grace.began = None

    # What the dispatch calls.

    def attendant(self, attend: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return what is called with each message of the layer while the consumer's task waits.

        Args:
            attend: What is called with all that is not forwarded.
        """
        return attend

    def note_gone(self, message: Message) -> None:
        """Note that the client has gone, with its last message, which is handled when its turn comes."""
        self.gone = True

    async def report(self, consumer: Any, error: Exception, message: Message) -> None:
        """Call ``on_error``."""
        if inspect.isawaitable(told := consumer.on_error(error, message)):
            await told

    async def be_idle(self, consumer: Any) -> None:
        """Call ``on_idle``."""
        await consumer.on_idle()

    async def call_hook(self, consumer: Any, name: str) -> None:
        """Call a method of the consumer that takes nothing, if it has it."""
        if (hook := getattr(consumer, name, None)) is not None:
            await hook()

    async def ask(self, method: Callable[[], Any]) -> Any:
        """Return what a method of the consumer answers."""
        answer = method()
        return await answer if inspect.isawaitable(answer) else answer

    def begin_life(self, consumer: Any, receive: Receive) -> Receive:
        """Return what receives the client's messages, when the consumer is about to be served."""
        return receive

    def end_life(self, consumer: Any) -> None:
        """End what ``begin_life`` and the consumer have begun that waits for a time."""

    def begin_resuming(self, consumer: Any) -> None:
        """Read where the client says that it was."""

    async def tell_resumed(self, consumer: Any, group: str, complete: bool) -> None:
        """Call ``resumed``."""

    def begin_presence(self, consumer: Any) -> None:
        """Prepare to be present in the groups of the consumer."""

    async def excuses(self, consumer: Any, error: Exception) -> bool:
        """Tell whether forwarding failed because the client has gone."""
        return False

    def forward(self, message: Message) -> Awaitable[None]:
        """Send the client what a message from the layer holds.

        Raises:
            ValueError: It holds nothing that could be sent.
        """
        raise TypeError(f"forward is for WebSocket consumers, and {self.shared.name} is none")

    async def close_failed(self, consumer: Any) -> None:
        """Close the connection after an exception, where the server would not know the code."""

    async def dismisses_client(self, consumer: Any) -> bool:
        """Close the connection of a client that sent what cannot be decoded; tell whether that ends the matter."""
        return False

    def may_defer(self, consumer: Any) -> bool:
        """Tell whether a client may be sent away while the layer is away, in the place of an exception."""
        return False

    async def defers_client(self, consumer: Any, message: Message) -> bool:
        """Send a client away that came while the layer is away; tell whether that ends the matter."""
        return False

    async def close_overrun(self, consumer: Any) -> None:
        """Close the connection because the consumer does not keep up."""
        self.shared.counters.add(closed_overrun=1)
        await self.close_in_place(consumer, TRY_AGAIN_LATER)

    async def close_over_rate(self, consumer: Any) -> None:
        """Close the connection because the client sends more than it may."""
        self.shared.counters.add(closed_over_rate=1)
        await self.close_in_place(consumer, POLICY_VIOLATION)

    async def close_in_place(self, consumer: Any, code: int, reason: str = "") -> None:
        """Close the connection in the place of the consumer, if it is a WebSocket."""
        if consumer.scope.get("type") == "websocket":
            self.closed = True
            await tell_closed(self.asgi_send, code, reason)

    async def close_now(self, message: Message) -> bool:
        """Close, even if the client does not read what it was sent before; tell whether the server took it."""
        self.closed = True
        error = await send_close(self.asgi_send, message)
        # After that time it is on its way, to a client that does not read.
        return error is None or isinstance(error, TimeoutError)

    def drop_over_rate(self, path: object, rate: Rate) -> None:
        """Count a message of the client that is over the rate."""
        counters = self.shared.counters
        if not counters.read().dropped_over_rate:
            # Not each: a client could fill the log.
            _logger.warning(
                "%s at %r: a client sends more than its rate_limit of %s, and %s; more are only counted",
                self.shared.name,
                path,
                rate.text,
                "its connection is closed" if rate.closes else "the rest is dropped",
            )
        counters.add(dropped_over_rate=1)

    async def finish(self, consumer: Any) -> None:
        """End what was begun and has not ended yet."""


class SyncSession(Session):
    """What headrace keeps of a consumer whose handlers are plain, and run in threads."""

    __slots__ = ()

    def open(self, consumer: Any, send: Send) -> None:
        """Prepare to serve a connection, in its loop."""
        self.attach(send)
        self.pooled = uses_pool(setting(consumer, "thread_sensitive"))

    async def emit(self, consumer: Any, message: Mapping[str, Any]) -> None:
        """Send, whether it can be sent or not."""
        await self.asgi_send(message)

    def send_sync(self, consumer: Any, message: Mapping[str, Any]) -> None:
        """Send from a thread, unless the connection has ended."""
        if self.closed:
            self.drop_after_close(consumer)
            return
        consumer.base_send(message)

    def in_loop(self, function: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any) -> Any:
        """Run a coroutine function in the consumer's loop: from a handler's thread, or from any other."""
        of_handler = getattr(SyncToAsync.threadlocal, "main_event_loop", None) is not None
        if of_handler or self.loop is None or asyncio._get_running_loop() is not None:
            return async_to_sync(function)(*arguments)
        return asyncio.run_coroutine_threadsafe(function(*arguments), self.loop).result()

    async def in_thread(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a method in the thread of handlers."""
        await call_in_thread(self.pooled, self.call, function, *arguments)

    def call(self, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> None:
        """Call a method; refuse one that is a coroutine function, which nobody here would run."""
        result = function(*arguments, **keywords)
        if inspect.iscoroutine(result):
            result.close()
            name = self.shared.name
            raise TypeError(
                f"{name}.{getattr(function, '__name__', 'handler')} is a coroutine function, but {name} is a sync "
                "consumer: write 'def', or use an async consumer"
            )

    async def report(self, consumer: Any, error: Exception, message: Message) -> None:
        """Call ``on_error``."""
        if inspect.iscoroutinefunction(consumer.on_error):
            await consumer.on_error(error, message)
        else:
            await self.in_thread(consumer.on_error, error, message)

    async def be_idle(self, consumer: Any) -> None:
        """Call ``on_idle``."""
        await self.in_thread(consumer.on_idle)

    async def call_hook(self, consumer: Any, name: str) -> None:
        """Call a method of the consumer that takes nothing, if it has it."""
        if (hook := getattr(consumer, name, None)) is not None:
            await self.in_thread(hook)

    async def ask(self, method: Callable[[], Any]) -> Any:
        """Return what a method of the consumer answers."""
        answers: list[Any] = []
        await self.in_thread(self._answer, method, answers)
        return answers[0]

    def _answer(self, method: Callable[[], Any], answers: list[Any]) -> None:
        answer = method()
        if inspect.iscoroutine(answer):
            answer.close()
            name = f"{self.shared.name}.{getattr(method, '__name__', 'expires_at')}"
            raise TypeError(f"{name} is a coroutine function; write 'def' in a sync consumer")
        answers.append(answer)


SessionT_co = TypeVar("SessionT_co", bound=Session, covariant=True)


class Shared(Generic[SessionT_co]):
    """What the consumers of one class share; read from one of them, it is the ``Session`` of that one.

    A session is made when it is first asked for: a constructor of the user's may not have called ours.

    Args:
        session_class: What each of them has.

    Attributes:
        name: The name of the class.
        counters: What became of them.
        fields: The types of messages that the class forwards, each with the field to be sent.
        rate: How much each of their clients may send; None for any amount.
        resumes: Their clients may go on where they were.
        presents: They are present in their groups.
        handlers: Which method handles a message.
    """

    def __init__(self, session_class: type[SessionT_co]) -> None:
        self._session_class = session_class
        self.name = ""
        self.counters = Counters()
        self.fields: dict[str, str | None] = {}
        self.rate: Rate | None = None
        self.resumes = self.presents = False

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = owner.__name__
        self.handlers = Handlers(owner, self.fields)

    def of_subclass(self, consumer_class: type) -> "Shared[SessionT_co]":
        """Check the settings of a class, and return what its instances share.

        Raises:
            TypeError, ValueError: A setting is wrong; the error names the class and the setting.
        """
        check_settings(consumer_class)
        shared = Shared[SessionT_co](_session_class(consumer_class))
        shared.fields = forwarded_fields(consumer_class)
        shared.rate = rate_of(consumer_class)
        shared.resumes = shared._session_class.may_resume and resumes_of(consumer_class)
        shared.presents = shared._session_class.may_resume and presents_of(consumer_class)
        shared.__set_name__(consumer_class, "_headrace")
        return shared

    @overload
    def __get__(self, consumer: None, owner: type) -> "Shared[SessionT_co]": ...
    @overload
    def __get__(self, consumer: object, owner: type) -> SessionT_co: ...
    def __get__(self, consumer: object | None, owner: type) -> "Shared[SessionT_co] | SessionT_co":
        return self if consumer is None else self.new_session(consumer)

    def new_session(self, consumer: object) -> SessionT_co:
        """Make a session for a consumer, which has it from now on."""
        session = vars(consumer)["_headrace"] = self._session_class(self)
        return session


def _session_class(consumer_class: type) -> Any:
    """Return what the methods of all bases work with: the most special of their sessions, whichever comes first."""
    classes = [vars(base)["_headrace"]._session_class for base in consumer_class.__mro__ if "_headrace" in vars(base)]
    return next(one for one in classes if not any(other is not one and issubclass(other, one) for other in classes))
