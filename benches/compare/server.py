"""The server of `sockets.py`: uvicorn with an application for each way to send a text to everybody.

``python -m benches.compare.server DESCRIPTOR PROCESSOR LOOP BYTES [--deflate]`` serves on a listening socket that it
inherits. Who connects to ``/NAME`` is sent what is sent that way. Who connects to ``/control`` says names, each for one
text to all who came that way, or ``clock``, which is answered with the processor time of this process in nanoseconds.
``tick`` starts a task that does nothing in each turn of the loop, and ``tock`` ends it and is answered with its longest
pause, in nanoseconds of the thread's processor time.

All ways are in one process and on one loop, so that whatever slows one down slows down all.
"""

import argparse
import asyncio
import gc
import os
import random
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from channels.generic.websocket import AsyncWebsocketConsumer as ChannelsConsumer
from channels.layers import InMemoryChannelLayer as ChannelsLayer
from channels.layers import channel_layers

from benches.compare import stubs
from headrace._frames.extension import EXTENSION
from headrace.generic.websocket import AsyncWebsocketConsumer
from headrace.layers import InMemoryChannelLayer
from headrace.typing import Application, Receive, Scope, Send
from headrace.uvicorn import WebSocketProtocol

PLAIN, HANDLER, FORWARD, CHANNELS = "plain", "handler", "forward", "channels"
FRAMES_HANDLER, FRAMES_FORWARD = "frames-handler", "frames-forward"
ECHO, CONSUMER_ECHO, FRAMES_ECHO = "echo", "consumer-echo", "frames-echo"
CONTROL, CLOCK, TICK, TOCK = "control", "clock", "tick", "tock"
LETTERS = "etaoin shrdlu"


class Plain:
    """The reference: one loop that awaits each `send`, with one message for all."""

    def __init__(self, text: str) -> None:
        self._message = {"type": "websocket.send", "text": text}
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
            await send(self._message)


async def echo(_scope: Scope, receive: Receive, send: Send) -> None:
    """Send a client what it sends."""
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event["text"]})


class Echo(AsyncWebsocketConsumer):
    """The same, as a consumer."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=text_data)


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


class Either(WebSocketProtocol):
    """uvicorn's own protocol, but for those that are sent frames: only their messages are compressed each by itself."""

    def handle_connect(self, event: Any) -> None:
        if "frames" not in event.path:
            for factory in self.conn.available_extensions or ():
                factory.server_no_context_takeover = False  # type: ignore[attr-defined]
        super().handle_connect(event)


class Server:
    """All ways, and who controls them.

    Args:
        size: The bytes of the text.
    """

    def __init__(self, size: int) -> None:
        self._message = {"type": "chat.message", "text": text_of(size)}
        self._longest = 0
        plain = Plain(self._message["text"])
        self._serve: dict[str, Any] = {PLAIN: plain.serve, CONTROL: self._control}
        self._broadcast: dict[str, Callable[[], Awaitable[object]]] = {PLAIN: plain.broadcast}
        for handler, forward in ((HANDLER, FORWARD), (FRAMES_HANDLER, FRAMES_FORWARD)):
            self._add(handler, AsyncWebsocketConsumer, InMemoryChannelLayer())
            self._add(forward, AsyncWebsocketConsumer, InMemoryChannelLayer(), frozenset({"chat.message"}))
        self._add(CHANNELS, ChannelsConsumer, ChannelsLayer())
        self._serve |= {ECHO: echo, CONSUMER_ECHO: Echo.as_asgi(), FRAMES_ECHO: Echo.as_asgi()}

    def _add(self, name: str, base: Any, layer: stubs.AnyLayer, forward: frozenset[str] = frozenset()) -> None:
        channel_layers.set(name, layer)
        self._serve[name] = consumer(base, name, forward).as_asgi()
        self._broadcast[name] = lambda: layer.group_send(name, self._message)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection by its path."""
        way = scope["path"].strip("/")
        if not way.startswith("frames"):
            # As on a server that takes no frames.
            scope["extensions"].pop(EXTENSION, None)
        await self._serve[way](scope, receive, send)

    async def _tick(self) -> None:
        self._longest, last = 0, time.thread_time_ns()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time_ns()
            self._longest, last = max(self._longest, now - last), now

    async def _control(self, _scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        gc.collect()
        gc.freeze()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            if event["text"] == CLOCK:
                await send({"type": "websocket.send", "text": str(time.process_time_ns())})
            elif event["text"] == TICK:
                ticking = asyncio.create_task(self._tick())
                # The word behind it may be there already.
                await asyncio.sleep(0)
            elif event["text"] == TOCK:
                ticking.cancel()
                await send({"type": "websocket.send", "text": str(self._longest)})
            else:
                await self._broadcast[event["text"]]()


def text_of(size: int) -> str:
    """Make up a text that can be compressed about as well as what people write."""
    return "".join(random.Random(size).choices(LETTERS, weights=range(len(LETTERS), 0, -1), k=size))


def run(
    application: Application,
    descriptor: int,
    loop: str = "uvloop",
    protocol: str | type[asyncio.Protocol] = "websockets-sansio",
    *,
    deflate: bool = False,
) -> None:
    """Serve an application on a listening socket, until told to stop by a signal."""
    config = uvicorn.Config(
        application,
        loop="uvloop" if loop == "uvloop" else "asyncio",
        ws=protocol,
        ws_per_message_deflate=deflate,
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
    parser.add_argument("loop")
    parser.add_argument("bytes", type=int)
    parser.add_argument("--deflate", action="store_true")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {arguments.processor})
    stubs.use_django()
    run(Server(arguments.bytes), arguments.descriptor, arguments.loop, Either, deflate=arguments.deflate)


if __name__ == "__main__":
    main()
