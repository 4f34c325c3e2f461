"""The routes of headrace match what Django's match, and say at once what is wrong with them."""

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import headrace._paths
from headrace._paths import (
    Include,
    Match,
    Route,
    as_application,
    configuration_error,
    leads_to_consumer,
    leads_to_router,
)
from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.middleware import BaseMiddleware
from headrace.paths import ImproperlyConfigured, include, path, re_path, register_converter
from headrace.routing import URLRouter

UUID_TEXT = "075194d3-6885-417e-a8a8-6c931e272f00"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Stand for any application."""


class Consumer:
    """Stand for a consumer: what makes one is ``as_asgi``."""

    @classmethod
    def as_asgi(cls, **initkwargs: Any) -> Any:
        async def application(scope: Any, receive: Any, send: Any) -> Any:
            return cls

        application.consumer_class = cls  # type: ignore[attr-defined]  # as Channels' as_asgi() sets it
        return application


@pytest.fixture
def _own_converters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headrace._paths, "_converters", dict(headrace._paths._converters))


def match(route: Route | Include, text: str) -> Match | None:
    return route.pattern.match(text)


# As Django does it.

PIECES = ["chat", "a.b", "+", "/", "(x)", "$", "^", "ä", "", "<", ">", "<:x>", "[", "\n", "-"]
PARAMETERS = [
    *("<int:number>", "<str:text>", "<plain>", "<slug:slug>", "<path:rest>", "<uuid:id>"),
    *("<int: number>", "<int:1a>", "<what:name>", "<a-b>", "< a>", "<class>", "<str:ä>", "<int:a:b>", "<>"),
]
ROUTES = st.lists(st.sampled_from(PIECES + PARAMETERS), max_size=5).map("".join)
VALUES = ["0", "42", "٣", "room-1", "ä", "a/b", UUID_TEXT, UUID_TEXT.upper(), "9" * 4301, " ", "%20"]
PATHS = st.lists(st.sampled_from(PIECES + VALUES), max_size=6).map("".join)


def outcome(make: Any, text: str) -> Any:
    """Match, and return what came of it; a route that cannot be is None, whenever that is found out."""
    from django.core.exceptions import ImproperlyConfigured as DjangoImproperlyConfigured

    try:
        found = make().match(text)
    except (ImproperlyConfigured, DjangoImproperlyConfigured, re.error):
        return "impossible"
    return found and tuple(found)


@given(route=ROUTES, text=PATHS, endpoint=st.booleans())
@example(route="<int:a>/<int:a>", text="1/2", endpoint=True)
@example(route="chat/<slug:room>/", text="chat/blue-1/rest", endpoint=False)
@example(route="<int:number>", text="9" * 4301, endpoint=True)
@example(route="chat", text="chat\n", endpoint=True)
def test_a_path_matches_what_djangos_matches(route: str, text: str, endpoint: bool) -> None:
    from django.urls.resolvers import RoutePattern

    ours = outcome(lambda: path(route, app, endpoint=endpoint).pattern, text)
    assert ours == outcome(lambda: RoutePattern(route, is_endpoint=endpoint), text)


EXPRESSIONS = st.lists(
    st.sampled_from(
        [
            *("^", "$", r"\$", r"\Z", "chat", "/", r"(\d+)", r"(?P<room>\w+)", r"(?P<room>\w+)?", "(?:a|b)", "|"),
            *(".*", "(", "(x)?", "(?i)", "[a-z]+", "^chat/", "$"),
        ]
    ),
    max_size=5,
).map("".join)
TEXTS = st.lists(st.sampled_from(["chat", "/", "12", "blue", "a", "x", "\n", "$", ""]), max_size=6).map("".join)


@given(route=EXPRESSIONS, text=TEXTS, endpoint=st.booleans())
@example(route=r"^chat/(?P<room>\w+)/$", text="chat/blue/\n", endpoint=True)
@example(route=r"(?P<room>x)?(\d+)", text="12", endpoint=True)
@example(route=r"chat", text="a/chat/b", endpoint=True)
@example(route=r"a|chat$", text="a/x", endpoint=True)
def test_a_regular_expression_matches_what_djangos_matches(route: str, text: str, endpoint: bool) -> None:
    from django.urls.resolvers import RegexPattern

    ours = outcome(lambda: re_path(route, app, endpoint=endpoint).pattern, text)
    assert ours == outcome(lambda: RegexPattern(route, is_endpoint=endpoint), text)


# What is captured.


@pytest.mark.parametrize(
    ("route", "text", "captured"),
    [
        ("<int:n>", "042", {"n": 42}),
        ("<str:s>", "a b", {"s": "a b"}),
        ("<s>", "x", {"s": "x"}),
        ("<slug:s>/", "a_B-1/", {"s": "a_B-1"}),
        ("<path:p>", "a/b//c", {"p": "a/b//c"}),
        ("<uuid:u>", UUID_TEXT, {"u": UUID(UUID_TEXT)}),
        ("<a>.<b>", "x.y.z", {"a": "x.y", "b": "z"}),
    ],
)
def test_a_parameter_is_converted(route: str, text: str, captured: dict[str, Any]) -> None:
    assert match(path(route, app), text) == ("", (), captured)


@pytest.mark.parametrize(
    ("route", "text"),
    [("<int:n>", "x"), ("<s>", "a/b"), ("<s>", ""), ("<slug:s>", "ä"), ("<uuid:u>", UUID_TEXT.upper()), ("a", "ab")],
)
def test_what_a_parameter_cannot_be_is_not_matched(route: str, text: str) -> None:
    assert match(path(route, app), text) is None


@pytest.mark.usefixtures("_own_converters")
def test_a_registered_converter_converts_and_may_decline() -> None:
    class Even:
        regex = "[0-9]+"

        def to_python(self, value: str) -> int:
            if int(value) % 2:
                raise ValueError(value)
            return int(value)

    register_converter(Even, "even")
    route = path("<even:n>", app)
    assert match(route, "4") == ("", (), {"n": 4})
    assert match(route, "5") is None
    register_converter(Even, "even")


@pytest.mark.usefixtures("_own_converters")
def test_a_converter_of_a_taken_name_is_refused() -> None:
    class Other:
        regex = "x"

        def to_python(self, value: str) -> str:
            return value

    with pytest.raises(ValueError, match=r"^Converter 'int' is already registered"):
        register_converter(Other, "int")


@pytest.mark.usefixtures("_own_converters")
def test_what_is_no_converter_is_refused() -> None:
    with pytest.raises(TypeError, match="needs a regex and a method to_python"):
        register_converter(dict, "dict")


@pytest.mark.usefixtures("_own_converters")
def test_a_converter_with_named_groups_is_refused_by_the_path() -> None:
    class Named:
        regex = "(?P<inside>x)"

        def to_python(self, value: str) -> str:
            return value

    register_converter(Named, "named")
    with pytest.raises(ImproperlyConfigured, match="named groups of its own"):
        path("<named:x>", app)


@pytest.mark.parametrize(
    ("route", "text"),
    [
        ("<int: n>", "whitespace in '<int: n>'"),
        ("<int:1>", "parameter '1', which is no Python identifier"),
        ("<room:x>", "converter 'room', which is not registered; there are int, str"),
        ("<a>/<a>", "valid regular expression: redefinition of group name"),
    ],
)
def test_a_path_that_cannot_be_says_so_when_it_is_made(route: str, text: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=text):
        path(route, app)


def test_an_expression_that_is_none_says_so_when_it_is_made() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"'\(' does not make a valid regular expression"):
        re_path("(", app)


# What a route leads to.


def test_a_consumer_class_becomes_its_application() -> None:
    route = path("x", Consumer, {"a": 1}, name="x")
    assert isinstance(route, Route)
    assert route.callback.consumer_class is Consumer
    assert (route.default_args, route.name) == ({"a": 1}, "x")


def test_a_class_whose_as_asgi_is_the_application_becomes_it() -> None:
    class Server:
        @classmethod
        async def as_asgi(cls, scope: Any, receive: Any, send: Any) -> None: ...

    assert as_application(Server) == Server.as_asgi


@pytest.mark.parametrize("view", [None, "app", [app], (app,), 5])
def test_a_view_that_is_no_application_is_refused(view: Any) -> None:
    with pytest.raises(TypeError, match="the view of 'x' must be an ASGI application"):
        path("x", view)


def test_arguments_of_the_wrong_kind_are_refused() -> None:
    with pytest.raises(TypeError, match="route must be a str, got 5"):
        path(5, app)  # type: ignore[arg-type]  # what is tested
    with pytest.raises(TypeError, match=r"kwargs argument must be a dict, but got list\."):
        path("x", app, [])  # type: ignore[arg-type]  # what is tested


def wraps_in(attribute: str, inner: Any) -> Any:
    class Wrapper:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    wrapper = Wrapper()
    setattr(wrapper, attribute, inner)
    return wrapper


def routers() -> Iterator[Any]:
    router = URLRouter([])
    yield router
    yield BaseMiddleware(BaseMiddleware(router))
    for attribute in ("inner", "application", "app", "__wrapped__"):
        yield wraps_in(attribute, router)

    async def marked(scope: Any, receive: Any, send: Any) -> None: ...

    marked._path_routing = True  # type: ignore[attr-defined]  # how an application says that it routes
    yield marked


@pytest.mark.parametrize("router", list(routers()))
def test_a_router_is_found_behind_what_wraps_it(router: Any) -> None:
    assert leads_to_router(router)
    assert match(path("chat/", router), "chat/blue/") == ("blue/", (), {})
    assert match(re_path("^chat/$", router, endpoint=True), "chat/blue/") is None
    assert match(path("chat/", router, endpoint=True), "chat/blue/") is None


def test_a_router_that_is_hidden_is_given_a_prefix_by_endpoint() -> None:
    router = URLRouter([])

    async def hides(scope: Any, receive: Any, send: Any) -> None:
        await router(scope, receive, send)

    assert match(path("chat/", hides), "chat/blue/") is None
    assert match(path("chat/", hides, endpoint=False), "chat/blue/") == ("blue/", (), {})


def test_what_wraps_itself_or_answers_to_any_name_leads_nowhere() -> None:
    from unittest.mock import Mock

    loop = wraps_in("inner", None)
    loop.inner = loop.app = loop
    assert not leads_to_router(loop)
    assert not leads_to_consumer(loop)
    assert not leads_to_router(Mock())


def test_a_consumer_is_found_behind_what_wraps_it() -> None:
    assert leads_to_consumer(BaseMiddleware(Consumer))
    assert leads_to_consumer(Consumer())
    assert not leads_to_consumer(app)


# include().


def test_include_takes_a_list_a_module_its_name_or_a_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import ModuleType

    routes = [path("x", app)]
    module = ModuleType("included_routes")
    module.urlpatterns, module.app_name = routes, "chat"  # type: ignore[attr-defined]  # as a module of routes has
    monkeypatch.setitem(sys.modules, "included_routes", module)
    assert include(routes) == (routes, None, None)
    assert include((routes, "name")) == (routes, "name", "name")
    assert include(module, namespace="n") == (module, "chat", "n")
    assert include("included_routes") == (module, "chat", "chat")
    for given_ in (include(routes), include(module), include("included_routes")):
        included = path("a/", given_, {"b": 1})
        assert isinstance(included, Include)
        assert (included.url_patterns, included.default_kwargs) == (routes, {"b": 1})
        assert match(included, "a/x") == ("x", (), {})


def test_include_of_what_is_no_list_of_routes_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="the module re has no list urlpatterns"):
        path("x", include("re"))
    with pytest.raises(ImproperlyConfigured, match="got 5"):
        path("x", include(5))
    with pytest.raises(ImproperlyConfigured, match="a pair of it and an app_name"):
        include(([], "a", "b"))
    with pytest.raises(ImproperlyConfigured, match="needs an app_name"):
        include([], namespace="n")


# With Django in use, and without.


def test_a_mistake_is_a_value_error_without_django() -> None:
    error = configuration_error("wrong")
    assert type(error) is ImproperlyConfigured
    assert isinstance(error, ValueError)


def test_a_mistake_is_djangos_error_too_with_django() -> None:
    program = """
