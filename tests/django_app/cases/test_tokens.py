"""headrace.security.tokens where Django is in use, with the tokens of Django REST framework."""

import functools
import json
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import SyncToAsync, sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from django.apps import apps
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, connections
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from rest_framework.authtoken.models import Token

from headrace import database_sync_to_async
from headrace.exceptions import DenyConnection
from headrace.security.tokens import DRFTokenAuthMiddleware, TokenAuthMiddleware
from headrace.testing import ConnectionRejected, WebsocketCommunicator

NOBODY: Any = None


class Account:
    """A user with a token."""

    def __init__(self, name: str, **fields: Any) -> None:
        self.user = User.objects.create_user(name, **fields)
        self.key: str = Token.objects.create(user=self.user).key


@pytest.fixture
async def accounts() -> Any:
    """Make users until the test ends."""
    made = []

    @database_sync_to_async
    def make(name: str, **fields: Any) -> Account:
        made.append(Account(name, **fields))
        return made[-1]

    yield make
    await database_sync_to_async(User.objects.filter(pk__in=[account.user.pk for account in made]).delete)()


@pytest.fixture
async def ada(accounts: Any) -> Account:
    account: Account = await accounts("ada")
    return account


async def user_of(
    key: str | None, middleware: Callable[[Any], Any] = DRFTokenAuthMiddleware, **scope: Any
) -> tuple[Any, Any]:
    """Return the user that an application gets, for a token in the query, and in a subprotocol."""
    users: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        users.append(scope["user"])

    application = middleware(app)
    query = b"" if key is None else f"token={key}".encode()
    await application({"type": "websocket", "query_string": query, **scope}, NOBODY, NOBODY)
    subprotocols = [] if key is None else [f"Token.{key}"]
    await application({"type": "websocket", "subprotocols": subprotocols, **scope}, NOBODY, NOBODY)
    return users[0], users[1]


async def test_the_owner_of_a_token_is_the_user(ada: Account, accounts: Any) -> None:
    grace = await accounts("grace")
    assert await user_of(ada.key) == (ada.user, ada.user)
    assert await user_of(grace.key) == (grace.user, grace.user)


@pytest.mark.parametrize("key", [None, "", "0" * 40, "x' OR 1=1 --", "%00", "%ff", "\xe9", "a" * 10_000])
async def test_without_a_token_of_anybody_the_user_is_djangos_anonymous(ada: Account, key: str | None) -> None:
    for user in await user_of(key):
        assert type(user) is AnonymousUser


async def test_an_inactive_user_is_anonymous(accounts: Any) -> None:
    key = (await accounts("gone", is_active=False)).key
    assert await user_of(key) == (AnonymousUser(), AnonymousUser())


async def test_a_token_decides_about_the_user_of_a_session(ada: Account, accounts: Any) -> None:
    grace = await accounts("grace")
    assert await user_of(ada.key, user=grace.user) == (ada.user, ada.user)
    assert await user_of("0" * 40, user=grace.user) == (AnonymousUser(), AnonymousUser())
    assert await user_of(None, user=grace.user) == (grace.user, grace.user)


async def test_a_token_that_is_deleted_or_whose_user_is_deactivated_ends_to_count(ada: Account) -> None:
    await User.objects.filter(pk=ada.user.pk).aupdate(is_active=False)
    assert await user_of(ada.key) == (AnonymousUser(), AnonymousUser())
    await User.objects.filter(pk=ada.user.pk).aupdate(is_active=True)
    assert await user_of(ada.key) == (ada.user, ada.user)
    await Token.objects.filter(key=ada.key).adelete()
    assert await user_of(ada.key) == (AnonymousUser(), AnonymousUser())


async def queries_of(middleware: Callable[[Any], Any], path: str) -> list[str]:
    """Return what a connection asks the database, from its begin to its end."""

    class Greets(AsyncWebsocketConsumer):  # type: ignore[misc]  # channels has no types
        async def connect(self) -> None:
            user = self.scope["user"]
            if not user.is_authenticated:
                raise DenyConnection
            # Whatever is needed of the user has been read.
            assert await sync_to_async(lambda: user.auth_token.user.username)() == "ada"
            await self.accept()

    queries = CaptureQueriesContext(connection)
    # A connection belongs to a thread; this is that of thread-sensitive work.
    await sync_to_async(queries.__enter__)()
    try:
        async with WebsocketCommunicator(middleware(Greets.as_asgi()), path) as client:
            await client.send_to("hello")
    except ConnectionRejected:
        pass
    finally:
        await sync_to_async(queries.__exit__)(None, None, None)
    return await sync_to_async(lambda: [query["sql"] for query in queries.captured_queries])()


async def test_a_connection_with_a_token_costs_one_query(ada: Account) -> None:
    for select_related in (None, [], ["user"], ("user", "user"), iter(["user"])):
        middleware = functools.partial(DRFTokenAuthMiddleware, select_related=select_related)
        (query,) = await queries_of(middleware, f"/?token={ada.key}")
        assert query.count("JOIN") == 1
    assert len(await queries_of(DRFTokenAuthMiddleware, f"/?token={'0' * 40}")) == 1


