"""The demo's list of members over two workers: it is right in each, through the kill of one and a deploy of both."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect
from tests.browser.window import Window, open_window
from tests.support.ports import HOST
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.waiting import SECONDS, eventually

ROOT = Path(__file__).parents[2]
LONG = 600.0
"""Longer than any test: who leaves in order may come back until its end."""
PATIENT = 60_000
"""Milliseconds. A worker that is killed is missed after 15 seconds, and a page may have ten until it tries again."""


class Worker:
    """A process that serves the demo."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int) -> None:
        self._process = process
        self.port = port

    def is_up(self) -> bool:
        """Tell whether it answers."""
        assert self._process.poll() is None, "the worker has ended"
        with suppress(OSError), urllib.request.urlopen(f"http://{HOST}:{self.port}/stats", timeout=SECONDS) as answer:
            return bool(answer.status == 200)
        return False

    async def is_killed(self) -> None:
        self._process.kill()
        await asyncio.to_thread(self._process.wait, SECONDS)

    async def is_drained(self) -> None:
        """Tell it to end, and wait until it has ended by itself."""
        self._process.terminate()
        assert await asyncio.to_thread(self._process.wait, SECONDS) in (0, -signal.SIGTERM)


@contextmanager
def worker(environment: dict[str, str]) -> Iterator[Worker]:
    """Run a worker while the context lasts. It inherits a socket that listens already: nobody can take its port."""
    with socket.create_server((HOST, 0)) as listening:
        command = ["uvicorn", "--log-level", "critical", "--timeout-graceful-shutdown", "5"]
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "--fd", str(listening.fileno()), "tests.browser.demo_worker:application"],
            cwd=ROOT,
            env={**os.environ, **environment},
            pass_fds=[listening.fileno()],
        )
        port = listening.getsockname()[1]
    try:
        yield Worker(process, port)
    finally:
        process.kill()
        process.wait(SECONDS)


Start = Callable[..., Any]


@pytest.fixture
def start(redis_server: Server, redis_prefix: str) -> Iterator[Start]:
    """Give ``await start(linger)``, which starts a worker that lasts as long as the test at most."""
    with ExitStack() as stack:

        async def start(linger: float = LONG) -> Worker:
            environment = {"REDIS": redis_server.url, "PREFIX": redis_prefix, "LINGER": str(linger)}
            started = stack.enter_context(
                worker({f"HEADRACE_TEST_{name}": value for name, value in environment.items()})
            )
            await asyncio.to_thread(eventually, started.is_up, "the worker answers")
            return started

        yield start


@contextmanager
def balancers(*workers: Worker) -> Iterator[list[Proxy]]:
    """Put a load balancer before each worker, as a page stays at one address."""
    with ExitStack() as stack:
        yield [stack.enter_context(Proxy(each.port)) for each in workers]


async def lists(window: Window, *names: str) -> None:
    """The page lists these members, itself first, and counts them."""
    you, *others = names
    here = window.page.get_by_role("list", name="People here").get_by_role("listitem")
    shown = [f"{you[0]}{you}you", *(f"{name[0]}{name}" for name in others)]
    await expect(here).to_have_text(shown, timeout=PATIENT)
    await window.counts(f"{len(names)} member{'' if len(names) == 1 else 's'}")


async def enter(browser: Browser, balancer: Proxy, name: str) -> Window:
    window = await open_window(browser, f"http://{HOST}:{balancer.port}/")
    await window.join(name, "lobby")
    return window


async def test_pages_on_two_workers_list_the_same_members(browser: Browser, start: Start) -> None:
    first, second = await start(linger=0), await start(linger=0)
    with balancers(first, second) as (one, other):
        ada = await enter(browser, one, "Ada")
        await lists(ada, "Ada")
        grace = await enter(browser, other, "Grace")
        await lists(ada, "Ada", "Grace")
        await lists(grace, "Grace", "Ada")
        mary = await enter(browser, other, "Mary")
        await lists(ada, "Ada", "Grace", "Mary")
        await lists(grace, "Grace", "Ada", "Mary")
        await mary.page.get_by_role("button", name="Leave").click()
        await lists(ada, "Ada", "Grace")
        await grace.page.close()
        await lists(ada, "Ada")
        assert await ada.rows() == ["You joined as Ada", "Grace joined", "Mary joined", "Mary left", "Grace left"]
    assert ada.failures == grace.failures == mary.failures == []


async def test_members_of_a_worker_that_is_killed_leave_and_come_back_with_another(
    browser: Browser, start: Start
) -> None:
    first, second = await start(), await start()
    with balancers(first, second) as (one, other):
        ada, grace = await enter(browser, one, "Ada"), await enter(browser, other, "Grace")
        await lists(ada, "Ada", "Grace")
        await lists(grace, "Grace", "Ada")
        await first.is_killed()
        await ada.is_connected("Connection lost")
        await lists(grace, "Grace")
        one.lead_to(second.port)
        await lists(grace, "Grace", "Ada")
        await ada.shows("Connected again")
        await lists(ada, "Ada", "Grace")
        assert (await grace.rows())[-2:] == ["Ada left", "Ada joined"]
    assert ada.failures == grace.failures == []


async def test_no_page_is_told_that_anybody_left_while_all_workers_are_replaced(browser: Browser, start: Start) -> None:
    workers = [await start(), await start()]
    with balancers(*workers) as proxies:
        ada, grace = await enter(browser, proxies[0], "Ada"), await enter(browser, proxies[1], "Grace")
        await lists(ada, "Ada", "Grace")
        await lists(grace, "Grace", "Ada")
        known = {window: len(presence_of(window)) for window in (ada, grace)}
        for index, proxy in enumerate(proxies):
            replacement = await start()
            proxy.lead_to(replacement.port)
            await workers[index].is_drained()
            await (ada, grace)[index].shows("Connected again. Nothing was said meanwhile.")
        # Behind all that was told before.
        mary = await enter(browser, proxies[0], "Mary")
        for window, names in ((ada, ("Ada", "Grace", "Mary")), (grace, ("Grace", "Ada", "Mary"))):
            await lists(window, *names)
            told = presence_of(window)
            assert [event["offline"] for event in told] == [[]] * len(told)
            # Of others: the list that it was given when it came again itself, and Mary.
            others = [names_of(event) - {names[0]} for event in told[known[window] :]]
            assert list(filter(None, others)) == [{names[1]}, {"Mary"}]
    assert ada.failures == grace.failures == mary.failures == []


def presence_of(window: Window) -> list[dict[str, Any]]:
    """Give all that a page was told of who is present."""
    return [frame for frame in window.told if frame["type"] == "presence"]


def names_of(event: dict[str, Any]) -> set[str]:
    return {meta["name"] for metas in event["joins"].values() for meta in metas}
