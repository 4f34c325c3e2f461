"""The demo's page after a break: what was said meanwhile is there, once and in its place, or it says what is not."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from playwright.async_api import Browser, expect
from tests.browser.axe import PHONE, faults
from tests.browser.window import Window, open_window
from tests.support.servers import Server
from tests.support.traffic import PATIENT, soon

from headrace._demo import make_app
from headrace._demo.app import HISTORY, PRESENCE
from headrace._demo.serve import bind, serving
from headrace.layers import InMemoryChannelLayer, RedisChannelLayer


def layer_with_history() -> InMemoryChannelLayer:
    return InMemoryChannelLayer(history=HISTORY, presence=PRESENCE)


async def recovers(window: Window, text: str) -> None:
    """The page is in its room again, and has all that was said before."""
    await window.is_connected("Connected")
    await window.shows(text)


async def test_a_page_without_a_network_gets_what_was_said_meanwhile(browser: Browser) -> None:
    with bind("127.0.0.1", 0) as listener:
        async with serving(make_app(layer_with_history()), listener):
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            ada, grace = await open_window(browser, url, PHONE), await open_window(browser, url)
            await ada.join("Ada", "lobby")
            await grace.join("Grace", "lobby")
            await ada.shows("Grace joined")
            await grace.say("one")
            await ada.say("two")
            await grace.shows("two")
            for text, rest in (("three", "four"), ("five", "six")):
                await ada.page.context.set_offline(True)
                await ada.is_connected("Connection lost")
                await grace.say(text)
                await grace.say(rest)
                await grace.shows(rest)
                await expect(ada.page.get_by_role("log")).not_to_contain_text(text)
                await ada.page.context.set_offline(False)
                await recovers(ada, "Connected again. 2 messages from meanwhile recovered.")
            await ada.say("seven")
            await grace.shows("seven")
            await ada.shows("seven")
            again = "Connected again. 2 messages from meanwhile recovered."
            assert await ada.rows() == [
                *("You joined as Ada", "Grace joined", "Grace: one", "Ada you: two"),
                # What somebody says next stands beneath.
                *("Grace: three", ": four", again, "Grace: five", ": six", again, "Ada you: seven"),
            ]
            assert await faults(ada.page) == []
    assert ada.failures == grace.failures == []


async def test_a_page_gets_what_another_server_took_while_its_own_was_away(browser: Browser) -> None:
    layer = layer_with_history()
    with bind("127.0.0.1", 0) as elsewhere:
        async with serving(make_app(layer), elsewhere):
            with bind("127.0.0.1", 0) as listener:
                port = listener.getsockname()[1]
                async with serving(make_app(layer), listener):
                    ada = await open_window(browser, f"http://127.0.0.1:{port}/", PHONE)
                    await ada.join("Ada", "lobby")
                    await ada.say("before")
                    await ada.shows("before")
            await ada.is_connected("Connection lost")
            grace = await open_window(browser, f"http://127.0.0.1:{elsewhere.getsockname()[1]}/")
            await grace.join("Grace", "lobby")
            # Who comes for the first time sees what was said before.
            await grace.shows("before")
            await grace.say("meanwhile")
            await grace.shows("meanwhile")
            with bind("127.0.0.1", port) as listener:
                async with serving(make_app(layer), listener):
                    await recovers(ada, "1 message from meanwhile recovered.")
                    await ada.say("after")
                    await grace.shows("after")
                    assert await ada.rows() == [
                        *("You joined as Ada", "Ada you: before", "Grace: meanwhile"),
                        *("Connected again. 1 message from meanwhile recovered.", "Ada you: after"),
                    ]
                    await ada.counts("2 members")
    assert ada.failures == grace.failures == []


async def test_a_page_is_told_what_nobody_knows_any_more(browser: Browser) -> None:
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        async with serving(make_app(layer_with_history()), listener):
            ada = await open_window(browser, f"http://127.0.0.1:{port}/", PHONE)
            await ada.join("Ada", "lobby")
            await ada.say("before")
            await ada.shows("before")
    await ada.is_connected("Connection lost")
    with bind("127.0.0.1", port) as listener:
        async with serving(make_app(layer_with_history()), listener):
            await recovers(ada, "Connected again. Some of what was said meanwhile may be missing here.")
            await ada.say("after")
            await ada.shows("after")
    assert await ada.rows() == [
        *("You joined as Ada", "Ada you: before"),
        *("Connected again. Some of what was said meanwhile may be missing here.", "Ada you: after"),
    ]
    assert ada.failures == []


async def test_a_page_goes_on_over_redis_though_its_server_and_then_redis_were_started_again(
    browser: Browser, start_redis: Callable[..., Server]
) -> None:
    redis = start_redis()

    @asynccontextmanager
    async def demo(port: int = 0) -> AsyncIterator[tuple[RedisChannelLayer, str, int]]:
        """One server with a layer of its own, as a process has it."""
        layer = RedisChannelLayer([redis.url], history=HISTORY, presence=PRESENCE, send_timeout=PATIENT)
        with bind("127.0.0.1", port) as listener:
            number: int = listener.getsockname()[1]
            async with serving(make_app(layer), listener):
                yield layer, f"http://127.0.0.1:{number}/", number
        await layer.close()

    async with demo() as (_, url, port):
        ada = await open_window(browser, url, PHONE)
        await ada.join("Ada", "lobby")
        await ada.say("before")
        await ada.shows("before")
    await ada.is_connected("Connection lost")
    async with demo() as (_, url, _):
        grace = await open_window(browser, url)
        await grace.join("Grace", "lobby")
        await grace.say("meanwhile")
        await grace.shows("meanwhile")
        await grace.page.close()
    async with demo(port) as (layer, _, _):
        await recovers(ada, "1 message from meanwhile recovered.")
        await ada.say("after")
        await ada.shows("after")
        before = await ada.rows()
        assert before[:3] == ["You joined as Ada", "Ada you: before", "Grace: meanwhile"]
        await asyncio.to_thread(redis.stop)
        await soon(lambda: layer.stats().connection.state != "up", "it knows")
        await asyncio.to_thread(redis.start)
        await ada.say("as soon as it is back")
        await ada.shows("as soon as it is back")
        rows = await ada.rows()
        assert rows[: len(before)] == before
        assert sum("as soon as it is back" in row for row in rows) == 1
    assert ada.failures == grace.failures == []


async def test_another_room_begins_without_what_was_said_in_the_first(browser: Browser) -> None:
    with bind("127.0.0.1", 0) as listener:
        async with serving(make_app(layer_with_history()), listener):
            ada = await open_window(browser, f"http://127.0.0.1:{listener.getsockname()[1]}/")
            for room in "red", "blue":
                await ada.join("Ada", room)
                await ada.say(f"in {room}")
                await ada.shows(f"in {room}")
                assert await ada.rows() == ["You joined as Ada", f"Ada you: in {room}"]
                await ada.page.get_by_role("button", name="Leave").click()
            await ada.join("Ada", "red")
            await ada.shows("You joined as Ada")
            assert await ada.rows() == ["Ada you: in red", "You joined as Ada"]
    assert ada.failures == []
