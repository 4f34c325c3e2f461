"""The pages of the shared counter in a real browser, two windows at a time."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, ViewportSize, expect
from tests.browser.axe import faults
from tests.support.examples import copy, serve, set_up

PASSWORD = "for-development-only"
MINUS = "\N{MINUS SIGN}"
PHONE: ViewportSize = {"width": 360, "height": 740}
DESKTOP: ViewportSize = {"width": 1280, "height": 800}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with a database."""
    folder = copy("django_counter", tmp_path_factory.mktemp("prepared") / "project")
    set_up(folder)
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    """The same for a test alone."""
    return Path(shutil.copytree(prepared, tmp_path / "project"))


@pytest.fixture
def url(folder: Path, tmp_path: Path) -> Iterator[str]:
    with serve(folder, tmp_path / "log") as address:
        yield f"http://{address}/"


class Window:
    """A browser of its own, whose pages' scripts must never fail."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.failures: list[str] = []
        page.on("pageerror", lambda error: self.failures.append(str(error)))

    async def log_in(self, user: str, password: str = PASSWORD) -> None:
        await self.page.get_by_label("Username").fill(user)
        await self.page.get_by_label("Password").fill(password)
        await self.page.get_by_role("button", name="Log in").click()

    async def press(self, button: str) -> None:
        await self.page.get_by_role("button", name=button).click()

    async def shows(self, value: str, by: str) -> None:
        await expect(self.page.get_by_role("status", name="Value")).to_have_text(f"{value} {by}", use_inner_text=True)

    async def is_connected(self, state: str = "Connected") -> None:
        await expect(self.page.get_by_role("status", name="Connection")).to_have_text(state)

    async def fits(self) -> None:
        """The page is no wider than its window, nor any part of it wider than the page shows."""
        wide = await self.page.evaluate(
            """() => [document.documentElement, ...document.querySelectorAll("main, main *")]
                .filter(part => part.scrollWidth > part.offsetWidth && getComputedStyle(part).display !== "inline")
                .map(part => part.outerHTML)"""
        )
        assert wide == []


async def open_window(browser: Browser, url: str, viewport: ViewportSize = DESKTOP) -> Window:
    context = await browser.new_context(viewport=viewport)
    window = Window(await context.new_page())
    await window.page.goto(url)
    return window


async def open_counter(browser: Browser, url: str, user: str, viewport: ViewportSize = DESKTOP) -> Window:
    window = await open_window(browser, url, viewport)
    await window.log_in(user)
    await window.is_connected()
    return window


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
async def test_two_users_see_each_others_changes(browser: Browser, url: str, viewport: ViewportSize) -> None:
    ada = await open_counter(browser, url, "ada", viewport)
    grace = await open_counter(browser, url, "grace", viewport)
    for window in (ada, grace):
        await window.shows("0", "Nobody has changed it yet")
    await ada.press("Add one")
    await ada.shows("1", "You changed it last")
    await grace.shows("1", "ada changed it last")
    for _ in range(3):
        await grace.press("Take one away")
    await grace.shows(f"{MINUS}2", "You changed it last")
    await ada.shows(f"{MINUS}2", "grace changed it last")

    await expect(ada.page.get_by_role("button", name="Reset to zero")).to_have_count(0)
    await grace.press("Reset to zero")
    for window, who in ((ada, "grace"), (grace, "You")):
        await window.shows("0", f"{who} changed it last")
        await window.fits()
    assert ada.failures == grace.failures == []


async def test_who_is_not_logged_in_is_led_to_the_login_and_back(browser: Browser, url: str) -> None:
    ada = await open_window(browser, url, PHONE)
    await expect(ada.page).to_have_url(f"{url}login/?next=/")
    await ada.fits()
    assert await faults(ada.page) == []
    await ada.log_in("ada", "wrong")
    await expect(ada.page.get_by_role("alert")).to_contain_text("Please enter a correct username and password")
    await expect(ada.page.get_by_label("Username")).to_have_value("ada")
    assert await faults(ada.page) == []
    await ada.fits()
    await ada.log_in("ada")
    await expect(ada.page).to_have_url(url)
    await ada.is_connected()
    assert await faults(ada.page) == []
    assert ada.failures == []


async def test_who_logs_out_is_back_at_the_login(browser: Browser, url: str) -> None:
    ada = await open_counter(browser, url, "ada")
    await ada.press("Log out")
    await expect(ada.page).to_have_url(f"{url}login/")
    await ada.page.go_back()
    await expect(ada.page).to_have_url(f"{url}login/?next=/")
    assert ada.failures == []


async def test_who_logs_out_in_one_page_is_back_at_the_login_in_all(browser: Browser, url: str) -> None:
    ada = await open_counter(browser, url, "ada")
    others = [Window(await ada.page.context.new_page()) for _ in range(2)]
    for window in others:
        await window.page.goto(url)
        await window.is_connected()
    grace = await open_counter(browser, url, "grace")
    await grace.page.evaluate("socket.addEventListener('close', () => { document.title = 'closed'; })")
    await ada.press("Log out")
    for window in others:
        await expect(window.page).to_have_url(f"{url}login/?next=/")
        assert window.failures == []
    # Of another user nothing has ended.
    await grace.press("Add one")
    await grace.shows("1", "You changed it last")
    assert await grace.page.title() == "Counter"
    assert ada.failures == grace.failures == []


async def test_the_counter_works_by_keyboard(browser: Browser, url: str) -> None:
    ada = await open_window(browser, url)
    # The browser focuses the first field after the page has loaded; keys that are pressed before are lost.
    await expect(ada.page.get_by_label("Username")).to_be_focused()
    await ada.page.keyboard.type("ada")
    await ada.page.keyboard.press("Tab")
    await ada.page.keyboard.type(PASSWORD)
    await ada.page.keyboard.press("Enter")
    await ada.is_connected()
    for button in ("Log out", "Take one away", "Add one"):
        await ada.page.keyboard.press("Tab")
        await expect(ada.page.get_by_role("button", name=button)).to_be_focused()
    await ada.page.keyboard.press("Space")
    await ada.shows("1", "You changed it last")
    await ada.page.keyboard.press("Enter")
    await ada.shows("2", "You changed it last")


async def test_what_was_changed_earlier_is_not_shown_again(browser: Browser, url: str) -> None:
    ada = await open_counter(browser, url, "ada")
    for _ in range(2):
        await ada.press("Add one")
    await ada.shows("2", "You changed it last")
    # As when two broadcasts overtake each other on their way.
    await ada.page.evaluate(
        "data => { socket.dispatchEvent(new MessageEvent('message', { data })); }",
        '{"value": 1, "by": "grace", "changes": 1}',
    )
    await ada.shows("2", "You changed it last")
    await ada.press("Add one")
    await ada.shows("3", "You changed it last")
    assert ada.failures == []


async def test_long_values_and_names_stay_in_the_window(browser: Browser, folder: Path, url: str) -> None:
    with closing(sqlite3.connect(folder / "db.sqlite3", isolation_level=None)) as database:
        database.execute("UPDATE mysite_counter SET value = -2147483648, by = ?, changes = 1", ["W" * 150])
        database.execute("UPDATE auth_user SET username = ? WHERE username = 'grace'", ["W" * 150])
    window = await open_counter(browser, url, "W" * 150, PHONE)
    await window.shows(f"{MINUS}2147483648", "You changed it last")
    await window.fits()
    other = await open_counter(browser, url, "ada", PHONE)
    await other.shows(f"{MINUS}2147483648", f"{'W' * 150} changed it last")
    await other.fits()


async def test_names_are_shown_and_never_run(browser: Browser, folder: Path, url: str) -> None:
    evil = '"><img src=x onerror="document.title = 1">'
    with closing(sqlite3.connect(folder / "db.sqlite3", isolation_level=None)) as database:
        database.execute("UPDATE auth_user SET username = ? WHERE username = 'grace'", [evil])
    ada = await open_counter(browser, url, "ada")
    grace = await open_counter(browser, url, evil)
    await grace.press("Add one")
    await ada.shows("1", f"{evil} changed it last")
    await grace.shows("1", "You changed it last")
    for window in (ada, grace):
        assert await window.page.locator("img").count() == 0
        assert await window.page.title() == "Counter"


async def test_a_page_finds_a_server_that_comes_back_and_shows_the_value_of_now(
    browser: Browser, folder: Path, tmp_path: Path
) -> None:
    with serve(folder, tmp_path / "before") as address:
        ada = await open_counter(browser, f"http://{address}/", "ada", PHONE)
        await ada.press("Add one")
        await ada.shows("1", "You changed it last")
    await ada.is_connected("Connection lost")
    add = ada.page.get_by_role("button", name="Add one")
    await expect(add).to_be_disabled()
    await expect(add).to_be_focused()
    await add.click(force=True)
    await ada.fits()
    # With every vain attempt the pause has grown.
    await ada.page.wait_for_function("pause >= 2000")
    with closing(sqlite3.connect(folder / "db.sqlite3", isolation_level=None)) as database:
        database.execute("UPDATE mysite_counter SET value = 41, by = 'grace', changes = changes + 1")
    with serve(folder, tmp_path / "after", int(address.rpartition(":")[2])):
        await ada.is_connected()
        await ada.shows("41", "grace changed it last")
        assert await ada.page.evaluate("pause") == 500
        await ada.press("Add one")
        await ada.shows("42", "You changed it last")
        await ada.page.close()
    assert ada.failures == []


async def test_a_page_whose_user_has_logged_out_elsewhere_goes_to_the_login(
    browser: Browser, folder: Path, tmp_path: Path
) -> None:
    with serve(folder, tmp_path / "before") as address:
        url = f"http://{address}/"
        ada = await open_counter(browser, url, "ada")
        with closing(sqlite3.connect(folder / "db.sqlite3", isolation_level=None)) as database:
            database.execute("DELETE FROM django_session")
    await ada.is_connected("Connection lost")
    with serve(folder, tmp_path / "after", int(address.rpartition(":")[2])):
        await expect(ada.page).to_have_url(f"{url}login/?next=/")
    assert ada.failures == []
