"""``rate_limit`` of socket servers: how many frames a client may send, in a time that the test moves."""

import asyncio
from typing import Any

import pytest

from headrace.sockets import BaseSocketServer

from .conftest import Client
from .noting import Noting


@pytest.fixture
async def forward_to(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give ``forward_to(seconds)``, which sets the loop's time, counted from the beginning of the test."""
    loop = asyncio.get_running_loop()
    begin, late = loop.time(), [0.0]
    monkeypatch.setattr(loop, "time", lambda: begin + late[0])
    return lambda seconds: late.__setitem__(0, seconds)


class Limited(Noting):
    rate_limit = "2/s"


class Closing(Limited):
    rate_limit_overflow = "close"


async def test_what_is_over_the_rate_is_dropped_and_counted(client: Client, forward_to: Any) -> None:
    server = await client.connects(Limited)
    for number in range(5):
        client.says(number)
    while server.stats().received < 5:
        await asyncio.sleep(0)
    forward_to(0.51)
    client.says("later")
    await client.leaves()
    assert server.noted == ["connect", 0, 1, "later", ("disconnect", 1000)]
    stats = server.stats()
    assert (stats.received, stats.dropped_over_rate, stats.closed_over_rate, stats.unhandled) == (6, 3, 0, 0)


async def test_the_log_says_it_once_for_a_class(forward_to: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Once(Limited):
        pass

    class Other(Once):
        pass

    for server_class in (Once, Once, Other):
        client = Client()
        await client.connects(server_class)
        for number in range(4):
            client.says(number)
        await client.leaves()
    what = "its client sends more than its rate_limit of 2/s, and the rest is dropped; more are only counted"
    told = [record.getMessage() for record in caplog.records if record.name == "headrace.sockets"]
    assert told == [f"<{name} at /ws/>: {what}" for name in ("Once", "Other")]


async def test_it_may_close_with_1008(client: Client, forward_to: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Once(Closing):
        pass

    server = await client.connects(Once)
    for number in range(5):
        client.says(number)
    await client.ends()
    assert server.noted == ["connect", 0, 1, ("disconnect", 1008)]
    assert client.sent[-1] == {"type": "websocket.close", "code": 1008}
    stats = server.stats()
    assert (stats.dropped_over_rate, stats.closed_over_rate) == (1, 1)
    assert "its client sends more than its rate_limit of 2/s, and it is closed" in caplog.text


async def test_what_cannot_be_decoded_counts_as_well(client: Client, forward_to: Any) -> None:
    server = await client.connects(Limited)
    client.gives("receive", text="{")
    client.says("good")
    client.says("dropped")
    client.gives("receive", text="{")
    await client.leaves()
    assert server.noted == ["connect", "good", ("disconnect", 1000)]
    assert (server.stats().bad_messages, server.stats().dropped_over_rate) == (1, 2)


@pytest.mark.parametrize("value", ["20", "0/s", 20])
def test_another_form_is_refused_when_the_class_is_defined(value: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"Here\.rate_limit must be messages per second or per minute"):
        type("Here", (BaseSocketServer,), {"rate_limit": value})


def test_the_overflow_must_be_one_of_two() -> None:
    with pytest.raises(ValueError, match=r"Here\.rate_limit_overflow must be one of 'drop', 'close', got 'no'"):
        type("Here", (BaseSocketServer,), {"rate_limit": "1/s", "rate_limit_overflow": "no"})
