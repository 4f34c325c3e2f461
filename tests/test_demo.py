"""The demo: its chat over real sockets, its page, and the check that proves it in a terminal."""

import asyncio
import contextlib
import errno
import json
import re
import signal
import socket
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from typing import Any, Self

import pytest
import uvicorn
from tests.support.ports import Port
from tests.support.waiting import SECONDS
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websockets
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from headrace import InvalidChannelLayerError, LayerClosed, LayerUnavailable, consumer_stats
from headrace._demo import frames, make_app, serve
from headrace._demo.app import ChatConsumer
from headrace._demo.board import COUNTERS, Board
from headrace._demo.clients import self_check
from headrace._demo.load import Load, Loads, Reading
from headrace._demo.serve import CannotServe, Options, bind, serving
from headrace.layers import InMemoryChannelLayer
from headrace.testing import HttpCommunicator, ManualClock, WebsocketCommunicator

PROMPT = {"demo.room.*": {"interval": 0.01, "linger": 0}}
"""The setting of a layer that tells soon who comes and who leaves."""


def chat_layer(**settings: Any) -> InMemoryChannelLayer:
    return InMemoryChannelLayer(presence=PROMPT, **settings)


class Person:
    """One WebSocket client: over a socket, or over a communicator."""

    def __init__(self, send: Callable[[str | bytes], Awaitable[None]], receive: Callable[[], Awaitable[Any]]) -> None:
        self.send = send
        self._receive = receive
        self.hello: dict[str, Any] = {}
        self.joined: dict[str, Any] = {}
        # The names of those who are in the room, as it was told.
        self.people: dict[str, str] = {}

    async def say_frame(self, **frame: object) -> None:
        await self.send(json.dumps(frame))

    async def say(self, text: str, ref: str | None = None) -> None:
        await self.say_frame(type="say", text=text, ref=ref)

    async def frame(self) -> dict[str, Any]:
        frame: dict[str, Any] = json.loads(await self._receive())
        if frame["type"] == "presence":
            if frame["scope"] == "full":
                self.people.clear()
            self.people |= {key: metas[0]["name"] for key, metas in frame["joins"].items()}
            for key in frame["offline"]:
                del self.people[key]
            assert len(self.people) == frame["count"]
        return frame

    async def next(self, kind: str) -> dict[str, Any]:
        """Return the next frame of that type, skipping the others."""
        while (frame := await self.frame())["type"] != kind:
            pass
        return frame

    async def lists(self, *names: str) -> None:
        """Wait until this client has been told that these are in the room."""
        while sorted(self.people.values()) != sorted(names):
            await self.frame()


class Chat:
    """The application on a layer of its own, and communicators that are its clients."""

    def __init__(self, layer: InMemoryChannelLayer, open_connections: contextlib.AsyncExitStack) -> None:
        self.layer = layer
        self.app = make_app(layer)
        self.open_connections = open_connections

    async def connect(self) -> Person:
        person = self.person(await self.open_connections.enter_async_context(WebsocketCommunicator(self.app, "/ws")))
        person.hello = await person.next("hello")
        return person

    def person(self, ws: WebsocketCommunicator) -> Person:
        async def send(data: str | bytes) -> None:
            await (ws.send_to(data) if isinstance(data, str) else ws.send_to(bytes_data=data))

        return Person(send, lambda: ws.receive_from(SECONDS))

    async def join(self, name: str, room: str = "lobby") -> Person:
        person = await self.connect()
        await person.say_frame(type="join", room=room, name=name)
        person.joined = await person.next("joined")
        return person


class ServedChat(Chat):
    """A demo that is being served by uvicorn, and real clients."""

    def __init__(
        self, layer: InMemoryChannelLayer, open_connections: contextlib.AsyncExitStack, listener: socket.socket
    ) -> None:
        super().__init__(layer, open_connections)
        port = listener.getsockname()[1]
        self.page = f"http://127.0.0.1:{port}"
        self.socket = f"ws://127.0.0.1:{port}/ws"
        self.connections: list[ClientConnection] = []

    async def connect(self) -> Person:
        connection = await self.open_connections.enter_async_context(connect(self.socket, proxy=None, max_queue=None))
        self.connections.append(connection)
        person = Person(connection.send, connection.recv)
        person.hello = await person.next("hello")
        return person


@pytest.fixture
async def chat() -> AsyncIterator[Chat]:
    async with contextlib.AsyncExitStack() as open_connections:
        yield Chat(chat_layer(), open_connections)


@contextlib.asynccontextmanager
async def served_chat() -> AsyncIterator[ServedChat]:
    async with contextlib.AsyncExitStack() as stack:
        listener = stack.enter_context(bind("127.0.0.1", 0))
        chat = ServedChat(chat_layer(), contextlib.AsyncExitStack(), listener)
        await stack.enter_async_context(serving(chat.app, listener))
        await stack.enter_async_context(chat.open_connections)
        yield chat


