"""A window of the demo's page."""

import json
from typing import Any

from playwright.async_api import Browser, Page, ViewportSize, expect

from .axe import DESKTOP


class Window:
    """One window of the page, whose script must never fail."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.failures: list[str] = []
        page.on("pageerror", lambda error: self.failures.append(str(error)))
        # All frames that the server has sent it, over each of its connections.
        self.told: list[dict[str, Any]] = []
        page.on("websocket", lambda socket: socket.on("framereceived", self._hear))

    def _hear(self, text: str | bytes) -> None:
        self.told.append(json.loads(text))

    async def join(self, name: str, room: str) -> None:
        await self.page.get_by_label("Your name").fill(name)
        await self.page.get_by_label("Room").fill(room)
        await self.page.get_by_role("button", name="Join room").click()
        await expect(self.page.get_by_role("heading", name=room)).to_be_visible()

    async def say(self, text: str) -> None:
        await self.page.get_by_label("Message", exact=True).fill(text)
        await self.page.get_by_role("button", name="Send").click()

    async def shows(self, text: str) -> None:
        await expect(self.page.get_by_role("log")).to_contain_text(text)

    async def rows(self) -> list[str]:
        """What stands in the log, row by row, without times and receipts."""
        rows: list[str] = await self.page.get_by_role("log").evaluate(
            """log => [...log.children].map(row => row.matches(".note")
                ? row.querySelector("span").textContent
                : `${[...row.querySelectorAll(".who bdi, .who small")].map(part => part.textContent).join(" ")}: `
                  + row.querySelector(".text").textContent)"""
        )
        return rows

    async def counts(self, members: str) -> None:
        await expect(self.page.locator("#count")).to_have_text(members)

    async def is_connected(self, state: str) -> None:
        await expect(self.page.locator("#link-text")).to_have_text(state)

    async def fits(self) -> None:
        """The page is no wider than its window."""
        wide = await self.page.evaluate("() => document.documentElement.scrollWidth > innerWidth")
        assert not wide


async def open_window(browser: Browser, url: str, viewport: ViewportSize = DESKTOP) -> Window:
    context = await browser.new_context(viewport=viewport)
    window = Window(await context.new_page())
    await window.page.goto(url)
    await window.is_connected("Connected")
    return window
