"""Routers choose one application, by rules that are Channels', and never start two."""

import asyncio
import logging
import subprocess
import sys
import textwrap
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.middleware import BaseMiddleware
from headrace.paths import ImproperlyConfigured, include, path, re_path
from headrace.routing import ChannelNameRouter, ProtocolTypeRouter, URLRouter, get_default_application

NOBODY: Any = None
"""Stands for ``receive`` and ``send`` where neither may be called."""


class App:
    """An application that returns its name and keeps the scopes that it ran with."""

    def __init__(self, name: str = "app") -> None:
        self.name = name
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> str:
        self.scopes.append(scope)
        return self.name

    @property
    def route(self) -> Any:
        scope = self.scopes[-1]
        return scope["url_route"]["args"], scope["url_route"]["kwargs"], scope["path_remaining"]


async def route(router: Any, path: str, **scope: Any) -> Any:
    return await router({"type": "websocket", "path": path, **scope}, NOBODY, NOBODY)


async def has_no_route(router: Any, path: str, **scope: Any) -> None:
    with pytest.raises(ValueError, match=r"^No route found for path '"):
        await route(router, path, **scope)


# By type and by channel.


async def test_a_scope_goes_to_the_application_of_its_type() -> None:
    router = ProtocolTypeRouter({"websocket": App("ws"), "http": App("http")})
    assert await router({"type": "websocket"}, NOBODY, NOBODY) == "ws"
    assert await router({"type": "http"}, NOBODY, NOBODY) == "http"


async def test_a_scope_of_no_application_is_a_value_error() -> None:
    router = ProtocolTypeRouter({"websocket": App()})
    text = r"^No application configured for scope type 'lifespan'; there are 'websocket'$"
    with pytest.raises(ValueError, match=text):
        await router({"type": "lifespan"}, NOBODY, NOBODY)
    with pytest.raises(ValueError, match=r"^No application configured for scope type 'http'$"):
        await ProtocolTypeRouter({})({"type": "http"}, NOBODY, NOBODY)
    with pytest.raises(KeyError):
        await router({}, NOBODY, NOBODY)


async def test_a_message_of_a_worker_goes_to_the_application_of_its_channel() -> None:
    router = ChannelNameRouter({"thumbnails": App("thumbnails")})
    assert await router({"type": "channel", "channel": "thumbnails"}, NOBODY, NOBODY) == "thumbnails"
    with pytest.raises(ValueError, match=r"^No application configured for channel name 'mail'; there are 'thumbnails'"):
        await router({"type": "channel", "channel": "mail"}, NOBODY, NOBODY)
    with pytest.raises(ValueError, match=r"^ChannelNameRouter got a scope without a 'channel' key\. Did you make sure"):
        await router({"type": "channel"}, NOBODY, NOBODY)


@pytest.mark.parametrize("router", [ProtocolTypeRouter, ChannelNameRouter])
def test_a_mapping_that_is_none_is_refused(router: Any) -> None:
    with pytest.raises(TypeError, match=r"application_mapping must be a mapping .*, got \['x'\]"):
        router(["x"])
    with pytest.raises(TypeError, match=r"application_mapping\['x'\] must be an ASGI application .*, got None"):
        router({"x": None})


@pytest.mark.parametrize("router", [ProtocolTypeRouter, ChannelNameRouter])
def test_the_mapping_stays_the_callers_own(router: Any) -> None:
    mapping = {"x": App()}
    assert router(mapping).application_mapping is mapping


class Echoes(AsyncWebsocketConsumer):
    """Says at once where it was routed to."""

    async def connect(self) -> None:
        await self.accept()
        await self.send(text_data=repr(self.scope["url_route"]["kwargs"]))
        await self.close()


async def events(app: Any, scope: dict[str, Any]) -> list[Any]:
    """Run an application until it has closed the connection; return what it sent."""
    incoming = [{"type": "websocket.disconnect", "code": 1000}, {"type": "websocket.connect"}]
    sent: list[Any] = []
    closed = asyncio.Event()

    async def receive() -> Any:
        if len(incoming) == 1:
            await closed.wait()
        return incoming.pop()

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "websocket.close":
            closed.set()

    await app({"type": "websocket", **scope}, receive, send)
    return sent


