"""Consumers without a server: how to make them, and connections of which only the queues are there.

A stub is what servers give an application, a coroutine to receive by and one to send by, and no more. So what is
measured is the consumer. Ours and Channels' get the same class body, on whichever base.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeAlias

from channels.layers import InMemoryChannelLayer as ChannelsLayer
from channels.layers import channel_layers
from django.conf import settings

from benches.compare.rounds import Variant
from headrace.django import _patch as patch
from headrace.layers import InMemoryChannelLayer

AnyLayer: TypeAlias = InMemoryChannelLayer | ChannelsLayer

CONNECT = {"type": "websocket.connect"}


def use_django() -> None:
    """Configure Django in this process, as Channels demands it; from then on both projects share one registry."""
    if not settings.configured:
        settings.configure(CHANNEL_LAYERS={"default": {"BACKEND": "headrace.layers.InMemoryChannelLayer"}})


@contextmanager
def default_layer(layer: AnyLayer) -> Iterator[None]:
    """Let consumers that start in this context find a layer; each keeps what it finds."""
    before = channel_layers.set("default", layer)
    try:
        yield
    finally:
        channel_layers.set("default", before)


def scope() -> dict[str, Any]:
    """Make the scope of a new connection."""
    return {"type": "websocket", "path": "/", "headers": [], "query_string": b"", "asgi": {"version": "3.0"}}


async def sink(_message: object) -> None:
    """Take what a consumer sends, at once."""


def member(base: Any, group: str, arrive: Callable[[], None]) -> Any:
    """Make a class of consumers that join a group, and whose handler says that a message has arrived.

    Args:
        base: An asynchronous WebSocket consumer, of ours or of Channels.
        group: The group.
        arrive: Called once when a consumer is connected, and then for each message.
    """

    class Member(base):  # type: ignore[misc]  # whichever base is measured
        async def connect(self) -> None:
            await self.channel_layer.group_add(group, self.channel_name)
            await self.accept()
            arrive()

        async def chat_message(self, _message: object) -> None:
            arrive()

    return Member


def echo(base: Any) -> Any:
    """Make a class of consumers that send back what they receive."""

    class Echo(base):  # type: ignore[misc]  # whichever base is measured
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.send(text_data=text_data, bytes_data=bytes_data)

    return Echo


@contextmanager
def app() -> Iterator[None]:
    """Have `headrace.django` among the apps."""
    patch.apply()
    try:
        yield
    finally:
        patch.revert()


def with_app(variant: Variant) -> Variant:
    """Run a variant as in a project that has `headrace.django` among its apps, and the others as in one that has not.

    It is applied and reverted around each slice, which takes microseconds.
    """

    async def run() -> None:
        with app():
            await variant.run()

    return replace(variant, run=run)
