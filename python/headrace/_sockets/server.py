"""A WebSocket as a class with a few methods: what is broadcast to the topics it subscribes to goes to the client."""

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast, overload

from asgiref.sync import markcoroutinefunction

from headrace._dispatch import GRACE_SECONDS, check_backlog, check_grace, presents_of, rate_of
from headrace._layers.hosts import HostSetting
from headrace._layers.mailbox import Overflow
from headrace._sockets.backend import backend_of
from headrace._sockets.broadcaster import Broadcaster
from headrace._sockets.connection import Connection
from headrace._sockets.ending import watch_expiry
from headrace._sockets.hooks import Hooks
from headrace._sockets.nobody import Nowhere, receive_nothing
from headrace._sockets.payload import Encoder, decode, encode
from headrace._sockets.stats import SocketStats
from headrace._websocket.codes import NOT_LOGGED_IN
from headrace._websocket.expiry import ExpiresAt, Expiry
from headrace._websocket.presence import default_key
from headrace._websocket.rate import OverRate
from headrace._websocket.read_ahead import READ_AHEAD_BYTES
from headrace._websocket.resume import Replaceable, position_of_client
from headrace.exceptions import InvalidChannelLayerError
from headrace.typing import Application, ChannelLayer, Receive, Scope, Send

__all__ = ["BaseSocketServer"]


def _watch(server: "BaseSocketServer", expiry: Expiry) -> None:
    connection: Connection | None = vars(server).get("_headrace_connection")
    # Before it is accepted nothing waits for it; then what was set is.
    if connection is not None and connection.is_accepted():
        watch_expiry(connection, expiry)