@pytest.fixture
async def served() -> AsyncIterator[ServedChat]:
    async with served_chat() as chat:
        yield chat


async def fetch(url: str, method: str = "GET") -> tuple[int, str, str]:
    """Return the status, the content type and the body of an answer."""

    def blocking() -> tuple[int, str, str]:
        request = urllib.request.Request(url, method=method)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, answer.headers["content-type"], answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers["content-type"], error.read().decode()

    return await asyncio.to_thread(blocking)


class TestPage:
    async def test_the_page_is_one_file_that_loads_nothing_else(self, served: ServedChat) -> None:
        status, kind, body = await fetch(f"{served.page}/")
        assert (status, kind) == (200, "text/html; charset=utf-8")
        assert "<title>headrace demo</title>" in body
        assert not re.search(r"""(src|href)=["']?(https?:)?//|@import|url\(""", body)

    async def test_the_page_knows_every_counter(self, chat: Chat) -> None:
        body = (await HttpCommunicator(chat.app, "GET", "/").get_response())["body"].decode()
        shown = body[body.index("const GROUPS") : body.index("const POINTS")]
        assert re.findall(r"(\w+): \"", shown) == list(COUNTERS)

    async def test_the_page_may_load_nothing_and_is_not_kept(self, chat: Chat) -> None:
        headers = dict((await HttpCommunicator(chat.app, "GET", "/").get_response())["headers"])
        assert headers[b"content-security-policy"].startswith(b"default-src 'none';")
        assert headers[b"cache-control"] == b"no-store"

    async def test_stats_are_the_layers_own(self, served: ServedChat) -> None:
        await served.join("Ada")
        status, kind, body = await fetch(f"{served.page}/stats")
        assert (status, kind) == (200, "application/json")
        answer = json.loads(body)
        assert answer["time"] > 0
        assert answer["counters"]["memberships"] == 1
        assert answer["counters"]["groups"] == 1
        assert answer["counters"].keys() == set(COUNTERS)

    async def test_stats_say_which_worker_answers_and_what_each_counts(self, chat: Chat) -> None:
        cells = [0.0] * Board.size(2)
        layer = InMemoryChannelLayer()
        await layer.send("anything", {"type": "x"})
        other = Board(layer, 1, cells)
        other.post()
        app = make_app(chat.layer, Board(chat.layer, 2, cells))
        answer = json.loads((await HttpCommunicator(app, "GET", "/stats").get_response())["body"])
        assert answer["worker"] == 2
        assert [row["counters"]["sent"] for row in answer["workers"]] == [1, 0]
        assert answer["counters"] == answer["workers"][1]["counters"]
        assert 0 < answer["workers"][0]["time"] <= answer["workers"][1]["time"] == answer["time"]
        async with WebsocketCommunicator(app, "/ws") as ws:
            hello = await ws.receive_json_from(SECONDS)
            assert (hello["type"], hello["worker"], hello["workers"]) == ("hello", 2, 2)

    async def test_stats_count_the_sockets(self, chat: Chat) -> None:
        async def sockets() -> dict[str, int]:
            answer = json.loads((await HttpCommunicator(chat.app, "GET", "/stats").get_response())["body"])
            counted: dict[str, int] = answer["sockets"]
            return counted

        before = await sockets()
        ada = await chat.join("Ada")
        await ada.send("nonsense")
        await ada.next("error")
        after = await sockets()
        assert {name: after[name] - before[name] for name in ("opened", "open", "errors")} == {
            "opened": 1,
            "open": 1,
            "errors": 1,
        }

    async def test_head_has_no_body(self, served: ServedChat) -> None:
        assert await fetch(f"{served.page}/", "HEAD") == (200, "text/html; charset=utf-8", "")

    async def test_other_paths_and_methods_are_refused(self, served: ServedChat) -> None:
        assert (await fetch(f"{served.page}/nothing"))[0] == 404
        assert (await fetch(f"{served.page}/stats", "DELETE"))[0] == 405

    async def test_a_socket_elsewhere_is_told_that_there_is_no_route(self, served: ServedChat) -> None:
        with pytest.raises(InvalidStatus) as refusal:
            await connect(served.socket + "/other", proxy=None)
        assert refusal.value.response.status_code == 404

    @pytest.mark.parametrize("origin", ["http://example.com", "http://127.0.0.1:1", "null"])
    async def test_a_page_of_another_site_opens_no_socket(self, served: ServedChat, origin: str) -> None:
        with pytest.raises(InvalidStatus) as refusal:
            await connect(served.socket, origin=Origin(origin), proxy=None)
        assert refusal.value.response.status_code == 403

    async def test_the_demos_own_page_opens_a_socket(self, served: ServedChat) -> None:
        async with connect(served.socket, origin=Origin(served.page), proxy=None) as own:
            assert json.loads(await own.recv())["type"] == "hello"

    async def test_a_browser_that_sends_too_much_is_heard_in_part(self, chat: Chat) -> None:
        ada = await chat.connect()
        before = consumer_stats(ChatConsumer).dropped_over_rate
        for _ in range(1000):
            await ada.send("nonsense")
        async with asyncio.timeout(SECONDS):
            while consumer_stats(ChatConsumer).dropped_over_rate == before:
                await asyncio.sleep(0)
        assert (await ada.frame())["type"] == "error"

    async def test_another_kind_of_scope_is_refused(self, chat: Chat) -> None:
        async def unused(*_: object) -> Any:
            raise NotImplementedError

        with pytest.raises(ValueError, match="No application configured for scope type 'lifespan'"):
            await chat.app({"type": "lifespan"}, unused, unused)


