"""Tokens without Django; with it, see test_middleware_django.py and tests/django_app/cases/test_tokens.py."""

import asyncio
import inspect
import json
import logging
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest

from headrace import AsyncJsonWebsocketConsumer, AsyncWebsocketConsumer, JsonWebsocketConsumer, database_sync_to_async
from headrace.exceptions import DenyConnection
from headrace.paths import ImproperlyConfigured
from headrace.security.tokens import DRFTokenAuthMiddleware, TokenAuthMiddleware
from headrace.sockets import BaseSocketServer
from headrace.testing import ConnectionRejected, WebsocketCommunicator

NOBODY: Any = None
ADA = SimpleNamespace(name="ada", is_authenticated=True, is_anonymous=False, is_active=True, pk=1)
GRACE = SimpleNamespace(name="grace", is_authenticated=True, is_anonymous=False, is_active=True, pk=2)
SECRET = "9944b09199c62bcf"


class ByToken(TokenAuthMiddleware):
    """Notes what it is asked."""

    def __init__(self, inner: Any, owners: dict[str, Any] | None = None) -> None:
        super().__init__(inner)
        self.owners = {SECRET: ADA} if owners is None else owners
        self.asked: list[str] = []

    async def get_user(self, token: str) -> Any:
        self.asked.append(token)
        return self.owners.get(token)


async def seen(
    middleware: Callable[[Any], Any], query: bytes = b"", subprotocols: Any = (), **more: Any
) -> dict[str, Any]:
    """Run a middleware on a WebSocket; return the scope that its application gets."""
    scopes = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)

    scope = {"type": "websocket", "path": "/", "query_string": query, "subprotocols": list(subprotocols), **more}
    await middleware(app)(scope, NOBODY, NOBODY)
    (given,) = scopes
    return dict(given)


async def token_of(query: bytes = b"", subprotocols: Any = (), **more: Any) -> str | None:
    """Return the token that ``get_user`` is asked for, if it is asked."""
    asked = []

    class Notes(TokenAuthMiddleware):
        async def get_user(self, token: str) -> None:
            asked.append(token)

    await seen(Notes, query, subprotocols, **more)
    assert len(asked) <= 1
    return asked[0] if asked else None


@pytest.mark.parametrize("argument", ["token", "auth_token", "user_token"])
async def test_the_owner_of_a_token_in_the_query_is_the_user(argument: str) -> None:
    assert (await seen(ByToken, f"{argument}={SECRET}".encode()))["user"] is ADA


async def test_the_owner_of_a_token_in_a_subprotocol_is_the_user() -> None:
    assert (await seen(ByToken, subprotocols=["chat", f"Token.{SECRET}"]))["user"] is ADA


@pytest.mark.parametrize(
    ("query", "subprotocols", "token"),
    [
        (b"", [], None),
        (b"room=7", ["chat", "token.a", "XToken.a"], None),
        (b"Token=a&tokens=a", [], None),
        # The query goes first, and in it the order of the names.
        (b"token=a", ["Token.b"], "a"),
        (b"user_token=c&auth_token=b&token=a", [], "a"),
        (b"user_token=c&auth_token=b", [], "b"),
        # The first of a kind counts.
        (b"room=7&token=a&token=b", [], "a"),
        (b"", ["chat", "Token.a", "Token.b"], "a"),
        # An empty one is none.
        (b"token=&auth_token", [], None),
        (b"token=&token=a", [], "a"),
        (b"token=&auth_token=b", [], "b"),
        (b"token=", ["Token.a"], "a"),
        (b"", ["Token."], None),
        (b"", ["Token.", "Token.a"], None),
        # The query is decoded as a form is.
        (b"token=%61%2Fb%3D%26", [], "a/b=&"),
        (b"token=a+b%20c%2Bd", [], "a b c+d"),
        (b"token=a;b", [], "a;b"),
        (b"token=a=b", [], "a=b"),
        (b"token=100%&x=%zz", [], "100%"),
        (b"token=%C3%A9", [], "\xe9"),
        ("token=\xe9".encode(), [], "\xe9"),
        (b"x=%ff&y=\xff&token=a", [], "a"),
        # A subprotocol is not.
        (b"", ["Token.a+b%20.Token.c"], "a+b%20.Token.c"),
    ],
)
async def test_which_token_counts(query: bytes, subprotocols: list[str], token: str | None) -> None:
    assert await token_of(query, subprotocols) == token