class BaseSocketServer(Broadcaster):
    """One WebSocket. Override its hooks, and give ``as_asgi()`` to a router.

    The hooks are ``authorize``, ``connect``, ``receive``, ``disconnect``, ``on_bad_message``, ``on_error``,
    ``on_expire``, ``on_drain``, ``presence_key``, ``presence_meta`` and ``presence_diff``, each plain or a coroutine
    function, and ``configure``. A plain one runs in a pool of threads, and may use Django's ORM.
    They run one at a time, in the order in which frames came; broadcasts are delivered meanwhile, in the order in which
    they were sent.

    Its own methods are plain and have twins with ``async_`` before the name. A plain one may be called in any thread:
    it waits until it is done, but where an event loop runs: there it is done a moment later, in the order of the calls.

    Without an ASGI server it is fed by whatever ``receive`` and ``send`` are, once ``start_listeners`` was called.

    Differs from ``django_sockets``: docs/how-to/sockets.md tells, name by name.

    Args:
        scope: The ASGI scope.
        receive: Returns the client's next message, when awaited; None if there is no client to listen to.
        send: Sends one to it; None if there is no client: what is sent is dropped, and that is logged once.
        hosts: As for ``Broadcaster``; a mapping counts as ``config``.
        ws_encoder: Turns data into what is sent to the client.
        ws_encoder_is_bytes: Whether that goes in binary frames.
        ws_decoder: Turns a frame of the client, str or bytes, into data.
        subprotocol: The subprotocol to accept with.
        config: As for ``Broadcaster``.
        layer: As for ``Broadcaster``.
        allow_memory: As for ``Broadcaster``.

    Raises:
        TypeError, ValueError: An argument is wrong; the error names it.

    Its settings are attributes of the class, each with a text of its own below it.
    """

    max_backlog: int | None = None
    """Messages that wait for a slow client, or None for the layer's capacity."""
    max_backlog_bytes: int | None = None
    """Bytes of them behind the first, or None for the layer's ``capacity_bytes``.

    Also what may wait of plain calls of ``send`` in an event loop.
    """
    read_ahead_bytes: int = READ_AHEAD_BYTES
    """Bytes of its client that may wait behind a hook; then the server is asked for no more.

    One frame is always read, and at most eight.
    """
    overflow: Overflow = "drop_new"
    """What becomes of the rest, all of it counted.

    ``"drop_new"`` refuses a new message, ``"drop_old"`` drops the oldest, ``"coalesce"`` drops those of the new one's
    topic, ``"close"`` closes with 1013.
    """
    rate_limit: ClassVar[str | None] = None
    """How much its client may send: ``"20/s"`` or ``"300/m"``, messages per second or per minute; None for any amount.

    As many as the number may come at once, and then one in each part of the time: a token bucket. What is over it is
    dropped and counted.
    """
    rate_limit_overflow: ClassVar[OverRate] = "drop"
    """What becomes of a frame over the ``rate_limit``: ``"drop"`` drops it, ``"close"`` also closes with 1008."""
    grace_period: float | None = GRACE_SECONDS
    """Seconds that a hook may go on after its client has gone, or None for any number.

    Then it is cancelled, and ``disconnect`` is called; a plain hook in its thread cannot be cancelled, but its next
    send raises ``ConnectionClosed``. So does each send of a task or thread of one's own, that many seconds after
    the connection has ended.
    """
    expires_at: float | Callable[[], Any] | None = cast(Any, ExpiresAt(None, _watch))
    """When the connection ends, as ``time.time()`` tells it, or None: ``on_expire`` is called then.

    Set it at any time, in any thread, to move the end. Or define a method of that name: it is asked after ``connect``,
    and again when the time has come that it said.
    """
    presence: bool = False
    """Whether it is shown in its topics as present, where the layer's setting ``presence`` has their groups.

    The group of a topic is ``socket.t.`` and the topic, if that is up to 80 ASCII letters, digits, hyphens, underscores
    and dots. It is shown from its ``subscribe`` on, when it was accepted, until it unsubscribes or ends;
    ``presence_diff`` is told who else is there.
    """
    thread_sensitive: bool = False
    """Whether plain hooks run in the one thread that the transaction of a test is in."""

    hosts: Sequence[HostSetting] | Mapping[str, Any] | None = None
    """The servers, where the argument of that name is not given."""
    config: Mapping[str, Any] | None = None
    """The configuration, where the argument of that name is not given."""
    allow_memory: bool | None = None
    """Whether topics may be in this process alone, where the argument of that name is not given."""
    subprotocol: str | None = None
    """The subprotocol to accept with, where the argument of that name is not given."""
    layer: Any = None
    """The channel layer or its alias, where the argument of that name is not given; of an instance its layer."""

    scope: Scope
    """What the server knows of the connection."""
    ws_encoder: Encoder
    """Turns data into what is sent to the client."""
    ws_encoder_is_bytes: bool
    """Whether what is sent to the client goes in binary frames."""
    ws_decoder: Callable[[Any], Any]
    """Turns a frame of the client, str or bytes, into data."""

    # All that is not for users is in these, and in the broadcaster's.
    _headrace_connection: Connection
    _headrace_hooks: ClassVar[Hooks]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Check the settings of the class."""
        super().__init_subclass__(**kwargs)
        check_backlog(cls)
        check_grace(cls)
        _EXPIRES_AT.of_subclass(cls)
        said = inspect.getattr_static(cls, "expires_at")
        if inspect.iscoroutinefunction(cls.configure):
            raise TypeError(f"{cls.__name__}.configure must be a plain function: it is called when a server is made")
        for name, arguments in _ARGUMENTS.items():
            if not _takes(cls, name, *arguments):
                wanted = ", ".join(("self", *arguments))
                raise TypeError(f"{cls.__name__}.{name} must be a function that can be called as {name}({wanted})")
        takes_code = _takes(cls, "disconnect", "code")
        if not (takes_code or _takes(cls, "disconnect")):
            raise TypeError(f"{cls.__name__}.disconnect must take the code, or nothing")
        cls._headrace_hooks = replace(
            cls._headrace_hooks,
            takes_code=takes_code,
            is_guarded=cls.authorize is not BaseSocketServer.authorize,
            rate=rate_of(cls),
            has_told_rate=False,
            presents=presents_of(cls),
            expires_at=said if isinstance(said, ExpiresAt) and said.otherwise is not None else None,
        )

    def __init__(
        self,
        scope: Scope,
        receive: Receive | None,
        send: Send | None,
        hosts: Sequence[HostSetting] | Mapping[str, Any] | None = None,
        ws_encoder: Encoder = encode,
        ws_encoder_is_bytes: bool = False,
        ws_decoder: Callable[[Any], Any] = decode,
        subprotocol: str | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        layer: ChannelLayer | str | None = None,
        allow_memory: bool | None = None,
    ) -> None:
        receive = receive_nothing if receive is None else receive
        send = Nowhere(type(self).__name__) if send is None else send
        if not (callable(receive) and callable(send)):
            raise TypeError(
                "receive and send must be functions that return awaitables, as an ASGI server's do, or None"
            )
        if not isinstance(scope, Mapping):
            raise TypeError(f"scope must be a mapping, as an ASGI server's is, got {scope!r}")
        self.scope = scope
        self.ws_encoder = ws_encoder
        self.ws_encoder_is_bytes = ws_encoder_is_bytes
        self.ws_decoder = ws_decoder
        # What is not given may be said by the class.
        given = {"hosts": hosts, "config": config, "layer": layer, "allow_memory": allow_memory}
        vars(self).update({name: value for name, value in given.items() if value is not None})
        if subprotocol is not None:
            self.subprotocol = subprotocol
        self.configure()
        _check_codec(self.ws_encoder, self.ws_decoder, self.subprotocol)
        backend = backend_of(self.hosts, self.config, self.layer, self.allow_memory)
        if self._headrace_hooks.presents and not backend.layer._presence_types():
            raise InvalidChannelLayerError(
                f"{type(self).__name__} has presence = True, and its layer has no setting 'presence': give it one that "
                "fits the groups of its topics, such as {'socket.t.room.*': {}}"
            )
        self._headrace_connection = Connection(self, self._headrace_hooks, receive, send, backend)
        self._headrace_hub = self._headrace_connection.hub
        self.layer = backend.layer

    def __repr__(self) -> str:
        where = self.scope.get("path")
        # The client has written the path, and with it what it likes, line breaks too.
        return f"<{type(self).__name__}{'' if where is None else f' at {repr(where)[1:-1]}'}>"

    # Hooks. An override may be plain, and the one here may be awaited all the same: hence ``| Any``.

    def configure(self) -> None:
        """Set ``hosts``, ``config``, ``layer``, ``ws_encoder`` and so on; what is set here goes before arguments."""

    def authorize(self) -> Awaitable[bool | int] | Any:
        """Decide, before the connection is accepted, whether it will be.

        Returns:
            True to accept. False to refuse: with 4401 if ``scope["user"]`` is not logged in, else with 4403. A number
            is the code to refuse with. Where the ASGI server can answer a handshake, the client gets HTTP 401 or 403.
        """
        return _Settled(True)

    def connect(self) -> Awaitable[None] | Any:
        """Begin, now that the connection has been accepted: subscribe, say.

        An exception closes the connection with 1011, ``LayerUnavailable`` with 1013.
        """
        return _Settled(None)

    def receive(self, data: Any) -> Awaitable[None] | Any:
        """Take what the client has sent, decoded. After an exception, which is logged, the connection stays."""
        self._headrace_connection.incoming.unhandled += 1
        return _Settled(None)

    def disconnect(self, *args: Any, **kwargs: Any) -> Awaitable[None] | Any:
        """Take leave: called once when the connection has ended, for whatever reason.

        Override it with a parameter for the code, an int, or with none.
        """
        return _Settled(None)

    def on_bad_message(self, raw: str | bytes, error: Exception) -> Awaitable[None] | Any:
        """Answer a frame that could not be decoded. Sends ``{"error": ...}``; the connection stays."""
        answer = {"error": "the message could not be decoded"}
        if asyncio._get_running_loop() is not None:
            return self.async_send(answer)
        self.send(answer)
        return _Settled(None)

    def on_expire(self) -> Awaitable[None] | Any:
        """React to ``expires_at``: close the connection with 4401. Override it to send a message first.

        Set ``expires_at`` here to go on. What is left open is closed with 4401, also if this raises, or has not ended
        in ten seconds; both are logged, and counted in ``errors``.
        """
        if asyncio._get_running_loop() is not None:
            return self.async_close(NOT_LOGGED_IN)
        self.close(NOT_LOGGED_IN)
        return _Settled(None)

    def on_drain(self) -> Awaitable[None] | Any:
        """Take leave before the process ends: to be overridden, say to send a last message.

        It is called at a random moment of the ``spread`` of ``headrace.drain``. Then the connection is closed with
        1012, unless this has closed it; also if this raises, or has not ended in time: both are logged, and counted in
        ``errors``.
        """
        return _Settled(None)

    def presence_key(self) -> Awaitable[str | None] | Any:
        """Return the key that it is shown under, a text, or None not to be shown: the ``pk`` of ``scope["user"]``."""
        return _Settled(default_key(self.scope))

    def presence_meta(self) -> Awaitable[Mapping[str, Any] | None] | Any:
        """Return what the others are told of it, a dict of at most 4 KiB in msgpack, or None for nothing."""
        return _Settled(None)

    def presence_diff(self, event: dict[str, Any]) -> Awaitable[None] | Any:
        """Learn who is present in a topic: to be overridden. The other hooks may run meanwhile.

        Args:
            event: The whole list when it has subscribed, and whenever a diff was lost; and from then on each diff. It
                is what members of a group are sent, with the ``topic``.
        """
        return _Settled(None)

    def on_error(self, error: Exception, data: Any) -> Awaitable[None] | Any:
        """Answer a frame that ``receive`` has failed on, if the client is to know; the error was logged and counted."""
        return _Settled(None)

    async def async_handle_received_broadcast(self, channel: str, data: Any) -> None:
        """Take what was broadcast to one of its topics. Sends the data to the client."""
        await self.async_send(data)

    # To the client.

    def send(self, data: Any, raw: bool = False) -> None:
        """Send data to the client, encoded by ``ws_encoder``.

        Waits while the ASGI server holds its senders back. Dropped and counted if the connection has ended, and in a
        thread without an event loop also if the client has not read for five seconds: it is not to delay threads. In
        the thread of an event loop it returns at once; what waits then may have ``max_backlog_bytes``, and
        ``max_backlog`` frames if that is set. ``async_send`` waits and has no such limit.

        Args:
            data: The data.
            raw: It is str or bytes, and sent as it is.

        Raises:
            TypeError, ValueError: It cannot be encoded; nothing was sent.
            ConnectionClosed: The connection has ended, and the grace period is over.
            ChannelFull: In an event loop: too much waits, because the client does not read. With
                ``overflow = "close"`` it is dropped, and the connection closed (1013).
        """
        self._headrace_connection.send(data, raw)

    async def async_send(self, data: Any, raw: bool = False) -> None:
        """Send data to the client; see ``send``."""
        await self._headrace_connection.outgoing.async_send(data, raw)

    def close(self, code: int = 1000) -> None:
        """Close the connection: nothing is sent to it any more, and ``disconnect`` is called with the code.

        Raises:
            TypeError: The code is no integer.
            ValueError: It is none that a WebSocket may be closed with.
        """
        self._headrace_connection.closing.close(code)

    async def async_close(self, code: int = 1000) -> None:
        """Close the connection; see ``close``."""
        await self._headrace_connection.closing.async_close(code)

    def __kill__(self) -> None:
        """End without telling the client."""
        self._headrace_connection.closing.kill()

    @Replaceable
    def client_position(self) -> str | None:
        """Where its client says that it was: ``?resume=...``, or a subprotocol, ``resume.`` and that; None without.

        It may be anything. Give it to ``subscribe``, as ``since``.
        """
        return position_of_client(self.scope)

    @property
    def is_alive(self) -> bool:
        """Whether the client can be sent to; False from the first sign of the end."""
        return self._headrace_connection.is_open()

    # Where it lives.

    def start_listeners(self) -> None:
        """Begin to take messages from ``receive``: in the running event loop, or else in one in a thread.

        Raises:
            RuntimeError: It was started before.
        """
        self._headrace_connection.start(self)

    async def async_start_listeners(self) -> None:
        """Take messages from ``receive`` until the connection has ended. Cancelling ends it.

        Raises:
            RuntimeError: It was started before.
        """
        await self._headrace_connection.async_start(self)

    @overload
    @classmethod
    def as_asgi(cls, **initkwargs: Any) -> Application: ...
    @overload
    @classmethod
    def as_asgi(cls, scope: Scope, receive: Receive, send: Send, /) -> Coroutine[Any, Any, None]: ...
    @classmethod
    def as_asgi(cls, *connection: Any, **initkwargs: Any) -> Application | Coroutine[Any, Any, None]:
        """Return an ASGI application that makes a server for each connection.

        ``as_asgi`` itself, not called, is one too, as in ``django_sockets``.

        Args:
            *connection: Scope, receive and send, to serve one connection.
            **initkwargs: What each server is made with: ``hosts=``, ``config=``, ``ws_encoder=`` and so on.
        """
        if not connection:
            _check_arguments(cls, initkwargs)
            return _Application(cls, initkwargs)
        if len(connection) != 3:
            raise TypeError(f"{cls.__name__}.as_asgi() takes no positional arguments, or scope, receive and send")
        return _Application(cls, initkwargs)(*connection)

    def stats(self) -> SocketStats:
        """Read the counters of this socket; those of the whole process are in ``layer.stats()``."""
        return SocketStats(**self._headrace_connection.counts())


_EXPIRES_AT: ExpiresAt = vars(BaseSocketServer)["expires_at"]

_OF_CLASS = ("max_backlog", "max_backlog_bytes", "read_ahead_bytes", "overflow", "grace_period", "thread_sensitive")
"""Settings that are attributes of the class alone."""


class _Settled:
    """What a hook of the base class returns: ``super().connect()`` may be awaited or not, as the override is."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def __await__(self) -> Generator[Any, None, Any]:
        yield from ()
        return self._value


