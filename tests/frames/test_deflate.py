"""Clients that have negotiated permessage-deflate: they get the same, and what is long is compressed once for all."""

import random
from typing import TYPE_CHECKING, Any

import pytest
from tests.frames.consumers import Member, Noting, met
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from headrace._core import FrameSend
from headrace._frames.extension import EXTENSION
from headrace.layers import InMemoryChannelLayer

if TYPE_CHECKING:
    from tests.frames.conftest import Serve

PLAIN, COMPRESSED = 0x81, 0xC1
"""The first bytes of a text."""
LONG = "a text that is much the same " * 40


class Served:
    """An application that notes the frames which it writes, for each client apart."""

    def __init__(self) -> None:
        self.written: list[list[bytes]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one client."""
        self.written.append([])
        scope["extensions"][EXTENSION] = Noting(scope["extensions"][EXTENSION], self.written[-1])
        await Member.as_asgi()(scope, receive, send)


def deflate(**options: Any) -> dict[str, Any]:
    """Give the options of a client that asks for permessage-deflate."""
    return {"extensions": [ClientPerMessageDeflateFactory(**options)]}


AS_BROWSERS_DO = deflate(client_max_window_bits=True)


async def test_a_long_message_is_compressed_once_for_all(serve: "Serve", layer: InMemoryChannelLayer) -> None:
    application = Served()
    async with serve(application) as served:
        clients = [await served.open(**options) for options in (AS_BROWSERS_DO, AS_BROWSERS_DO, {})]
        await met(layer, *clients)
        for _ in range(3):
            await layer.group_send("all", {"type": "plain", "text": LONG})
            assert [await client.recv() for client in clients] == [LONG] * 3
    one, other, plain = application.written
    assert [frame[0] for frame in one[-3:]] == [COMPRESSED] * 3
    assert [id(frame) for frame in one[-3:]] == [id(frame) for frame in other[-3:]]
    assert [frame[0] for frame in plain[-3:]] == [PLAIN] * 3
    assert len(one[-1]) < len(plain[-1]) / 2


@pytest.mark.parametrize("bits", [9, 10, 11, 12, 15])
async def test_each_window_has_a_frame_of_its_own(serve: "Serve", layer: InMemoryChannelLayer, bits: int) -> None:
    # Repeats itself where a small window does not reach.
    text = "".join(random.Random(bits).choices("abcdef", k=3000)) * 2
    async with serve(Member.as_asgi()) as served:
        asked = deflate(server_max_window_bits=bits, client_max_window_bits=True)
        clients = [await served.open(**options) for options in (asked, AS_BROWSERS_DO, asked, {})]
        await met(layer, *clients)
        for number in range(5):
            await layer.group_send("all", {"type": "plain", "text": f"{number}{text}"})
            assert [await client.recv() for client in clients] == [f"{number}{text}"] * 4


@pytest.mark.parametrize("options", [{}, {"server_no_context_takeover": True, "client_no_context_takeover": True}])
async def test_whatever_a_client_asks_for(serve: "Serve", layer: InMemoryChannelLayer, options: dict[str, Any]) -> None:
    async with serve(Member.as_asgi()) as served:
        client = await served.open(**deflate(**options))
        await met(layer, client)
        for length in (0, 100, 255, 256, 5000, 70_000):
            await client.send("x" * length)
            assert await client.recv() == "x" * length
            await layer.group_send("all", {"type": "plain", "bytes": b"y" * length})
            assert await client.recv() == b"y" * length


async def test_what_is_short_or_does_not_get_shorter_is_not_compressed(
    serve: "Serve", layer: InMemoryChannelLayer
) -> None:
    application = Served()
    noise = random.Random(1).randbytes(1000)
    async with serve(application) as served:
        client = await served.open(**AS_BROWSERS_DO)
        await met(layer, client)
        for event in ({"text": "x" * 255}, {"text": "x" * 256}, {"bytes": noise}, {"bytes": bytes(1000)}):
            await layer.group_send("all", {"type": "plain", **event})
            assert [await client.recv()] == list(event.values())
        for payload in ("x" * 255, "x" * 256):
            await client.send(payload)
            assert await client.recv() == payload
    (written,) = application.written
    assert [frame[0] for frame in written[-6:]] == [0x81, 0xC1, 0x82, 0xC2, 0x81, 0xC1]


async def test_what_uvicorn_sends_in_between_is_understood(serve: "Serve", layer: InMemoryChannelLayer) -> None:
    class Held:
        """An extension that takes every other frame; the rest is sent by uvicorn."""

        def __init__(self, frames: Any) -> None:
            self.send = frames.send
            self.window_bits = frames.window_bits
            self._write = frames.write
            self._turn = 0

        def write(self, frame: bytes) -> bool:
            self._turn += 1
            return self._turn % 2 == 0 and bool(self._write(frame))

    async def application(scope: Any, receive: Any, send: Any) -> None:
        scope["extensions"][EXTENSION] = Held(scope["extensions"][EXTENSION])
        await Member.as_asgi()(scope, receive, send)

    async with serve(application) as served:
        client = await served.open(**AS_BROWSERS_DO)
        await met(layer, client)
        texts = [f"{number} {LONG}" for number in range(20)]
        for text in texts:
            await layer.group_send("all", {"type": "plain", "text": text})
        assert [await client.recv() for _ in texts] == texts


@pytest.mark.one_loop
@pytest.mark.parametrize("bits", [0, 8, 16])
async def test_a_window_that_there_is_not_is_refused(bits: int) -> None:
    class Frames:
        window_bits = bits

    async def send(message: Any) -> None:
        """Stand for a server's."""

    with pytest.raises(ValueError, match=f"window_bits must be None, or from 9 to 15, got {bits}"):
        FrameSend(Frames(), send)