@pytest.mark.parametrize(
    ("values", "token"),
    [
        ([b"Bearer a"], "a"),
        ([b"Token a"], "a"),
        ([b"bearer   a.b-c~d+e/f== "], "a.b-c~d+e/f=="),
        ([b"Bearer a", b"Bearer b"], "a"),
        ([b"Basic YTpi"], None),
        ([b"Basic YTpi", b"Bearer b"], None),
        ([b"Bearer"], None),
        ([b"Bearer "], None),
        ([b"BearerToken a"], None),
        ([b"a"], None),
        ([b""], None),
    ],
)
async def test_a_program_may_send_its_token_in_a_header(values: list[bytes], token: str | None) -> None:
    headers = [(b"host", b"example.org"), *((b"authorization", value) for value in values)]
    assert await token_of(headers=headers) == token
    # The query and the subprotocols go first.
    assert await token_of(b"token=q", headers=headers) == "q"
    assert await token_of(b"", ["Token.s"], headers=headers) == "s"


@pytest.mark.parametrize("schemes", [(), ("Token",), ["token"]])
async def test_a_foreign_token_of_a_proxy_changes_nothing_if_its_scheme_is_not_read(schemes: Any) -> None:
    class Chosen(ByToken):
        header_schemes = schemes

    def headers(scheme: bytes) -> list[tuple[bytes, bytes]]:
        return [(b"authorization", scheme + b" " + SECRET.encode())]

    by_cookie = object()
    assert (await seen(Chosen, user=by_cookie, headers=headers(b"Bearer")))["user"] is by_cookie
    by_token = (await seen(Chosen, user=by_cookie, headers=headers(b"Token")))["user"]
    assert by_token is (ADA if schemes else by_cookie)
    # The query is read all the same.
    assert (await seen(Chosen, f"token={SECRET}".encode(), user=by_cookie))["user"] is ADA


def test_the_schemes_are_not_a_single_text() -> None:
    class Chosen(ByToken):
        header_schemes = "Bearer"

    with pytest.raises(TypeError, match=r"Chosen\.header_schemes must be a tuple of schemes, got 'Bearer'"):
        Chosen(NOBODY)


async def test_a_header_that_is_no_text_is_nobodys_without_asking() -> None:
    assert await token_of(headers=[(b"authorization", b"Bearer \xff")]) is None


@pytest.mark.parametrize("query", [b"token=a%00b", b"token=%ff", b"token=\xff", b"token=%ed%a0%80"])
async def test_what_is_no_text_is_nobodys_without_asking(query: bytes) -> None:
    """Databases refuse it with an error, which would look like an outage."""
    assert await token_of(query) is None
    assert (await seen(ByToken, query, user=GRACE))["user"].is_anonymous


async def test_a_scope_without_query_and_subprotocols_is_anonymous() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> bool:
        return bool(scope["user"].is_anonymous)

    assert await ByToken(app)({"type": "websocket"}, NOBODY, NOBODY)


async def test_a_scope_without_a_type_is_that_of_a_websocket() -> None:
    """As those are that are made by hand."""
    seen: list[Any] = []

    class Noting(BaseSocketServer):
        async def connect(self) -> None:
            seen.append(self.scope["user"].name)

    async def send(message: Any) -> None:
        seen.append(message["type"])

    incoming: asyncio.Queue[Any] = asyncio.Queue()
    incoming.put_nowait({"type": "websocket.connect"})
    incoming.put_nowait({"type": "websocket.disconnect", "code": 1000})
    query = f"token={SECRET}".encode()
    await ByToken(Noting.as_asgi())({"query_string": query}, incoming.get, send)
    assert seen == ["websocket.accept", ADA.name]


async def test_anonymous_answers_what_djangos_does() -> None:
    nobody = (await seen(ByToken))["user"]
    assert (nobody.is_authenticated, nobody.is_active, nobody.is_staff, nobody.is_superuser) == (False,) * 4
    assert nobody.is_anonymous is True
    assert (nobody.pk, nobody.id, nobody.username, str(nobody)) == (None, None, "", "AnonymousUser")
    assert (await seen(ByToken))["user"] == nobody


