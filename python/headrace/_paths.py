"""What ``headrace.paths`` is made of, and what routers and middleware ask of an application.

``path()`` and ``re_path()`` match what their namesakes in ``django.urls`` match and capture what they capture; the
tests compare the two.
"""

import re
import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from inspect import iscoroutinefunction
from types import ModuleType
from typing import Any, Protocol, TypeAlias
from uuid import UUID

from headrace._settings import django_settings
from headrace.exceptions import ImproperlyConfigured

__all__ = [
    "Include",
    "Match",
    "Pattern",
    "Route",
    "as_application",
    "configuration_error",
    "include",
    "leads_to_consumer",
    "leads_to_router",
    "path",
    "re_path",
    "register_converter",
    "twin_class",
]

Match: TypeAlias = tuple[str, tuple[Any, ...], dict[str, Any]]
"""What is left of the path, the positional captures and the named ones."""

View: TypeAlias = Callable[..., Any] | tuple[Any, str | None, str | None]
"""An ASGI application, a consumer class or a router; or what ``include()`` returns."""

# Where a middleware keeps what it wraps: Channels', its OriginValidator and asgiref's, Starlette's, functools.wraps.
_WRAPS = ("inner", "application", "app", "__wrapped__")
# A chain of more is a loop.
_LONGEST_CHAIN = 64

_PARAMETER = re.compile(r"<(?:([^>:]+):)?([^>]+)>")
_WHITESPACE = frozenset(string.whitespace)


def configuration_error(message: str) -> ImproperlyConfigured:
    """Make an ``ImproperlyConfigured`` that Django's name catches as well, if Django is in use."""
    if django_settings() is None:
        return ImproperlyConfigured(message)
    error: ImproperlyConfigured = twin_class(ImproperlyConfigured, "django.core.exceptions", "ImproperlyConfigured")(
        message
    )
    return error


@cache
def twin_class(own: type[Exception], module: str, name: str) -> Any:
    """Make the class that is both an exception of ours and the one of that name in another package."""
    return type(own.__name__, (own, getattr(import_module(module), name)), {"__module__": own.__module__})


class Pattern(Protocol):
    """What decides whether a path is meant: Django's patterns and ours."""

    def match(self, path: str) -> Match | None:
        """Match the start of a path, or all of it; return what is left and what was captured."""


@dataclass(frozen=True)
class Route:
    """One way to an application; has the attributes of Django's ``URLPattern``."""

    pattern: Pattern
    callback: Any
    default_args: dict[str, Any] = field(default_factory=dict)
    name: str | None = None


@dataclass(frozen=True)
class Include:
    """A prefix to more routes; has the attributes of Django's ``URLResolver`` that a router reads."""

    pattern: Pattern
    url_patterns: Sequence[Any]
    default_kwargs: dict[str, Any] = field(default_factory=dict)
    callback: None = None


def path(
    route: str,
    view: View,
    kwargs: dict[str, Any] | None = None,
    name: str | None = None,
    *,
    endpoint: bool | None = None,
) -> Route | Include:
    """Make a route from a path such as ``"chat/<slug:room>/"``.

    A parameter is ``<name>`` or ``<converter:name>``; the converters are int, str (the default), slug, uuid, path and
    those of ``register_converter``. A path on which the converter raises ``ValueError`` is not matched.

    Differs from Django's: ``view`` may be a consumer class; and see ``endpoint``.

    Args:
        route: The path without its leading slash.
        view: An ASGI application, a consumer class, a ``URLRouter``, or ``include(...)``.
        kwargs: Put into ``scope["url_route"]["kwargs"]``, over what was captured.
        name: Kept; nothing here reads it.
        endpoint: Whether all of the path has to match. None: unless the view leads to a ``URLRouter``, itself or
            through middleware that keeps it in ``inner``, ``application``, ``app`` or ``__wrapped__``. Say False where
            a router is hidden deeper; it routes what is left of the path, ``scope["path_remaining"]``.

    Raises:
        ImproperlyConfigured: The route has whitespace in angle brackets, a name that is no identifier, a converter
            that nobody registered, or one name twice.
        TypeError: An argument is of the wrong kind.
    """
    return _route(_RoutePattern, route, view, kwargs, name=name, endpoint=endpoint)


