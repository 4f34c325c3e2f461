"""What a server in a process of its own serves in these tests."""

from typing import Any

from tests.frames.consumers import Member

from headrace import configure
from headrace._frames.extension import EXTENSION
from headrace.layers import InMemoryChannelLayer

configure(layers={"default": InMemoryChannelLayer()})


class Application(Member):
    """Says what the server has, and tells all what its client sends."""

    async def connect(self) -> None:
        await self.accept()
        await self.send(text_data=type(self.scope["extensions"].get(EXTENSION)).__name__)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.channel_layer.group_send("all", {"type": "plain", "text": text_data})


application: Any = Application.as_asgi()