async def test_a_connection_without_a_token_costs_none() -> None:
    assert await queries_of(DRFTokenAuthMiddleware, "/?token=&x=1") == []


async def test_more_relations_are_read_with_the_same_query(ada: Account) -> None:
    (query,) = await queries_of(
        lambda app: DRFTokenAuthMiddleware(app, select_related=["user__auth_token"]), f"/?token={ada.key}"
    )
    assert query.count("JOIN") == 2


async def test_a_relation_that_is_not_there_is_said_in_the_log(ada: Account, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RuntimeError, match=r"^DRFTokenAuthMiddleware\.get_user failed"):
        await user_of(ada.key, lambda app: DRFTokenAuthMiddleware(app, ["user__profile"]))
    assert "Invalid field name(s) given in select_related: 'profile'" in caplog.text


async def test_the_query_runs_in_the_thread_of_thread_sensitive_work(ada: Account) -> None:
    threads = []

    class Notes(DRFTokenAuthMiddleware):
        def get_user(self, token: str) -> Any:
            threads.append(threading.current_thread())
            return super().get_user(token)

    await user_of(ada.key, Notes)
    assert set(threads) == {await sync_to_async(threading.current_thread)()}


class ByName(TokenAuthMiddleware):
    """Uses Django's async methods, whose connection nobody would close."""

    async def get_user(self, token: str) -> Any:
        return await User.objects.filter(username=token).afirst()


async def test_no_connection_to_the_database_is_left_open(ada: Account, is_open: Callable[[], Any]) -> None:
    for token, middleware in ((ada.key, DRFTokenAuthMiddleware), ("ada", ByName)):
        await sync_to_async(connections.close_all)()
        assert await user_of(token, middleware) == (ada.user, ada.user)
        assert not await is_open()


@pytest.fixture
def _no_database(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let connections that are opened from now on fail."""
    SyncToAsync.single_thread_executor.submit(connections.close_all).result()
    monkeypatch.setitem(connections.settings["default"], "NAME", "/there is no such folder/database")
    yield
    SyncToAsync.single_thread_executor.submit(connections.close_all).result()


@pytest.mark.usefixtures("_no_database")
@pytest.mark.parametrize("middleware", [DRFTokenAuthMiddleware, ByName])
async def test_a_database_that_is_down_does_not_look_like_a_wrong_token(
    middleware: Callable[[Any], Any], caplog: pytest.LogCaptureFixture
) -> None:
    key = "c0ffee" * 6
    with pytest.raises(RuntimeError, match=r"\.get_user failed; the log of headrace\.sockets says how$"):
        await user_of(key, middleware)
    record = next(record for record in caplog.records if record.name == "headrace.sockets")
    assert record.levelno == logging.ERROR
    assert "django.db.utils.OperationalError: unable to open database file" in record.getMessage()
    assert key not in caplog.text


class Who(AsyncWebsocketConsumer):  # type: ignore[misc]  # channels has no types
    async def connect(self) -> None:
        if not self.scope["user"].is_authenticated:
            raise DenyConnection
        await self.accept()
        await self.send(json.dumps(self.scope["user"].username))


class SyncWho(WebsocketConsumer):  # type: ignore[misc]  # channels has no types
    def connect(self) -> None:
        if not self.scope["user"].is_authenticated:
            raise DenyConnection
        self.accept()
        self.send(json.dumps(self.scope["user"].username))


@pytest.mark.parametrize("consumer", [Who, SyncWho])
async def test_channels_consumers_answer_with_the_subprotocol_of_the_token(ada: Account, consumer: Any) -> None:
    app = DRFTokenAuthMiddleware(consumer.as_asgi())
    async with WebsocketCommunicator(app, "/", subprotocols=["chat", f"Token.{ada.key}"]) as client:
        assert client.subprotocol == f"Token.{ada.key}"
        assert json.loads(await client.receive_from()) == "ada"
    with pytest.raises(ConnectionRejected):
        async with WebsocketCommunicator(app, "/", subprotocols=["Token.x"]):
            pass


async def test_an_application_without_djangos_users_gets_an_anonymous_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    with override_settings(INSTALLED_APPS=["channels"]):
        users = await user_of(None, ByName)
    # Settings are named, but django.setup() was not called.
    monkeypatch.setattr(apps, "models_ready", False)
    for user in (*users, *await user_of(None, ByName)):
        assert not isinstance(user, AnonymousUser)
        assert user.is_anonymous


def test_tokens_that_are_not_installed_are_refused_at_once() -> None:
    with override_settings(INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "rest_framework"]):
        with pytest.raises(ImproperlyConfigured, match=r"'rest_framework\.authtoken', which is not in INSTALLED_APPS$"):
            DRFTokenAuthMiddleware(Who.as_asgi())


def test_a_missing_rest_framework_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.security.tokens.installed", lambda module: module != "rest_framework")
    with pytest.raises(ImproperlyConfigured, match=r"which is not installed: pip install 'headrace\[drf\]'$"):
        DRFTokenAuthMiddleware(Who.as_asgi())