@pytest.mark.parametrize(
    "router",
    [
        URLRouter([path("ws/", Echoes)]),
        URLRouter([("/ws/", Echoes)]),
        URLRouter([path("ws/", Echoes.as_asgi())]),
        URLRouter([path("ws/", BaseMiddleware(Echoes))]),
        URLRouter([path("", URLRouter([path("ws/", Echoes)]))]),
        URLRouter([path("", BaseMiddleware(URLRouter([path("ws/", Echoes)])))]),
        ProtocolTypeRouter({"websocket": URLRouter([("/ws", Echoes)])}),
    ],
)
async def test_a_consumer_class_is_run(router: Any) -> None:
    sent = await events(router, {"path": "/ws/"})
    assert [each["type"] for each in sent] == ["websocket.accept", "websocket.send", "websocket.close"]
    assert sent[1]["text"] == "{}"


async def test_protocol_and_channel_routers_run_a_consumer_class() -> None:
    consumer = type("Here", (Echoes,), {"connect": Echoes.close})
    assert await events(ProtocolTypeRouter({"websocket": consumer}), {}) == [{"type": "websocket.close"}]
    assert await events(ChannelNameRouter({"c": consumer}), {"channel": "c"}) == [{"type": "websocket.close"}]


# By path.


async def test_the_first_route_that_matches_has_it() -> None:
    router = URLRouter(
        [
            path("", App("root")),
            path("foo/", App("foo")),
            re_path(r"bar", App("bar")),
            re_path(r"^named/(?P<name>\w+)/$", App("named")),
            path("foo/", App("late")),
        ]
    )
    assert await route(router, "/") == "root"
    assert await route(router, "/foo/") == "foo"
    assert await route(router, "/a/bar/b") == "bar"
    assert await route(router, "/named/x/") == "named"
    await has_no_route(router, "/foo")
    await has_no_route(router, "/nothing/")


async def test_captures_stand_in_the_scope() -> None:
    named, unnamed, converted = App(), App(), App()
    router = URLRouter(
        [
            re_path(r"^named/(?P<name>\w+)/(\d)?", named),
            re_path(r"^unnamed/(\w+)/(\d+)/", unnamed),
            path("converted/<int:number>/", converted),
        ]
    )
    await route(router, "/named/x/1/rest")
    assert named.route == ((), {"name": "x"}, "/rest")
    await route(router, "/unnamed/x/1/")
    assert unnamed.route == (("x", "1"), {}, "")
    await route(router, "/converted/42/")
    assert converted.route == ((), {"number": 42}, "")


async def test_the_kwargs_of_a_route_win_over_what_it_captured() -> None:
    app = App()
    await route(URLRouter([path("<name>/", app, {"name": "given", "more": 1})]), "/captured/")
    assert app.route == ((), {"name": "given", "more": 1}, "")


async def test_what_a_connection_is_told_reaches_no_other_one() -> None:
    app = App()
    router = URLRouter([path("x/", app, {"a": 1})])
    await route(router, "/x/")
    app.scopes[0]["url_route"]["kwargs"]["a"] = 2
    await route(router, "/x/")
    assert app.route == ((), {"a": 1}, "")


async def test_the_scope_of_the_caller_is_left_as_it_is() -> None:
    scope = {"type": "websocket", "path": "/x/", "url_route": {"args": ("a",), "kwargs": {"b": 1}}}
    before = {**scope, "url_route": {"args": ("a",), "kwargs": {"b": 1}}}
    await URLRouter([path("<c>/", App())])(scope, NOBODY, NOBODY)
    assert scope == before


async def test_what_outer_routers_captured_is_kept_and_overruled_by_inner_ones() -> None:
    app = App()
    await route(
        URLRouter([re_path(r"(\w)/(?:\w)/$", app), path("<both>/", app)]),
        "/x/",
        url_route={"args": ("outer",), "kwargs": {"both": "outer", "kept": 1}},
    )
    assert app.route == (("outer",), {"both": "x", "kept": 1}, "")
    await route(URLRouter([re_path(r"(\w)/(\w)/$", app)]), "/x/y/", url_route={"args": ("outer",)})
    assert app.route == (("outer", "x", "y"), {}, "")


