"""Consumers on uvicorn with headrace's protocol: what their clients get, whatever they do themselves."""

import asyncio
import random
import socket
import ssl
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from tests.frames.consumers import Member, Noting, frames_in, met
from tests.support.certificates import Authority
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from headrace._frames.extension import EXTENSION
from headrace.consumer import consumer_stats
from headrace.generic.websocket import AsyncJsonWebsocketConsumer, WebsocketConsumer
from headrace.layers import InMemoryChannelLayer
from headrace.sockets import BaseSocketServer, Broadcaster
from headrace.uvicorn import WebSocketProtocol

if TYPE_CHECKING:
    from tests.frames.conftest import Serve

LENGTHS = (0, 1, 125, 126, 127, 65_535, 65_536, 1 << 20)


class SyncMember(WebsocketConsumer):
    """The same, sync."""

    groups = ("all",)
    forward: ClassVar[Any] = {"plain"}

    def noted(self, event: dict[str, Any]) -> None:
        self.send(text_data=event["text"])

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.send(text_data=text_data, bytes_data=bytes_data)


@pytest.mark.parametrize("kind", [Member, SyncMember])
class TestWhatComes:
    """Every message comes, as it was sent."""

    async def test_texts_and_bytes_of_any_length(
        self, serve: "Serve", layer: InMemoryChannelLayer, kind: type[Any]
    ) -> None:
        async with serve(kind.as_asgi()) as served:
            clients = [await served.open() for _ in range(3)]
            await met(layer, *clients)
            for length in LENGTHS:
                for event in ({"text": "x" * length}, {"bytes": b"y" * length}, {"text": "ü" * length}):
                    await layer.group_send("all", {"type": "plain", **event})
                    (payload,) = event.values()
                    assert [await client.recv() for client in clients] == [payload] * 3

    async def test_what_is_sent_by_a_handler(
        self, serve: "Serve", layer: InMemoryChannelLayer, kind: type[Any]
    ) -> None:
        async with serve(kind.as_asgi()) as served:
            client = await served.open()
            for length in LENGTHS:
                for payload in ("x" * length, b"y" * length):
                    await client.send(payload)
                    assert await client.recv() == payload

    async def test_handlers_and_forwarding_keep_the_order(
        self, serve: "Serve", layer: InMemoryChannelLayer, kind: type[Any]
    ) -> None:
        chance = random.Random(5)
        async with serve(kind.as_asgi()) as served:
            clients = [await served.open() for _ in range(5)]
            await met(layer, *clients)
            for turn in range(40):
                texts = [f"{turn}.{number}" for number in range(chance.randrange(1, 20))]
                for text in texts:
                    report = await layer.group_send("all", {"type": chance.choice(["plain", "noted"]), "text": text})
                    assert report.dropped_full == 0
                for client in clients:
                    assert [await client.recv() for _ in texts] == texts


async def test_json_is_sent_as_text(serve: "Serve", layer: InMemoryChannelLayer) -> None:
    class Json(AsyncJsonWebsocketConsumer):
        async def receive_json(self, content: Any, *args: Any, **kwargs: Any) -> None:
            await self.send_json({"got": content})

    async with serve(Json.as_asgi()) as served:
        client = await served.open()
        await client.send("[1, 2]")
        assert await client.recv() == '{"got": [1, 2]}'


async def test_socket_servers_write_frames(serve: "Serve", layer: InMemoryChannelLayer) -> None:
    class Room(BaseSocketServer):
        layer = "default"
        frames: ClassVar[list[bytes]] = []

        def connect(self) -> None:
            self.subscribe("room")

        def receive(self, data: Any) -> None:
            self.send({"echo": data})

    async def application(scope: Any, receive: Any, send: Any) -> None:
        scope["extensions"][EXTENSION] = Noting(scope["extensions"][EXTENSION], Room.frames)
        await Room.as_asgi()(scope, receive, send)

    async with serve(application) as served:
        clients = [await served.open() for _ in range(3)]
        await clients[0].send("1")
        assert await clients[0].recv() == '{"echo": 1}'
        # After a first message the tasks are known, eager ones after a second, and are not resumed any more.
        for number in range(3):
            while layer.stats().memberships < 3 or layer.stats().waiters < 3:
                await asyncio.sleep(0)
            Broadcaster(layer=layer).broadcast("room", [number])
            assert [await client.recv() for client in clients] == [f"[{number}]"] * 3
    echo, *_, one, two, three = Room.frames
    assert echo == Frame(Opcode.TEXT, b'{"echo": 1}').serialize(mask=False)
    assert one == Frame(Opcode.TEXT, b"[2]").serialize(mask=False)
    assert one is two is three


