"""What the demo shows beside the chat: the load, who is there, the counters of the workers, and a program."""

import asyncio
import json
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect
from tests.browser.axe import PHONE, faults
from tests.browser.window import Window, open_window
from websockets.asyncio.client import connect

from headrace._demo import make_app
from headrace._demo.app import PRESENCE
from headrace._demo.board import Board
from headrace._demo.serve import bind, serving
from headrace.layers import InMemoryChannelLayer


@pytest.fixture
async def url() -> AsyncIterator[str]:
    with bind("127.0.0.1", 0) as listener:
        async with serving(make_app(InMemoryChannelLayer(presence=PRESENCE)), listener):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


async def rate(window: Window, layer: str) -> int:
    """What the table says of a layer, once it says something."""
    cell = window.page.locator(f"#result-{layer} td").first
    await expect(cell).to_have_text(re.compile(r"[1-9]"), timeout=20_000)
    return int((await cell.inner_text()).replace(",", ""))


async def test_a_load_is_shown_beside_that_of_channels(browser: Browser, url: str) -> None:
    ada, grace = await open_window(browser, url), await open_window(browser, url)
    await ada.page.get_by_label("Members").select_option("100")
    await ada.page.get_by_role("button", name="Start load").click()
    assert await rate(ada, "headrace") > 0
    # The chart has it too.
    await expect(ada.page.locator("#rate")).to_have_text(re.compile(r"\d,\d{3}"), timeout=20_000)
    await expect(ada.page.locator("#latency")).to_have_text(re.compile(r"[\d.]+ ms"))
    # People talk meanwhile, and nobody starts a second one.
    for window, name in ((ada, "Ada"), (grace, "Grace")):
        await window.join(name, "lobby")
    await grace.say("hello")
    await ada.shows("hello")
    await grace.page.get_by_role("button", name="Start load").click()
    await expect(grace.page.locator("#load-state")).to_contain_text("somebody else's load is running on this worker")
    await expect(grace.page.get_by_role("button", name="Start load")).to_be_visible()

    await ada.page.get_by_role("radio", name="Channels").check(force=True)
    assert await rate(ada, "channels") > 0
    await ada.page.get_by_role("button", name="Stop load").click()
    await expect(ada.page.get_by_role("button", name="Start load")).to_be_visible()
    await expect(ada.page.locator("#result-headrace")).to_be_visible()
    await expect(ada.page.locator("#result-channels")).to_be_visible()
    # How they compare depends on the machine, so the sentence is tested with other numbers.
    await ada.page.evaluate(
        "() => { Object.assign(means, { headrace: 300, channels: 100 }); loading = load = chosen(); endLoad(''); }"
    )
    await expect(ada.page.locator("#load-state")).to_have_text("headrace made 3 times as many deliveries.")
    assert await faults(ada.page) == []
    assert ada.failures == grace.failures == []


async def test_a_load_that_ends_by_itself_can_be_started_again(browser: Browser) -> None:
    with bind("127.0.0.1", 0) as listener:
        async with serving(make_app(InMemoryChannelLayer(presence=PRESENCE), load_seconds=0.1), listener):
            ada = await open_window(browser, f"http://127.0.0.1:{listener.getsockname()[1]}/")
            for _ in range(2):
                await ada.page.get_by_role("button", name="Start load").click()
                # It is named otherwise until the load has ended.
                await expect(ada.page.get_by_role("button", name="Start load")).to_be_enabled(timeout=20_000)
                await expect(ada.page.locator("#result-headrace")).to_be_visible()
    assert ada.failures == []


async def test_who_is_there_is_listed_by_name(browser: Browser, url: str) -> None:
    ada, grace = await open_window(browser, url), await open_window(browser, url, PHONE)
    await ada.join("Ada", "lobby")
    await grace.join("Grace", "lobby")
    here = {
        window: window.page.get_by_role("list", name="People here").get_by_role("listitem") for window in (ada, grace)
    }
    await expect(here[ada]).to_have_text(["AAdayou", "GGrace"])
    await expect(here[grace]).to_have_text(["GGraceyou", "AAda"])
    await grace.page.get_by_role("button", name="Leave").click()
    await expect(here[ada]).to_have_text(["AAdayou"])
    assert ada.failures == grace.failures == []


