"""The server of `sockets.py`: uvicorn with an application for each way to send a text to everybody.

``python -m benches.compare.server DESCRIPTOR PROCESSOR`` serves on a listening socket that it inherits. Who connects to
``/NAME`` is sent what is sent that way. Who connects to ``/control`` says names, each for one text to all who came
that way, or ``clock``, which is answered with the processor time of this process in nanoseconds.

All ways are in one process and on one loop, so that whatever slows one down slows down all.
"""

import argparse
import gc
import os
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from channels.generic.websocket import AsyncWebsocketConsumer as ChannelsConsumer
from channels.layers import InMemoryChannelLayer as ChannelsLayer
from channels.layers import channel_layers

from benches.compare import stubs
from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.layers import InMemoryChannelLayer
from headrace.typing import Application, Receive, Scope, Send

PLAIN, HANDLER, FORWARD, CHANNELS = "plain", "handler", "forward", "channels"
CONTROL, CLOCK = "control", "clock"
TEXT = "x" * 100
MESSAGE = {"type": "chat.message", "text": TEXT}


class Plain:
    """The reference: one loop that awaits each `send`, with one message for all."""

    def __init__(self) -> None:
        self._sends: list[Send] = []

    async def serve(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        await receive()
        self._sends.append(send)
        await send({"type": "websocket.accept"})
        await receive()

    async def broadcast(self) -> None:
        """Send the text to everybody."""
        for send in self._sends:
            await send({"type": "websocket.send", "text": TEXT})


def consumer(base: Any, alias: str, forward: frozenset[str]) -> Any:
    """Make a class of consumers that are in one group of a layer.

    Args:
        base: An asynchronous WebSocket consumer, of ours or of Channels.
        alias: Which layer; the group has the same name.
        forward: What ours forwards; the others do not look.
    """

    class Member(base):  # type: ignore[misc]  # whichever base is measured
        channel_layer_alias = alias

        async def connect(self) -> None:
            await self.channel_layer.group_add(alias, self.channel_name)
            await self.accept()

        async def chat_message(self, event: dict[str, str]) -> None:
            await self.send(text_data=event["text"])

    return type("Member", (Member,), {"forward": forward})


class Server:
    """All ways, and who controls them."""

    def __init__(self) -> None:
        plain = Plain()
        self._serve: dict[str, Any] = {PLAIN: plain.serve, CONTROL: self._control}
        self._broadcast: dict[str, Callable[[], Awaitable[object]]] = {PLAIN: plain.broadcast}
        self._add(HANDLER, AsyncWebsocketConsumer, InMemoryChannelLayer())
        self._add(FORWARD, AsyncWebsocketConsumer, InMemoryChannelLayer(), frozenset({"chat.message"}))
        self._add(CHANNELS, ChannelsConsumer, ChannelsLayer())

    def _add(self, name: str, base: Any, layer: stubs.AnyLayer, forward: frozenset[str] = frozenset()) -> None:
        channel_layers.set(name, layer)
        self._serve[name] = consumer(base, name, forward).as_asgi()
        self._broadcast[name] = lambda: layer.group_send(name, MESSAGE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection by its path."""
        await self._serve[scope["path"].strip("/")](scope, receive, send)

    async def _control(self, _scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        gc.collect()
        gc.freeze()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            if event["text"] == CLOCK:
                await send({"type": "websocket.send", "text": str(time.process_time_ns())})
            else:
                await self._broadcast[event["text"]]()


def run(application: Application, descriptor: int) -> None:
    """Serve an application on a listening socket, until told to stop by a signal."""
    config = uvicorn.Config(
        application,
        loop="uvloop",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        # A ping in the middle of a slice would be counted.
        ws_ping_interval=None,
        lifespan="off",
        log_level="warning",
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])


def main() -> None:
    """Serve until told to stop by a signal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("descriptor", type=int)
    parser.add_argument("processor", type=int)
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {arguments.processor})
    stubs.use_django()
    run(Server(), arguments.descriptor)


if __name__ == "__main__":
    main()
