"""``join_user``: a sign-out is not missed, at whatever moment of a handshake it comes."""

from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from channels.auth import AuthMiddlewareStack
from django.contrib.auth import login, logout
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.backends.db import SessionStore
from django.test import RequestFactory

from headrace import (
    AsyncWebsocketConsumer,
    BaseSocketServer,
    InMemoryChannelLayer,
    WebsocketConsumer,
    database_sync_to_async,
    group_name,
)
from headrace._layers.registry import channel_layers
from headrace.django import join_user, join_user_sync
from headrace.django._sign_out import _close_now
from headrace.testing import WebsocketCommunicator

MOMENTS = ["before it joins", "after it has joined"]


class SigningOut(InMemoryChannelLayer):
    """Signs the user out beside the ``group_add``: before it or after it."""

    request: Any = None
    moment = ""

    async def group_add(self, group: str, channel: str, since: str | int | None = None) -> bool | None:
        if self.moment == "before it joins":
            await self.sign_out()
        added = await super().group_add(group, channel, since)
        if self.moment == "after it has joined":
            await self.sign_out()
        return added

    async def sign_out(self) -> None:
        await database_sync_to_async(self.sign_out_sync)()

    def sign_out_sync(self) -> None:
        """Sign out as a view does, with the setting."""
        pk = str(self.request.user.pk)
        logout(self.request)
        _close_now(pk, "signed out")


class Coroutine(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        if await join_user(self) is None:
            await self.close()
        else:
            await self.accept()


class Plain(WebsocketConsumer):
    def connect(self) -> None:
        if join_user_sync(self) is None:
            self.close()
        else:
            self.accept()


class Socket(BaseSocketServer):
    layer = "default"

    async def authorize(self) -> bool:
        return await join_user(self) is not None

    async def async_subscribe(self, channel: Any, since: Any = None) -> Any:
        layer: Any = channel_layers["default"]
        if layer.moment == "before it joins":
            await layer.sign_out()
        subscribed = await super().async_subscribe(channel, since)
        if layer.moment == "after it has joined":
            await layer.sign_out()
        return subscribed


class PlainSocket(BaseSocketServer):
    layer = "default"

    def authorize(self) -> bool:
        return join_user_sync(self) is not None

    def subscribe(self, channel: Any, since: Any = None) -> Any:
        layer: Any = channel_layers["default"]
        if layer.moment == "before it joins":
            layer.sign_out_sync()
        subscribed = super().subscribe(channel, since)
        if layer.moment == "after it has joined":
            layer.sign_out_sync()
        return subscribed


KINDS: list[Any] = [Coroutine, Plain, Socket, PlainSocket]


@pytest.fixture
def user() -> Iterator[Any]:
    user = User.objects.create_user("ada", password="first")
    yield user
    User.objects.filter(pk=user.pk).delete()


@pytest.fixture
def layer(user: Any) -> Iterator[SigningOut]:
    """Give the default layer; the user is signed in by its request."""
    layer = SigningOut()
    layer.request = RequestFactory().get("/")
    layer.request.user, layer.request.session = user, SessionStore()
    login(layer.request, user)
    layer.request.session.save()
    before = channel_layers.set("default", layer)
    yield layer
    channel_layers.set("default", before)  # type: ignore[arg-type]  # what was there


def client_of(kind: Any, layer: SigningOut) -> WebsocketCommunicator:
    cookie = f"sessionid={layer.request.session.session_key}".encode()
    return WebsocketCommunicator(AuthMiddlewareStack(kind.as_asgi()), "/", headers=[(b"cookie", cookie)])


@pytest.mark.parametrize("kind", KINDS)
async def test_who_is_signed_in_is_let_in_and_closed_by_a_later_sign_out(layer: SigningOut, kind: Any) -> None:
    client = client_of(kind, layer)
    assert (await client.connect(60))[0]
    await layer.sign_out()
    assert await client.receive_output(60) == {"type": "websocket.close", "code": 4401, "reason": "signed out"}
    await client.disconnect()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("moment", MOMENTS)
async def test_who_signs_out_in_the_handshake_is_refused(layer: SigningOut, kind: Any, moment: str) -> None:
    layer.moment = moment
    client = client_of(kind, layer)
    assert not (await client.connect(60))[0]
    await client.disconnect()


@pytest.mark.parametrize("change", ["password", "active", "deleted"])
async def test_so_is_one_whose_account_has_changed(layer: SigningOut, user: Any, change: str) -> None:
    def make_it() -> None:
        if change == "password":
            user.set_password("second")
        user.is_active = change != "active"
        user.save()
        if change == "deleted":
            User.objects.filter(pk=user.pk).delete()

    class Late(Coroutine):
        async def connect(self) -> None:
            assert self.scope["user"].is_authenticated
            await database_sync_to_async(make_it)()
            await super().connect()

    client = client_of(Late, layer)
    assert not (await client.connect(60))[0]
    await client.disconnect()


async def test_a_stranger_joins_nothing(layer: SigningOut) -> None:
    layer.request.session = SessionStore()
    client = client_of(Coroutine, layer)
    assert not (await client.connect(60))[0]
    await client.disconnect()
    assert layer.stats().memberships == 0


async def test_a_user_whom_the_session_does_not_name_is_taken_as_found(layer: SigningOut, user: Any) -> None:
    found: list[Any] = []

    class ByToken(Coroutine):
        async def connect(self) -> None:
            self.scope["user"] = user
            found.append(await join_user(self))
            await self.accept()

    layer.request.session = SessionStore()
    client = client_of(ByToken, layer)
    assert (await client.connect(60))[0]
    assert found == [user]
    assert layer.group_count(group_name("user", user.pk)) == 1
    await client.disconnect()


async def test_it_gives_the_user_as_the_database_has_it_and_changes_no_session(layer: SigningOut, user: Any) -> None:
    found: list[Any] = []

    class Asking(Coroutine):
        async def connect(self) -> None:
            await User.objects.filter(pk=user.pk).aupdate(email="ada@example.org")
            found.append(await join_user(self))
            await self.accept()

    client = client_of(Asking, layer)
    assert (await client.connect(60))[0]
    assert found[0].email == "ada@example.org"
    stored = SessionStore(layer.request.session.session_key)
    assert await database_sync_to_async(lambda: dict(stored.items()))() == dict(layer.request.session.items())
    await client.disconnect()


def test_without_a_middleware_it_says_what_is_missing() -> None:
    consumer = Plain()
    consumer.scope = {"type": "websocket"}
    for call in (async_to_sync(join_user), join_user_sync):
        with pytest.raises(ValueError, match="the scope has no user: put AuthMiddlewareStack"):
            call(consumer)
    consumer.scope = {"type": "websocket", "user": AnonymousUser()}
    assert join_user_sync(consumer) is None
