"""What a client may offer, and that no offer leaves uvicorn with a connection that nobody ends."""

import logging
from typing import TYPE_CHECKING, Any

import pytest
from tests.frames.consumers import Member
from websockets.exceptions import NegotiationError
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory

from headrace._frames.extension import EXTENSION
from headrace._frames.uvicorn import DeflateFactory
from headrace.layers import InMemoryChannelLayer

if TYPE_CHECKING:
    from tests.frames.conftest import Serve


def older(self: Any, params: Any, accepted: Any) -> tuple[list[Any], PerMessageDeflate]:
    """Accept any window, as websockets below 17 does."""
    deflate = PerMessageDeflate(False, self.server_no_context_takeover, 12, 9, {})
    deflate.local_max_window_bits = int(dict(params)["server_max_window_bits"])
    return list(params), deflate


@pytest.mark.one_loop
@pytest.mark.parametrize("bits", [8, 9, 12])
def test_a_window_of_8_bits_is_declined(monkeypatch: pytest.MonkeyPatch, bits: int) -> None:
    monkeypatch.setattr(ServerPerMessageDeflateFactory, "process_request_params", older)
    factory = DeflateFactory(ServerPerMessageDeflateFactory(server_max_window_bits=12))
    offer = [("server_max_window_bits", str(bits))]
    if bits == 8:
        with pytest.raises(NegotiationError, match="unsupported server_max_window_bits = 8"):
            factory.process_request_params(offer, [])
    else:
        _, deflate = factory.process_request_params(offer, [])
        assert (deflate.local_max_window_bits, deflate.local_no_context_takeover) == (bits, True)


async def test_an_offer_of_8_bits_is_served_without_compression(serve: "Serve", layer: InMemoryChannelLayer) -> None:
    async with serve(Member.as_asgi()) as served:
        offer = {"Sec-WebSocket-Extensions": "permessage-deflate; server_max_window_bits=8"}
        client = await served.open(additional_headers=offer)
        assert client.response is not None
        assert "Sec-WebSocket-Extensions" not in client.response.headers
        await client.send("x" * 1000)
        assert await client.recv() == "x" * 1000


async def test_what_cannot_be_offered_is_logged_and_the_client_served(
    serve: "Serve", layer: InMemoryChannelLayer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: Any) -> None:
        raise ValueError("no such window")

    monkeypatch.setattr("headrace._frames.uvicorn.FrameWriter", fail)
    offered: list[bool] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        offered.append(EXTENSION in scope["extensions"])
        await Member.as_asgi()(scope, receive, send)

    with caplog.at_level(logging.ERROR, "headrace.frames"):
        async with serve(application) as served:
            client = await served.open()
            await client.send("hello")
            assert await client.recv() == "hello"
    assert offered == [False]
    assert "served without headrace.frames" in caplog.text
