"""A ``TestCase`` keeps its transaction, whatever uses the database behind a communicator."""

from typing import Any, ClassVar

import channels.testing
from asgiref.sync import sync_to_async
from channels.auth import AuthMiddlewareStack
from channels.db import database_sync_to_async as channels_database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer as ChannelsConsumer
from django.contrib.auth.models import User
from django.db import connection
from django.test import TestCase

import headrace.testing
from headrace import AsyncWebsocketConsumer, WebsocketConsumer, database_sync_to_async


def answer(consumer: Any) -> str:
    """Tell who is logged in, and what is in the transaction of the test."""
    return f"{consumer.scope.get('user')} of {User.objects.count()}"


@sync_to_async
def its_connection() -> Any:
    """Return the connection that the test has."""
    return connection.connection


class Async(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(await database_sync_to_async(answer)(self))


class AsyncByChannels(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(await channels_database_sync_to_async(answer)(self))


class Sync(WebsocketConsumer):
    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.send(answer(self))


class OfChannels(ChannelsConsumer):  # type: ignore[misc]  # it has no types
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(await channels_database_sync_to_async(answer)(self))


class Kept(TestCase):  # type: ignore[misc]  # Django has no types
    user: ClassVar[User]

    @classmethod
    def setUpTestData(cls) -> None:
        cls.user = User.objects.create_user("ada")

    def headers(self) -> list[tuple[bytes, bytes]]:
        self.client.force_login(self.user)
        return [(b"cookie", b"sessionid=" + self.client.cookies["sessionid"].value.encode())]

    async def ask(self, application: Any, headers: Any, package: Any) -> None:
        """Ask twice, look at the transaction, and end."""
        before = await its_connection()
        client = package.WebsocketCommunicator(application, "/", headers=headers)
        assert (await client.connect(20))[0]
        for _ in range(2):
            await client.send_to(text_data="who?")
            assert await client.receive_from(20) == f"{'ada' if headers else None} of 1"
        await client.disconnect(timeout=20)
        assert await User.objects.acount() == 1
        assert await its_connection() is before

    async def test_logged_in(self) -> None:
        headers = await sync_to_async(self.headers)()
        for consumer in (Async, AsyncByChannels, Sync, OfChannels):
            for package in (headrace.testing, channels.testing):
                await self.ask(AuthMiddlewareStack(consumer.as_asgi()), headers, package)

    async def test_without_middleware(self) -> None:
        for consumer in (Async, AsyncByChannels, Sync, OfChannels):
            for package in (headrace.testing, channels.testing):
                await self.ask(consumer.as_asgi(), [], package)