async def test_a_socket_server_counts_what_is_written_and_gets_nothing_of_what_it_has_left(
    serve: "Serve", layer: InMemoryChannelLayer
) -> None:
    servers: list[BaseSocketServer] = []

    class Room(BaseSocketServer):
        layer = "default"

        async def connect(self) -> None:
            servers.append(self)
            for topic in ("one", "two"):
                await self.async_subscribe(topic)

        async def receive(self, data: Any) -> None:
            await self.async_unsubscribe(data)
            await self.async_send("left")

    broadcaster = Broadcaster(layer=layer)
    async with serve(Room.as_asgi()) as served:
        clients = [await served.open() for _ in range(3)]
        while layer.stats().memberships < 6:
            await asyncio.sleep(0)
        for number in range(4):
            broadcaster.broadcast(("one", "two")[number % 2], number)
        await clients[0].send('"two"')
        for client in clients:
            assert [await client.recv() for _ in range(4)] == ["0", "1", "2", "3"]
        assert await clients[0].recv() == '"left"'
        broadcaster.broadcast("two", 4)
        broadcaster.broadcast("one", 5)
        assert [await client.recv() for client in clients] == ["5", "4", "4"]
        assert [await client.recv() for client in clients[1:]] == ["5", "5"]
        assert [server.stats().sent for server in servers] == [6, 6, 6]


@pytest.mark.parametrize("kind", ["an encoder of its own", "bytes", "a handler of its own"])
async def test_a_socket_server_that_changes_what_is_sent_does_so(
    serve: "Serve", layer: InMemoryChannelLayer, kind: str
) -> None:
    class Room(BaseSocketServer):
        layer = "default"

        def configure(self) -> None:
            if kind == "an encoder of its own":
                self.ws_encoder = lambda data: f"<{data}>"
            self.ws_encoder_is_bytes = kind == "bytes"

        async def connect(self) -> None:
            await self.async_subscribe("room")

    class Handling(Room):
        async def async_handle_received_broadcast(self, channel: str, data: Any) -> None:
            await self.async_send([channel, data])

    async with serve((Handling if kind == "a handler of its own" else Room).as_asgi()) as served:
        clients = [await served.open() for _ in range(3)]
        while layer.stats().memberships < 3:
            await asyncio.sleep(0)
        expected = {"an encoder of its own": "<[1]>", "bytes": b"[1]", "a handler of its own": '["room", [1]]'}[kind]
        for _ in range(2):
            Broadcaster(layer=layer).broadcast("room", [1])
            assert [await client.recv() for client in clients] == [expected] * 3


async def test_a_message_has_one_frame_for_all(serve: "Serve", layer: InMemoryChannelLayer) -> None:
    frames: list[bytes] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        scope["extensions"][EXTENSION] = Noting(scope["extensions"][EXTENSION], frames)
        await Member.as_asgi()(scope, receive, send)

    async with serve(application) as served:
        clients = [await served.open() for _ in range(3)]
        await met(layer, *clients)
        frames.clear()
        await layer.group_send("all", {"type": "plain", "text": "one"})
        assert [await client.recv() for client in clients] == ["one"] * 3
    assert len(frames) == 3
    assert {id(frame) for frame in frames} == {id(frames[0])}
    assert frames[0] == Frame(Opcode.TEXT, b"one").serialize(mask=False)


async def test_a_class_with_another_field_gets_a_frame_of_that(serve: "Serve", layer: InMemoryChannelLayer) -> None:
    class Other(Member):
        forward: ClassVar[Any] = {"plain": "body"}

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await (Other if scope["path"] == "/other" else Member).as_asgi()(scope, receive, send)

    async with serve(application) as served:
        clients = [await served.open(path) for path in ("", "other", "", "other")]
        while layer.stats().waiters < 4:
            await asyncio.sleep(0)
        for number in range(3):
            await layer.group_send("all", {"type": "plain", "text": f"a{number}", "body": f"b{number}"})
            assert [await client.recv() for client in clients] == [f"a{number}", f"b{number}"] * 2


async def test_who_wraps_send_sees_every_message(serve: "Serve", layer: InMemoryChannelLayer) -> None:
    seen: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        async def noting(message: Any) -> None:
            seen.append(message)
            await send(message)

        await Member.as_asgi()(scope, receive, noting)

    async with serve(application) as served:
        client = await served.open()
        await met(layer, client)
        await layer.group_send("all", {"type": "plain", "text": "one"})
        assert await client.recv() == "one"
        assert [message.get("text") for message in seen] == [None, "first", "one"]