async def test_all_slashes_at_the_start_of_a_path_are_ignored() -> None:
    assert await route(URLRouter([path("x/", App("x"))]), "///x/") == "x"


async def test_a_scope_without_a_path_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"^No 'path' key in connection scope, cannot route URLs$"):
        await URLRouter([])({"type": "websocket"}, NOBODY, NOBODY)
    with pytest.raises(ValueError, match="cannot route URLs"):
        await URLRouter([])({"type": "websocket", "path": None}, NOBODY, NOBODY)


async def test_the_root_path_is_taken_off_and_has_to_be_there() -> None:
    inner = URLRouter([path("b/", App())])
    for routes in ([path("a/b/", App())], [path("a/", inner)], [path("a/", BaseMiddleware(inner))]):
        router = URLRouter(routes)
        assert await route(router, "/mounted/a/b/", root_path="/mounted") == "app"
        await has_no_route(router, "/elsewhere/a/b/", root_path="/mounted")
        await has_no_route(router, "/a/b/", root_path="/mounted")


async def test_the_error_names_the_path_that_was_looked_for() -> None:
    with pytest.raises(ValueError, match=r"^No route found for path 'x/'\.$"):
        await route(URLRouter([]), "/mounted/x/", root_path="/mounted")
    with pytest.raises(ValueError, match=r"^No route found for path '/x/'\.$"):
        await route(URLRouter([]), "/x/", root_path="/mounted")


# Pairs of a path and an application.


@pytest.mark.parametrize("written", ["/ws/chat/", "/ws/chat", "ws/chat/", "ws/chat"])
@pytest.mark.parametrize("asked", ["/ws/chat/", "/ws/chat", "//ws/chat//"])
async def test_the_path_of_a_pair_matches_whatever_its_slashes(written: str, asked: str) -> None:
    app = App()
    assert await route(URLRouter([(written, app)]), asked) == "app"
    assert app.route == ((), {}, "")


@pytest.mark.parametrize("asked", ["/ws/", "/ws/chat/more/", "/ws/chatter/", "/a/ws/chat/", "/WS/chat/"])
async def test_the_path_of_a_pair_matches_nothing_else(asked: str) -> None:
    await has_no_route(URLRouter([("/ws/chat/", App())]), asked)


async def test_a_pair_is_no_pattern() -> None:
    router = URLRouter([("/<a>/.*/", App("pair"))])
    assert await route(router, "/<a>/.*/") == "pair"
    await has_no_route(router, "/x/y/")


async def test_pairs_and_paths_stand_in_one_list() -> None:
    router = URLRouter([("/", App("root")), path("x/<int:n>/", App("path")), ("/x/y/", App("pair"))])
    assert await route(router, "/") == "root"
    assert await route(router, "/x/1/") == "path"
    assert await route(router, "/x/y") == "pair"


async def test_a_pair_that_leads_to_a_router_is_a_prefix_up_to_a_slash() -> None:
    router = URLRouter([("/api/", URLRouter([("/x/", App("x"))])), ("/", BaseMiddleware(URLRouter([("y", App("y"))])))])
    assert await route(router, "/api/x/") == "x"
    assert await route(router, "/y") == "y"
    await has_no_route(router, "/apix/")


# Routers in routers.

NESTS = [
    pytest.param(lambda router: router, id="right behind it"),
    pytest.param(BaseMiddleware, id="behind middleware"),
    pytest.param(lambda router: BaseMiddleware(BaseMiddleware(router)), id="behind two"),
    pytest.param(lambda router: type("Sub", (URLRouter,), {"__call__": router.__call__})([]), id="a subclass"),
]


@pytest.mark.parametrize("nest", NESTS)
async def test_routers_in_routers_take_the_path_apart(nest: Any) -> None:
    app = App()
    innermost = URLRouter([re_path(r"^(\d+)/$", app), path("end/", app, {"where": "innermost"})])
    inner = URLRouter([path("<slug:room>/", nest(innermost), {"where": "inner"})])
    router = URLRouter([re_path(r"^(?P<first>\w)/(\w)?", nest(inner)), re_path(r"^plain/(\d)/", nest(inner))])
    await route(router, "/a/b/room/7/")
    assert app.route == (("7",), {"first": "a", "room": "room", "where": "inner"}, "")
    await route(router, "/plain/1/room/end/")
    assert app.route == (("1",), {"room": "room", "where": "innermost"}, "")
    await has_no_route(router, "/a/b/room/seven/")