def re_path(
    route: str,
    view: View,
    kwargs: dict[str, Any] | None = None,
    name: str | None = None,
    *,
    endpoint: bool | None = None,
) -> Route | Include:
    """Make a route from a regular expression, which may match anywhere in the path: anchor it with ``^``.

    Named groups are captured as keyword arguments, except those that took no part; only if there are none, all groups
    are captured as positional arguments. An expression that ends in ``$`` has to match the whole path, if it leads to
    an endpoint. The arguments are those of ``path()``.

    Raises:
        ImproperlyConfigured: The route is not a valid regular expression.
        TypeError: An argument is of the wrong kind.
    """
    return _route(_RegexPattern, route, view, kwargs, name=name, endpoint=endpoint)


def include(arg: Any, namespace: str | None = None) -> tuple[Any, str | None, str | None]:
    """Make the view of a ``path()`` that leads to more routes.

    What it returns is what Django's ``include()`` returns, so that either goes into either ``path()``.

    Args:
        arg: A list of routes; a module, or its dotted name, that has the list as ``urlpatterns``; or a pair of one of
            these and an application's name.
        namespace: Kept; nothing here reads it.

    Raises:
        ImproperlyConfigured: A tuple that is no pair, or a namespace without an application's name.
        ImportError: There is no such module.
    """
    app_name = None
    if isinstance(arg, tuple):
        if len(arg) != 2:
            raise configuration_error(f"include() takes a list of routes or a pair of it and an app_name, got {arg!r}")
        arg, app_name = arg
    target = import_module(arg) if isinstance(arg, str) else arg
    app_name = getattr(target, "app_name", app_name)
    if namespace and not app_name:
        raise configuration_error(f"include() with the namespace {namespace!r} needs an app_name as well")
    return target, app_name, namespace or app_name


def register_converter(converter: Callable[[], Any], type_name: str) -> None:
    """Let ``path()`` know one more converter, for routes that are made from now on.

    Differs from Django's: another converter under a name that is taken is refused (Django 5 warns, Django 6 refuses).

    Args:
        converter: A class whose instances have ``regex``, the expression that a value matches, and
            ``to_python(value)``, which makes of the text what is captured and raises ``ValueError`` for no match.
        type_name: What stands before the colon in a route.

    Raises:
        ValueError: The name is taken by another class.
        TypeError: The instance lacks one of the two.
    """
    made = converter()
    if not isinstance(getattr(made, "regex", None), str) or not callable(getattr(made, "to_python", None)):
        raise TypeError(f"a converter needs a regex and a method to_python, {converter!r} lacks one of them")
    known = _converters.get(type_name)
    # By name, because a module that is imported anew makes its class anew.
    if known is not None and _class_name(known) != _class_name(made):
        raise ValueError(f"Converter {type_name!r} is already registered, as {type(known)!r}; choose another name")
    _converters[type_name] = made


def as_application(view: Any) -> Any:
    """Return the ASGI application of a consumer class; return anything else as it is.

    Raises:
        TypeError: It is an instance of a consumer class, which several connections would share.
    """
    make = getattr(view, "as_asgi", None)
    if make is None:
        return view
    if not isinstance(view, type):
        kind = type(view).__name__
        raise TypeError(
            f"an instance of {kind} serves one connection; route to the class {kind} or to {kind}.as_asgi()"
        )
    # A socket server's as_asgi is the application itself.
    return make if iscoroutinefunction(make) else make()


def leads_to_router(application: Any) -> bool:
    """Tell whether a router that matches paths stands behind an application, through any middleware.

    A router, or anything that routes what is left of the path, has the attribute ``_path_routing`` set to True, as in
    Channels.
    """
    return any(getattr(each, "_path_routing", False) is True for each in _chain(application))


def leads_to_consumer(application: Any) -> bool:
    """Tell whether a consumer stands behind an application, through any middleware."""
    return any(hasattr(type(each), "as_asgi") or "consumer_class" in _attributes(each) for each in _chain(application))


def _chain(application: Any) -> Iterator[Any]:
    """Yield an application and all that it wraps, breadth first."""
    chain = [application]
    for each in chain:
        yield each
        attributes = _attributes(each)
        chain += [attributes[name] for name in _WRAPS if name in attributes][: _LONGEST_CHAIN - len(chain)]


def _attributes(application: Any) -> dict[str, Any]:
    # Not getattr(): properties have effects, and a mock has whatever it is asked for.
    return {} if isinstance(application, type) else getattr(application, "__dict__", {})


