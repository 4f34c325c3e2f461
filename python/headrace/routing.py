"""ASGI applications that choose between applications: by type of scope, by path, by channel.

What a router decides is decided before the application that it chooses has read or sent anything. Only such a decision
makes an outer router go on to its next route; an error of a running application never does, whatever its class.
"""

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NoReturn

from headrace._paths import (
    Match,
    Pattern,
    as_application,
    configuration_error,
    leads_to_consumer,
    leads_to_router,
    twin_class,
)
from headrace._settings import django_settings
from headrace._websocket.codes import NO_ROUTE
from headrace._websocket.handshake import can_be_answered, respond
from headrace.typing import Receive, Scope, Send

__all__ = ["ChannelNameRouter", "ProtocolTypeRouter", "URLRouter", "get_default_application"]

logger: logging.Logger = logging.getLogger(__name__)

_NOT_FOUND = (b"no route found for this path\n", b"text/plain; charset=utf-8")
"""What is answered where no route matches, and its type."""

_answered_outside: ContextVar[bool] = ContextVar("_answered_outside", default=False)
"""Whether a ``ProtocolTypeRouter`` around the running application answers if no route matches."""


def get_default_application() -> Any:
    """Return the application that Django's setting ``ASGI_APPLICATION`` names.

    Raises:
        ImproperlyConfigured: There is no such setting, or nothing where it points to.
    """
    try:
        path, name = django_settings().ASGI_APPLICATION.rsplit(".", 1)
    except (ValueError, AttributeError):
        raise configuration_error("Cannot find ASGI_APPLICATION setting.") from None
    try:
        module = import_module(path)
    except ImportError as error:
        raise configuration_error(f"Cannot import ASGI_APPLICATION module {path!r}: {error}") from error
    try:
        return getattr(module, name)
    except AttributeError as error:
        raise configuration_error(f"Cannot find {name!r} in ASGI_APPLICATION module {path}") from error


class ProtocolTypeRouter:
    """Chooses an application by the type of the scope: ``"http"``, ``"websocket"``, ...

    Args:
        application_mapping: For each type an ASGI application or a consumer class.

    Raises:
        TypeError: It is no mapping, or one of its values is neither.
    """

    def __init__(self, application_mapping: Mapping[str, Callable[..., Any]]) -> None:
        self.application_mapping: Mapping[str, Any] = _checked(application_mapping)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Run the application of the scope's type.

        A ``ValueError`` of a ``URLRouter`` that has no route is answered here, if no middleware in between caught it.

        Raises:
            ValueError: There is none. (A server that offers "lifespan" takes that for "not wanted".) HTTP and
                WebSockets from a server are answered as by a ``URLRouter`` that has no route.
        """
        kind = scope["type"]
        if kind not in self.application_mapping:
            if _can_answer(scope):
                return await _answer_no_route(scope, receive, send)
            raise ValueError(f"No application configured for scope type {kind!r}{_known(self.application_mapping)}")
        application = as_application(self.application_mapping[kind])
        if not _can_answer(scope) or _answered_outside.get():
            return await application(scope, receive, send)
        answering = _answered_outside.set(True)
        try:
            return await application(scope, receive, send)
        except _NoRoute:
            return await _answer_no_route(scope, receive, send)
        finally:
            _answered_outside.reset(answering)


class ChannelNameRouter:
    """Chooses an application by the channel that a worker reads, ``scope["channel"]``.

    Args:
        application_mapping: For each channel's name an ASGI application or a consumer class.

    Raises:
        TypeError: It is no mapping, or one of its values is neither.
    """

    def __init__(self, application_mapping: Mapping[str, Callable[..., Any]]) -> None:
        self.application_mapping: Mapping[str, Any] = _checked(application_mapping)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Run the application of the scope's channel.

        Raises:
            ValueError: There is none, or the scope has no channel.
        """
        if "channel" not in scope:
            raise ValueError(
                "ChannelNameRouter got a scope without a 'channel' key. "
                "Did you make sure it's only being used for 'channel' type messages?"
            )
        channel = scope["channel"]
        if channel not in self.application_mapping:
            raise ValueError(
                f"No application configured for channel name {channel!r}{_known(self.application_mapping)}"
            )
        return await as_application(self.application_mapping[channel])(scope, receive, send)


