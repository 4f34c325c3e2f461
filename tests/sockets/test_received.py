"""What a client sends to a socket server: frames, bad frames, and what is told to the log of them."""

from typing import Any

import pytest

from headrace.sockets import BaseSocketServer

from .conftest import Client
from .noting import Noting


@pytest.mark.parametrize(
    "frame", [{"text": "{"}, {"text": "NaN"}, {"text": ""}, {"bytes": b"\xff"}, {"text": None, "bytes": None}, {}]
)
async def test_a_bad_frame_is_logged_and_answered_and_the_socket_stays(
    client: Client, caplog: pytest.LogCaptureFixture, frame: dict[str, Any]
) -> None:
    server = await client.connects(Noting)
    client.gives("receive", **frame)
    client.says("good")
    await client.leaves()
    assert client.heard == [{"error": "the message could not be decoded"}]
    assert server.noted == ["connect", "good", ("disconnect", 1000)]
    assert (server.stats().received, server.stats().bad_messages) == (2, 1)
    assert "got a frame that its ws_decoder does not take" in caplog.text


async def test_the_answer_to_a_bad_frame_is_the_servers_to_choose(client: Client) -> None:
    class Strict(BaseSocketServer):
        async def on_bad_message(self, raw: str | bytes, error: Exception) -> None:
            await self.async_send({"raw": raw, "error": type(error).__name__})
            await self.async_close(1007)

    await client.connects(Strict)
    client.gives("receive", text="{")
    await client.ends()
    assert client.heard == [{"raw": "{", "error": "JSONDecodeError"}]
    assert client.sent[-1] == {"type": "websocket.close", "code": 1007}


async def test_a_decoder_gets_text_or_bytes_as_they_came(client: Client) -> None:
    server = await client.connects(Noting, ws_decoder=lambda raw: raw)
    client.gives("receive", text="text")
    client.gives("receive", bytes=b"bytes")
    client.gives("receive", text=None, bytes=b"others")
    await client.leaves()
    assert server.noted[1:-1] == ["text", b"bytes", b"others"]


@pytest.mark.complains
async def test_a_receive_hook_that_raises_is_logged_and_counted_and_the_socket_stays(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    class Fragile(Noting):
        def receive(self, data: Any) -> Any:
            raise LookupError("nothing of that kind")

    server = await client.connects(Fragile)
    client.says(1)
    client.says(2)
    await client.leaves()
    assert server.stats().errors == 2
    assert server.noted == ["connect", ("disconnect", 1000)]
    assert caplog.text.count("<Fragile at /ws/>: receive() failed") == 2


@pytest.mark.complains
async def test_a_client_may_be_told_that_its_frame_has_failed(client: Client) -> None:
    class Frank(BaseSocketServer):
        def receive(self, data: Any) -> Any:
            raise LookupError("nothing of that kind")

        def on_error(self, error: Exception, data: Any) -> None:
            self.send({"failed": data, "why": str(error)})

    await client.connects(Frank)
    client.says(1)
    assert await client.hears(1) == [{"failed": 1, "why": "nothing of that kind"}]


async def test_frames_to_a_server_without_a_receive_are_counted(client: Client) -> None:
    server = await client.connects(BaseSocketServer)
    client.says(1)
    await client.leaves()
    assert (server.stats().received, server.stats().unhandled) == (1, 1)


async def test_a_client_cannot_fill_the_log_with_bad_frames(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    server = await client.connects(BaseSocketServer)
    for _ in range(10):
        client.gives("receive", text="{")
    await client.leaves()
    assert server.stats().bad_messages == 10
    assert caplog.text.count("got a frame that its ws_decoder does not take") == 1


async def test_a_client_cannot_write_into_the_log(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    client.scope["path"] = "/ws/\nCRITICAL it is all over"
    await client.connects(Noting)
    client.gives("receive", bytes=b"\xff" * 100_000)
    await client.gets(2)
    (record,) = [record for record in caplog.records if record.name == "headrace.sockets"]
    assert "\n" not in record.getMessage()
    assert len(record.getMessage()) < 500
    await client.leaves()
