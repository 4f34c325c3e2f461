"""What the tests of the drain serve: an application that drains its process at SIGTERM, as its environment says.

``HEADRACE_TEST_DRAIN`` has the seconds and the spread, ``HEADRACE_TEST_REPORTS`` a file to which each ``disconnect`` is
written, and ``HEADRACE_TEST_GATE`` one that ``held`` waits for.
"""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from headrace import (
    AsyncWebsocketConsumer,
    BaseSocketServer,
    InMemoryChannelLayer,
    ProtocolTypeRouter,
    URLRouter,
    WebsocketConsumer,
    configure,
    drain_on_sigterm,
    lifespan,
    path,
)

configure(layers={"default": InMemoryChannelLayer()})
SECONDS, SPREAD = map(float, os.environ["HEADRACE_TEST_DRAIN"].split())
GATE = Path(os.environ["HEADRACE_TEST_GATE"])


def report(who: object, code: int) -> None:
    with open(os.environ["HEADRACE_TEST_REPORTS"], "a", encoding="utf-8") as reports:
        reports.write(json.dumps([type(who).__name__, code]) + "\n")


class Plain(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data, bytes_data)

    async def disconnect(self, code: int) -> None:
        report(self, code)


class Polite(Plain):
    async def on_drain(self) -> None:
        await self.send(text_data="back in a moment")
        await super().on_drain()


class Held(Plain):
    async def on_drain(self) -> None:
        await self.send(text_data="draining")
        while not GATE.exists():
            await asyncio.sleep(0.01)
        await super().on_drain()


class Sync(WebsocketConsumer):
    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.send(text_data, bytes_data)

    def disconnect(self, code: int) -> None:
        report(self, code)


class Socket(BaseSocketServer):
    async def receive(self, data: Any) -> None:
        await self.async_send(data)

    async def disconnect(self, code: int) -> None:
        report(self, code)


KINDS: dict[str, Any] = {"plain": Plain, "polite": Polite, "held": Held, "sync": Sync, "socket": Socket}

application = drain_on_sigterm(
    ProtocolTypeRouter(
        {
            "lifespan": lifespan,
            "websocket": URLRouter([path(f"{name}/", kind.as_asgi()) for name, kind in KINDS.items()]),
        }
    ),
    SECONDS,
    SPREAD,
)