class TestLayer:
    async def test_one_that_tells_nobody_who_is_there_is_refused_with_the_way_out(self) -> None:
        with pytest.raises(InvalidChannelLayerError, match="its channel layer has no setting 'presence'"):
            async with WebsocketCommunicator(make_app(InMemoryChannelLayer()), "/ws"):
                pytest.fail("it cannot have connected")

    async def test_who_is_silent_stays(self) -> None:
        clock = ManualClock()
        layer = chat_layer(clock=clock)
        async with contextlib.AsyncExitStack() as stack:
            chat = Chat(layer, stack)
            await chat.join("Ada")
            clock.advance(2 * layer.group_expiry)
            grace = await chat.join("Grace")
            await grace.say("are you there?")
            assert (await grace.next("sent"))["delivered"] == 2

    async def test_a_room_that_cannot_be_joined_is_left_with_the_reason(self) -> None:
        class Away(InMemoryChannelLayer):
            async def group_add(self, group: str, channel: str, since: str | int | None = None) -> None:
                raise LayerUnavailable("the server is away")

        async with contextlib.AsyncExitStack() as stack:
            ada = await Chat(Away(presence=PROMPT), stack).join("Ada")
            assert (await ada.next("left"))["room"] == "lobby"
            assert (await ada.next("error"))["error"] == "the server is away"
            await ada.say("anybody?")
            assert (await ada.next("error"))["error"] == "join a room first"

    async def test_an_error_that_is_not_the_browsers_ends_the_socket(self, chat: Chat) -> None:
        ada = await chat.join("Ada")
        await chat.layer.close()
        with pytest.raises(LayerClosed):
            await ada.say("hello")
            await ada.next("message")


