"""What writes frames to a socket past its transport: in order, as much as there is room for, and to no other socket."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import CLOSING, OPEN
from websockets.streams import StreamReader

from headrace._core import FrameSend, FrameWriter
from headrace._frames.uvicorn import _descriptor


class Transport:
    """What is given to a transport, which writes nothing."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closing = False
        self.held = 0

    def write(self, data: bytes) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return self.held


class Connection:
    """The state of a WebSocket."""

    state: Any = OPEN


async def send(message: Any) -> None:
    """Stand for a server's."""


class Pair:
    """A writer, and the socket of its client."""

    def __init__(self) -> None:
        self.own, self.client = socket.socketpair()
        self.client.setblocking(False)
        self.transport, self.connection = Transport(), Connection()
        self.writer = FrameWriter(send, self.transport, self.connection, "state", OPEN, self.own.fileno())

    def read(self) -> bytes:
        """Read what has come."""
        data = b""
        while True:
            try:
                data += self.client.recv(1 << 20)
            except BlockingIOError:
                return data


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Give a writer."""
    pair = Pair()
    yield pair
    pair.own.close()
    pair.client.close()


@pytest.mark.one_loop
class TestWrite:
    """When a frame is written, and by whom."""

    def test_to_the_socket_if_its_transport_holds_nothing_back(self, pair: Pair) -> None:
        assert pair.writer.write(b"frame")
        assert (pair.read(), pair.transport.written) == (b"frame", [])

    def test_by_the_transport_if_that_has_something_to_write(self, pair: Pair) -> None:
        pair.transport.held = 1
        assert pair.writer.write(b"frame")
        assert (pair.read(), pair.transport.written) == (b"", [b"frame"])

    def test_by_the_transport_if_the_socket_is_not_known(self, pair: Pair) -> None:
        writer = FrameWriter(send, pair.transport, pair.connection, "state", OPEN, None)
        assert writer.write(b"frame")
        assert (pair.read(), pair.transport.written) == (b"", [b"frame"])

    def test_what_there_is_no_room_for_is_the_transports(self, pair: Pair) -> None:
        frame = bytes(range(256)) * (1 << 14)
        assert pair.writer.write(frame)
        (left,) = pair.transport.written
        came = pair.read()
        assert 0 < len(left) < len(frame)
        assert came + left == frame

    @pytest.mark.parametrize("why", ["held", "ended", "closing", "close was sent", "another thread"])
    def test_not_at_all(self, pair: Pair, why: str) -> None:
        taken: list[bool] = []
        match why:
            case "held":
                pair.writer.hold()
            case "ended":
                pair.writer.end()
                pair.writer.go_on()
            case "closing":
                pair.transport.closing = True
            case "close was sent":
                pair.connection.state = CLOSING
        if why == "another thread":
            thread = threading.Thread(target=lambda: taken.append(pair.writer.write(b"frame")))
            thread.start()
            thread.join()
        else:
            taken.append(pair.writer.write(b"frame"))
        assert (taken, pair.read(), pair.transport.written) == ([False], b"", [])

    def test_again_when_it_goes_on(self, pair: Pair) -> None:
        pair.writer.hold()
        pair.writer.go_on()
        assert pair.writer.write(b"frame")
        assert pair.read() == b"frame"

    def test_an_error_of_the_socket_is_left_to_the_transport(self, pair: Pair) -> None:
        pair.client.close()
        assert pair.writer.write(b"frame")
        assert pair.transport.written == [b"frame"]

    def test_an_error_of_the_transport_is_raised(self, pair: Pair) -> None:
        def refuse(data: bytes) -> None:
            raise RuntimeError("no")

        pair.transport.held = 1
        pair.transport.write = refuse  # type: ignore[method-assign]
        with pytest.raises(RuntimeError, match="no"):
            pair.writer.write(b"frame")

    def test_only_bytes(self, pair: Pair) -> None:
        with pytest.raises(TypeError):
            pair.writer.write("text")  # type: ignore[arg-type]


@pytest.mark.one_loop
class TestSend:
    """What stands in the place of a server's send."""

    @pytest.mark.parametrize(
        ("message", "frame"),
        [
            ({"type": "websocket.send", "text": "a"}, b"\x81\x01a"),
            ({"type": "websocket.send", "text": "a", "bytes": None}, b"\x81\x01a"),
            ({"type": "websocket.send", "text": None, "bytes": b"b"}, b"\x82\x01b"),
            ({"type": "websocket.send", "text": "a", "bytes": b""}, b"\x82\x00"),
            ({"type": "".join(["websocket", ".send"]), "text": ""}, b"\x81\x00"),
        ],
    )
    async def test_a_frame_is_written(self, pair: Pair, message: dict[str, Any], frame: bytes) -> None:
        await FrameSend(pair.writer, refusing)(message)
        assert pair.read() == frame

    @pytest.mark.parametrize(
        "message",
        [
            {"type": "websocket.close"},
            {"type": "websocket.accept"},
            {"type": "websocket.send"},
            {"type": "websocket.send", "bytes": bytearray(b"x")},
            {"type": 3},
            {},
            [],
        ],
    )
    async def test_anything_else_is_sent_by_the_server(self, pair: Pair, message: Any) -> None:
        sent: list[Any] = []

        async def noting(message: Any) -> None:
            sent.append(message)

        await FrameSend(pair.writer, noting)(message)
        assert (sent, pair.read(), pair.transport.written) == ([message], b"", [])

    async def test_what_cannot_be_written_now_is_sent_by_the_server(self, pair: Pair) -> None:
        sent: list[Any] = []

        async def noting(message: Any) -> None:
            sent.append(message)

        pair.writer.hold()
        await FrameSend(pair.writer, noting)({"type": "websocket.send", "text": "a"})
        assert sent == [{"type": "websocket.send", "text": "a"}]

    async def test_text_that_utf_8_cannot_carry_is_refused(self, pair: Pair) -> None:
        with pytest.raises(UnicodeEncodeError):
            await FrameSend(pair.writer, refusing)({"type": "websocket.send", "text": "\ud800"})