async def test_the_outer_scope_is_not_changed() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    scope = {"type": "websocket", "query_string": f"token={SECRET}".encode()}
    await ByToken(app)(scope, NOBODY, NOBODY)
    assert "user" not in scope


@pytest.mark.parametrize("query", [b"", b"token=", b"room=7"])
async def test_without_a_token_the_user_that_is_there_stays(query: bytes) -> None:
    assert (await seen(ByToken, query, user=GRACE))["user"] is GRACE


async def test_without_a_token_none_as_the_user_becomes_anonymous() -> None:
    assert (await seen(ByToken, user=None))["user"].is_anonymous


async def test_a_tokens_owner_replaces_the_user_that_is_there() -> None:
    assert (await seen(ByToken, f"token={SECRET}".encode(), user=GRACE))["user"] is ADA


@pytest.mark.parametrize(("query", "subprotocols"), [(b"token=x", []), (b"", ["Token.x"])])
async def test_a_token_that_nobody_owns_is_anonymous_whoever_is_there(query: bytes, subprotocols: list[str]) -> None:
    assert (await seen(ByToken, query, subprotocols, user=GRACE))["user"].is_anonymous


async def test_a_wrong_token_in_the_query_is_not_made_good_by_a_subprotocol() -> None:
    assert (await seen(ByToken, b"token=x", [f"Token.{SECRET}"]))["user"].is_anonymous


@pytest.mark.parametrize("kind", ["http", "lifespan", "channel"])
async def test_other_scopes_go_through_as_they_are(kind: str) -> None:
    given: dict[str, Any] = {"type": kind, "query_string": f"token={SECRET}".encode()}

    async def app(scope: Any, receive: Any, send: Any) -> Any:
        return scope, receive, send

    receive, send = object(), object()
    assert await ByToken(app)(given, receive, send) == (given, receive, send)  # type: ignore[arg-type]  # not called


def test_a_class_that_does_not_know_owners_is_refused() -> None:
    class Forgets(TokenAuthMiddleware): ...

    for kind in (TokenAuthMiddleware, Forgets):
        with pytest.raises(TypeError, match=rf"^{kind.__name__} cannot know who owns a token; use a subclass that"):
            kind(AsyncWebsocketConsumer)


async def test_a_subclass_of_one_that_knows_need_not_override_again() -> None:
    class Further(ByToken): ...

    assert (await seen(Further, f"token={SECRET}".encode()))["user"] is ADA


async def test_a_plain_get_user_runs_in_a_thread() -> None:
    threads = []

    class Plain(TokenAuthMiddleware):
        def get_user(self, token: str) -> Any:
            threads.append(threading.current_thread())
            return ADA

    assert (await seen(Plain, b"token=a"))["user"] is ADA
    assert threads[0].name.startswith("headrace-sync")


async def test_two_plain_ones_do_not_wait_for_each_other() -> None:
    both = threading.Barrier(2, timeout=20)

    class Plain(TokenAuthMiddleware):
        def get_user(self, token: str) -> Any:
            both.wait()
            return ADA

    await asyncio.gather(seen(Plain, b"token=a"), seen(Plain, b"token=b"))


async def test_what_makes_coroutines_is_awaited_however_it_is_written() -> None:
    async def find(token: str) -> Any:
        return {SECRET: ADA}.get(token)

    class Decorated(TokenAuthMiddleware):
        @database_sync_to_async
        def get_user(self, token: str) -> Any:  # type: ignore[override]  # asgiref types it as if it were not bound
            return {SECRET: ADA}.get(token)

    class Delegates(TokenAuthMiddleware):
        def get_user(self, token: str) -> Any:
            return find(token)

    class Static(TokenAuthMiddleware):
        get_user = staticmethod(find)

    for kind in (Decorated, Delegates, Static):
        assert (await seen(kind, f"token={SECRET}".encode()))["user"] is ADA
        assert (await seen(kind, b"token=x"))["user"].is_anonymous


class Fails(TokenAuthMiddleware):
    """Has its token in the text of what it raises, as a dict or a database would."""

    async def get_user(self, token: str) -> Any:
        try:
            raise ConnectionError(f"no connection for {token}")
        except ConnectionError as error:
            raise LookupError(token, quote(token, safe=""), ascii(token)) from error


