"""The pages of the chats in examples/ in a real browser, two windows at a time."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect
from tests.browser.axe import PHONE, SOME, faults
from tests.support.examples import EXAMPLES, serve

# Of each pair with the same page, one; tests/examples sees that the pages are the same.
CHATS = ("fastapi_chat", "django_channels")


@pytest.fixture(params=CHATS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(name: str, tmp_path: Path) -> Iterator[str]:
    with serve(EXAMPLES / name, tmp_path / "log") as address:
        yield f"http://{address}/"


class Window:
    """A browser of its own, whose page's script must never fail."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.failures: list[str] = []
        page.on("pageerror", lambda error: self.failures.append(str(error)))

    async def join(self, name: str) -> None:
        """Join by keyboard alone: the focus is where a person expects it."""
        await expect(self.page.get_by_label("Your name")).to_be_focused()
        await self.page.keyboard.type(name)
        await self.page.keyboard.press("Enter")
        await self.is_connected()
        await expect(self.page.get_by_label("Message", exact=True)).to_be_focused()

    async def say(self, text: str) -> None:
        await self.page.keyboard.type(text)
        await self.page.keyboard.press("Enter")

    async def shows(self, *lines: str) -> None:
        await expect(self.page.get_by_role("log").locator("p")).to_have_text(list(lines))

    async def is_connected(self, state: str = "Connected") -> None:
        await expect(self.page.get_by_role("status", name="Connection")).to_have_text(state, timeout=30_000)


async def open_window(browser: Browser, url: str) -> Window:
    context = await browser.new_context(viewport=PHONE)
    window = Window(await context.new_page())
    await window.page.goto(url)
    return window


async def test_two_people_chat_under_their_names(browser: Browser, url: str, name: str) -> None:
    ada, grace = await open_window(browser, url), await open_window(browser, url)
    assert await faults(ada.page) == []
    evil = "<img src=x>"
    await ada.join("Ada")
    await grace.join(evil)
    await ada.say("hello")
    await grace.shows(f"You joined as {evil}", "Adahello")
    await grace.say("hello, Ada")
    await grace.say("and good morning")
    await ada.shows("You joined as Ada", "Adahello", f"{evil}hello, Ada", "and good morning")
    assert await faults(ada.page) == []
    if name == "django_channels":
        await ada.page.get_by_label("Announcement").fill("tea is ready")
        await ada.page.get_by_role("button", name="Announce").click()
        await expect(grace.page.get_by_role("log")).to_contain_text("tea is ready")
        await expect(ada.page.get_by_label("Announcement")).to_have_value("")
        await ada.page.reload()
        await ada.is_connected()
        await expect(ada.page.get_by_label("Message", exact=True)).to_be_focused()
        await ada.page.get_by_role("button", name="Leave").click()
        await ada.join("Ada again")
    assert ada.failures == grace.failures == []


async def test_a_page_finds_a_server_that_comes_back(browser: Browser, name: str, tmp_path: Path) -> None:
    with serve(EXAMPLES / name, tmp_path / "before") as address:
        ada = await open_window(browser, f"http://{address}/")
        await ada.join("Ada")
    await ada.is_connected("Connection lost")
    await expect(ada.page.locator("#wait")).to_contain_text("next try in")
    # What was typed is kept, and so is the focus.
    await ada.say("too early")
    await expect(ada.page.get_by_label("Message", exact=True)).to_have_value("too early")
    await expect(ada.page.get_by_label("Message", exact=True)).to_be_focused()
    assert await faults(ada.page, SOME) == []
    # With every vain attempt the pause has grown.
    await ada.page.wait_for_function("pause >= 2000")
    with serve(EXAMPLES / name, tmp_path / "after", int(address.rpartition(":")[2])):
        await ada.is_connected()
        assert await ada.page.evaluate("pause") == 500
        await expect(ada.page.get_by_role("log")).to_contain_text("Connected again.")
        await ada.page.keyboard.press("Enter")
        await expect(ada.page.get_by_role("log")).to_contain_text("too early")
        await ada.page.close()
    assert ada.failures == []