@pytest.mark.parametrize("nest", NESTS)
async def test_a_router_that_has_no_route_leaves_the_path_to_the_next_one(nest: Any) -> None:
    app = App("second")
    router = URLRouter(
        [
            path("x/", nest(URLRouter([path("a/", App("first")), path("deep/", nest(URLRouter([])))]))),
            path("x/", nest(URLRouter([path("b/", app), path("deep/", app)]))),
            path("x/c/", App("third")),
        ]
    )
    assert await route(router, "/x/a/") == "first"
    assert await route(router, "/x/b/") == "second"
    assert await route(router, "/x/deep/") == "second"
    assert app.route == ((), {}, "")
    assert await route(router, "/x/c/") == "third"
    await has_no_route(router, "/x/d/")


@pytest.mark.parametrize("nest", NESTS)
async def test_slashes_between_routers_are_ignored(nest: Any) -> None:
    assert await route(URLRouter([path("x", nest(URLRouter([path("y/", App("y"))])))]), "/x//y/") == "y"


async def test_a_router_asked_for_what_is_left_of_a_path_looks_at_nothing_else() -> None:
    app = App()
    await route(URLRouter([path("y/", app)]), "/x/y/", path_remaining="/y/", root_path="/nowhere")
    assert app.route == ((), {}, "")


async def test_an_inner_router_alone_says_that_it_has_no_route() -> None:
    with pytest.raises(ValueError, match=r"^No route found for path 'y/'\.$"):
        await route(URLRouter([]), "/x/y/", path_remaining="y/", asgi={})


async def test_a_router_hidden_in_a_function_is_found_by_a_pattern_that_is_open() -> None:
    inner = URLRouter([path("b/", App("b"))])

    async def hides(scope: Any, receive: Any, send: Any) -> Any:
        return await inner(scope, receive, send)

    routes = [re_path("^x/", hides), path("y/", hides, endpoint=False), path("<path:rest>", App("rest"))]
    router = URLRouter(routes)
    assert await route(router, "/x/b/") == "b"
    assert await route(router, "/y/b/") == "b"
    assert await route(router, "/y/c/") == "rest"


class Missing(Exception):
    """Stands for what a running consumer raises."""


@pytest.mark.parametrize("act", ["receive", "send"])
@pytest.mark.parametrize("nest", [BaseMiddleware, lambda app: app])
async def test_no_other_route_is_tried_once_an_application_runs(act: str, nest: Any) -> None:
    """Even if what it raises is a router's own: it runs one with the path that was left."""
    later = App()

    async def running(scope: Any, receive: Any, send: Any) -> None:
        await (receive() if act == "receive" else send({"type": "websocket.accept"}))
        await URLRouter([])(scope, receive, send)

    with pytest.raises(ValueError, match=r"^No route found for path ''\.$"):
        await events(URLRouter([path("x/", nest(running)), path("x/", later)]), {"path": "/x/"})
    assert later.scopes == []


async def test_an_error_of_an_application_goes_on_as_it_is() -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise Missing

    with pytest.raises(Missing):
        await route(URLRouter([path("x/", fails), path("x/", App())]), "/x/")


# include() of our own.


async def test_an_include_leads_to_its_routes_by_djangos_rules() -> None:
    app = App()
    routes = [
        path("end/", app, {"both": "route"}),
        re_path(r"^(\d)/$", app),
        path("deep/<both>/", include([path("end/", app)]), {"deep": 1}),
        path("/slash/", app),
        ("/pair/", app),
        path("router/", URLRouter([path("end/", app)])),
    ]
    router = URLRouter([path("<both>/", include(routes), {"given": 1}), re_path(r"^open/(\d)/(\d)/", include(routes))])
    assert await route(router, "/x/end/") == "app"
    assert app.route == ((), {"both": "route", "given": 1}, "")
    await route(router, "/x/deep/inner/end/")
    assert app.route == ((), {"both": "inner", "given": 1, "deep": 1}, "")
    await route(router, "/x/5/")
    assert app.route == (("5",), {"both": "x", "given": 1}, "")
    await route(router, "/open/1/2/3/")
    assert app.route == (("1", "2", "3"), {}, "")
    await route(router, "/open/1/2/end/")
    assert app.route == ((), {"both": "route"}, "")
    await route(router, "/x//slash/")
    await route(router, "/x/pair")
    await route(router, "/x/router/end/")
    await has_no_route(router, "/x/deep/inner/end/more/")