class TestRooms:
    async def test_members_see_each_others_messages(self, chat: Chat) -> None:
        ada = await chat.join("Ada")
        grace = await chat.join("Grace")
        await ada.say("hello", ref="r1")
        for person in (ada, grace):
            message = await person.next("message")
            assert message["text"] == "hello"
            assert message["name"] == "Ada"
            assert message["id"] == ada.joined["id"]
            assert message["ref"] == "r1"

    async def test_the_sender_is_told_how_many_got_it(self, chat: Chat) -> None:
        ada = await chat.join("Ada")
        await chat.join("Grace")
        await ada.say("hello", ref="r1")
        receipt = await ada.next("sent")
        assert receipt == {"type": "sent", "ref": "r1", "delivered": 2, "dropped": 0}

    async def test_who_is_there_is_listed(self, chat: Chat) -> None:
        ada = await chat.join("Ada")
        await ada.lists("Ada")
        grace = await chat.join("Grace")
        for person in (ada, grace):
            await person.lists("Ada", "Grace")
            assert person.people == {each.joined["id"]: each.joined["name"] for each in (ada, grace)}
        await ada.say_frame(type="leave")
        await ada.next("left")
        await grace.lists("Grace")

    async def test_who_comes_again_with_its_secret_is_the_same_and_nobody_else_can_be(self, chat: Chat) -> None:
        ada = await chat.connect()
        ids = []
        for secret in ("s3cr3t", "s3cr3t", "another", None, None):
            await ada.say_frame(type="join", room="lobby", name="Ada", secret=secret)
            ids.append((await ada.next("joined"))["id"])
            await ada.say_frame(type="leave")
            await ada.next("left")
        assert ids[0] == ids[1]
        assert len(set(ids)) == 4
        await ada.say_frame(type="join", room="lobby", name="Ada", secret=ids[0])
        assert (await ada.next("joined"))["id"] not in ids

    async def test_who_loses_the_connection_and_comes_again_is_no_event(self) -> None:
        async with contextlib.AsyncExitStack() as stack, contextlib.AsyncExitStack() as first:
            layer = InMemoryChannelLayer(presence={"demo.room.*": {"interval": 0.01, "linger": 600}})
            chat = Chat(layer, stack)
            grace = await chat.join("Grace")
            for connections in (first, stack):
                chat.open_connections = connections
                ada = await chat.connect()
                await ada.say_frame(type="join", room="lobby", name="Ada", secret="s3cr3t")
                await ada.lists("Ada", "Grace")
                if connections is first:
                    await grace.lists("Ada", "Grace")
                    await first.aclose()
            await chat.join("Mary")
            # Nothing was told in between.
            assert list((await grace.next("presence"))["joins"].values()) == [[{"name": "Mary"}]]

    async def test_another_room_is_no_longer_listed(self, chat: Chat) -> None:
        ada = await chat.join("Ada", "red")
        await chat.join("Grace", "red")
        await ada.lists("Ada", "Grace")
        await ada.say_frame(type="leave")
        await ada.say_frame(type="join", room="blue", name="Ada")
        await ada.lists("Ada")

    async def test_another_room_sees_nothing(self, chat: Chat) -> None:
        ada = await chat.join("Ada", "red")
        grace = await chat.join("Grace", "blue")
        await ada.say("for red")
        await ada.next("message")
        await grace.say("for blue")
        assert (await grace.next("message"))["text"] == "for blue"

    async def test_leaving_is_announced_and_keeps_the_socket(self, chat: Chat) -> None:
        ada = await chat.join("Ada")
        grace = await chat.join("Grace")
        await ada.lists("Ada", "Grace")
        await grace.say_frame(type="leave")
        assert (await grace.next("left"))["room"] == "lobby"
        await ada.lists("Ada")
        await grace.say_frame(type="join", room="lobby", name="Grace again")
        await ada.lists("Ada", "Grace again")

    async def test_a_socket_that_breaks_leaves_its_room(self, served: ServedChat) -> None:
        ada = await served.join("Ada")
        await served.join("Grace")
        await ada.lists("Ada", "Grace")
        served.connections[1].transport.abort()
        await ada.lists("Ada")
        assert served.layer.stats().memberships == 1

    async def test_two_browsers_chat_over_a_real_server(self, served: ServedChat) -> None:
        ada = await served.join("Ada")
        grace = await served.join("Grace")
        await grace.say("hello")
        assert (await ada.next("message"))["text"] == "hello"
        assert (await grace.next("sent"))["delivered"] == 2

    async def test_a_server_that_stops_closes_the_sockets_and_empties_the_rooms(self) -> None:
        async with served_chat() as chat:
            ada = await chat.join("Ada")
            chat.open_connections.pop_all()
        with pytest.raises(ConnectionClosed):
            await ada.next("message")
        assert chat.layer.stats().memberships == 0

    async def test_names_and_rooms_hold_any_characters(self, chat: Chat) -> None:
        name, room = "<b>Zoë</b> \u202e", "café / \U0001f30a 'x' \n!"
        ada = await chat.join(name, room)
        assert (ada.joined["name"], ada.joined["room"]) == (name, room)

    def test_no_two_rooms_share_a_group(self) -> None:
        rooms = ["a", "A", "a ", "a.", "a!", "\u00e9", "e\u0301", "a" * 60, "\U0001f30a" * 60]
        groups = [frames.group_name(room) for room in rooms]
        assert len(set(groups)) == len(rooms)
        assert all(re.fullmatch(r"[a-z0-9.]{1,100}", group) for group in groups)

    async def test_two_spellings_of_one_text_are_one_room(self, chat: Chat) -> None:
        await chat.join("Ada", "caf\u00e9")
        grace = await chat.join("Grace", " cafe\u0301 ")
        await grace.lists("Ada", "Grace")


BAD_FRAMES = {
    "no json": ("hello", "expected a JSON object, got 'hello'"),
    "no object": ("[1, 2]", "expected a JSON object, got [1, 2]"),
    "binary": (b"\x00", "got a binary frame"),
    "nested too deep": ("[" * 100_000, "expected a JSON object, got '[[["),
    "a number too long": ("9" * 5_000, "expected a JSON object"),
    "no type": ("{}", "type must be join, say, leave, load or unload, got None"),
    "unknown type": ('{"type": ["join"]}', "type must be join, say, leave, load or unload, got ['join']"),
    "no room": ('{"type": "join", "name": "Ada"}', "room must be a string, got None"),
    "room is a number": ('{"type": "join", "room": 7}', "room must be a string, got 7"),
    "blank name": (
        '{"type": "join", "room": "r", "name": "  "}',
        "name must have 1 to 40 characters, got 0",
    ),
    "secret is a number": ('{"type": "join", "room": "r", "name": "n", "secret": 7}', "secret must be a string, got 7"),
    "long name": (
        json.dumps({"type": "join", "room": "r", "name": "x" * 41}),
        "name must have 1 to 40 characters, got 41",
    ),
    "long room": (
        json.dumps({"type": "join", "room": "x" * 61, "name": "Ada"}),
        "room must have 1 to 60 characters, got 61",
    ),
    "long text": (
        json.dumps({"type": "say", "text": "x" * 2001}),
        "text must have 1 to 2000 characters, got 2001",
    ),
    "text is an object": ('{"type": "say", "text": {}}', "text must be a string, got {}"),
    "ref is a number": ('{"type": "say", "text": "x", "ref": 1}', "ref must be a string, got 1"),
    "too many members": ('{"type": "load", "members": 5001}', "members must be a number from 1 to 5000, got 5001"),
    "members is a truth": ('{"type": "load", "members": true}', "members must be a number from 1 to 5000, got True"),
    "no layer": ('{"type": "load", "members": 9}', "layer must be headrace or channels, got None"),
    "half a surrogate pair": (
        '{"type": "join", "room": "\\ud800", "name": "Ada"}',
        "room must be valid Unicode text, got an unpaired surrogate",
    ),
    "say outside a room": ('{"type": "say", "text": "x"}', "join a room first"),
    "leave outside a room": ('{"type": "leave"}', "join a room first"),
}


