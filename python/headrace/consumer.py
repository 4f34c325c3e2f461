"""Consumers: an application that is a class, with a method for each type of message.

The API is that of ``channels.consumer``. What differs is how messages get to the methods: see ``headrace.dispatch``.
"""

import asyncio
import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, ClassVar, Literal, cast

from asgiref.sync import SyncToAsync, async_to_sync, markcoroutinefunction

from headrace.dispatch import (
    GRACE_SECONDS,
    ConsumerStats,
    Counters,
    Handlers,
    Intake,
    Life,
    call_in_thread,
    check_settings,
    forwarded_fields,
    get_handler_name,
    setting,
    uses_pool,
)
from headrace.exceptions import ConnectionClosed
from headrace.layers.registry import DEFAULT_CHANNEL_LAYER, get_channel_layer
from headrace.typing import Application, ChannelLayer, Message, Receive, Scope, Send

__all__ = ["AsyncConsumer", "SyncConsumer", "consumer_stats", "get_handler_name"]

_logger = logging.getLogger("headrace.consumer")


class AsyncConsumer:
    """An ASGI application whose handlers are coroutine methods, one for each type of message.

    A message of type ``chat.message``, from the client or from the channel layer, goes to the method ``chat_message``.
    One handler runs at a time, in the order in which messages came, the client's first. An instance serves one
    connection at a time; give a server the class's ``as_asgi()``.

    Whatever ends it, its groups in a layer of headrace are left and its channel is closed.

    Differs from Channels: a layer's message cannot call the methods of this interface unless the class overrides them,
    a closed connection gets no more messages from the layer, and ``on_error`` is called for what a handler raises.

    Attributes:
        channel_layer_alias: Which channel layer it listens to.
        concurrency: How many messages are handled at a time. With more than 1 the first message of a client is still
            handled alone, and its last one too: it cancels the handlers that run, and what has not begun is dropped
            and counted.
        handler_timeout: Seconds that a handler may take, or None. Longer is a ``TimeoutError`` for ``on_error``.
        max_backlog: Messages that its channel holds, or None for the layer's capacity.
        overflow: What a full channel does: ``"drop_new"`` refuses the new message, ``"drop_old"`` drops the oldest,
            ``"coalesce"`` drops those of the new one's type, ``"close"`` ends the connection (1013). All are counted.
        idle_timeout: Seconds of silence of the client after which ``on_idle`` is called, again and again; or None.
        grace_period: Seconds that a handler may go on after its client has gone, or None for any number. Then it is
            cancelled, and the consumer ends as if it had returned; a handler in a thread cannot be cancelled, but its
            next send raises ``ConnectionClosed``. So does each send of a task or thread of one's own, that many seconds
            after the connection has ended.
        forward: Types of messages from the layer that go to a WebSocket as they are, without a handler; or a mapping of
            types to the field that holds the text or the bytes. A set means ``text`` or ``bytes``.
        raise_after_close: Whether sending to a client that has gone raises ``ConnectionClosed``; else it is dropped and
            counted.
    """

    channel_layer_alias: str = DEFAULT_CHANNEL_LAYER
    concurrency: int = 1
    handler_timeout: float | None = None
    max_backlog: int | None = None
    overflow: Literal["drop_new", "drop_old", "coalesce", "close"] = "drop_new"
    idle_timeout: float | None = None
    grace_period: float | None = GRACE_SECONDS
    forward: ClassVar[Iterable[str] | Mapping[str, str]] = ()
    raise_after_close: bool = False

    scope: Scope
    # None only in a Django project without CHANNEL_LAYERS; who uses a layer has one.
    channel_layer: ChannelLayer
    channel_name: str
    base_send: Any

    _sync: ClassVar[bool] = False
    _counters: Counters = Counters()
    _handlers: Handlers
    # The loop that it is served in; None until then.
    _loop: asyncio.AbstractEventLoop | None = None
    # None until it serves a connection.
    _intake: Intake | None = None
    _asgi_send: Send
    _fields: Mapping[str, str | None] = {}
    # What is set on an instance while it serves.
    _state: ClassVar[tuple[str, ...]] = ("_closed", "_grace_began", "_gone", "_has_begun")
    # The connection has ended, from whichever side: nothing can be sent, and the layer is not listened to.
    _closed = False
    # When the grace period of what still sends began, in the loop's time; None if the connection has not ended, or
    # nobody has sent since.
    _grace_began: float | None = None
    # Between the beginning and the end of a connection.
    _serving = False
    # The client is known to have gone; its last message may have to wait for a handler.
    _gone = False
    # There is something that has to be finished, whatever ends the consumer.
    _has_begun = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Check the settings of the class, and prepare what its instances share."""
        super().__init_subclass__(**kwargs)
        check_settings(cls)
        cls._counters = Counters()
        cls._fields = forwarded_fields(cls)
        cls._handlers = Handlers(cls, cls._fields)

    def __init__(self, scope: Scope | None = None) -> None:
        if scope is not None:
            self.scope = scope

    @classmethod
    def as_asgi(cls, **initkwargs: Any) -> Application:
        """Return an ASGI application that makes an instance for each connection.

        Differs from Channels: it is an object and no function, so that Starlette's routes take it for what it is.

        Args:
            **initkwargs: What to make it with.
        """
        return _Application(cls, initkwargs)

    async def __call__(self, *arguments: Any) -> None:
        """Serve one connection: ``consumer(scope, receive, send)``, or ``C(scope)(receive, send)``.

        Raises:
            TypeError: Called with anything else.
        """
        receive, send = self._accept_call(arguments)
        life = await self._begin(send)
        await life.run(receive)

    async def _begin(self, send: Send) -> Life:
        """Prepare to serve one connection."""
        if self._serving:
            raise RuntimeError(
                f"this instance of {type(self).__name__} serves a connection already; give the class, or its "
                "as_asgi(), to whoever has several"
            )
        if self._closed:  # it has served another before
            for name in self._state:
                vars(self).pop(name, None)
        layer = get_channel_layer(self.channel_layer_alias)
        self.channel_layer = cast(ChannelLayer, layer)
        if layer is not None:
            self.channel_name = await layer.new_channel()
        self._asgi_send = send
        self._loop = asyncio.get_running_loop()
        if not self._sync:
            self.base_send = send
        return Life(self, direct=getattr(self.dispatch, "__func__", None) is _DISPATCH)

    async def dispatch(self, message: Message) -> None:
        """Call the handler of a message.

        Raises:
            ValueError: The message has no type, or one that has no handler.
        """
        await self._find_handler(message)(message)

    async def send(self, message: Message) -> None:
        """Send a message to the client's server.

        Dropped and counted if the connection has ended; waits while the server holds its senders back.

        Raises:
            ConnectionClosed: The connection has ended, and ``raise_after_close`` is set or the grace period is over.
        """
        await self._send(message)
        if message.get("type") == "websocket.close":
            self._closed = True

    async def on_error(self, exc: Exception, message: Message) -> None:
        """Report what a handler raised. Override it to tell others, or to go on after an error.

        Logs one line and raises ``exc`` again, which ends the consumer. A server logs the traceback.

        Args:
            exc: The exception; never ``StopConsumer``.
            message: What was being handled; ``{"type": "on_idle"}`` stands for that method.
        """
        place = self.scope.get("path", self.scope.get("type"))
        kind = message.get("type") if isinstance(message, Mapping) else message
        _logger.error("%s at %s failed on %r: %r", type(self).__name__, place, kind, exc)
        raise exc

    async def on_idle(self) -> None:
        """React to a client that has been silent for ``idle_timeout``: to be overridden, say to close or to ping."""

    def _accept_call(self, arguments: tuple[Any, ...]) -> tuple[Receive, Send]:
        if len(arguments) == 3:
            self.scope = arguments[0]
            return arguments[1], arguments[2]
        if len(arguments) == 2 and hasattr(self, "scope"):
            return arguments[0], arguments[1]
        raise TypeError(
            f"{type(self).__name__} must be called with scope, receive and send, or made with a scope and called with "
            f"receive and send; got {len(arguments)} arguments"
        )

    def _find_handler(self, message: Message) -> Any:
        handlers = self._handlers
        try:
            name = handlers.of_client[message["type"]]
        except (KeyError, TypeError):
            name = handlers.name_for_client(message)
        return handlers.find(self, name, message)

    async def _emit(self, message: Message) -> None:
        """Send, whether it can be sent or not."""
        await self.base_send(message)

    async def _send(self, message: Message) -> None:
        """Send, unless the connection has ended."""
        if self._closed:
            self._drop_after_close()
            return
        await self.base_send(message)

    def _drop_after_close(self) -> None:
        if self._is_overdue():
            raise ConnectionClosed(
                f"the connection of {type(self).__name__} ended more than its grace_period of "
                f"{self._grace_seconds()} s ago; end what still sends to it, in disconnect() at the latest"
            )
        if setting(self, "raise_after_close", False):
            raise ConnectionClosed(f"the connection of {type(self).__name__} has ended; nothing can be sent to it")
        self._counters.add(dropped_after_close=1)

    def _is_overdue(self) -> bool:
        """Tell whether the grace period is over; it begins with the first send that is dropped, if not before."""
        if not self._closed or self._loop is None:
            return False
        now = self._loop.time()
        if self._grace_began is None:
            self._grace_began = now
        grace = self._grace_seconds()
        return grace is not None and now - self._grace_began >= grace

    def _grace_seconds(self) -> float | None:
        grace: float | None = setting(self, "grace_period", GRACE_SECONDS)
        return grace

    def _begin_leaving(self) -> None:
        """Note that ``disconnect`` is about to be called: what it sends is dropped, however long ago the end was."""
        self._has_begun = False
        self._grace_began = None

    # What the dispatch calls.

    def _note_gone(self, message: Message) -> None:
        """Note that the client has gone, with its last message, which is handled when its turn comes."""
        self._gone = True

    async def _report(self, error: Exception, message: Message) -> None:
        if inspect.isawaitable(told := self.on_error(error, message)):
            await told

    async def _be_idle(self) -> None:
        await self.on_idle()

    async def _excuses(self, error: Exception) -> bool:
        """Tell whether forwarding failed because the client has gone."""
        return False

    def _forward(self, message: Message) -> Awaitable[None]:
        raise TypeError(f"forward is for WebSocket consumers, and {type(self).__name__} is none")

    async def _close_failed(self) -> None:
        """Close the connection after an exception, where the server would not know the code."""

    async def _dismisses_client(self) -> bool:
        """Close the connection of a client that sent what cannot be decoded; tell whether that ends the matter."""
        return False

    async def _close_overrun(self) -> None:
        """Close the connection because the consumer does not keep up."""
        self._counters.add(closed_overrun=1)

    async def _finish(self) -> None:
        """End what was begun and has not ended yet."""


class _Application:
    """What ``as_asgi`` returns.

    Attributes:
        consumer_class: The class of consumers.
        consumer_initkwargs: What each of them is made with.
    """

    def __init__(self, consumer_class: type[AsyncConsumer], initkwargs: dict[str, Any]) -> None:
        self.consumer_class = consumer_class
        self.consumer_initkwargs = initkwargs
        functools.update_wrapper(self, consumer_class, updated=())
        # As far as an object can: who asks it is told that it is to be awaited.
        markcoroutinefunction(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        consumer = self.consumer_class(**self.consumer_initkwargs)
        if self.consumer_class.__call__ is AsyncConsumer.__call__:
            # The same with one frame less, for as long as the connection lasts.
            consumer.scope = scope
            life = await consumer._begin(send)
            await life.run(receive)
        else:
            await consumer(scope, receive, send)

    def __repr__(self) -> str:
        return f"{self.consumer_class.__qualname__}.as_asgi()"


class SyncConsumer(AsyncConsumer):
    """A consumer whose handlers are plain methods, run in threads, one at a time.

    With Django configured all handlers of the process share one thread, as in Channels: tests and transactions
    rely on it. Without Django, or if ``thread_sensitive`` is False, or ``HEADRACE_SYNC_THREADS`` is set, they run in
    a pool, so that one that blocks holds up its own consumer only; Django's old connections are closed before and
    after each handler in its thread.

    A handler that runs cannot be cancelled: whoever ends the consumer waits for it.

    Attributes:
        thread_sensitive: Whether handlers run in the one thread; None for the default.
    """

    thread_sensitive: bool | None = None

    _sync = True
    _pooled = False

    async def _begin(self, send: Send) -> Life:
        self._pooled = uses_pool(setting(self, "thread_sensitive"))
        return await super()._begin(send)

    async def dispatch(self, message: Message) -> None:
        """Call the handler of a message in a thread.

        Raises:
            ValueError: The message has no type, or one that has no handler.
            TypeError: The handler is a coroutine function.
        """
        await self._in_thread(self._find_handler(message), message)

    def send(self, message: Message) -> None:  # type: ignore[override]  # the sync twin, as in Channels
        """Send a message to the client's server, from a handler's thread; see ``AsyncConsumer``.

        Raises:
            ConnectionClosed: The connection has ended, and ``raise_after_close`` is set or the grace period is over.
        """
        self._send_sync(message)
        if message.get("type") == "websocket.close":
            self._closed = True

    def on_idle(self) -> None:  # type: ignore[override]  # the sync twin
        """React to a client that has been silent for ``idle_timeout``: to be overridden."""

    def base_send(self, message: Message) -> None:
        """Send a message to the client's server, from a handler's thread; as it is, whether it can be sent or not."""
        self._in_loop(self._emit, message)

    async def _emit(self, message: Message) -> None:
        await self._asgi_send(message)

    def _in_loop(self, function: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any) -> Any:
        """Run a coroutine function in the consumer's loop: from a handler's thread, or from any other."""
        of_handler = getattr(SyncToAsync.threadlocal, "main_event_loop", None) is not None
        if of_handler or self._loop is None or asyncio._get_running_loop() is not None:
            return async_to_sync(function)(*arguments)
        return asyncio.run_coroutine_threadsafe(function(*arguments), self._loop).result()

    def _send_sync(self, message: Message) -> None:
        if self._closed:
            self._drop_after_close()
            return
        self.base_send(message)

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> None:
        await call_in_thread(self._pooled, self._plain, function, *arguments)

    def _plain(self, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> None:
        """Call a method; refuse one that is a coroutine function, which nobody here would run."""
        result = function(*arguments, **keywords)
        if inspect.iscoroutine(result):
            result.close()
            name = type(self).__name__
            raise TypeError(
                f"{name}.{getattr(function, '__name__', 'handler')} is a coroutine function, but {name} is a sync "
                "consumer: write 'def', or use an async consumer"
            )

    async def _report(self, error: Exception, message: Message) -> None:
        if inspect.iscoroutinefunction(self.on_error):
            await self.on_error(error, message)
        else:
            await self._in_thread(self.on_error, error, message)

    async def _be_idle(self) -> None:
        await self._in_thread(self.on_idle)


# A class does for its subclasses what nobody has done for itself.
AsyncConsumer._handlers = Handlers(AsyncConsumer, {})

# What has been put in their place, by a subclass or by a tracer, has to be called.
_CALL, _DISPATCH = AsyncConsumer.__call__, AsyncConsumer.dispatch


def consumer_stats(consumer_class: type[AsyncConsumer]) -> ConsumerStats:
    """Read what became of the consumers of a class in this process.

    Raises:
        TypeError: Not a class of consumers.
    """
    if isinstance(consumer_class, type) and issubclass(consumer_class, AsyncConsumer):
        return consumer_class._counters.read()
    raise TypeError(f"consumer_class must be a class of consumers, got {consumer_class!r}")
