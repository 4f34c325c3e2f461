"""Siblings that come and go beside one that stays: whatever becomes of them, it gets every message, once and in order.

HEADRACE_CHURN_MESSAGES says how many messages are sent; the default is for every day.
"""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.support.servers import Server
from tests.support.waiting import SECONDS

from headrace._layers.registry import channel_layers
from headrace.exceptions import ChannelFull
from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.layers import RedisChannelLayer
from headrace.typing import Message

MESSAGES = int(os.environ.get("HEADRACE_CHURN_MESSAGES", "20000"))
SIBLINGS = 5
# How far the sender is ahead of the one that stays; its mailbox holds twice as many.
AHEAD = 500
BATCH = 50


@asynccontextmanager
async def layers(server: Server, prefix: str) -> AsyncIterator[tuple[RedisChannelLayer, RedisChannelLayer]]:
    """Make the layers of two processes: of the sender, and of the receivers."""
    made = [RedisChannelLayer([server.url], prefix=prefix, capacity=2 * AHEAD) for _ in range(2)]
    try:
        for layer in made:
            await layer.connect()
        yield made[0], made[1]
    finally:
        for layer in made:
            await layer.close()


class Stable:
    """The one that stays, and the sender that it keeps from going too far ahead."""

    def __init__(self, sender: RedisChannelLayer, layer: RedisChannelLayer, count: int) -> None:
        self.numbers: list[int] = []
        self._sender, self._layer = sender, layer
        self._count = count
        self._room = asyncio.Semaphore(AHEAD)

    async def run(self) -> None:
        """Send all messages, and receive them."""
        channel = await self._layer.new_channel()
        await self._layer.group_add("room", channel)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send())
            tasks.create_task(self._receive(channel))

    async def _send(self) -> None:
        for first in range(0, self._count, BATCH):
            batch = range(first, min(first + BATCH, self._count))
            for _ in batch:
                await self._room.acquire()
            await self._sender.group_send_many(("room", {"type": "room.say", "n": n}) for n in batch)

    async def _receive(self, channel: str) -> None:
        while len(self.numbers) < self._count:
            self.numbers.append((await self._layer.receive(channel))["n"])
            self._room.release()


async def ended(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it has ended; it is not awaited itself, whose cancel would look like one's own."""
    task.cancel()
    await asyncio.wait([task])


async def beside(stable: Stable, *siblings: Any) -> None:
    """Run the siblings until the one that stays has done, and see that none has failed before."""
    others = [asyncio.create_task(sibling) for sibling in siblings]
    try:
        await stable.run()
        for other in others:
            if other.done():
                other.result()
                pytest.fail("a sibling has ended early")
    finally:
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)


@pytest.mark.timeout(MESSAGES // 100 + 60)
async def test_siblings_that_come_and_go_cost_nothing(redis_server: Server, redis_prefix: str) -> None:
    turns = 0

    async def sibling(layer: RedisChannelLayer, number: int) -> None:
        nonlocal turns
        for turn in itertools.count(number):
            turns += 1
            channel = await layer.new_channel()
            await layer.group_add("room", channel)
            await layer.group_add(f"room-{number}", channel)
            receiving = asyncio.create_task(layer.receive(channel))
            try:
                for _ in range(turn % 4):
                    # Cancelled before it waits, while it waits, when it has a message, or never.
                    await asyncio.sleep(0)
                if turn % 5:
                    receiving.cancel()
                await asyncio.wait([receiving])
            finally:
                await ended(receiving)
            if turn % 3:
                await layer.group_discard("room", channel)
            layer.close_channel(channel)

    async with layers(redis_server, redis_prefix) as (sender, layer):
        stable = Stable(sender, layer, MESSAGES)
        await beside(stable, *(sibling(layer, number) for number in range(SIBLINGS)))
        assert stable.numbers == list(range(MESSAGES))
        assert turns > MESSAGES // 100
        link = layer.stats().connection
        assert (link.gaps, link.reconnects, link.malformed) == (0, 0, 0)


class OfTheTest(Exception):
    """What a handler raises."""


class Sibling(AsyncWebsocketConsumer):
    """In the room until the third message, which it does not take well."""

    groups = ("room",)
    heard = 0

    async def room_say(self, event: dict[str, Any]) -> None:
        self.heard += 1
        if self.heard == 3:
            raise OfTheTest


async def serve(inbox: asyncio.Queue[Message], accepted: asyncio.Event) -> None:
    async def send(message: Message) -> None:
        accepted.set()

    await Sibling.as_asgi()({"type": "websocket"}, inbox.get, send)


@pytest.mark.timeout(MESSAGES // 100 + 60)
async def test_consumers_that_fail_or_are_cancelled_cost_nothing(
    redis_server: Server, redis_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = {"failed": 0, "cancelled": 0, "left": 0}

    async def sibling(number: int) -> None:
        for turn in itertools.count(number):
            inbox: asyncio.Queue[Message] = asyncio.Queue()
            inbox.put_nowait({"type": "websocket.connect"})
            accepted = asyncio.Event()
            running = asyncio.create_task(serve(inbox, accepted))
            try:
                if turn % 3:
                    await accepted.wait()
                if turn % 3 == 1:
                    running.cancel()
                elif turn % 3 == 2:
                    inbox.put_nowait({"type": "websocket.disconnect", "code": 1000})
                await asyncio.wait([running])
            finally:
                await ended(running)
            if running.cancelled():
                ends["cancelled"] += 1
            elif running.exception() is None:
                ends["left"] += 1
            else:
                assert isinstance(running.exception(), OfTheTest)
                ends["failed"] += 1

    async with layers(redis_server, redis_prefix) as (sender, layer):
        monkeypatch.setattr(channel_layers, "_own", {"default": layer})
        stable = Stable(sender, layer, MESSAGES)
        await beside(stable, *(sibling(number) for number in range(SIBLINGS)))
        assert stable.numbers == list(range(MESSAGES))
        assert min(ends.values()) > 0, ends


async def test_a_queue_loses_nothing_to_receivers_that_are_cancelled(redis_server: Server, redis_prefix: str) -> None:
    count = MESSAGES // 20
    got: list[int] = []

    async def receive(layer: RedisChannelLayer) -> None:
        got.append((await layer.receive("work"))["n"])

    async def impatient(layer: RedisChannelLayer, number: int) -> None:
        for turn in itertools.count(number):
            receiving = asyncio.create_task(receive(layer))
            try:
                for _ in range(turn % 7):
                    await asyncio.sleep(0)
            finally:
                await ended(receiving)

    async def patient(layer: RedisChannelLayer) -> None:
        while len(got) < count:
            await receive(layer)

    async def send(layer: RedisChannelLayer) -> None:
        number = 0
        while number < count:
            try:
                await layer.send("work", {"type": "work", "n": number})
            except ChannelFull:
                continue
            number += 1

    async with layers(redis_server, redis_prefix) as (sender, layer):
        tasks = [asyncio.create_task(impatient(layer, number)) for number in range(SIBLINGS)]
        tasks.append(asyncio.create_task(patient(layer)))
        try:
            await send(sender)
            async with asyncio.timeout(SECONDS):
                while len(got) < count:
                    await asyncio.sleep(0.005)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert sorted(got) == list(range(count))