class TestBadInput:
    @pytest.mark.parametrize(("sent", "answer"), BAD_FRAMES.values(), ids=BAD_FRAMES.keys())
    async def test_a_bad_frame_is_answered_and_the_socket_stays(
        self, chat: Chat, sent: str | bytes, answer: str
    ) -> None:
        person = await chat.connect()
        await person.send(sent)
        error = await person.frame()
        assert error["type"] == "error"
        assert answer in error["error"]
        await person.say_frame(type="join", room="lobby", name="Ada")
        assert (await person.next("joined"))["name"] == "Ada"

    async def test_a_bad_frame_in_a_room_disturbs_nobody(self, chat: Chat) -> None:
        ada = await chat.join("Ada")
        await ada.send("nonsense")
        assert (await ada.next("error"))["error"].startswith("expected a JSON object")
        await ada.say("still here")
        assert (await ada.next("message"))["text"] == "still here"

    async def test_joining_twice_is_refused(self, chat: Chat) -> None:
        ada = await chat.join("Ada")
        await ada.say_frame(type="join", room="other", name="Ada")
        assert (await ada.next("error"))["error"] == "already in a room, leave it first"


async def no_load_runs() -> None:
    """Wait until the threads of all loads have ended."""
    for thread in threading.enumerate():
        if thread.name == "headrace-demo-load":
            await asyncio.to_thread(thread.join, SECONDS)
            assert not thread.is_alive()