class FailsPlainly(TokenAuthMiddleware):
    def get_user(self, token: str) -> Any:
        return {SECRET: NOBODY}["not " + token]


class Denies(TokenAuthMiddleware):
    """An exception that a consumer would refuse a connection with is none here."""

    async def get_user(self, token: str) -> Any:
        raise DenyConnection(token)


@pytest.mark.parametrize("kind", [Fails, FailsPlainly, Denies])
@pytest.mark.parametrize(
    "token", [SECRET, 'it\'s/a "\\token"', "\xe9t\xe9+\u20ac et \xe9t\xe9", "[a-z]+([a-z]+(", "before\nbehind"]
)
async def test_a_get_user_that_fails_lets_nobody_in_and_is_logged_without_the_token(
    kind: type[TokenAuthMiddleware], token: str, caplog: pytest.LogCaptureFixture
) -> None:
    quoted = quote(token, safe="")
    with pytest.raises(
        RuntimeError, match=rf"^{kind.__name__}\.get_user failed; the log of headrace.sockets says how$"
    ):
        await seen(kind, f"token={quoted}".encode(), user=GRACE)
    (record,) = caplog.records
    assert (record.name, record.levelno, record.exc_info) == ("headrace.sockets", logging.ERROR, None)
    text = record.getMessage()
    assert text.startswith(f"{kind.__name__}.get_user failed, so a connection is refused\nTraceback (most recent")
    assert "in get_user" in text
    assert "[token]" in text
    for spelling in (token, quoted, repr(token)[1:-1], ascii(token)[1:-1]):
        assert spelling not in text


async def test_of_a_token_that_may_be_part_of_any_word_only_the_errors_name_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(RuntimeError):
        await seen(Fails, b"token=e")
    (record,) = caplog.records
    assert record.getMessage() == "Fails.get_user failed, so a connection is refused\nLookupError"


async def test_what_is_raised_does_not_lead_to_the_error_with_the_token() -> None:
    with pytest.raises(RuntimeError) as raised:
        await seen(Fails, f"token={SECRET}".encode())
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None


async def test_a_cancel_of_get_user_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    begun = asyncio.Event()

    class Waits(TokenAuthMiddleware):
        async def get_user(self, token: str) -> Any:
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(seen(Waits, b"token=a"))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert caplog.records == []


