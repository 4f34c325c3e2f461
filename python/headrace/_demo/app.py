"""The demo's ASGI application: a chat in which every room is a group of the channel layer.

Read `ChatConsumer` first, then `make_app`: a consumer for each kind of connection, and routers that choose.

Guaranteed: a frame that makes no sense is answered with an `error` frame and the socket stays.
What a room says reaches each member in order, between its `joined` and its `left`.
A socket that reads slowly holds up nobody: its own mailbox fills, further messages for it are
dropped and counted (`dropped_full`), and the sender's `sent` frame says how many were.
Not guaranteed: history. Who was not in the room has not got the message.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any, ClassVar

from headrace import (
    AsyncHttpConsumer,
    AsyncWebsocketConsumer,
    ChannelFull,
    LayerUnavailable,
    ProtocolTypeRouter,
    SendReport,
    URLRouter,
    channel_layers,
    consumer_stats,
    encode_once,
    get_channel_layer,
    path,
)
from headrace._demo.frames import BadFrame, Join, Leave, Say, group_name, parse
from headrace._demo.roster import Layer, Roster
from headrace.typing import AnyChannelLayer, Application, Message

ALIAS = "demo"
"""The alias of the demo's layer, so that `make_app` can be given any. Without one, consumers use the default layer."""

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

TRY_AGAIN_LATER = 1013

# The page carries its own style and script and may load nothing from anywhere else.
_PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data:; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'"
)


def make_app(layer: AnyChannelLayer | None = None) -> Application:
    """Return the demo as an ASGI application.

    It serves the page at `/`, the counters at `/stats` and the chat at `/ws`.

    Args:
        layer: A layer of headrace, or None for the default one. It takes the place of the one that an
            earlier call was given: a process has one demo.

    Raises:
        TypeError: It is no layer of headrace, and the chat counts members and drops.
    """
    layer = get_channel_layer() if layer is None else layer
    if not isinstance(layer, Layer):
        raise TypeError(f"the demo needs a layer of headrace, got {layer!r}")
    channel_layers.set(ALIAS, layer)
    return ProtocolTypeRouter(
        {
            "http": URLRouter([path("", PageConsumer), path("stats", StatsConsumer)]),
            "websocket": URLRouter([path("ws", ChatConsumer)]),
        }
    )


@dataclass(frozen=True, slots=True)
class Visit:
    """One stay in a room: the room's name, its group, and who is there."""

    room: str
    group: str
    member: dict[str, str]