async def test_within_starlette_frames_are_written(serve: "Serve", layer: InMemoryChannelLayer) -> None:
    used: list[bool] = []

    class Looked(Member):
        async def connect(self) -> None:
            used.append(self._headrace.frames is not None)
            await self.accept()

    async with serve(Starlette(routes=[WebSocketRoute("/", Looked.as_asgi())])) as served:
        client = await served.open()
        await met(layer, client)
    assert used == [True]


async def test_over_tls(serve: "Serve", layer: InMemoryChannelLayer, tmp_path: Path) -> None:
    authority = Authority()
    certificate, key = authority.issue("127.0.0.1")
    (tmp_path / "certificate").write_bytes(certificate)
    (tmp_path / "key").write_bytes(key)
    trusting = ssl.create_default_context(cadata=authority.certificate.decode())
    tls = {"ssl_certfile": str(tmp_path / "certificate"), "ssl_keyfile": str(tmp_path / "key")}
    async with serve(Member.as_asgi(), **tls) as served:
        clients = [await served.open(ssl=trusting) for _ in range(2)]
        await met(layer, *clients)
        for length in LENGTHS:
            await layer.group_send("all", {"type": "plain", "text": "x" * length})
            assert [await client.recv() for client in clients] == ["x" * length] * 2
            await clients[0].send("y" * length)
            assert await clients[0].recv() == "y" * length


async def test_pings_are_uvicorns_and_in_order(serve: "Serve", layer: InMemoryChannelLayer) -> None:
    async with serve(Member.as_asgi(), ws_ping_interval=0.01, ws_ping_timeout=60) as served:
        client = await served.open()
        await met(layer, client)
        for number in range(300):
            await layer.group_send("all", {"type": "plain", "text": str(number)})
            assert await client.recv() == str(number)
        await (await client.ping())


async def read_to_the_end(client: socket.socket) -> bytes:
    """Read until the server has closed."""
    loop, data = asyncio.get_running_loop(), b""
    while part := await loop.sock_recv(client, 1 << 16):
        data += part
    return data


class Ending(Member):
    """Closes when it is told to."""

    async def ended(self, event: dict[str, Any]) -> None:
        await self.close(event["code"])


async def test_nothing_is_sent_behind_a_close(serve: "Serve", layer: InMemoryChannelLayer) -> None:
    async with serve(Ending.as_asgi()) as served:
        watching = await served.open()
        client = await served.open_raw()
        await met(layer, watching)
        for text in ("1", "2"):
            await layer.group_send("all", {"type": "plain", "text": text})
        await layer.group_send("all", {"type": "ended", "code": 4000})
        for text in ("3", "4"):
            await layer.group_send("all", {"type": "plain", "text": text})
        while True:
            await asyncio.sleep(0)
            if consumer_stats(Ending).open < 2 or layer.group_count("all") == 0:
                break
        # The close is answered, so that the server closes.
        await asyncio.get_running_loop().sock_sendall(client, b"\x88\x80\0\0\0\0")
        found = frames_in(await read_to_the_end(client))
    assert [payload for opcode, payload in found if opcode == Opcode.TEXT] == [b"first", b"1", b"2"]
    assert found[-1] == (Opcode.CLOSE, struct.pack("!H", 4000))


async def test_a_client_that_does_not_read_keeps_its_messages_in_its_mailbox(
    serve: "Serve", layer: InMemoryChannelLayer
) -> None:
    text = "x" * 8000
    async with serve(Member.as_asgi()) as served:
        client = await served.open_raw(receive_buffer=4096)
        while layer.stats().waiters < 1:
            await asyncio.sleep(0)
        sent = refused = 0
        while refused < 10:
            report = await layer.group_send("all", {"type": "plain", "text": f"{sent:06}{text}"})
            refused += report.dropped_full
            sent += report.delivered_here
            await asyncio.sleep(0)
        # A transport of uvicorn's holds 64 KiB before it holds senders back, and the system a few MiB.
        assert sent < 3000
        data, loop = bytearray(), asyncio.get_running_loop()
        while len(data) < sent * (len(text) + 6 + 4):
            data += await loop.sock_recv(client, 1 << 20)
        assert [payload[:6] for _, payload in frames_in(bytes(data))] == [b"%06d" % number for number in range(sent)]


async def test_a_client_that_reads_again_is_written_to_as_before(serve: "Serve", layer: InMemoryChannelLayer) -> None:
    async with serve(Member.as_asgi()) as served:
        slow, quick = await served.open(max_queue=1), await served.open()
        await met(layer, slow, quick)
        sent = 0
        while True:
            report = await layer.group_send("all", {"type": "plain", "text": f"{sent}:{'x' * 50_000}"})
            assert (await quick.recv()).startswith(f"{sent}:")  # type: ignore[arg-type]
            sent += 1
            if report.dropped_full:
                break
        for number in range(sent - 1):
            assert (await slow.recv()).startswith(f"{number}:")  # type: ignore[arg-type]
        await layer.group_send("all", {"type": "plain", "text": "again"})
        assert (await slow.recv(), await quick.recv()) == ("again", "again")


