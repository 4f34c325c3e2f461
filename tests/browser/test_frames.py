"""A browser gets shared frames: compressed, as it asks for, and plain."""

import asyncio
from typing import Any

from playwright.async_api import Browser
from tests.frames.consumers import Member
from tests.frames.serving import serving

from headrace._layers.registry import channel_layers
from headrace.layers import InMemoryChannelLayer

TEXTS = ["short", "ü" * 100, "a text that is much the same " * 100, "x" * 100_000]

GET = """
async ([url, number]) => {
    const socket = new WebSocket(url), texts = [];
    await new Promise((resolve, reject) => {
        socket.onclose = event => reject(`closed with ${event.code}`);
        socket.onmessage = event => {
            texts.push(event.data);
            if (texts.length === number) resolve();
        };
    });
    return [socket.extensions, texts];
}
"""


async def test_a_browser_gets_compressed_frames(browser: Browser) -> None:
    layer = InMemoryChannelLayer()
    replaced = channel_layers.set("default", layer)
    try:
        async with serving(Member.as_asgi()) as served:
            page = await browser.new_page()
            getting = asyncio.ensure_future(page.evaluate(GET, [f"ws://127.0.0.1:{served.port}/", len(TEXTS)]))
            while not layer.group_count("all"):
                await asyncio.sleep(0.01)
            for text in TEXTS:
                await layer.group_send("all", {"type": "plain", "text": text})
            got: Any = await getting
            await page.close()
        extensions, texts = got
        assert "server_no_context_takeover" in extensions
        assert texts == TEXTS
    finally:
        if replaced is None:
            channel_layers.backends.pop("default", None)
        else:
            channel_layers.set("default", replaced)
