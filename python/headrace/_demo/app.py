"""The demo's ASGI application: a chat in which every room is a group of the channel layer.

Read `ChatConsumer` first, then `make_app`: a consumer for each kind of connection, and routers that choose.

Guaranteed: a page of another site opens no socket here.
A frame that makes no sense is answered with an `error` frame and the socket stays.
What a room says reaches each member in order, between its `joined` and its `left`.
A socket that reads slowly holds up nobody: its own mailbox fills, further messages for it are
dropped and counted (`dropped_full`), and the sender's `sent` frame says how many were.
Where the layer keeps a history of rooms, as that of the command does, who comes gets the last of what was said first,
and who comes again all that was said meanwhile, or is told that it is not known any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
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
from headrace._demo.board import Board
from headrace._demo.frames import (
    BadFrame,
    Join,
    Leave,
    Say,
    StartLoad,
    StopLoad,
    Who,
    group_name,
    parse,
    with_position,
)
from headrace._demo.load import SECONDS, Busy, LayerName, Load, Loads
from headrace._demo.roster import Layer, Roster, Visitor
from headrace.security.websocket import WebsocketDenier
from headrace.typing import AnyChannelLayer, Application, Message, Receive, Scope, Send

ALIAS = "demo"
"""The alias of the demo's layer, so that `make_app` can be given any. Without one, consumers use the default layer."""

HISTORY = {"demo.room." + "?" * 64: {"size": 100, "ttl": 3600}}
"""The setting of a layer that keeps the last of what each room says."""

TRY_AGAIN_LATER = 1013
# Frames that somebody who comes for the first time gets of a room.
_NEWEST = 50
# How often a browser is told how its load goes.
_TELL_SECONDS = 0.5
_logger = logging.getLogger("headrace.demo")

# The page carries its own style and script and may load nothing from anywhere else.
_PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data:; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'"
)


def make_app(
    layer: AnyChannelLayer | None = None, board: Board | None = None, *, load_seconds: float = SECONDS
) -> Application:
    """Return the demo as an ASGI application.

    It serves the page at `/`, the counters at `/stats` and the chat at `/ws`.

    Args:
        layer: A layer of headrace, or None for the default one; with ``history=HISTORY`` rooms have one. It takes the
            place of the one that an earlier call was given: a process has one demo.
        board: The counters of all workers, or None where there is this one alone.
        load_seconds: How long a load lasts that nobody ends.

    Raises:
        TypeError: It is no layer of headrace, and the chat counts members and drops.
    """
    layer = get_channel_layer() if layer is None else layer
    if not isinstance(layer, Layer):
        raise TypeError(f"the demo needs a layer of headrace, got {layer!r}")
    channel_layers.set(ALIAS, layer)
    place = Place(Roster(layer), board or Board(layer), Loads(layer), load_seconds)
    return ProtocolTypeRouter(
        {
            "http": URLRouter([path("", PageConsumer), path("stats", StatsConsumer.as_asgi(place=place))]),
            "websocket": _of_this_site(URLRouter([path("ws", ChatConsumer.as_asgi(place=place))])),
        }
    )


def _of_this_site(application: Application) -> Application:
    """Refuse a WebSocket that a page of another site opens: a browser lets each try, and names its origin."""

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        origin, host = headers.get(b"origin"), headers.get(b"host", b"")
        # What is no browser names no origin.
        if origin is None or origin.lower().partition(b"://")[2] == host.lower():
            await application(scope, receive, send)
        else:
            _logger.warning("a WebSocket to %r is refused: it is opened by a page of %r", host, origin[:200])
            await WebsocketDenier()(scope, receive, send)

    return checked


@dataclass(frozen=True, slots=True)
class Place:
    """What the connections of a process share."""

    roster: Roster
    board: Board
    loads: Loads
    load_seconds: float


@dataclass(frozen=True, slots=True)
class Visit:
    """One stay in a room: the room's name, its group, and who is there."""

    room: str
    group: str
    member: Visitor