class ChatConsumer(AsyncWebsocketConsumer):
    """One browser in the chat."""

    channel_layer_alias = ALIAS
    # What rooms say is encoded already and goes to the socket as it is, without a handler of ours.
    forward = frozenset({"chat.frame"})
    # What waits for a slow socket is at most this many frames. The one too many is refused: then its sender is told,
    # while with "drop_old" somebody's message would be lost after its sender had read that it was delivered.
    max_backlog = 100
    overflow = "drop_new"
    # A membership lasts a day unless it is renewed, and who listens may be silent for longer.
    idle_timeout = 3600

    # Where this socket is, while it is in a room.
    visit: Visit | None = None

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Do what a frame of the browser says."""
        match parse(text_data), self.visit:
            case Join() as join, None:
                await self._join(join)
            case Join(), _:
                raise BadFrame("already in a room, leave it first")
            case _, None:
                raise BadFrame("join a room first")
            case Say() as say, Visit() as visit:
                await self._say(visit, say)
            case Leave(), Visit() as visit:
                await self._depart(visit)
                await self._tell("left", room=visit.room)

    async def disconnect(self, code: int) -> None:
        """Leave the room, whatever ended the connection."""
        if self.visit is not None:
            # A membership that cannot be ended now ends by itself.
            with contextlib.suppress(LayerUnavailable):
                await self._depart(self.visit)

    async def on_idle(self) -> None:
        """Stay in the room without a word."""
        if self.visit is not None:
            await self._stay(self.visit)

    async def on_error(self, exc: Exception, message: Message) -> None:
        """Answer a frame that was refused or could not be sent, and go on; any other error ends the connection."""
        if isinstance(exc, BadFrame | LayerUnavailable):
            await self.send(encode_once({"type": "error", "error": str(exc)}))
        elif isinstance(exc, ChannelFull):
            # It reads so slowly that not even `joined` or `left` finds room.
            await self.close(TRY_AGAIN_LATER)
        else:
            await super().on_error(exc, message)

    @property
    def _roster(self) -> Roster:
        return Roster(self.channel_layer)

    async def _join(self, frame: Join) -> None:
        group = group_name(frame.room)
        visit = Visit(frame.room, group, {"id": secrets.token_hex(8), "name": frame.name})
        members = self._roster.count(group) + 1
        await self._tell("joined", room=visit.room, members=members, **visit.member)
        await self._stay(visit)
        await self._publish(visit, "member", exclude=self.channel_name, event="joined")

    async def _stay(self, visit: Visit) -> None:
        """Enter a room, or renew the membership."""
        self.visit = visit
        await self._roster.enter(visit.group, visit.member["id"])
        await self.channel_layer.group_add(visit.group, self.channel_name)

    async def _say(self, visit: Visit, frame: Say) -> None:
        await self._stay(visit)
        report = await self._publish(visit, "message", text=frame.text, ref=frame.ref)
        dropped = report.dropped_full + report.dropped_other
        sent = {"type": "sent", "ref": frame.ref, "delivered": report.delivered, "dropped": dropped}
        await self.send(encode_once(sent))

    async def _depart(self, visit: Visit) -> None:
        self.visit = None
        await self._roster.leave(visit.group, visit.member["id"])
        await self.channel_layer.group_discard(visit.group, self.channel_name)
        await self._publish(visit, "member", event="left")

    async def _publish(
        self, visit: Visit, kind: str, *, exclude: str | Collection[str] = (), **fields: object
    ) -> SendReport:
        """Send a frame to every member of a room; who is too slow misses it, and the report says so.

        It carries the member count, so that whoever missed a `member` frame is put right by the next frame of any kind.
        """
        at = int(time.time() * 1000)
        members = self._roster.count(visit.group)
        text = encode_once({"type": kind, "at": at, "members": members, **visit.member, **fields})
        return await self.channel_layer.group_send(visit.group, {"type": "chat.frame", "text": text}, exclude=exclude)

    async def _tell(self, kind: str, **fields: object) -> None:
        """Send a frame to this socket through its own channel: behind what a room has said, before what the next says.

        Raises:
            ChannelFull: The socket is so slow that its mailbox is full.
        """
        text = encode_once({"type": kind, **fields})
        await self.channel_layer.send(self.channel_name, {"type": "chat.frame", "text": text})


class ReadConsumer(AsyncHttpConsumer):
    """Something to be read: answers GET and HEAD with what `read` returns."""

    channel_layer_alias = ALIAS
    content_type: str
    headers: ClassVar[dict[str, str]] = {}

    async def handle(self, body: bytes) -> None:
        """Answer the request."""
        if self.scope["method"] in ("GET", "HEAD"):
            await self._answer(200, self.read(), {"content-type": self.content_type, **self.headers})
        else:
            headers = {"content-type": "text/plain; charset=utf-8", "allow": "GET, HEAD"}
            await self._answer(405, b"method not allowed\n", headers)

    def read(self) -> bytes:
        """Return the body."""
        raise NotImplementedError

    async def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        headers |= {"cache-control": "no-store", "x-content-type-options": "nosniff", "content-length": str(len(body))}
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self.send_response(status, b"" if self.scope["method"] == "HEAD" else body, headers=pairs)


class PageConsumer(ReadConsumer):
    """The page, which is one file."""

    content_type = "text/html; charset=utf-8"
    headers: ClassVar = {"content-security-policy": _PAGE_POLICY}
    page = files("headrace._demo").joinpath("page.html").read_bytes()

    def read(self) -> bytes:
        """Return the page."""
        return self.page


class StatsConsumer(ReadConsumer):
    """The counters of the layer and of the chat's consumers."""

    content_type = "application/json"

    def read(self) -> bytes:
        """Return the counters with the time they were read at, so that a page can tell a rate."""
        stats = self.channel_layer.stats()
        counters = {name: getattr(stats, name) for name in COUNTERS}
        content: dict[str, Any] = {"time": time.monotonic(), "counters": counters}
        return json.dumps({**content, "sockets": asdict(consumer_stats(ChatConsumer))}).encode()