def _checked(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(mapping, Mapping):
        raise TypeError(f"application_mapping must be a mapping of names to ASGI applications, got {mapping!r}")
    for name, application in mapping.items():
        if not callable(application):
            raise TypeError(
                f"application_mapping[{name!r}] must be an ASGI application or a consumer class, got {application!r}"
            )
    return mapping


def _known(mapping: Mapping[str, Any]) -> str:
    return f"; there are {', '.join(map(repr, mapping))}" if mapping else ""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A route as the router reads it."""

    match: Callable[[str], Match | None]
    defaults: dict[str, Any]
    application: Any = None
    # Whether the application may itself find that it has no route: one that is no consumer.
    may_decline: bool = False
    # The routes of an include() or of a router right behind a path, which are matched in place: no call, no copy.
    children: "tuple[_Entry, ...] | None" = None
    # Of an include(): Django's rules for what is captured twice, and no slashes taken off in between.
    included: bool = False


class URLRouter:
    """Chooses an application by the path of the scope; the first route that matches has it.

    A route is a ``path()`` or ``re_path()`` of ``headrace.paths`` or of ``django.urls``, which may lead to an
    ``include()`` or to another ``URLRouter``, right behind it or behind middleware; or a pair of a path and an
    application or consumer class, which matches that path with or without a slash at either end.

    The application gets a copy of the scope in which ``path_remaining`` is what the route left over, and
    ``url_route`` has the captures of all routers so far: ``args``, one after the other, and ``kwargs``, in which the
    inner wins over the outer and the ``kwargs`` of a route over what it captured.

    If no route matches, ``ValueError`` is raised, as Channels does, so that middleware can catch it. The outermost
    ``ProtocolTypeRouter`` answers if nothing has caught it: HTTP gets a 404, and so does the handshake of a WebSocket.
    A server that cannot send one then (daphne) accepts it, and closes with 4404. Both are logged. A router that a
    server calls without a ``ProtocolTypeRouter`` around it answers itself.
    A router inside another one leaves the path to the next route of the outer one.

    Differs from Channels' also in that it takes ``include()`` and pairs, finds routers behind middleware, leaves the
    route objects as they are, and does not try the next route when a consumer that is running raises Django's
    ``Resolver404``.

    Args:
        routes: Read once; changes to the list come too late.

    Raises:
        TypeError: An entry is no route, or leads to something that is no application.
        ValueError: A pattern that is to lead to a router is of a class that cannot match a prefix.
    """

    _path_routing = True

    def __init__(self, routes: Iterable[Any]) -> None:
        try:
            self.routes: tuple[Any, ...] = tuple(routes)
        except TypeError:
            raise TypeError(f"routes must be a list of path() and re_path() objects, got {routes!r}") from None
        self._entries = _entries(self.routes, "routes")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Run the application of the first route that matches.

        Raises:
            ValueError: No route matches and the answer is not given here, or the scope has no path.
        """
        path = scope.get("path_remaining", scope.get("path"))
        if path is None:
            raise ValueError("No 'path' key in connection scope, cannot route URLs")
        inner = "path_remaining" in scope
        if not inner:
            root_path = scope.get("root_path", "")
            if root_path and not path.startswith(root_path):
                return await _find_no_route(path, scope, receive, send)
            path = path[len(root_path) :]
        path = path.lstrip("/")
        for entry, match in _matches(self._entries, path):
            routed = _routed(scope, match)
            if not entry.may_decline:
                return await entry.application(routed, receive, send)
            watch = _Watch()
            try:
                return await entry.application(routed, watch.over(receive), watch.over(send))
            except Exception as error:
                if watch.started or not _says_no_route(error):
                    raise
        if inner:
            _decline(path)
        return await _find_no_route(path, scope, receive, send)


def _routed(scope: Scope, match: Match) -> Scope:
    rest, args, kwargs = match
    outer = scope.get("url_route", {})
    route = {"args": outer.get("args", ()) + args, "kwargs": {**outer.get("kwargs", {}), **kwargs}}
    return dict(scope, path_remaining=rest, url_route=route)


def _matches(entries: tuple[_Entry, ...], path: str) -> Iterator[tuple[_Entry, Match]]:
    """Yield the routes that match a path, in order, with what is left and what was captured on the way there."""
    for entry in entries:
        found = entry.match(path)
        if found is None:
            continue
        rest, args, captured = found
        kwargs = {**captured, **entry.defaults}
        if entry.children is None:
            yield entry, (rest, args, kwargs)
            continue
        for leaf, (left, inner_args, inner_kwargs) in _matches(
            entry.children, rest if entry.included else rest.lstrip("/")
        ):
            merged = {**kwargs, **inner_kwargs}
            kept = () if entry.included and merged else args
            yield leaf, (left, kept + inner_args, merged)


class _Watch:
    """Notices that an application has begun to run: it has asked for an event or sent one."""

    __slots__ = ("started",)

    def __init__(self) -> None:
        self.started = False

    def over(self, call: Any) -> Any:
        # A direct call of a router, as in a test, may pass None.
        if call is None:
            return None

        # A coroutine function, because async_to_sync wants one.
        async def watched(*args: Any) -> Any:
            self.started = True
            return await call(*args)

        return watched


class _NoRoute(ValueError):
    """A router has no route. That of an inner router is Django's ``Resolver404`` too if Django is in use."""


def _decline(path: str) -> NoReturn:
    no_route = _NoRoute
    if django_settings() is not None:
        no_route = twin_class(_NoRoute, "django.urls.exceptions", "Resolver404")
    raise no_route(f"No route found for path {path!r}.")


def _says_no_route(error: Exception) -> bool:
    django = sys.modules.get("django.urls.exceptions")
    return isinstance(error, _NoRoute) or (django is not None and isinstance(error, django.Resolver404))


def _can_answer(scope: Scope) -> bool:
    """Tell whether there is a server and a client to answer: a test that calls a router has no "asgi" in its scope."""
    return "asgi" in scope and scope.get("type") in ("websocket", "http")


async def _find_no_route(path: str, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer, or raise where a router or a test outside does that."""
    if _answered_outside.get() or not _can_answer(scope):
        raise _NoRoute(f"No route found for path {path!r}.")
    await _answer_no_route(scope, receive, send)


def _below(scope: Scope) -> str:
    root_path, path = scope.get("root_path"), scope.get("path", "")
    if not root_path:
        return ""
    if path.startswith(root_path):
        return f" below root_path {root_path!r}"
    return f", which does not begin with the server's root_path {root_path!r}: the proxy or the server takes it off"


async def _answer_no_route(scope: Scope, receive: Receive, send: Send) -> None:
    kind = scope["type"]
    logger.warning("no route found for %s path %r%s", kind, scope.get("path"), _below(scope))
    if kind == "http":
        await respond(send, "http.response", 404, *_NOT_FOUND)
    elif (await receive())["type"] != "websocket.connect":
        return
    elif can_be_answered(scope):
        await respond(send, "websocket.http.response", 404, *_NOT_FOUND)
    else:
        # The server would answer a close now with 403, which means something else. A browser sees the code of a close
        # only if the connection was open, and some fail the handshake if none of their subprotocols was chosen.
        offered = scope.get("subprotocols") or [None]
        await send({"type": "websocket.accept", "subprotocol": offered[0]})
        await send({"type": "websocket.close", "code": NO_ROUTE, "reason": "no route"})


def _entries(routes: Any, where: str) -> tuple[_Entry, ...]:
    return tuple(_entry(route, f"{where}[{index}]") for index, route in enumerate(routes))


def _entry(route: Any, where: str) -> _Entry:
    """Read one entry of a list of routes; ``where`` it stands is for the message of an error."""
    if isinstance(route, tuple) and len(route) == 2 and isinstance(route[0], str):
        application = _application(route[1], where)
        return _leaf(_SlashlessPath(route[0], is_endpoint=not leads_to_router(application)), {}, application)
    pattern: Any = getattr(route, "pattern", None)
    if hasattr(pattern, "match"):
        _warn_of_slash(pattern, where)
        if hasattr(route, "url_patterns"):
            inner = _entries(route.url_patterns, f"{where}.include")
            return _Entry(pattern.match, dict(route.default_kwargs), children=inner, included=True)
        if hasattr(route, "callback"):
            application = _application(route.callback, where)
            if leads_to_router(application):
                pattern = _as_prefix(pattern)
            return _leaf(pattern, dict(route.default_args or {}), application)
    raise TypeError(
        f"{where} must be a path() or re_path(), or a tuple of a path and an application or consumer class, "
        f"got {route!r}"
    )


def _warn_of_slash(pattern: Any, where: str) -> None:
    """Warn of a route that no path can match; what is included may begin with a slash."""
    route, regex = getattr(pattern, "_route", None), getattr(pattern, "_regex", None)
    written = route if isinstance(route, str) else getattr(regex, "pattern", regex)
    never = isinstance(written, str) and written.startswith("/" if isinstance(route, str) else "^/")
    if never and ".include" not in where:
        logger.warning("%s, %r, matches nothing: routes are compared without the slash at the start", where, written)


def _application(view: Any, where: str) -> Any:
    application = as_application(view)
    if not callable(application):
        raise TypeError(f"{where} must lead to an ASGI application, a consumer class or a URLRouter, got {view!r}")
    return application


def _leaf(pattern: Pattern, defaults: dict[str, Any], application: Any) -> _Entry:
    if isinstance(application, URLRouter) and type(application).__call__ is URLRouter.__call__:
        return _Entry(pattern.match, defaults, children=application._entries)
    may_decline = leads_to_router(application) or not leads_to_consumer(application)
    return _Entry(pattern.match, defaults, application, may_decline)


def _as_prefix(pattern: Any) -> Pattern:
    """Return a Django pattern that matches the start of a path; any other, of ours, knows what it matches."""
    if not getattr(pattern, "_is_endpoint", False):
        prefix: Pattern = pattern
        return prefix
    for source in ("_route", "_regex"):
        if hasattr(pattern, source):
            prefix = type(pattern)(getattr(pattern, source), pattern.name, is_endpoint=False)
            return prefix
    raise ValueError(f"Unsupported pattern type: {type(pattern)}")


class _SlashlessPath:
    """Matches a path as it is written, whatever slashes it has at either end; as a prefix, up to a slash."""

    def __init__(self, path: str, *, is_endpoint: bool) -> None:
        self._path = path.strip("/")
        self._is_prefix = not is_endpoint

    def match(self, path: str) -> Match | None:
        if path.strip("/") == self._path:
            return "", (), {}
        if self._is_prefix and (not self._path or path.startswith(self._path + "/")):
            return path[len(self._path) :], (), {}
        return None