async def test_the_token_is_not_in_the_log_nor_in_a_repr(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    middleware = ByToken(AsyncWebsocketConsumer)
    for path, subprotocols in ((f"/?token={SECRET}", []), ("/", [f"Token.{SECRET}"]), (f"/?token=x{SECRET}", [])):
        async with WebsocketCommunicator(middleware, path, subprotocols=subprotocols):
            pass
    assert len(middleware.asked) == 3
    assert SECRET not in caplog.text
    assert SECRET not in repr(middleware)


class Who(AsyncJsonWebsocketConsumer):
    chosen: str | None = None

    async def connect(self) -> None:
        if not self.scope["user"].is_authenticated:
            raise DenyConnection
        await self.accept(self.chosen)
        await self.send_json({"user": self.scope["user"].name})


class SyncWho(JsonWebsocketConsumer):
    chosen: str | None = None

    def connect(self) -> None:
        if not self.scope["user"].is_authenticated:
            raise DenyConnection
        self.accept(self.chosen)
        self.send_json({"user": self.scope["user"].name})


consumers = pytest.mark.parametrize("consumer", [Who, SyncWho])


@consumers
@pytest.mark.parametrize(
    ("query", "offered", "chosen", "answered"),
    [
        ("", [f"Token.{SECRET}"], None, f"Token.{SECRET}"),
        ("", ["chat", f"Token.{SECRET}", "Token.x"], None, f"Token.{SECRET}"),
        ("", [f"Token.{SECRET}", "chat"], "chat", "chat"),
        (f"?token={SECRET}", [], None, None),
        (f"?token={SECRET}", ["chat"], None, None),
        # A browser would close otherwise, wherever the token came from.
        (f"?token={SECRET}", ["Token.x"], None, "Token.x"),
        (f"?token={SECRET}", ["Token."], None, "Token."),
    ],
)
async def test_the_accept_names_the_subprotocol_with_the_token_unless_another_is_chosen(
    consumer: Any, query: str, offered: list[str], chosen: str | None, answered: str | None
) -> None:
    app = ByToken(type("Chooses", (consumer,), {"chosen": chosen}))
    async with WebsocketCommunicator(app, f"/{query}", subprotocols=offered) as client:
        assert client.subprotocol == answered
        assert json.loads(await client.receive_from()) == {"user": "ada"}


@consumers
async def test_a_consumer_refuses_who_has_no_token_of_anybody(consumer: Any) -> None:
    for path, subprotocols in (("/", []), ("/?token=x", []), ("/", ["Token.x"])):
        with pytest.raises(ConnectionRejected):
            async with WebsocketCommunicator(ByToken(consumer), path, subprotocols=subprotocols):
                pass


class Greets(BaseSocketServer):
    """Lets only ada in."""

    async def authorize(self) -> bool:
        return self.scope["user"] is ADA

    async def connect(self) -> None:
        await self.async_send({"user": self.scope["user"].name})


class Speaks(Greets):
    """Has a subprotocol of its own."""

    def configure(self) -> None:
        self.subprotocol = "chat"


@pytest.mark.parametrize(
    ("server", "path", "offered", "answered"),
    [
        (Greets, f"/?token={SECRET}", [], None),
        (Greets, "/", [f"Token.{SECRET}"], f"Token.{SECRET}"),
        (Greets.as_asgi, "/", ["chat", f"Token.{SECRET}"], f"Token.{SECRET}"),
        (Speaks.as_asgi(), "/", [f"Token.{SECRET}", "chat"], "chat"),
    ],
)
async def test_a_socket_server_has_the_user_and_the_subprotocol(
    server: Any, path: str, offered: list[str], answered: str | None
) -> None:
    async with WebsocketCommunicator(ByToken(server), path, subprotocols=offered) as client:
        assert client.subprotocol == answered
        assert json.loads(await client.receive_from()) == {"user": "ada"}


@pytest.mark.parametrize(
    ("path", "offered", "code"),
    [("/", [], 4401), ("/?token=x", [], 4401), ("/", ["Token.x"], 4401), ("/?token=of-grace", [], 4403)],
)
async def test_a_socket_server_tells_a_stranger_from_a_user_who_may_not(
    path: str, offered: list[str], code: int
) -> None:
    app = ByToken(Greets, {"of-grace": GRACE})
    with pytest.raises(ConnectionRejected) as rejected:
        async with WebsocketCommunicator(app, path, subprotocols=offered):
            pass
    assert rejected.value.code == code


async def test_only_the_accept_is_changed_and_in_a_copy() -> None:
    accept: dict[str, Any] = {"type": "websocket.accept", "subprotocol": None, "headers": [(b"a", b"b")]}
    messages = [accept, {"type": "websocket.send", "text": "a"}, {"type": "websocket.close"}]
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        # Channels' consumers ask that of what they send by.
        assert inspect.iscoroutinefunction(send)
        for message in messages:
            await send(message)

    await ByToken(app)({"type": "websocket", "subprotocols": ["Token.a"]}, NOBODY, send)
    assert sent == [{**accept, "subprotocol": "Token.a"}, *messages[1:]]
    assert accept["subprotocol"] is None


async def test_nothing_stands_before_send_where_no_token_was_offered() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> Any:
        return send

    async def send(message: Any) -> None: ...

    assert await ByToken(app)({"type": "websocket", "subprotocols": ["chat"]}, NOBODY, send) is send


def test_tokens_of_the_rest_framework_need_django() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"^DRFTokenAuthMiddleware reads .*; Django is not in use$"):
        DRFTokenAuthMiddleware(AsyncWebsocketConsumer)


def test_a_missing_rest_framework_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.security.tokens.installed", lambda module: module != "rest_framework")
    with pytest.raises(ImproperlyConfigured, match=r"which is not installed: pip install 'headrace\[drf\]'$"):
        DRFTokenAuthMiddleware(AsyncWebsocketConsumer)


@pytest.mark.parametrize("select_related", ["user__profile", b"user"])
def test_a_single_text_as_select_related_is_refused(select_related: Any) -> None:
    with pytest.raises(TypeError, match=r"^select_related must be a list of relations, got .*; put it into a list$"):
        DRFTokenAuthMiddleware(AsyncWebsocketConsumer, select_related=select_related)
