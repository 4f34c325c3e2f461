"""The demo's page in a real browser, two windows at a time."""

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, ViewportSize, expect
from tests.browser.axe import DESKTOP, PHONE
from tests.browser.window import open_window

from headrace._demo import make_app
from headrace._demo.app import PRESENCE
from headrace._demo.serve import bind, serving
from headrace.layers import InMemoryChannelLayer


@pytest.fixture
async def url() -> AsyncIterator[str]:
    with bind("127.0.0.1", 0) as listener:
        async with serving(make_app(InMemoryChannelLayer(presence=PRESENCE)), listener):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
async def test_two_windows_chat(browser: Browser, url: str, viewport: ViewportSize) -> None:
    ada = await open_window(browser, url, viewport)
    await ada.fits()
    await ada.join("Ada", "lobby")
    await ada.counts("1 member")
    await expect(ada.page.locator("#alone")).to_be_visible()

    grace = await open_window(browser, f"{url}?room=lobby", viewport)
    await grace.join("Grace", "lobby")
    for window in (ada, grace):
        await window.counts("2 members")
    await ada.shows("Grace joined")
    await expect(ada.page.locator("#alone")).to_be_hidden()

    await grace.say("hello, Ada")
    await ada.shows("hello, Ada")
    await ada.say("hello, Grace")
    await grace.shows("hello, Grace")
    await ada.shows("2 deliveries")
    await ada.fits()

    await grace.page.get_by_role("button", name="Leave").click()
    await expect(grace.page.get_by_role("heading", name="Join a room")).to_be_visible()
    await ada.counts("1 member")
    assert ada.failures == grace.failures == []


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
async def test_a_third_window_in_another_room_sees_nothing_of_it(
    browser: Browser, url: str, viewport: ViewportSize
) -> None:
    ada = await open_window(browser, url, viewport)
    grace = await open_window(browser, url, viewport)
    mary = await open_window(browser, url, viewport)
    await ada.join("Ada", "red")
    await grace.join("Grace", "red")
    await mary.join("Mary", "blue")
    await ada.counts("2 members")
    await ada.say("for red")
    for window in (ada, grace):
        await window.shows("for red")
    await mary.say("for blue")
    await mary.shows("1 delivery")
    await mary.counts("1 member")
    assert await mary.rows() == ["You joined as Mary", "Mary you: for blue"]
    assert await grace.rows() == ["You joined as Grace", "Ada: for red"]
    assert await ada.rows() == ["You joined as Ada", "Grace joined", "Ada you: for red"]

    # Whoever moves is announced in both rooms, and takes nothing along.
    await grace.page.get_by_role("button", name="Leave").click()
    await grace.join("Grace", "blue")
    await ada.shows("Grace left")
    await mary.shows("Grace joined")
    assert await grace.rows() == ["You joined as Grace"]
    assert ada.failures == grace.failures == mary.failures == []


async def test_a_window_that_is_closed_has_left(browser: Browser, url: str) -> None:
    ada = await open_window(browser, url)
    await ada.join("Ada", "lobby")
    grace = await open_window(browser, url)
    await grace.join("Grace", "lobby")
    await ada.counts("2 members")
    await grace.page.close()
    await ada.shows("Grace left")
    await ada.counts("1 member")


async def test_a_frame_that_is_refused_in_a_room_is_explained_and_the_room_stays(browser: Browser, url: str) -> None:
    ada = await open_window(browser, url)
    await ada.join("Ada", "lobby")
    # More than the page itself lets anybody type.
    await ada.page.get_by_label("Message", exact=True).evaluate("box => box.removeAttribute('maxlength')")
    await ada.say("x" * 2001)
    await expect(ada.page.get_by_role("alert")).to_have_text("text must have 1 to 2000 characters, got 2001")
    await ada.fits()
    await ada.say("shorter")
    await ada.shows("shorter")
    await expect(ada.page.get_by_role("alert")).to_be_hidden()
    assert ada.failures == []