class ChatConsumer(AsyncWebsocketConsumer):
    """One browser in the chat."""

    channel_layer_alias = ALIAS
    # A page that has lost its connection says where it was, and gets what it has missed.
    resume = True
    # What waits for a slow socket is at most this many frames. The one too many is refused: then its sender is told,
    # while with "drop_old" somebody's message would be lost after its sender had read that it was delivered.
    max_backlog = 100
    overflow = "drop_new"
    # A membership lasts a day unless it is renewed, and who listens may be silent for longer.
    idle_timeout = 3600
    # Far more than somebody types, and than the demo's own check sends.
    rate_limit = "50/s"

    # Where this socket is, while it is in a room.
    visit: Visit | None = None
    # The load that this socket has begun, and the task that tells how it goes.
    load: Load | None = None
    telling: asyncio.Task[None] | None = None

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place

    async def connect(self) -> None:
        """Say where the browser has come to."""
        await self.accept()
        board, loads = self.place.board, self.place.loads
        hello = {"type": "hello", "worker": board.worker, "workers": board.workers, "layers": loads.layers}
        await self.send(encode_once(hello))

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Do what a frame of the browser says."""
        match parse(text_data), self.visit:
            case StartLoad(members, layer), _:
                await self._start_load(members, layer)
            case StopLoad(), _:
                await self._end_load()
            case Join() as join, None:
                await self._join(join)
            case Join(), _:
                raise BadFrame("already in a room, leave it first")
            case _, None:
                raise BadFrame("join a room first")
            case Say() as say, Visit() as visit:
                await self._say(visit, say)
            case Who(), Visit() as visit:
                await self.send(encode_once({"type": "people", "people": self._roster.people(visit.group)}))
            case Leave(), Visit() as visit:
                await self._depart(visit)
                await self._tell("left", room=visit.room)

    async def chat_frame(self, event: Message) -> None:
        """Pass on what a room says, which is encoded already, with where the page is when it has that."""
        await self.send(with_position(event["text"], self.position))

    async def resumed(self, group: str, complete: bool) -> None:
        """Say whether the page has got all that it had missed."""
        await self.send(encode_once({"type": "resumed", "complete": complete}))

    async def disconnect(self, code: int) -> None:
        """Leave the room and end the load, whatever ended the connection."""
        if self.load is not None:
            self.load.stop()
        if self.telling is not None:
            self.telling.cancel()
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
        return self.place.roster

    async def _join(self, frame: Join) -> None:
        group = group_name(frame.room)
        visit = Visit(frame.room, group, Visitor(secrets.token_hex(8), frame.name))
        members = self._roster.count(group) + 1
        people = self._roster.people(group)
        has_history = await self.channel_layer.group_position(group) is not None
        about = {"room": visit.room, "members": members, "people": people, "history": has_history}
        await self._tell("joined", **about, **asdict(visit.member))
        await self._stay(visit, _NEWEST if has_history else 0)
        if has_history:
            # What comes before it was said before.
            await self._tell("caught_up")
        await self._publish(visit, "member", exclude=self.channel_name, event="joined")

    async def _stay(self, visit: Visit, newest: int = 0) -> None:
        """Enter a room, or renew the membership."""
        self.visit = visit
        await self._roster.enter(visit.group, visit.member, self.channel_name)
        await self.join_group(visit.group, newest=newest)

    async def _say(self, visit: Visit, frame: Say) -> None:
        await self._stay(visit)
        report = await self._publish(visit, "message", text=frame.text, ref=frame.ref)
        dropped = report.dropped_full + report.dropped_other
        sent = {"type": "sent", "ref": frame.ref, "delivered": report.delivered_here, "dropped": dropped}
        await self.send(encode_once(sent))

    async def _depart(self, visit: Visit) -> None:
        self.visit = None
        await self._roster.leave(visit.group, visit.member, self.channel_name)
        await self.channel_layer.group_discard(visit.group, self.channel_name)
        await self._publish(visit, "member", event="left")

    async def _start_load(self, members: int, layer: LayerName) -> None:
        """Begin a load, in the place of the one that this browser has begun before."""
        if layer not in self.place.loads.layers:
            raise BadFrame("a load on Channels' layer needs channels installed, and a demo in one process")
        await self._end_load()
        try:
            self.load = self.place.loads.begin(members, layer, self.place.load_seconds)
        except Busy as busy:
            await self.send(encode_once({"type": "unloaded", "error": str(busy)}))
            return
        self.telling = asyncio.create_task(self._tell_load(self.load, members, layer))

    async def _end_load(self) -> None:
        if self.load is not None and self.telling is not None:
            self.load.stop()
            await self.telling

    async def _tell_load(self, load: Load, members: int, layer: LayerName) -> None:
        """Tell how the load goes until it has ended, and that it has."""
        before, told = load.reading(), False
        ended = asyncio.create_task(load.wait_ended())
        while not ended.done():
            await asyncio.wait([ended], timeout=_TELL_SECONDS)
            now = load.reading()
            if ended.done() and told:
                # It ended within this interval, so there is no rate for it.
                break
            numbers = {
                "rate": (now.delivered - before.delivered) / max(now.at - before.at, 0.001),
                "mean": now.delivered / max(now.seconds, 0.001),
                "latency": now.latency,
                "waiting": now.waiting,
                "left": now.left,
            }
            await self.send(encode_once({"type": "load", "members": members, "layer": layer, **numbers}))
            before, told = now, True
        self.load = None
        await self.send(encode_once({"type": "unloaded", "error": load.error}))

    async def _publish(
        self, visit: Visit, kind: str, *, exclude: str | Collection[str] = (), **fields: object
    ) -> SendReport:
        """Send a frame to every member of a room; who is too slow misses it, and the report says so.

        It carries the member count, so that whoever missed a `member` frame is put right by the next frame of any kind.
        """
        at = int(time.time() * 1000)
        members = self._roster.count(visit.group)
        text = encode_once({"type": kind, "at": at, "members": members, **asdict(visit.member), **fields})
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

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place

    def read(self) -> bytes:
        """Return the counters of this worker and of all, with the times they were read at: a page can tell a rate."""
        board = self.place.board
        board.post()
        rows = board.rows()
        content: dict[str, Any] = {**rows[board.worker - 1], "worker": board.worker, "workers": rows}
        return json.dumps({**content, "sockets": asdict(consumer_stats(ChatConsumer))}).encode()
