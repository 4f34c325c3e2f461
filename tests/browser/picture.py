"""Make the pictures of the demo that the README shows: ``python -m tests.browser.picture``, with a release build."""

import asyncio
from pathlib import Path
from typing import Literal

from playwright.async_api import Browser, Page, ViewportSize, async_playwright, expect

from headrace._demo import make_app
from headrace._demo.app import PRESENCE
from headrace._demo.serve import bind, serving
from headrace.layers import InMemoryChannelLayer

from .conftest import chromium

FOLDER = Path(__file__).parents[2] / "docs/images"
SIZE: ViewportSize = {"width": 1100, "height": 620}
TALK = [
    ("ada", "Is the new build out?"),
    ("bob", "Since ten. Every window here got this line once."),
    ("ada", "Then so did mine."),
]
LOAD_SECONDS = 8
Scheme = Literal["light", "dark"]


async def enter(browser: Browser, url: str, name: str, scheme: Scheme) -> Page:
    """Open the page, and join the room."""
    page = await browser.new_page(viewport=SIZE, color_scheme=scheme)
    await page.goto(url)
    await page.get_by_label("Your name").fill(name)
    await page.get_by_label("Room").fill("release")
    await page.get_by_role("button", name="Join room").click()
    await expect(page.get_by_role("log")).to_be_visible()
    return page


async def take(browser: Browser, url: str, scheme: Scheme) -> None:
    """Let two people talk, load both layers, and take a picture of what the first one sees."""
    pages = {name: await enter(browser, url, name, scheme) for name in ("ada", "bob")}
    for name, text in TALK:
        await pages[name].get_by_label("Message", exact=True).fill(text)
        await pages[name].get_by_role("button", name="Send").click()
        await expect(pages["ada"].get_by_role("log")).to_contain_text(text)
    for layer in ("headrace", "Channels"):
        await pages["ada"].get_by_role("radio", name=layer).check(force=True)
        await pages["ada"].get_by_role("button", name="Start load").click()
        # The chart has a point each second.
        await pages["ada"].wait_for_timeout(LOAD_SECONDS * 1000)
        await pages["ada"].get_by_role("button", name="Stop load").click()
        await expect(pages["ada"].get_by_role("button", name="Start load")).to_be_visible()
    await pages["ada"].screenshot(path=FOLDER / f"demo-{scheme}.png")
    for page in pages.values():
        await page.close()


async def main() -> None:
    """Serve the demo, and take both pictures."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            with bind("127.0.0.1", 0) as listener:
                async with serving(make_app(InMemoryChannelLayer(presence=PRESENCE)), listener):
                    await take(browser, f"http://127.0.0.1:{listener.getsockname()[1]}/", scheme)
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
