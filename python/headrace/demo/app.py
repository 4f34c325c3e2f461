"""The demo's ASGI application: a chat in which every room is a group of the channel layer.

It shows the layer without consumers: one `layer.subscription(group)` per socket, one
`group_send` per message, and a task that carries what arrives to the browser.

Guaranteed: a frame that makes no sense is answered with an `error` frame and the socket stays.
A socket that reads slowly holds up nobody: its own mailbox fills, further messages for it are
dropped and counted (`dropped_full`), and the sender's `sent` frame says how many were.
Not guaranteed: history. Who was not in the room has not got the message.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from importlib.resources import files
from typing import Any, Protocol, runtime_checkable

from headrace.demo.frames import BadFrame, Frame, Join, Leave, Say, group_name, parse
from headrace.typing import Application, Receive, Scope, Send

COUNTERS = (
    "channels",
    "groups",
    "memberships",
    "waiters",
    "depth",
    "sent",
    "delivered",
    "returned",
    "dropped_full",
    "dropped_expired",
    "dropped_other",
)

# The page carries its own style and script and may load nothing from anywhere else.
_PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data:; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'"
)


class Report(Protocol):
    """What the demo reads from the report of a `group_send`."""

    @property
    def delivered(self) -> int: ...
    @property
    def dropped_full(self) -> int: ...
    @property
    def dropped_other(self) -> int: ...


class Inbox(Protocol):
    """A subscription: the messages of its groups in order, under one channel name."""

    @property
    def channel(self) -> str: ...
    def __aiter__(self) -> AsyncIterator[dict[str, Any]]: ...


@runtime_checkable
class Layer(Protocol):
    """The part of a channel layer that the demo uses."""

    def subscription(self, *groups: str) -> AbstractAsyncContextManager[Inbox]: ...
    async def group_send(
        self, group: str, message: dict[str, Any], *, exclude: str | Collection[str] = ...
    ) -> Report: ...
    def group_count(self, group: str) -> int: ...
    def stats(self) -> object: ...


def make_app(layer: Layer) -> Application:
    """Return the demo as an ASGI application on `layer`.

    It serves the page at `/`, the layer's counters at `/stats` and the chat at `/ws`.
    """
    page = files("headrace.demo").joinpath("page.html").read_bytes()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await _websocket(layer, scope, receive, send)
        elif scope["type"] == "http":
            await _http(layer, page, scope, send)
        else:
            raise ValueError(f"scope type must be http or websocket, got {scope['type']!r}")

    return app


async def _http(layer: Layer, page: bytes, scope: Scope, send: Send) -> None:
    headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
    if scope["path"] not in ("/", "/stats"):
        status, kind, body = 404, "text/plain; charset=utf-8", b"not found\n"
    elif scope["method"] not in ("GET", "HEAD"):
        status, kind, body = 405, "text/plain; charset=utf-8", b"method not allowed\n"
        headers["allow"] = "GET, HEAD"
    elif scope["path"] == "/":
        status, kind, body = 200, "text/html; charset=utf-8", page
        headers["content-security-policy"] = _PAGE_POLICY
    else:
        status, kind, body = 200, "application/json", json.dumps(_snapshot(layer)).encode()
    headers |= {"content-type": kind, "content-length": str(len(body))}
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _snapshot(layer: Layer) -> dict[str, Any]:
    """Return the counters with the time they were read at, so that a page can tell a rate."""
    stats = layer.stats()
    counters = {name: getattr(stats, name) for name in COUNTERS}
    return {"time": time.monotonic(), "counters": counters}


async def _websocket(layer: Layer, scope: Scope, receive: Receive, send: Send) -> None:
    await receive()  # websocket.connect, always the first
    if scope["path"] != "/ws":
        await send({"type": "websocket.close"})
        return
    await send({"type": "websocket.accept"})
    peer = _Peer(receive, send)
    while (frame := await peer.frame()) is not None:
        if isinstance(frame, Join):
            await _visit(layer, peer, frame)
        else:
            await peer.refuse("join a room first")


class _Peer:
    """One browser: its frames in, our frames out."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        # Set by `frame` at the disconnect, after which a server need not answer `receive`.
        self._gone = False

    async def frame(self) -> Frame | None:
        """Return the next frame that makes sense, answering those that do not.

        Return `None` once the socket is gone, however often it is asked.
        """
        while not self._gone:
            event = await self._receive()
            if event["type"] == "websocket.disconnect":
                self._gone = True
                break
            try:
                return parse(event.get("text"))
            except BadFrame as error:
                await self.refuse(str(error))
        return None

    async def send(self, frame: Mapping[str, Any]) -> None:
        """Send one frame; wait while the socket is slow, do nothing once it is gone."""
        await self.send_text(json.dumps(frame))

    async def send_text(self, text: str) -> None:
        """Send one frame that is encoded already, like `send`."""
        try:
            await self._send({"type": "websocket.send", "text": text})
        except (OSError, RuntimeError):
            # The peer has gone, and `frame` will hear of it. OSError is ASGI's word for that;
            # uvicorn says RuntimeError if the peer's close is answered but not yet received.
            return

    async def refuse(self, reason: str) -> None:
        """Tell the browser that its last frame was not understood."""
        await self.send({"type": "error", "error": reason})