# What is no route.


@pytest.mark.parametrize(
    "entry",
    [None, "x", App(), AsyncWebsocketConsumer, ("x",), (1, App()), ["x", App()], SimpleNamespace(pattern=None)],
)
def test_an_entry_that_is_no_route_is_named(entry: Any) -> None:
    with pytest.raises(TypeError, match=r"^routes\[1\] must be a path\(\) or re_path\(\), or a tuple of a path and an"):
        URLRouter([path("x", App()), entry])


@pytest.mark.parametrize("view", [None, "view", 5])
def test_a_pair_that_leads_to_no_application_is_named(view: Any) -> None:
    with pytest.raises(TypeError, match=rf"^routes\[0\] must lead to an ASGI application, .* got {view!r}$"):
        URLRouter([("/x/", view)])


def test_an_entry_of_an_include_is_named_with_the_way_to_it() -> None:
    with pytest.raises(TypeError, match=r"^routes\[0\]\.include\[1\] must be a path\(\)"):
        URLRouter([path("x", include([path("y", App()), 5]))])


def test_routes_that_are_no_list_are_refused() -> None:
    with pytest.raises(TypeError, match=r"^routes must be a list of path\(\) and re_path\(\) objects, got Route\("):
        URLRouter(path("x", App()))  # type: ignore[arg-type]  # what is to be refused


def test_a_pattern_that_cannot_be_made_a_prefix_is_refused() -> None:
    strange = SimpleNamespace(_is_endpoint=True, match=str.split)
    with pytest.raises(ValueError, match=r"^Unsupported pattern type: <class 'types\.SimpleNamespace'>$"):
        URLRouter([SimpleNamespace(pattern=strange, callback=URLRouter([]), default_args={})])


# No route, and a server to tell.


async def test_a_websocket_without_a_route_is_accepted_and_closed_with_4404(caplog: pytest.LogCaptureFixture) -> None:
    router = URLRouter([path("x/", BaseMiddleware(URLRouter([])))])
    with caplog.at_level(logging.WARNING, logger="headrace.routing"):
        sent = await events(router, {"path": "/x/y\n", "asgi": {"version": "3.0"}})
    assert sent == [
        {"type": "websocket.accept", "subprotocol": None},
        {"type": "websocket.close", "code": 4404, "reason": "no route"},
    ]
    assert caplog.record_tuples == [
        ("headrace.routing", logging.WARNING, "no route found for websocket path '/x/y\\n'")
    ]


async def test_a_handshake_without_a_route_is_answered_with_404_where_the_server_can() -> None:
    scope = {"path": "/x/", "asgi": {}, "extensions": {"websocket.http.response": {}}}
    start, body = await events(URLRouter([]), scope)
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 404)
    assert (body["type"], body["body"]) == ("websocket.http.response.body", b"no route found for this path\n")


class Chain:
    """Tries one router after the other, as applications of Channels do that load their routes from plugins."""

    def __init__(self, *routers: Any) -> None:
        self.routers = routers

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        for router in self.routers:
            try:
                return await router(scope, receive, send)
            except ValueError as error:
                if not str(error).startswith("No route found for path"):
                    raise
                self.error = error
        raise self.error


FROM_A_SERVER = {"type": "websocket", "asgi": {"version": "3.0"}}


async def test_middleware_sees_that_a_router_has_no_route_and_asks_another() -> None:
    chain = Chain(URLRouter([path("x/", App("first"))]), URLRouter([path("y/", App("second"))]))
    application = ProtocolTypeRouter({"websocket": BaseMiddleware(chain)})
    for name, expected in (("/x/", "first"), ("/y/", "second")):
        assert await application({**FROM_A_SERVER, "path": name}, NOBODY, NOBODY) == expected