def _check_arguments(cls: type[BaseSocketServer], arguments: Mapping[str, Any]) -> None:
    """Refuse now what every connection would be refused for."""
    try:
        inspect.signature(cls).bind(None, None, None, **arguments)
    except TypeError as error:
        of_class = [name for name in _OF_CLASS if name in arguments]
        hint = f"; {of_class[0]} is an attribute of the class" if of_class else ""
        raise TypeError(f"{cls.__name__}.as_asgi(): {error}{hint}") from None
    where = {name: arguments.get(name) for name in ("hosts", "config", "allow_memory")}
    if any(value is not None for value in where.values()):
        backend_of(**where, layer=arguments.get("layer"))
    codec = arguments.get("ws_encoder", encode), arguments.get("ws_decoder", decode)
    _check_codec(*codec, arguments.get("subprotocol"))


def _check_codec(ws_encoder: object, ws_decoder: object, subprotocol: object) -> None:
    for name, value in (("ws_encoder", ws_encoder), ("ws_decoder", ws_decoder)):
        if not callable(value):
            raise TypeError(f"{name} must be a function of the data, got {value!r}")
    if not isinstance(subprotocol, str | None):
        raise TypeError(f"subprotocol must be a str or None, got {subprotocol!r}")


def _takes(owner: type, name: str, *arguments: str) -> bool:
    """Tell whether a method can be called with these arguments."""
    method = getattr(owner, name)
    if not callable(method):
        return False
    static = inspect.getattr_static(owner, name)
    # An object that can be called is no method: it is not told of whom it is an attribute.
    is_told = hasattr(static, "__get__") and not isinstance(static, staticmethod | classmethod)
    try:
        inspect.signature(method).bind(*(["self"] if is_told else []), *arguments)
    except TypeError:
        return False
    except ValueError:
        return True  # written in C, which does not always tell
    return True