async def _visit(layer: Layer, peer: _Peer, join: Join) -> None:
    """Keep one socket in one room, from its `join` to its `leave` or its end."""
    group = group_name(join.room)
    room = _Room(layer, group)
    member = {"id": secrets.token_hex(8), "name": join.name}
    try:
        async with layer.subscription(group) as inbox:
            await peer.send({"type": "joined", "room": join.room, **member, "members": room.members()})
            await room.publish("member", event="joined", **member, exclude=inbox.channel)
            async with asyncio.TaskGroup() as tasks:
                carrier = tasks.create_task(_carry(inbox, peer))
                await _converse(room, peer, member)
                carrier.cancel()
    finally:
        await room.publish("member", event="left", **member)
    await peer.send({"type": "left", "room": join.room})


async def _carry(inbox: Inbox, peer: _Peer) -> None:
    """Carry what arrives to the browser, in a task of its own, so that it waits for nobody."""
    async for message in inbox:
        await peer.send_text(message["frame"])


async def _converse(room: _Room, peer: _Peer, member: Mapping[str, str]) -> None:
    """Take what one member says, until it leaves or its socket ends."""
    while (frame := await peer.frame()) is not None:
        if isinstance(frame, Leave):
            return
        if isinstance(frame, Say):
            report = await room.publish("message", text=frame.text, ref=frame.ref, **member)
            dropped = report.dropped_full + report.dropped_other
            receipt = {"type": "sent", "ref": frame.ref, "delivered": report.delivered}
            await peer.send({**receipt, "dropped": dropped})
        else:
            await peer.refuse("already in a room, leave it first")


class _Room:
    """One room: a group of the layer, and the frames that go to all its members."""

    def __init__(self, layer: Layer, group: str) -> None:
        self._layer = layer
        self._group = group

    def members(self) -> int:
        """Return how many sockets are in the room now."""
        return self._layer.group_count(self._group)

    async def publish(self, kind: str, *, exclude: str | Collection[str] = (), **fields: object) -> Report:
        """Send one frame to every member; who is too slow misses it, and the report says so.

        The frame is encoded here, once, and every member's copy shares that one string.
        It carries the member count, so that whoever missed a `member` frame is put right by the
        next frame of any kind.
        """
        at = int(time.time() * 1000)
        frame = json.dumps({"type": kind, "at": at, "members": self.members(), **fields})
        message = {"type": "demo.frame", "frame": frame}
        return await self._layer.group_send(self._group, message, exclude=exclude)
