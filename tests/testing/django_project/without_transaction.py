"""Outside of a transaction no connection stays open: the runner drops the database behind these tests."""

import asyncio
from typing import Any

from asgiref.sync import SyncToAsync
from channels.auth import AuthMiddlewareStack
from channels.db import database_sync_to_async as channels_database_sync_to_async
from django.contrib.auth.models import User
from django.db import connection
from django.test import TransactionTestCase

from headrace import AsyncWebsocketConsumer, WebsocketConsumer, database_sync_to_async
from headrace.testing import WebsocketCommunicator


class Async(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(str(await database_sync_to_async(User.objects.count)()))


class AsyncByChannels(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(str(await channels_database_sync_to_async(User.objects.count)()))


class Sync(WebsocketConsumer):
    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.send(str(User.objects.count()))


class Pooled(Sync):
    thread_sensitive = False


async def ask(application: Any) -> str | bytes:
    client = WebsocketCommunicator(application, "/")
    assert (await client.connect(20))[0]
    await client.send_to(text_data="how many?")
    answer = await client.receive_from(20)
    await client.disconnect(timeout=20)
    return answer


class Closed(TransactionTestCase):  # type: ignore[misc]  # Django has no types
    """Each test has a loop in the main thread, so that the work of consumers is in another, as with pytest-asyncio."""

    def test_no_connection_stays_open(self) -> None:
        for consumer in (Async, AsyncByChannels, Sync, Pooled):
            for application in (consumer.as_asgi(), AuthMiddlewareStack(consumer.as_asgi())):
                assert asyncio.run(ask(application)) == "0"
                left = SyncToAsync.single_thread_executor.submit(lambda: connection.connection).result(20)
                assert left is None