async def test_the_outermost_router_by_type_answers_what_nobody_caught() -> None:
    routers = URLRouter([]), URLRouter([path("x/", BaseMiddleware(URLRouter([])))])
    for inner in (*routers, Chain(*routers), ProtocolTypeRouter({"websocket": BaseMiddleware(Chain(*routers))})):
        sent = await events(ProtocolTypeRouter({"websocket": inner}), {"path": "/x/", "asgi": {}})
        assert sent[-1] == {"type": "websocket.close", "code": 4404, "reason": "no route"}


async def test_a_value_error_of_an_application_is_no_missing_route() -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("of the application")

    with pytest.raises(ValueError, match=r"^of the application$"):
        await ProtocolTypeRouter({"websocket": fails})({**FROM_A_SERVER, "path": "/x/"}, NOBODY, NOBODY)


async def test_a_client_that_offers_subprotocols_is_given_one_so_that_it_sees_the_code() -> None:
    sent = await events(URLRouter([]), {"path": "/x/", "asgi": {}, "subprotocols": ["chat", "json"]})
    assert sent[0] == {"type": "websocket.accept", "subprotocol": "chat"}


async def test_a_client_that_has_gone_before_it_was_refused_is_sent_nothing() -> None:
    async def receive() -> Any:
        return {"type": "websocket.disconnect", "code": 1006}

    await URLRouter([])({"type": "websocket", "path": "/x/", "asgi": {}}, receive, NOBODY)


async def test_a_path_outside_the_root_path_is_answered_as_well() -> None:
    sent = await events(URLRouter([]), {"path": "/x/", "root_path": "/mounted", "asgi": {}})
    assert sent[-1]["code"] == 4404


async def test_http_without_a_route_is_answered_with_404(caplog: pytest.LogCaptureFixture) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    with caplog.at_level(logging.WARNING, logger="headrace.routing"):
        await URLRouter([])({"type": "http", "path": "/x/", "asgi": {}}, NOBODY, send)
    start, body = sent
    assert (start["type"], start["status"]) == ("http.response.start", 404)
    assert dict(start["headers"])[b"content-type"] == b"text/plain; charset=utf-8"
    assert dict(start["headers"])[b"content-length"] == str(len(body["body"])).encode()
    assert body == {"type": "http.response.body", "body": b"no route found for this path\n"}
    assert [record.getMessage() for record in caplog.records] == ["no route found for http path '/x/'"]


@pytest.mark.parametrize("kind", ["lifespan", "channel", "mqtt"])
async def test_another_type_without_a_route_is_a_value_error_from_a_server_too(kind: str) -> None:
    with pytest.raises(ValueError, match=r"^No route found for path 'x/'\.$"):
        await URLRouter([])({"type": kind, "path": "/x/", "asgi": {}}, NOBODY, NOBODY)


# With Django.

PREAMBLE = """
import asyncio
import logging
from django.conf import settings
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["x"])
import django
django.setup()
from django.urls import include, path, re_path, register_converter
from django.urls.exceptions import Resolver404
import channels.routing
import headrace.paths
from headrace.middleware import BaseMiddleware
from headrace.routing import URLRouter

class App:
    def __init__(self, name="app"):
        self.name = name
    async def __call__(self, scope, receive, send):
        self.route = scope["url_route"]["args"], scope["url_route"]["kwargs"], scope["path_remaining"]
        return self.name

def route(router, path, **scope):
    return asyncio.run(router({"type": "websocket", "path": path, **scope}, None, None))

def no_route(router, path):
    try:
        route(router, path)
    except ValueError as error:
        assert str(error).startswith("No route found for path "), error
        return True

"""


def in_django(program: str) -> None:
    """Run a program in an interpreter of its own, with Django's settings configured."""
    source = PREAMBLE + textwrap.dedent(program) + "\nprint('done')\n"
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", source], capture_output=True, text=True, timeout=50, check=False
    )
    assert (process.stderr, process.stdout) == ("", "done\n")


