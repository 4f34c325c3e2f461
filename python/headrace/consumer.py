"""Consumers: an application that is a class, with a method for each type of message.

The API is that of ``channels.consumer``. What differs is how messages get to the methods: see ``headrace._dispatch``.
"""

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal, cast

from asgiref.sync import async_to_sync, markcoroutinefunction

from headrace._dispatch import (
    GRACE_SECONDS,
    ConsumerStats,
    Dispatcher,
    PresentDispatcher,
    PresentResumingDispatcher,
    ResumingDispatcher,
    Session,
    Shared,
    SyncSession,
    get_handler_name,
    log_failure,
    sync_pool,
)
from headrace._drain import is_draining
from headrace._layers.registry import DEFAULT_CHANNEL_LAYER, get_channel_layer
from headrace._public import name_publicly as _name_publicly
from headrace._websocket.codes import SERVICE_UNAVAILABLE, TRY_AGAIN_LATER
from headrace._websocket.handshake import refuse_handshake
from headrace._websocket.rate import OverRate
from headrace._websocket.read_ahead import READ_AHEAD_BYTES
from headrace.db import aclose_old_connections, database_sync_to_async
from headrace.exceptions import LayerUnavailable, StopConsumer
from headrace.typing import Application, ChannelLayer, Message, Receive, Scope, Send
from headrace.utils import await_many_dispatch

# Some only because Channels' module has them, and projects import them from there.
__all__ = [
    "AsyncConsumer",
    "StopConsumer",
    "SyncConsumer",
    "aclose_old_connections",
    "async_to_sync",
    "await_many_dispatch",
    "consumer_stats",
    "database_sync_to_async",
    "get_handler_name",
    "sync_pool",
]


