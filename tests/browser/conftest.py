"""The browser of all tests here."""

import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, async_playwright, expect

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

# Playwright waits for five seconds: too few where a busy machine has to start a server first.
expect.set_options(timeout=30_000)


def chromium() -> str | None:
    """Find the program of a browser."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    path = chromium()
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    async with async_playwright() as driver:
        # The sandbox cannot start in a container or as root; the page under test is our own.
        browser = await driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        await browser.close()