def test_djangos_routes_lead_to_applications_and_to_routers() -> None:
    in_django(
        """
        app = App()
        urlpatterns = [path("end/", app), re_path(r"^(?P<both>\\d)/$", app), path("", app, {"given": 1})]
        router = URLRouter([
            path("direct/<both>/", URLRouter(urlpatterns)),
            path("behind/<int:both>/", BaseMiddleware(URLRouter(urlpatterns))),
            re_path(r"^regex/(\\w)/", BaseMiddleware(URLRouter(urlpatterns))),
            path("included/<slug:both>/", include(urlpatterns), {"more": 2}),
            path("holds/", include([path("router/", BaseMiddleware(URLRouter(urlpatterns)))])),
            headrace.paths.path("ours/", headrace.paths.include(urlpatterns)),
            headrace.paths.path("djangos/", include(urlpatterns)),
            ("/pair/", app),
        ])
        expected = {
            "/direct/x/": ((), {"both": "x", "given": 1}, ""),
            "/direct/x/5/": ((), {"both": "5"}, ""),
            "/behind/1/end/": ((), {"both": 1}, ""),
            "/regex/x/end/": (("x",), {}, ""),
            "/included/x/": ((), {"both": "x", "more": 2, "given": 1}, ""),
            "/included/x/7/": ((), {"both": "7", "more": 2}, ""),
            "/holds/router/end/": ((), {}, ""),
            "/ours/end/": ((), {}, ""),
            "/djangos/3/": ((), {"both": "3"}, ""),
            "/pair": ((), {}, ""),
        }
        for asked, captured in expected.items():
            assert route(router, asked) == "app"
            assert app.route == captured, (asked, app.route)
        assert no_route(router, "/direct/x/nothing/")
        assert no_route(router, "/holds/router/nothing/")
        """
    )


def test_an_include_captures_what_djangos_resolver_captures() -> None:
    in_django(
        """
        from django.urls.resolvers import RegexPattern, URLResolver
        app = App()
        leaves = [path("", app), path("<int:a>/", app, {"b": 2}), re_path(r"^(\\w)(\\w)/$", app),
                  re_path(r"^x(?P<c>.)?(y)", app)]
        inner = [path("i/<b>/", include(leaves), {"a": 0}), re_path(r"^j/(\\d)/", include(leaves)), *leaves]
        outer = [path("o/", include(inner)), path("<c>/p/", include(inner), {"d": 1}),
                 re_path(r"^(.)/q/", include(inner))]
        django_says = URLResolver(RegexPattern(""), outer)
        router = URLRouter(outer)
        found = 0
        for start in ("o/", "z/p/", "z/q/", "no/"):
            for middle in ("", "i/k/", "j/5/"):
                for end in ("", "7/", "ab/", "x", "xy", "xzy", "/", "no"):
                    try:
                        said = django_says.resolve(start + middle + end)
                    except Resolver404:
                        assert no_route(router, "/" + start + middle + end)
                    else:
                        found += 1
                        assert route(router, "/" + start + middle + end) == "app"
                        assert app.route[:2] == (said.args, said.kwargs), (start, middle, end, app.route, said)
        assert found > 30, found
        """
    )


def test_djangos_routes_are_left_as_they_are() -> None:
    in_django(
        """
        routes = [path("x/", URLRouter([path("y/", App("y"))])), re_path("^z/$", BaseMiddleware(URLRouter([])))]
        patterns = [each.pattern for each in routes]
        router = URLRouter(routes)
        assert route(router, "/x/y/") == "y"
        assert [each.pattern for each in routes] == patterns
        assert routes[0].pattern.match("x/y/") is None
        assert route(URLRouter(routes), "/x/y/") == "y"
        """
    )


def test_routers_of_headrace_and_of_channels_nest_in_each_other() -> None:
    in_django(
        """
        for outer, inner in [(URLRouter, channels.routing.URLRouter), (channels.routing.URLRouter, URLRouter)]:
            first, second = App("first"), App("second")
            router = outer([
                path("<a>/", inner([path("b/", first)])),
                path("<a>/", inner([path("<int:c>/", second)])),
            ])
            assert route(router, "/x/b/") == "first"
            assert first.route == ((), {"a": "x"}, "")
            assert route(router, "/x/1/") == "second"
            assert second.route == ((), {"a": "x", "c": 1}, "")
            assert no_route(router, "/x/y/")
        """
    )