from django.conf import settings
settings.configure()
from django.core.exceptions import ImproperlyConfigured as Djangos
from django.urls import include as djangos_include, path as djangos_path
from headrace.paths import ImproperlyConfigured, include, path

async def app(scope, receive, send): ...

try:
    path("<what:x>", app)
except Djangos as error:
    assert isinstance(error, ImproperlyConfigured)
    assert type(error).__name__ == "ImproperlyConfigured"
ours = [path("x", app)]
assert path("a/", djangos_include(ours)).url_patterns is ours
assert djangos_path("a/", include(ours)).url_patterns is ours
print("done")
"""
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=50, check=False
    )
    assert (process.stderr, process.stdout) == ("", "done\n")


def test_making_routes_imports_no_django() -> None:
    program = """
import sys
from headrace.paths import path, re_path
from headrace.paths import ImproperlyConfigured, include, path, re_path, register_converter
from headrace.routing import URLRouter

async def app(scope, receive, send): ...

URLRouter([path("<int:x>", app), re_path("^x$", app)])
try:
    path("<what:x>", app)
except ValueError:
    print(any(name.partition(".")[0] == "django" for name in sys.modules))
"""
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False)
    assert (process.stderr, process.stdout) == ("", "False\n")


def test_a_route_shows_what_it_matches() -> None:
    assert "pattern='<int:x>/'" in repr(path("<int:x>/", app))
    assert r"pattern='^x$'" in repr(re_path("^x$", app))


def test_an_instance_of_a_consumer_is_no_view() -> None:
    """Several connections would share it."""
    with pytest.raises(
        TypeError, match="an instance of AsyncWebsocketConsumer serves one connection; route to the class"
    ):
        path("ws/", AsyncWebsocketConsumer())
