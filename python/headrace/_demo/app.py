"""The demo's ASGI application: a chat in which every room is a group of the channel layer.

Read `ChatConsumer` first, then `make_app`: a consumer for each kind of connection, and routers that choose.

Guaranteed: a page of another site opens no socket here.
A frame that makes no sense is answered with an `error` frame and the socket stays.
What a room says reaches each member in order, between its `joined` and its `left`.
A socket that reads slowly holds up nobody: its own mailbox fills, further messages for it are
dropped and counted (`dropped_full`), and the sender's `sent` frame says how many were.
Who is in a room is the layer's presence: a page gets the whole list, and from then on what has changed.
Where the layer keeps a history of rooms, as that of the command does, who comes gets the last of what was said first,
and who comes again all that was said meanwhile, or is told that it is not known any more.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any, ClassVar

from headrace import (
    AsyncHttpConsumer,
    AsyncWebsocketConsumer,
    ChannelFull,
    LayerUnavailable,
    ProtocolTypeRouter,
    URLRouter,
    channel_layers,
    consumer_stats,
    encode_once,
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
    group_name,
    parse,
    visitor_id,
    with_position,
)
from headrace._demo.load import SECONDS, Busy, LayerName, Load, Loads
from headrace.layers import InMemoryChannelLayer, RedisChannelLayer
from headrace.security.websocket import WebsocketDenier
from headrace.typing import Application, Message, Receive, Scope, Send

ALIAS = "demo"
"""The alias of the demo's layer, so that `make_app` can be given any. Without one, consumers use the default layer."""

HISTORY = {"demo.room.*": {"size": 100, "ttl": 3600}}
"""The setting of a layer that keeps the last of what each room says."""
PRESENCE = {"demo.room.*": {"interval": 0.1, "linger": 3, "max": 100}}
"""The setting of a layer that tells each room who is there. Whoever leaves may return for `linger` seconds, unseen."""

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
    layer: InMemoryChannelLayer | RedisChannelLayer, board: Board | None = None, *, load_seconds: float = SECONDS
) -> Application:
    """Return the demo as an ASGI application.

    It serves the page at `/`, the counters at `/stats` and the chat at `/ws`.

    Args:
        layer: A layer with ``presence=PRESENCE``; with ``history=HISTORY`` rooms have one. It takes the place of the
            one that an earlier call was given: a process has one demo.
        board: The counters of all workers, or None where there is this one alone.
        load_seconds: How long a load lasts that nobody ends.
    """
    channel_layers.set(ALIAS, layer)
    place = Place(board or Board(layer), Loads(layer), load_seconds)
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

    board: Board
    loads: Loads
    load_seconds: float


@dataclass(frozen=True, slots=True)
class Visit:
    """One stay in a room: the room's name, its group, and whom the others see there."""

    room: str
    group: str
    id: str
    name: str


class ChatConsumer(AsyncWebsocketConsumer):
    """One browser in the chat."""

    channel_layer_alias = ALIAS
    # It is listed in its room, and told who else is.
    presence = True
    # A page that has lost its connection says where it was, and gets what it has missed.
    resume = True
    # What waits for a slow socket is at most this many frames. The one too many is refused: then its sender is told,
    # while with "drop_old" somebody's message would be lost after its sender had read that it was delivered.
    max_backlog = 100
    overflow = "drop_new"
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
            case Leave(), Visit() as visit:
                await self._leave(visit)

    def presence_key(self) -> str | None:
        """Return who this is: the same before and after a lost connection, so that nobody sees it go."""
        return None if self.visit is None else self.visit.id

    def presence_meta(self) -> dict[str, str] | None:
        """Return what the others see."""
        return None if self.visit is None else {"name": self.visit.name}

    async def presence_diff(self, event: Message) -> None:
        """Pass on who is in the room."""
        if self.visit is not None and self.visit.group == event["group"]:
            told = {key: event[key] for key in ("scope", "joins", "online", "offline", "count")}
            await self.send(encode_once({"type": "presence", **told}))

    async def chat_frame(self, event: Message) -> None:
        """Pass on what a room says, which is encoded already, with where the page is when it has that."""
        await self.send(with_position(event["text"], self.position))

    async def resumed(self, group: str, complete: bool) -> None:
        """Say whether the page has got all that it had missed."""
        await self.send(encode_once({"type": "resumed", "complete": complete}))

    async def disconnect(self, code: int) -> None:
        """End the load, whatever ended the connection; the room is left by itself."""
        if self.load is not None:
            self.load.stop()
        if self.telling is not None:
            self.telling.cancel()

    async def on_error(self, exc: Exception, message: Message) -> None:
        """Answer a frame that was refused or could not be sent, and go on; any other error ends the connection."""
        if isinstance(exc, BadFrame | LayerUnavailable):
            await self.send(encode_once({"type": "error", "error": str(exc)}))
        elif isinstance(exc, ChannelFull):
            # It reads so slowly that not even `joined` or `left` finds room.
            await self.close(TRY_AGAIN_LATER)
        else:
            await super().on_error(exc, message)

    async def _join(self, frame: Join) -> None:
        visit = Visit(frame.room, group_name(frame.room), visitor_id(frame.secret), frame.name)
        has_history = await self.channel_layer.group_position(visit.group) is not None
        await self._tell("joined", room=visit.room, id=visit.id, name=visit.name, history=has_history)
        try:
            await self.join_group(visit.group, newest=_NEWEST if has_history else 0)
        except LayerUnavailable as error:
            await self._tell("left", room=visit.room)
            await self._tell("error", error=str(error))
            return
        self.visit = visit
        if has_history:
            # What comes before it was said before.
            await self._tell("caught_up")

    async def _say(self, visit: Visit, frame: Say) -> None:
        """Send what somebody says to every member; who is too slow misses it, and the speaker is told how many did."""
        said = {"at": int(time.time() * 1000), "id": visit.id, "name": visit.name, "text": frame.text, "ref": frame.ref}
        text = encode_once({"type": "message", **said})
        report = await self.channel_layer.group_send(visit.group, {"type": "chat.frame", "text": text})
        dropped = report.dropped_full + report.dropped_other
        sent = {"type": "sent", "ref": frame.ref, "delivered": report.delivered_here, "dropped": dropped}
        await self.send(encode_once(sent))

    async def _leave(self, visit: Visit) -> None:
        self.visit = None
        await self.channel_layer.group_discard(visit.group, self.channel_name)
        await self._tell("left", room=visit.room)

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