def test_resolver404_of_a_running_consumer_goes_on_as_it_is() -> None:
    in_django(
        """
        from channels.generic.websocket import AsyncWebsocketConsumer as Theirs
        from headrace.generic.websocket import AsyncWebsocketConsumer as Ours

        def failing(base):
            class Fails(base):
                async def connect(self):
                    raise Resolver404("mine")
            return Fails

        async def hides(scope, receive, send):
            await failing(Theirs)()(scope, receive, send)

        async def receive():
            if asked:
                await asyncio.Event().wait()
            asked.append(1)
            return {"type": "websocket.connect"}

        async def send(message): ...

        class Later:
            async def __call__(self, scope, receive, send):
                raise AssertionError("the next route was tried")

        async def run(app):
            asked.clear()
            router = URLRouter([path("x/", app), path("x/", Later())])
            try:
                await router({"type": "websocket", "path": "/x/"}, receive, send)
            except Resolver404 as error:
                return error.args

        asked = []
        logging.disable()  # of what a consumer's on_error() says
        for app in (failing(Ours), failing(Theirs).as_asgi(), BaseMiddleware(failing(Theirs)), hides):
            assert asyncio.run(run(app)) == ("mine",), app
            nested = URLRouter([path("", app)])
            assert asyncio.run(run(nested)) == ("mine",), app
            assert asyncio.run(run(BaseMiddleware(nested))) == ("mine",), app
        """
    )


def test_the_no_route_of_an_inner_router_is_djangos_error_too() -> None:
    in_django(
        """
        try:
            route(URLRouter([]), "/x/", path_remaining="x/")
        except Resolver404 as error:
            assert isinstance(error, ValueError)
            assert str(error) == "No route found for path 'x/'."
        else:
            raise AssertionError
        """
    )


def test_the_default_application_is_the_one_that_the_settings_name() -> None:
    in_django(
        """
        from django.core.exceptions import ImproperlyConfigured
        from headrace.routing import get_default_application

        def fails():
            try:
                get_default_application()
            except ImproperlyConfigured as error:
                return str(error)

        assert fails() == "Cannot find ASGI_APPLICATION setting."
        settings.ASGI_APPLICATION = "no_dot"
        assert fails() == "Cannot find ASGI_APPLICATION setting."
        settings.ASGI_APPLICATION = "no.such.module"
        assert fails().startswith("Cannot import ASGI_APPLICATION module 'no.such'")
        settings.ASGI_APPLICATION = "headrace.routing.nothing"
        assert fails() == "Cannot find 'nothing' in ASGI_APPLICATION module headrace.routing"
        settings.ASGI_APPLICATION = "headrace.routing.URLRouter"
        assert get_default_application() is URLRouter
        """
    )


def test_without_django_there_is_no_default_application() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"^Cannot find ASGI_APPLICATION setting\.$"):
        get_default_application()


async def closed_at(router: Any, path: str, root_path: str) -> None:
    """Connect as a server does, where no route is."""
    sent: list[Any] = []
    incoming: asyncio.Queue[Any] = asyncio.Queue()
    incoming.put_nowait({"type": "websocket.connect"})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "asgi": {}, "path": path, "root_path": root_path}
    await router(scope, incoming.get, send)
    assert sent[-1]["code"] == 4404


async def test_the_log_names_the_root_path(caplog: pytest.LogCaptureFixture) -> None:
    router = URLRouter([path("ws/", AsyncWebsocketConsumer)])
    await closed_at(router, "/ws/", "/sub")
    assert "path '/ws/', which does not begin with the server's root_path '/sub'" in caplog.text
    caplog.clear()
    await closed_at(router, "/sub/other/", "/sub")
    assert "no route found for websocket path '/sub/other/' below root_path '/sub'" in caplog.text
    caplog.clear()
    await closed_at(router, "/other/", "")
    assert caplog.messages == ["no route found for websocket path '/other/'"]


def test_a_route_that_matches_nothing_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    routes = [path("ws/", AsyncWebsocketConsumer), re_path("^ws/$", AsyncWebsocketConsumer)]
    URLRouter([*routes, ("/ws/", AsyncWebsocketConsumer), path("a", include([path("/b", AsyncWebsocketConsumer)]))])
    assert caplog.text == ""
    URLRouter([*routes, path("/ws/", AsyncWebsocketConsumer), re_path("^/ws/$", AsyncWebsocketConsumer)])
    assert "routes[2], '/ws/', matches nothing" in caplog.text
    assert "routes[3], '^/ws/$', matches nothing" in caplog.text