@pytest.mark.parametrize("way", ["reset", "half-close", "close"])
async def test_a_client_that_goes_hurts_no_other(serve: "Serve", layer: InMemoryChannelLayer, way: str) -> None:
    class Here(Member):
        pass

    async with serve(Here.as_asgi()) as served:
        stays = await served.open()
        for turn in range(10):
            leaves = [await served.open_raw() for _ in range(3)]
            while consumer_stats(Here).open < 4 or layer.group_count("all") < 4:
                await asyncio.sleep(0)
            await layer.group_send("all", {"type": "plain", "text": f"{turn}a"})
            for client in leaves:
                if way == "half-close":
                    client.shutdown(socket.SHUT_WR)
                elif way == "reset":
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    client.close()
                else:
                    client.close()
            for part in "bcd":
                await layer.group_send("all", {"type": "plain", "text": f"{turn}{part}"})
            assert [await stays.recv() for _ in range(4)] == [f"{turn}{part}" for part in "abcd"]
            for client in leaves:
                client.close()
            while consumer_stats(Here).open > 1:
                await asyncio.sleep(0)


async def test_what_a_client_sends_meanwhile_is_answered(serve: "Serve", layer: InMemoryChannelLayer) -> None:
    async with serve(Member.as_asgi()) as served:
        clients = [await served.open() for _ in range(20)]
        await met(layer, *clients)
        for number in range(50):
            speaker = clients[number % 20]
            await asyncio.gather(
                layer.group_send("all", {"type": "plain", "text": "all"}), speaker.send(f"own {number}")
            )
            for client in clients:
                got = [await client.recv() for _ in range(2 if client is speaker else 1)]
                assert sorted(map(str, got)) == (["all", f"own {number}"] if client is speaker else ["all"])


async def test_a_transport_that_is_to_hold_nothing_holds_senders_back(
    serve: "Serve", layer: InMemoryChannelLayer
) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        send.__self__.transport.set_write_buffer_limits(0)
        await Member.as_asgi()(scope, receive, send)

    async with serve(application) as served:
        client = await served.open(max_queue=1)
        await met(layer, client)
        texts = [f"{number}:{'x' * 10_000}" for number in range(60)]
        for text in texts:
            assert (await layer.group_send("all", {"type": "plain", "text": text})).dropped_full == 0
        assert [await client.recv() for _ in texts] == texts


async def test_a_stopped_server_tells_its_clients(serve: "Serve", layer: InMemoryChannelLayer) -> None:
    async with serve(Member.as_asgi()) as served:
        client = await served.open()
        await met(layer, client)
        served.stack.pop_all()
    with pytest.raises(ConnectionClosed):
        await client.recv()
    assert client.close_code == 1012


class TestEnd:
    """What becomes of a client that does not read when its consumer has ended."""

    async def test_its_connection_ends_a_while_after_its_consumer(
        self, serve: "Serve", layer: InMemoryChannelLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("headrace._frames.uvicorn.ABORT_SECONDS", 0.1)
        lost = asyncio.Event()

        class Counted(WebSocketProtocol):
            def connection_lost(self, exc: Exception | None) -> None:
                super().connection_lost(exc)
                lost.set()

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "bytes": bytes(32 << 20)})

        async with serve(application, ws=Counted) as served:
            client = await served.open_raw(receive_buffer=4096)
            await lost.wait()
            client.close()

    async def test_a_client_that_reads_slowly_gets_all(
        self, serve: "Serve", layer: InMemoryChannelLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        length = 4 << 20
        looks: list[tuple[WebSocketProtocol, int]] = []
        looked = asyncio.Event()

        class Looking(WebSocketProtocol):
            def _abort_later(self, left: int) -> None:
                # Not by the clock: the next look comes when the client has read.
                looks.append((self, left))
                looked.set()

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "bytes": bytes(length)})

        loop = asyncio.get_running_loop()
        async with serve(application, ws=Looking) as served:
            client = await served.open_raw(receive_buffer=4096)
            await looked.wait()
            got = 0
            while got < length:
                more = await loop.sock_recv(client, 1 << 16)
                assert more
                got += len(more)
                await asyncio.sleep(0)
                protocol, left = looks[-1]
                if protocol.transport.get_write_buffer_size() < left:
                    protocol._abort_unless_read(left)
        assert len(looks) > 1