def _route(
    pattern: type["_RoutePattern"] | type["_RegexPattern"],
    route: str,
    view: Any,
    kwargs: dict[str, Any] | None,
    *,
    name: str | None,
    endpoint: bool | None,
) -> Route | Include:
    if not isinstance(route, str):
        raise TypeError(f"route must be a str, got {route!r}; for a translated one use Django's path()")
    if kwargs is not None and not isinstance(kwargs, dict):
        raise TypeError(f"kwargs argument must be a dict, but got {type(kwargs).__name__}.")
    if isinstance(view, tuple) and len(view) == 3:
        return Include(pattern(route, is_endpoint=False), _included(view[0]), dict(kwargs or {}))
    application = as_application(view)
    if not callable(application):
        raise TypeError(
            f"the view of {route!r} must be an ASGI application, a consumer class, a URLRouter or include(...), "
            f"got {view!r}"
        )
    if endpoint is None:
        endpoint = not leads_to_router(application)
    return Route(pattern(route, is_endpoint=endpoint), application, dict(kwargs or {}), name)


def _included(target: Any) -> Sequence[Any]:
    routes = getattr(target, "urlpatterns", target)
    if isinstance(routes, list | tuple):
        return routes
    what = f"the module {target.__name__} has no list urlpatterns" if isinstance(target, ModuleType) else repr(target)
    raise configuration_error(f"include() takes a list of routes, or a module that has one as urlpatterns; got {what}")


class _RoutePattern:
    """Matches a path with parameters in angle brackets, from its start."""

    def __init__(self, route: str, *, is_endpoint: bool) -> None:
        self._route = route
        expression, self._converters = _expression(route)
        self._regex = _compile(expression + (r"\Z" if is_endpoint else ""), route)
        if self._regex.groupindex.keys() != self._converters.keys():
            raise configuration_error(f"the path {route!r} has a converter whose regex has named groups of its own")

    def match(self, path: str) -> Match | None:
        found = self._regex.match(path)
        if found is None:
            return None
        captured = found.groupdict()
        try:
            for name, converter in self._converters.items():
                captured[name] = converter.to_python(captured[name])
        except ValueError:
            return None
        return path[found.end() :], (), captured

    def __repr__(self) -> str:
        return repr(self._route)


class _RegexPattern:
    """Matches a regular expression, anywhere in the path."""

    def __init__(self, route: str, *, is_endpoint: bool) -> None:
        self._regex = _compile(route, route)
        self._match = self._regex.fullmatch if is_endpoint and route.endswith("$") else self._regex.search

    def match(self, path: str) -> Match | None:
        found = self._match(path)
        if found is None:
            return None
        named = found.groupdict()
        taken = {name: text for name, text in named.items() if text is not None}
        return path[found.end() :], () if named else found.groups(), taken

    def __repr__(self) -> str:
        return repr(self._regex.pattern)


def _expression(route: str) -> tuple[str, dict[str, Any]]:
    """Make of a path its regular expression and the converter of each of its parameters."""
    parts = []
    converters: dict[str, Any] = {}
    done = 0
    for found in _PARAMETER.finditer(route):
        converter, name = found[1] or "str", found[2]
        if not _WHITESPACE.isdisjoint(found[0]):
            raise configuration_error(f"the path {route!r} has whitespace in {found[0]!r}; write <converter:name>")
        if not name.isidentifier():
            raise configuration_error(f"the path {route!r} has the parameter {name!r}, which is no Python identifier")
        if converter not in _converters:
            raise configuration_error(
                f"the path {route!r} has the converter {converter!r}, which is not registered; "
                f"there are {', '.join(_converters)}"
            )
        converters[name] = _converters[converter]
        parts += [re.escape(route[done : found.start()]), f"(?P<{name}>{_converters[converter].regex})"]
        done = found.end()
    return "".join([*parts, re.escape(route[done:])]), converters


def _compile(expression: str, route: str) -> re.Pattern[str]:
    try:
        return re.compile(expression)
    except re.error as error:
        raise configuration_error(f"{route!r} does not make a valid regular expression: {error}") from error


def _class_name(thing: object) -> tuple[str, str]:
    return type(thing).__module__, type(thing).__qualname__


class _Text:
    """A converter that captures the text itself."""

    def __init__(self, regex: str) -> None:
        self.regex = regex

    def to_python(self, value: str) -> str:
        return value


class _Int:
    regex = "[0-9]+"

    def to_python(self, value: str) -> int:
        return int(value)


class _Uuid:
    regex = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"

    def to_python(self, value: str) -> UUID:
        return UUID(value)


# Read when a route is made.
_converters: dict[str, Any] = {
    "int": _Int(),
    "str": _Text("[^/]+"),
    "slug": _Text("[-a-zA-Z0-9_]+"),
    "uuid": _Uuid(),
    "path": _Text(".+"),
}