async def test_the_last_message_stays_in_sight_when_the_log_shrinks(browser: Browser, url: str) -> None:
    ada = await open_window(browser, url, PHONE)
    await ada.join("Ada", "lobby")
    for number in range(30):
        await ada.say(f"message {number}")
    last = ada.page.get_by_role("log").get_by_text("message 29")
    await expect(last).to_be_in_viewport()
    await ada.page.get_by_role("button", name="Details").click()
    await expect(ada.page.locator("#counters")).to_be_visible()
    await expect(last).to_be_in_viewport()
    # But who has scrolled back is left there.
    await ada.page.get_by_role("log").evaluate("log => { log.scrollTop = 0; }")
    await expect(last).not_to_be_in_viewport()
    await ada.page.get_by_role("button", name="Details").click()
    await expect(ada.page.locator("#counters")).to_be_hidden()
    await expect(last).not_to_be_in_viewport()


async def test_what_people_type_is_shown_and_never_run(browser: Browser, url: str) -> None:
    evil = '<img src=x onerror="document.title = 1">'
    ada = await open_window(browser, url)
    grace = await open_window(browser, url)
    await ada.join(evil, f"room {evil[:40]}")
    await grace.join("Grace", f"room {evil[:40]}")
    await ada.say(evil)
    for window in (ada, grace):
        await window.shows(evil)
        assert await window.page.locator("main img").count() == 0
        assert (await window.page.title()).startswith("room <img")


async def test_the_counters_are_live(browser: Browser, url: str) -> None:
    ada = await open_window(browser, url)
    await expect(ada.page.locator("#counter-memberships")).to_have_text("0")
    await ada.join("Ada", "lobby")
    await expect(ada.page.locator("#counter-memberships")).to_have_text("1")
    for number in range(5):
        await ada.say(str(number))
    # The answer to the join, and that Ada is there, come through the layer too.
    await expect(ada.page.locator("#counter-delivered")).to_have_text("7")
    await expect(ada.page.locator("#peak")).not_to_have_text("peak 0")
    assert ada.failures == []


async def test_a_phone_unfolds_the_counters(browser: Browser, url: str) -> None:
    ada = await open_window(browser, url, PHONE)
    await expect(ada.page.locator("#counters")).to_be_hidden()
    await ada.page.get_by_role("button", name="Details", expanded=False).click()
    await expect(ada.page.locator("#counter-dropped_full")).to_be_visible()
    await ada.page.get_by_role("button", name="Details", expanded=True).click()
    await expect(ada.page.locator("#counters")).to_be_hidden()


async def test_a_refused_name_is_explained_and_can_be_put_right(browser: Browser, url: str) -> None:
    ada = await open_window(browser, url)
    await ada.page.get_by_label("Your name").fill(" ")
    await ada.page.get_by_role("button", name="Join room").click()
    await expect(ada.page.get_by_role("alert")).to_have_text("name must have 1 to 40 characters, got 0")
    await ada.join("Ada", "lobby")


async def test_a_window_finds_a_server_that_comes_back(browser: Browser) -> None:
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        async with serving(make_app(InMemoryChannelLayer(presence=PRESENCE)), listener):
            ada = await open_window(browser, f"http://127.0.0.1:{port}/", PHONE)
            await ada.join("Ada", "lobby")
            await ada.say("before")
            await ada.shows("before")
    await ada.is_connected("Connection lost")
    await expect(ada.page.get_by_role("button", name="Send")).to_be_disabled()
    await ada.fits()
    with bind("127.0.0.1", port) as listener:
        async with serving(make_app(InMemoryChannelLayer(presence=PRESENCE)), listener):
            await ada.is_connected("Connected")
            await ada.shows("Connected again")
            await ada.counts("1 member")
            await ada.say("after")
            await ada.shows("after")
    assert ada.failures == []