class TestLoad:
    @pytest.mark.parametrize("layer", ["headrace", "channels"])
    async def test_it_is_told(self, chat: Chat, layer: str) -> None:
        ada = await chat.join("Ada")
        assert ada.hello["layers"] == ["headrace", "channels"]
        await ada.say_frame(type="load", members=50, layer=layer)
        # The first round may be under way still when the first report is due.
        told = await ada.next("load")
        while told["latency"] is None or told["rate"] == 0:
            told = await ada.next("load")
        assert (told["members"], told["layer"]) == (50, layer)
        assert told["latency"] > 0
        assert told["mean"] > 0
        assert 0 < told["left"] <= 20
        await ada.say_frame(type="unload")
        assert await ada.next("unloaded") == {"type": "unloaded", "error": ""}
        stats = chat.layer.stats()
        assert (stats.groups, stats.memberships, stats.depth, stats.dropped_full) == (1, 1, 0, 0)
        # Only ours counts there.
        assert (stats.delivered > 50) is (layer == "headrace")

    async def test_it_ends_by_itself(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            chat = Chat(chat_layer(), stack)
            chat.app = make_app(chat.layer, load_seconds=0.1)
            ada = await chat.join("Ada")
            await ada.say_frame(type="load", members=50, layer="headrace")
            assert await ada.next("unloaded") == {"type": "unloaded", "error": ""}
            assert chat.layer.stats().memberships == 1

    async def test_a_clock_that_stands_still_is_no_error(self, chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Load, "reading", lambda load: Reading(0, 1.0, 0.0, None, 0.0, 0.0))
        ada = await chat.connect()
        await ada.say_frame(type="load", members=10, layer="headrace")
        assert (await ada.next("load"))["rate"] == 0
        await ada.say_frame(type="unload")
        assert (await ada.next("unloaded"))["error"] == ""

    async def test_a_failure_of_any_kind_ends_it_and_is_told(
        self, chat: Chat, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def fail(*_: object) -> None:
            raise OSError("out of files")

        monkeypatch.setattr(Load, "_rounds", fail)
        ada = await chat.connect()
        await ada.say_frame(type="load", members=10, layer="headrace")
        assert (await ada.next("unloaded"))["error"] == "the load failed: OSError('out of files')"
        assert "a load of 10 members failed" in caplog.text

    async def test_people_talk_meanwhile(self, chat: Chat) -> None:
        ada = await chat.join("Ada")
        await ada.say_frame(type="load", members=1000, layer="headrace")
        await ada.next("load")
        await ada.say("hello")
        await ada.next("message")
        await ada.say_frame(type="unload")
        assert (await ada.next("unloaded"))["error"] == ""
        await no_load_runs()

    async def test_it_ends_when_its_browser_goes(self, served: ServedChat) -> None:
        ada = await served.connect()
        await ada.say_frame(type="load", members=100, layer="headrace")
        await ada.next("load")
        served.connections[0].transport.abort()
        await no_load_runs()
        assert served.layer.stats().memberships == 0

    async def test_there_is_one_at_a_time(self, chat: Chat) -> None:
        ada, grace = await chat.connect(), await chat.connect()
        await ada.say_frame(type="load", members=10, layer="headrace")
        await ada.next("load")
        await grace.say_frame(type="load", members=10, layer="headrace")
        assert "somebody else's load is running on this worker; it ends within" in (await grace.frame())["error"]
        await ada.say_frame(type="unload")
        await ada.next("unloaded")
        await grace.say_frame(type="load", members=20, layer="headrace")
        assert (await grace.next("load"))["members"] == 20
        # The same browser may begin another one.
        await grace.say_frame(type="load", members=30, layer="channels")
        assert (await grace.next("unloaded"))["error"] == ""
        assert (await grace.next("load"))["members"] == 30

    async def test_channels_layer_is_offered_where_it_is_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        async with contextlib.AsyncExitStack() as stack:
            ada = await Chat(chat_layer(), stack).connect()
            assert ada.hello["layers"] == ["headrace"]
            await ada.say_frame(type="load", members=10, layer="channels")
            assert "needs channels installed" in (await ada.next("error"))["error"]

    async def test_what_the_layer_refuses_ends_it_and_is_told(self) -> None:
        layer = InMemoryChannelLayer()
        loads = Loads(layer)
        await layer.close()
        load = loads.begin(10, "headrace")
        await load.wait_ended()
        assert "closed" in load.error

    async def test_members_that_are_ready_to_run_look_whether_it_is_over(self) -> None:
        asked: list[str] = []

        class Stopping(InMemoryChannelLayer):
            async def receive(self, channel: str) -> Any:
                asked.append(channel)
                load.stop()
                return await super().receive(channel)

        load = Load(Stopping, 10)
        load.start()
        await load.wait_ended()
        assert len(asked) == 1

    async def test_to_stop_it_twice_or_after_its_end_is_no_error(self) -> None:
        load = Load(InMemoryChannelLayer, 10)
        load.start()
        load.stop()
        load.stop()
        await load.wait_ended()
        load.stop()
        assert (load.running, load.error) == (False, "")


class Peer:
    """A browser at the application's ASGI interface, which can stop reading."""

    def __init__(self, app: Any) -> None:
        self.reading = asyncio.Event()
        self.reading.set()
        self.gone = False
        # The code that the application closed with, and the texts that it sent, as they are.
        self.closed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.texts: list[str] = []
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._events.put_nowait({"type": "websocket.connect"})
        scope = {"type": "websocket", "path": "/ws"}
        self.task = asyncio.create_task(app(scope, self._events.get, self._send))

    async def _send(self, event: dict[str, Any]) -> None:
        await self.reading.wait()
        if self.gone:
            raise OSError("the peer has gone")
        if event["type"] == "websocket.close":
            self.closed.set_result(event["code"])
        elif "text" in event:
            self.texts.append(event["text"])
            self._sent.put_nowait(json.loads(event["text"]))

    def say_frame(self, **frame: object) -> None:
        self._events.put_nowait({"type": "websocket.receive", "text": json.dumps(frame)})

    def leave(self) -> None:
        self._events.put_nowait({"type": "websocket.disconnect", "code": 1000})

    async def frame(self) -> dict[str, Any]:
        return await self._sent.get()

    async def next(self, kind: str) -> dict[str, Any]:
        while (frame := await self.frame())["type"] != kind:
            pass
        return frame

    async def counts(self, members: int) -> None:
        while (await self.next("presence"))["count"] != members:
            pass


class Pair:
    """Two peers in the lobby, of which one has stopped to read and one has not."""

    def __init__(self, layer: InMemoryChannelLayer) -> None:
        app = make_app(layer)
        self.slow, self.fast = Peer(app), Peer(app)

    async def __aenter__(self) -> Self:
        for peer in (self.slow, self.fast):
            peer.say_frame(type="join", room="lobby", name="someone")
            await peer.next("joined")
        for peer in (self.slow, self.fast):
            await peer.counts(2)
        self.slow.reading.clear()
        return self

    async def say(self, text: str) -> dict[str, Any]:
        """Say something on the fast one; return its receipt."""
        self.fast.say_frame(type="say", text=text)
        receipt = await self.fast.next("sent")
        assert (await self.fast.next("message"))["text"] == text
        return receipt

    async def __aexit__(self, *_: object) -> None:
        self.slow.reading.set()
        for peer in (self.slow, self.fast):
            peer.leave()
            await peer.task


class TestSlowSockets:
    async def test_a_slow_socket_holds_up_nobody_and_its_drops_are_counted(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ChatConsumer, "max_backlog", 3)
        layer = chat_layer()
        async with Pair(layer) as pair:
            dropped = sum([(await pair.say(str(number)))["dropped"] for number in range(10)])
            # One message is on its way to the slow socket, three fill its mailbox.
            assert dropped == layer.stats().dropped_full == 6
            pair.slow.reading.set()
            assert [(await pair.slow.next("message"))["text"] for _ in range(4)] == ["0", "1", "2", "3"]

    async def test_who_goes_to_another_room_gets_all_of_the_first_before_that_and_nothing_after(self) -> None:
        async with Pair(chat_layer()) as pair:
            await pair.say("0")
            await pair.say("1")
            pair.slow.say_frame(type="leave")
            pair.slow.say_frame(type="join", room="other", name="someone")
            pair.slow.say_frame(type="say", text="2")
            pair.slow.reading.set()
            frames: list[dict[str, Any]] = []
            # The receipt needs no place in the order, nor what is told of who is there.
            while len(frames) < 5:
                if (frame := await pair.slow.frame())["type"] not in ("sent", "presence"):
                    frames.append(frame)
            assert [frame["type"] for frame in frames] == ["message", "message", "left", "joined", "message"]
            assert [frame.get("text") or frame["room"] for frame in frames] == ["0", "1", "lobby", "other", "2"]

    async def test_a_socket_too_slow_to_be_told_that_it_has_left_is_closed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ChatConsumer, "max_backlog", 1)
        layer = chat_layer()
        async with Pair(layer) as pair:
            await pair.say("0")
            pair.slow.say_frame(type="leave")
            await pair.say("1")
            pair.slow.reading.set()
            assert await pair.slow.closed == 1013
            await pair.fast.counts(1)
            assert layer.stats().memberships == 1

    async def test_what_a_room_says_is_encoded_once_for_all(self) -> None:
        async with Pair(chat_layer()) as pair:
            pair.slow.reading.set()
            await pair.say("hello")
            await pair.slow.next("message")
            ours, theirs = (
                [text for text in peer.texts if '"text": "hello"' in text] for peer in (pair.slow, pair.fast)
            )
            assert len(ours) == len(theirs) == 1
            assert ours[0] is theirs[0]

    async def test_sending_to_a_socket_that_has_gone_is_no_error(self) -> None:
        async with Pair(chat_layer()) as pair:
            pair.slow.gone = True
            pair.slow.reading.set()
            assert (await pair.say("hello"))["delivered"] == 2


class Lossy(InMemoryChannelLayer):
    """A layer that keeps chat messages from one member of each room."""

    async def group_send(self, group: str, message: Mapping[str, Any], *, exclude: str | Collection[str] = ()) -> Any:
        if json.loads(message["text"])["type"] == "message":
            exclude = next(iter(self.group_channels(group)))
        return await super().group_send(group, message, exclude=exclude)


@contextlib.asynccontextmanager
async def silent_server(answer: Callable[[ServerConnection], Awaitable[None]]) -> Any:
    """Serve `answer` as a WebSocket handler that is no chat."""
    async with serve_websockets(answer, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws"


class TestSelfCheck:
    async def test_every_delivery_has_its_line(self, served: ServedChat) -> None:
        lines: list[str] = []
        assert await self_check(served.socket, 5, lines.append)
        deliveries = [re.fullmatch(r"  client (\d) got it after +(\d+\.\d{3}) ms", line) for line in lines]
        assert sorted(match[1] for match in deliveries if match) == ["1", "2", "3", "4", "5"]
        assert lines[0] == "self-check: 5 WebSocket clients, one broadcast"
        assert lines[-1].startswith("self-check passed: 5 of 5 deliveries, slowest ")
        assert served.layer.stats().memberships == 0

    async def test_one_client_alone_passes(self, served: ServedChat) -> None:
        lines: list[str] = []
        assert await self_check(served.socket, 1, lines.append)
        assert lines[0] == "self-check: 1 WebSocket client, one broadcast"
        assert lines[-1].startswith("self-check passed: 1 of 1 delivery")

    async def test_who_missed_the_message_is_told(self) -> None:
        lines: list[str] = []
        with bind("127.0.0.1", 0) as listener:
            async with serving(make_app(Lossy(presence=PROMPT)), listener):
                url = f"ws://127.0.0.1:{listener.getsockname()[1]}/ws"
                assert not await self_check(url, 3, lines.append, within=5)
        missed = [line for line in lines if "missed it: nothing came within 5 s" in line]
        assert missed
        assert lines[-1].startswith(f"self-check failed: {3 - len(missed)} of 3 deliveries")

    async def test_a_server_that_never_answers_is_given_up(self) -> None:
        async def answer(connection: ServerConnection) -> None:
            await connection.wait_closed()

        lines: list[str] = []
        async with silent_server(answer) as url:
            assert not await self_check(url, 2, lines.append, within=0.2)
        assert lines[-1] == "self-check failed: 0 of 2 deliveries"

    async def test_a_server_that_goes_away_is_told(self) -> None:
        async def answer(connection: ServerConnection) -> None:
            await connection.close(1011, "out of order")

        lines: list[str] = []
        async with silent_server(answer) as url:
            assert not await self_check(url, 1, lines.append)
        assert "out of order" in lines[1]

    async def test_no_server_at_all_is_told(self) -> None:
        port = Port()
        lines: list[str] = []
        assert not await self_check(f"ws://127.0.0.1:{port.number}/ws", 1, lines.append)
        port.release()
        assert "client 1 missed it: " in lines[1]


class TestServing:
    async def test_once_ends_with_0_when_every_client_got_it(self) -> None:
        lines: list[str] = []
        options = Options(port=0, once=True, clients=2)
        assert await serve.run(make_app(chat_layer()), options, lines.append) == 0
        assert re.fullmatch(r"headrace demo on http://127\.0\.0\.1:\d+", lines[0])

    async def test_once_ends_with_1_when_a_client_missed_it(self) -> None:
        lines: list[str] = []
        options = Options(port=0, once=True, clients=2, within=1)
        assert await serve.run(make_app(Lossy(presence=PROMPT)), options, lines.append) == 1

    async def test_without_once_it_serves_until_cancelled(self) -> None:
        ready = asyncio.Event()
        lines: list[str] = []

        def say(line: str) -> None:
            lines.append(line)
            if line.startswith("serving"):
                ready.set()

        app = make_app(chat_layer())
        running = asyncio.create_task(serve.run(app, Options(port=0, clients=1), say))
        await ready.wait()
        assert (await fetch(lines[0].removeprefix("headrace demo on ")))[0] == 200
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows loops handle no signals")
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    async def test_a_signal_is_a_request_to_stop_in_order(self, number: signal.Signals) -> None:
        ready = asyncio.Event()
        layer = InMemoryChannelLayer()

        def say(line: str) -> None:
            if line.startswith("serving"):
                ready.set()

        options = Options(port=0, clients=1)
        running = asyncio.create_task(serve._until_signalled(make_app(layer), options, say))
        await ready.wait()
        signal.raise_signal(number)
        assert await running == 0

    async def test_a_server_that_cannot_start_raises(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def fail(*_: object, **__: object) -> None:
            raise OSError(errno.EMFILE, "too many open files")

        monkeypatch.setattr(uvicorn.Server, "startup", fail)
        with bind("127.0.0.1", 0) as listener, pytest.raises(OSError, match="too many open"):
            async with serving(make_app(chat_layer()), listener):
                pytest.fail("it cannot have started")

    def test_a_taken_port_is_told_with_a_way_out(self) -> None:
        with bind("127.0.0.1", 0) as listener:
            port = listener.getsockname()[1]
            with pytest.raises(CannotServe, match=f"port {port} on 127.0.0.1 is taken; .*--port 0"):
                bind("127.0.0.1", port)

    def test_a_taken_port_gives_way_to_a_free_one_on_request(self) -> None:
        with (
            bind("127.0.0.1", 0) as listener,
            bind("127.0.0.1", listener.getsockname()[1], or_any=True) as other,
        ):
            assert other.getsockname()[1] != listener.getsockname()[1]

    def test_an_address_that_is_not_ours_is_told(self) -> None:
        with pytest.raises(CannotServe, match=r"cannot listen on 192\.0\.2\.1:0: "):
            bind("192.0.2.1", 0, or_any=True)

    def test_the_listener_is_one_that_asyncio_takes_nagle_off(self) -> None:
        with bind("127.0.0.1", 0) as listener:
            assert listener.proto == socket.IPPROTO_TCP

    @pytest.mark.parametrize(
        ("host", "shown"),
        [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("::", "[::1]")],
    )
    def test_the_address_shown_can_be_opened_here(self, host: str, shown: str) -> None:
        try:
            listener = bind(host, 0)
        except CannotServe as error:
            pytest.skip(str(error))
        with listener:
            assert serve.address(listener) == f"{shown}:{listener.getsockname()[1]}"