_ARGUMENTS = {
    "authorize": (),
    "connect": (),
    "receive": ("data",),
    "on_bad_message": ("raw", "error"),
    "on_error": ("error", "data"),
    "on_expire": (),
    "on_drain": (),
    "presence_key": (),
    "presence_meta": (),
    "presence_diff": ("event",),
    "async_handle_received_broadcast": ("channel", "data"),
    "configure": (),
}
"""What the methods are called with that a class may override, but for ``disconnect``, which may do without."""

_HOOKS = (
    *("authorize", "connect", "receive", "disconnect", "on_bad_message", "on_error", "on_expire", "on_drain"),
    *("presence_key", "presence_meta", "presence_diff"),
)
_SENDS = ("async_send", "async_handle_received_broadcast")
BaseSocketServer._headrace_hooks = Hooks(frozenset(getattr(BaseSocketServer, name) for name in (*_HOOKS, *_SENDS)))


class _Application:
    """What ``as_asgi`` returns."""

    def __init__(self, server_class: type[BaseSocketServer], initkwargs: dict[str, Any]) -> None:
        self.server_class = server_class
        self.initkwargs = initkwargs
        functools.update_wrapper(self, server_class, updated=())
        # As far as an object can: who asks it is told that it is to be awaited.
        markcoroutinefunction(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("type", "websocket") != "websocket":
            raise ValueError(
                f"{self.server_class.__name__} is for WebSockets, got a scope of type {scope['type']!r}; put a "
                "ProtocolTypeRouter before it that takes it elsewhere"
            )
        await self.server_class(scope, receive, send, **self.initkwargs).async_start_listeners()

    def __repr__(self) -> str:
        return f"{self.server_class.__qualname__}.as_asgi()"
