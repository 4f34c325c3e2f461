"""Clients of other makers get every message, compressed as they ask for it or plain, and are heard."""

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from tests.frames.consumers import Member
from websockets.asyncio.client import connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from headrace.layers import InMemoryChannelLayer

if TYPE_CHECKING:
    from tests.frames.conftest import Serve

SECONDS = 60
TEXTS = ["", "short", "ü" * 100, "x" * 125, "y" * 126, "a text that is much the same " * 100, "z" * 65_536, "last"]
"""What is broadcast; a client says the last one when it has them all, and is told it once more."""

Client = Callable[[str, Any], Awaitable[list[str]]]
"""Opens a WebSocket with some options, reads, says the last text that came, and returns all that it was told."""


class Heard(Member):
    """Tells which extensions were asked for and what was said."""

    said: ClassVar[list[str | None]] = []

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.said.append(text_data)
        await self.send(text_data=text_data)


async def with_websockets(url: str, options: dict[str, Any] | None) -> list[str]:
    extensions = None if options is None else [ClientPerMessageDeflateFactory(**options)]
    async with connect(url, compression=None, extensions=extensions, max_size=None, open_timeout=SECONDS) as client:
        assert [extension.name for extension in client.protocol.extensions] == [
            *([] if options is None else ["permessage-deflate"])
        ]
        got = [str(await client.recv()) for _ in TEXTS]
        await client.send(got[-1])
        return [*got, str(await client.recv())]


async def with_aiohttp(url: str, bits: int) -> list[str]:
    aiohttp = pytest.importorskip("aiohttp")
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url, compress=bits, max_msg_size=0) as client,
    ):
        assert client.compress
        got = [await client.receive_str() for _ in TEXTS]
        await client.send_str(got[-1])
        return [*got, await client.receive_str()]


NODE = """
const WebSocket = require('ws');
const [url, options, number] = process.argv.slice(1).map(word => JSON.parse(word));
const client = new WebSocket(url, {perMessageDeflate: options}), got = [];
client.on('error', error => { console.error(error); process.exit(1); });
client.on('open', () => {
    if (Boolean(client.extensions) !== Boolean(options)) throw new Error(`extensions: ${client.extensions}`);
});
client.on('message', data => {
    got.push(data.toString());
    if (got.length === number) client.send(data.toString());
    if (got.length > number) { console.log(JSON.stringify(got)); client.close(); }
});
"""


async def with_node(url: str, options: Any) -> list[str]:
    program = shutil.which("node")
    # Where Debian's package node-ws puts it.
    folders = [os.environ.get("NODE_PATH"), "/usr/share/nodejs"]
    if program is None or not any(Path(folder, "ws").is_dir() for folder in folders if folder):
        pytest.skip("there is no node with the package ws; Debian's package is node-ws")
    process = await asyncio.create_subprocess_exec(
        *(program, "-e", NODE, "--", *map(json.dumps, (url, options, len(TEXTS)))),
        env={**os.environ, "NODE_PATH": os.pathsep.join(filter(None, folders))},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")
    got: list[str] = json.loads(output)
    return got


CLIENTS: dict[str, tuple[Client, Any]] = {
    "websockets": (with_websockets, {}),
    "websockets, plain": (with_websockets, None),
    "websockets, as browsers do": (with_websockets, {"client_max_window_bits": True}),
    "websockets, 9 bits": (with_websockets, {"server_max_window_bits": 9, "client_max_window_bits": True}),
    "aiohttp": (with_aiohttp, 15),
    "aiohttp, 9 bits": (with_aiohttp, 9),
    "node's ws": (with_node, True),
    "node's ws, plain": (with_node, False),
    "node's ws, 9 bits": (with_node, {"serverMaxWindowBits": 9, "clientMaxWindowBits": 9}),
    "node's ws, without takeover": (with_node, {"serverNoContextTakeover": True, "clientNoContextTakeover": True}),
}


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_client_gets_all_and_is_heard(serve: "Serve", layer: InMemoryChannelLayer, kind: str) -> None:
    Heard.said.clear()
    client, options = CLIENTS[kind]
    async with serve(Heard.as_asgi()) as served:
        getting = asyncio.ensure_future(client(f"ws://127.0.0.1:{served.port}/", options))
        async with asyncio.timeout(SECONDS):
            while not layer.group_count("all") and not getting.done():
                await asyncio.sleep(0.01)
            for text in TEXTS:
                await layer.group_send("all", {"type": "plain", "text": text})
            assert await getting == [*TEXTS, TEXTS[-1]]
    assert Heard.said == [TEXTS[-1]]


PAGE = """<!doctype html><script>
const socket = new WebSocket(`ws://${location.host}/`), texts = [];
socket.onmessage = event => {
    texts.push(event.data);
    if (texts.length === %d) socket.send(JSON.stringify([socket.extensions, texts]));
};
</script>"""


async def test_firefox_gets_compressed_frames(serve: "Serve", layer: InMemoryChannelLayer) -> None:
    program = shutil.which("firefox-esr") or shutil.which("firefox")
    if program is None:
        pytest.skip("there is no Firefox; Debian's package is firefox-esr")
    Heard.said.clear()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await Heard.as_asgi()(scope, receive, send)
            return
        page = (PAGE % len(TEXTS)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
        await send({"type": "http.response.body", "body": page})

    with tempfile.TemporaryDirectory() as folder:
        async with serve(application) as served:
            command = [program, "--headless", "--no-remote", "--profile", folder, f"http://127.0.0.1:{served.port}/"]
            process = await asyncio.create_subprocess_exec(
                *command,
                env={**os.environ, "HOME": folder},
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
            try:
                async with asyncio.timeout(SECONDS):
                    while not layer.group_count("all"):
                        await asyncio.sleep(0.01)
                    for text in TEXTS:
                        await layer.group_send("all", {"type": "plain", "text": text})
                    while not Heard.said:
                        await asyncio.sleep(0.01)
            finally:
                process.terminate()
                await process.wait()
    extensions, texts = json.loads(Heard.said[0] or "")
    # Firefox does not say more of it.
    assert extensions == "permessage-deflate"
    assert texts == TEXTS