async def test_a_room_of_more_people_than_can_be_listed_is_counted(browser: Browser, url: str) -> None:
    ada = await open_window(browser, url)
    await ada.join("Ada", "lobby")
    address = url.replace("http", "ws") + "ws"
    here = ada.page.get_by_role("list", name="People here").get_by_role("listitem")
    async with AsyncExitStack() as stack:
        for number in range(1, 101):
            other = await stack.enter_async_context(connect(address, open_timeout=30))
            await other.send(json.dumps({"type": "join", "room": "lobby", "name": f"Bob {number}"}))
            if number == 20:
                await expect(here.last).to_have_text("and 9 more")
                await expect(here).to_have_count(13)
        # The layer names a hundred.
        await expect(here).to_have_text(["AAdayou", "and 100 more"])
        await ada.counts("101 members")
    await expect(here).to_have_text(["AAdayou"])
    await ada.counts("1 member")
    assert [row for row in await ada.rows() if not re.fullmatch(r"You joined as Ada|Bob \d+ (joined|left)", row)] == []
    assert ada.failures == []


async def test_the_counters_say_whose_they_are(browser: Browser) -> None:
    cells = [0.0] * Board.size(2)
    layer, elsewhere = InMemoryChannelLayer(presence=PRESENCE), InMemoryChannelLayer()
    await elsewhere.group_add("somewhere", "else")
    Board(elsewhere, 1, cells).post()
    with bind("127.0.0.1", 0) as listener:
        async with serving(make_app(layer, Board(layer, 2, cells)), listener):
            ada = await open_window(browser, f"http://127.0.0.1:{listener.getsockname()[1]}/")
            await expect(ada.page.locator("#worker")).to_have_text("worker 2 of 2")
            await ada.join("Ada", "lobby")
            memberships = ada.page.locator("#counter-memberships")
            await expect(memberships).to_have_text("1")
            await ada.page.get_by_role("radio", name="All 2 workers").check(force=True)
            await expect(memberships).to_have_text("2")
            await expect(ada.page.get_by_role("heading", name="Deliveries per second, all workers")).to_be_visible()
            await ada.page.get_by_role("radio", name="This worker").check(force=True)
            await expect(memberships).to_have_text("1")
            assert await faults(ada.page) == []
    await ada.is_connected("Connection lost")
    await expect(ada.page.locator("#worker")).to_be_hidden()
    assert await faults(ada.page) == []
    assert ada.failures == []


async def test_one_worker_has_no_number(browser: Browser, url: str) -> None:
    ada = await open_window(browser, url, PHONE)
    await expect(ada.page.locator("#worker")).to_be_hidden()
    await ada.page.get_by_role("button", name="Details").click()
    await expect(ada.page.get_by_role("button", name="Start load")).to_be_visible()
    await expect(ada.page.locator("#scope")).to_be_hidden()
    assert await faults(ada.page) == []


async def test_the_chat_works_by_keyboard(browser: Browser, url: str) -> None:
    ada = await open_window(browser, url)
    await expect(ada.page.get_by_label("Your name")).to_be_focused()
    await ada.page.keyboard.type("Ada")
    await ada.page.keyboard.press("Enter")
    await expect(ada.page.get_by_label("Message", exact=True)).to_be_focused()
    await ada.page.keyboard.type("hello")
    await ada.page.keyboard.press("Enter")
    await ada.shows("hello")


async def test_the_program_on_the_page_runs(browser: Browser, url: str, tmp_path: Path) -> None:
    ada = await open_window(browser, url)
    (tmp_path / "chat.py").write_text(await ada.page.locator("#program").inner_text())
    await expect(ada.page.get_by_text("Saved as chat.py, it is served by uvicorn chat:app.")).to_be_visible()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"ws://127.0.0.1:{listening.getsockname()[1]}/ws"
        command = [sys.executable, "-W", "error", "-m", "uvicorn", "chat:app", "--log-level", "warning"]
        server = subprocess.Popen(
            [*command, "--fd", str(listening.fileno())], cwd=tmp_path, pass_fds=[listening.fileno()]
        )
    try:
        async with connect(address, open_timeout=30) as one, connect(address, open_timeout=30) as other:
            await one.send("hello")
            assert [await asyncio.wait_for(client.recv(), 30) for client in (one, other)] == ["hello", "hello"]
    finally:
        server.terminate()
        server.wait(30)
