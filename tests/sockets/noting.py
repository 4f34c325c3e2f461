"""Socket servers that keep what their hooks are called with."""

from typing import Any

from headrace.sockets import BaseSocketServer

ACCEPT = {"type": "websocket.accept"}


class Noting(BaseSocketServer):
    """Keeps what its hooks are called with."""

    def configure(self) -> None:
        self.noted: list[Any] = []

    async def connect(self) -> None:
        self.noted.append("connect")

    async def receive(self, data: Any) -> None:
        self.noted.append(data)

    async def disconnect(self, code: int = 1000) -> None:
        self.noted.append(("disconnect", code))


class Subscribed(Noting):
    async def connect(self) -> None:
        await self.async_subscribe("news")