class Taking:
    """The extension of a server that takes all frames."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []

    def write(self, frame: bytes) -> bool:
        self.taken.append(frame)
        return True


LENGTHS = st.sampled_from([0, 125, 126, 65_535, 65_536]) | st.integers(0, 300) | st.integers(65_500, 65_600)


@pytest.mark.one_loop
@given(length=LENGTHS, text=st.booleans(), letter=st.sampled_from("aü"))
def test_a_frame_of_any_length_is_read_by_others(length: int, text: bool, letter: str) -> None:
    data = (letter * length).encode()
    frames = Taking()
    FrameSend(frames, refusing)({"type": "websocket.send", **({"text": data.decode()} if text else {"bytes": data})})
    (frame,) = frames.taken
    reader = StreamReader()
    reader.feed_data(frame)
    reader.feed_eof()
    with pytest.raises(StopIteration) as read:
        next(Frame.parse(reader.read_exact, mask=False))
    assert read.value.value == Frame(Opcode.TEXT if text else Opcode.BINARY, data)
    assert frame == read.value.value.serialize(mask=False)


async def refusing(message: Any) -> None:
    """Stand for a server's that is not to be called."""
    raise AssertionError(message)


class Ends(asyncio.Protocol):
    """Tells its writer what a server's protocol tells it."""

    writer: FrameWriter

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.descriptor = _descriptor(transport)
        self.writer = FrameWriter(send, transport, Connection(), "state", OPEN, self.descriptor)
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        self.writer.end()
        self.lost.set_result(None)


async def test_a_descriptor_that_is_used_again_is_never_written_to(request: pytest.FixtureRequest) -> None:
    loop = asyncio.get_running_loop()
    turns = 10_000 if request.config.getoption("--deep", False) else 1_000
    reused = 0
    for turn in range(turns):
        own, client = socket.socketpair()
        _, protocol = await loop.create_connection(Ends, sock=own)
        assert protocol.descriptor is not None
        assert protocol.writer.write(b"before")
        if turn % 3 == 0:
            protocol.transport.abort()
        elif turn % 3 == 1:
            protocol.transport.close()
        else:
            client.shutdown(socket.SHUT_RDWR)
        strangers = [socket.socketpair()]
        # In every turn of the loop until the socket is closed, and when its descriptor is somebody else's.
        while not protocol.lost.done():
            protocol.writer.write(b"after")
            await asyncio.sleep(0)
            strangers.append(socket.socketpair())
        await asyncio.sleep(0)
        strangers.append(socket.socketpair())
        reused += any(each.fileno() == protocol.descriptor for pair in strangers for each in pair)
        assert not protocol.writer.write(b"after")
        everybody = [each for pair in strangers for each in pair]
        for each in everybody:
            each.setblocking(False)
            with pytest.raises(BlockingIOError):
                each.recv(100)
        for each in everybody:
            each.close()
        client.close()
    assert reused > turns / 2