class AsyncConsumer:
    """An ASGI application whose handlers are coroutine methods, one for each type of message.

    A message of type ``chat.message``, from the client or from the channel layer, goes to the method ``chat_message``.
    One handler runs at a time, in the order in which messages came, the client's first. An instance serves one
    connection at a time; give a server the class's ``as_asgi()``.

    Whatever ends it, its groups in a layer of headrace are left and its channel is closed.

    Differs from Channels: a layer's message cannot call the methods of this interface unless the class overrides them,
    a closed connection gets no more messages from the layer, and ``on_error`` is called for what a handler raises.

    Its settings are attributes of the class, each with a text of its own below it.
    """

    channel_layer_alias: str = DEFAULT_CHANNEL_LAYER
    """Which channel layer it listens to."""
    concurrency: int = 1
    """How many messages are handled at a time.

    With more than 1 the first message of a client is still handled alone, and its last one too: it cancels the
    handlers that run, and what has not begun is dropped and counted.
    """
    handler_timeout: float | None = None
    """Seconds that a handler may take, or None. Longer is a ``TimeoutError`` for ``on_error``."""
    max_backlog: int | None = None
    """Messages that its channel holds, or None for the layer's capacity."""
    max_backlog_bytes: int | None = None
    """Bytes of messages that its channel holds behind the first, or None for the layer's ``capacity_bytes``."""
    read_ahead_bytes: int = READ_AHEAD_BYTES
    """Bytes of its client that may wait behind a handler; then the server is asked for no more.

    One frame is always read, and at most eight.
    """
    overflow: Literal["drop_new", "drop_old", "coalesce", "close"] = "drop_new"
    """What a full channel does.

    ``"drop_new"`` refuses the new message, ``"drop_old"`` drops the oldest, ``"coalesce"`` drops those of the new one's
    type, ``"close"`` ends the connection (1013). All are counted.
    """
    rate_limit: ClassVar[str | None] = None
    """How much its client may send: ``"20/s"`` or ``"300/m"``, messages per second or per minute; None for any amount.

    As many as the number may come at once, and then one in each part of the time: a token bucket. What is over it is
    dropped and counted. Only the frames of a WebSocket count, not what comes from the layer.
    """
    rate_limit_overflow: ClassVar[OverRate] = "drop"
    """What becomes of a message over the ``rate_limit``.

    ``"drop"`` drops it, ``"close"`` also ends the connection (1008), when what came before has been handled. Both are
    counted.
    """
    idle_timeout: float | None = None
    """Seconds of silence of the client after which ``on_idle`` is called, again and again; or None."""
    grace_period: float | None = GRACE_SECONDS
    """Seconds that a handler may go on after its client has gone, or None for any number.

    Then it is cancelled, and the consumer ends as if it had returned; a handler in a thread cannot be cancelled,
    but its next send raises ``ConnectionClosed``. So does each send of a task or thread of one's own, that many
    seconds after the connection has ended.
    """
    forward: ClassVar[Iterable[str] | Mapping[str, str]] = ()
    """Types of messages from the layer that go to a WebSocket as they are, without a handler.

    Or a mapping of types to the field that holds the text or the bytes. Without a mapping that is ``text`` or
    ``bytes``. A message without it is told to ``on_error`` and dropped; the connection stays, as the mistake is its
    sender's.
    """
    raise_after_close: bool = False
    """Whether sending to a client that has gone raises ``ConnectionClosed``; else it is dropped and counted."""

    scope: Scope
    """What the server knows of the connection."""
    # None only in a Django project without CHANNEL_LAYERS; who uses a layer has one.
    channel_layer: ChannelLayer
    """The layer of ``channel_layer_alias``."""
    channel_name: str
    """The name of its channel in that layer: what is sent there comes to this consumer."""
    base_send: Callable[[Mapping[str, Any]], Awaitable[None]]
    """Send a message to the client's server, as it is, whether it can be sent or not."""

    # As in Channels.
    _sync: ClassVar[bool] = False
    # Everything else that is not for users.
    _headrace: ClassVar[Shared[Session]] = Shared(Session)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Check the settings of the class, and prepare what its instances share."""
        super().__init_subclass__(**kwargs)
        cls._headrace = cls._headrace.of_subclass(cls)

    def __init__(self, scope: Scope | None = None) -> None:
        if scope is not None:
            self.scope = scope

    @classmethod
    def as_asgi(cls, **initkwargs: Any) -> Application:
        """Return an ASGI application that makes an instance for each connection.

        Differs from Channels: it is an object and no function, so that Starlette's routes take it for what it is.

        Args:
            **initkwargs: What to make it with.

        Raises:
            TypeError: No constructor of the class takes an argument of that name. Channels drops it.
        """
        if initkwargs:
            _check_arguments(cls, initkwargs)
        return _Application(cls, initkwargs)

    async def __call__(self, *arguments: Any) -> None:
        """Serve one connection: ``consumer(scope, receive, send)``, or ``C(scope)(receive, send)``.

        Raises:
            TypeError: Called with anything else.
        """
        receive, send = _accept_call(self, arguments)
        if dispatcher := await _begin(self, receive, send):
            await dispatcher.run(receive)

    async def dispatch(self, message: Message) -> None:
        """Call the handler of a message.

        Raises:
            ValueError: The message has no type, or one that has no handler.
        """
        await self._headrace.shared.handlers.find(self, message)(message)

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send a message to the client's server.

        Dropped and counted if the connection has ended; waits while the server holds its senders back.

        Raises:
            ConnectionClosed: The connection has ended, and ``raise_after_close`` is set or the grace period is over.
        """
        session = self._headrace
        await session.send(self, message)
        if message.get("type") == "websocket.close":
            session.closed = True

    async def on_error(self, exc: Exception, message: Message) -> None:
        """Report what a handler raised. Override it to tell others, or to go on after an error.

        Logs one line and raises ``exc`` again, which ends the consumer. A server logs the traceback, but not of a
        ``LayerUnavailable`` while a WebSocket is opened: the client is refused with 503 then.

        Args:
            exc: The exception; never ``StopConsumer``.
            message: What was being handled; ``{"type": "on_idle"}`` stands for that method.
        """
        log_failure(self, message.get("type") if isinstance(message, Mapping) else message, exc)
        raise exc

    async def on_idle(self) -> None:
        """React to a client that has been silent for ``idle_timeout``: to be overridden, say to close or to ping."""


def _check_arguments(consumer_class: type[AsyncConsumer], initkwargs: Iterable[str]) -> None:
    """Refuse what nobody would ever look at: our own constructors take any arguments, because Channels' do."""
    taken: set[str] = set()
    for base in consumer_class.__mro__[: consumer_class.__mro__.index(AsyncConsumer) + 1]:
        if "__init__" not in vars(base):
            continue
        try:
            parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        except ValueError:
            return  # one that is written in C need not tell
        passes_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        if passes_on and not base.__module__.startswith("headrace."):
            return  # it may take any
        taken |= {parameter.name for parameter in parameters}
        if not passes_on:
            break
    if unknown := sorted(set(initkwargs) - taken):
        name = consumer_class.__name__
        raise TypeError(
            f"{name}.as_asgi() got {', '.join(map(repr, unknown))}, which no constructor of {name} takes: define "
            f"__init__(self, *args, {unknown[0]}, **kwargs), or set an attribute of the class"
        )


def _accept_call(consumer: AsyncConsumer, arguments: tuple[Any, ...]) -> tuple[Receive, Send]:
    if len(arguments) == 3:
        consumer.scope = arguments[0]
        return arguments[1], arguments[2]
    if len(arguments) == 2 and hasattr(consumer, "scope"):
        return arguments[0], arguments[1]
    raise TypeError(
        f"{type(consumer).__name__} must be called with scope, receive and send, or made with a scope and called with "
        f"receive and send; got {len(arguments)} arguments"
    )


async def _begin(consumer: AsyncConsumer, receive: Receive, send: Send) -> Dispatcher | None:
    """Prepare to serve one connection; None if it was refused, because the layer is away or the process ends."""
    session = consumer._headrace
    if session.serving:
        raise RuntimeError(
            f"this instance of {type(consumer).__name__} serves a connection already; give the class, or its "
            "as_asgi(), to whoever has several"
        )
    if session.closed:  # it has served another before
        session = session.shared.new_session(consumer)
    layer = get_channel_layer(consumer.channel_layer_alias)
    consumer.channel_layer = cast(ChannelLayer, layer)
    session.open(consumer, send)
    if await _refused_to_drain(consumer, receive, send):
        return None
    if layer is not None:
        try:
            consumer.channel_name = await layer.new_channel()
        except LayerUnavailable as error:
            # Servers want their first message to be taken before they are answered.
            message = await receive() if session.may_defer(consumer) else {}
            if not await session.defers_client(consumer, message):
                raise
            log_failure(consumer, message["type"], error)
            return None
        # Once more: it may have waited, and a drain that began meanwhile does not know of it.
        if await _refused_to_drain(consumer, receive, send):
            return None
    direct = getattr(consumer.dispatch, "__func__", None) is _DISPATCH
    shared = session.shared
    if shared.resumes:
        session.begin_resuming(consumer)
    if shared.presents:
        session.begin_presence(consumer)
        present = PresentResumingDispatcher if shared.resumes else PresentDispatcher
        return present(consumer, session, direct)
    if shared.resumes:
        return ResumingDispatcher(consumer, session, direct)
    return Dispatcher(consumer, session, direct)


async def _refused_to_drain(consumer: AsyncConsumer, receive: Receive, send: Send) -> bool:
    """Refuse a WebSocket if the process ends; tell whether it was."""
    if not is_draining() or consumer.scope.get("type") != "websocket":
        return False
    await receive()
    consumer._headrace.closed = True
    await refuse_handshake(consumer.scope, send, TRY_AGAIN_LATER, SERVICE_UNAVAILABLE)
    return True


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
            if dispatcher := await _begin(consumer, receive, send):
                await dispatcher.run(receive)
        else:
            await consumer(scope, receive, send)

    def __repr__(self) -> str:
        return f"{self.consumer_class.__qualname__}.as_asgi()"


class SyncConsumer(AsyncConsumer):
    """A consumer whose handlers are plain methods, run in threads, one at a time.

    With Django configured all handlers of the process share one thread, as in Channels: tests and transactions
    rely on it. Without Django, or if ``thread_sensitive`` is False, or ``HEADRACE_SYNC_THREADS`` is set, they run in
    a pool, so that one that blocks delays its own consumer only; Django's old connections are closed before and
    after each handler in its thread.

    A handler that runs cannot be cancelled: whoever ends the consumer waits for it.
    """

    thread_sensitive: bool | None = None
    """Whether handlers run in the one thread; None for the default."""

    _sync = True
    _headrace: ClassVar[Shared[SyncSession]] = Shared(SyncSession)

    async def dispatch(self, message: Message) -> None:
        """Call the handler of a message in a thread.

        Raises:
            ValueError: The message has no type, or one that has no handler.
            TypeError: The handler is a coroutine function.
        """
        session = self._headrace
        await session.in_thread(session.shared.handlers.find(self, message), message)

    def send(self, message: Mapping[str, Any]) -> None:  # type: ignore[override]  # the sync twin, as in Channels
        """Send a message to the client's server, from a handler's thread; see ``AsyncConsumer``.

        Raises:
            ConnectionClosed: The connection has ended, and ``raise_after_close`` is set or the grace period is over.
        """
        session = self._headrace
        session.send_sync(self, message)
        if message.get("type") == "websocket.close":
            session.closed = True

    def on_idle(self) -> None:  # type: ignore[override]  # the sync twin
        """React to a client that has been silent for ``idle_timeout``: to be overridden."""

    def base_send(self, message: Mapping[str, Any]) -> None:  # type: ignore[override]  # the sync twin
        """Send a message to the client's server, from a handler's thread; as it is, whether it can be sent or not."""
        session = self._headrace
        session.in_loop(session.emit, self, message)


# What has been put in their place, by a subclass or by a tracer, has to be called.
_CALL, _DISPATCH = AsyncConsumer.__call__, AsyncConsumer.dispatch


def consumer_stats(consumer_class: type[AsyncConsumer]) -> ConsumerStats:
    """Read what became of the consumers of a class in this process.

    Raises:
        TypeError: Not a class of consumers.
    """
    if isinstance(consumer_class, type) and issubclass(consumer_class, AsyncConsumer):
        return consumer_class._headrace.counters.read()
    raise TypeError(f"consumer_class must be a class of consumers, got {consumer_class!r}")


_name_publicly(globals())
