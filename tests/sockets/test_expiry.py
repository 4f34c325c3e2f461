"""``expires_at`` and ``on_expire`` of socket servers, in a time that the test moves."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.sockets import BaseSocketServer
from headrace.testing import settle

from .conftest import Client
from .noting import Noting

START = 1_800_000_000.0
CLOSED = {"type": "websocket.close", "code": 4401}


@pytest.fixture
async def forward_to(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Awaitable[None]]:
    """Give ``await forward_to(seconds)``, which sets the time, counted from the beginning of the test."""
    loop = asyncio.get_running_loop()
    begin, late = loop.time(), [0.0]
    monkeypatch.setattr(loop, "time", lambda: begin + late[0])
    monkeypatch.setattr("headrace._websocket.expiry.time", SimpleNamespace(time=lambda: START + late[0]))

    async def move(seconds: float) -> None:
        late[0] = seconds
        await settle()

    return move


class Timed(Noting):
    async def receive(self, data: Any) -> None:
        self.noted.append(data)
        self.expires_at = None if data is None else START + data


class TestTimes:
    """When it is called."""

    async def test_a_socket_ends_at_its_time_with_4401(self, client: Client, forward_to: Any) -> None:
        server = await client.connects(Timed)
        client.says(10)
        await settle()
        await forward_to(9.9)
        assert len(client.sent) == 1
        await forward_to(10.1)
        assert client.sent[1:] == [CLOSED]
        await client.ends()
        assert server.noted == ["connect", 10, ("disconnect", 4401)]
        assert server.stats().errors == 0

    async def test_the_time_can_be_moved_and_taken_back(self, client: Client, forward_to: Any) -> None:
        await client.connects(Timed)
        client.says(10)
        client.says(20)
        await settle()
        await forward_to(15)
        client.says(None)
        await settle()
        await forward_to(100)
        assert len(client.sent) == 1
        await client.leaves()

    async def test_a_class_may_say_it_and_an_instance_before_it_is_served(
        self, client: Client, forward_to: Any
    ) -> None:
        class Early(Noting):
            expires_at = START + 50

            def configure(self) -> None:
                super().configure()
                self.expires_at = START + 10

        await client.connects(Early)
        await settle()
        await forward_to(10.1)
        assert client.sent[1:] == [CLOSED]
        await client.ends()

    async def test_a_connect_that_hangs_does_not_keep_a_socket_open(self, client: Client, forward_to: Any) -> None:
        class Hanging(Noting):
            expires_at = START + 10

            async def connect(self) -> None:
                await gate.wait()

        gate = asyncio.Event()
        await client.connects(Hanging)
        await settle()
        await forward_to(10.1)
        assert client.sent[1:] == [CLOSED]
        gate.set()
        await client.ends()

    async def test_a_method_is_not_asked_before_connect_has_ended(self, client: Client, forward_to: Any) -> None:
        class Late(Noting):
            async def connect(self) -> None:
                await settle()
                self.noted.append("connected")

            async def expires_at(self) -> float:
                self.noted.append("asked")
                return START + 10

        server = await client.connects(Late)
        await settle()
        assert server.noted == ["connected", "asked"]
        await client.leaves()

    @pytest.mark.parametrize("is_plain", [True, False])
    async def test_a_method_is_asked_after_connect_and_again(
        self, client: Client, forward_to: Any, is_plain: bool
    ) -> None:
        asked: list[float] = []

        def answer() -> float:
            asked.append(0)
            return START + 10 * len(asked)

        class Plain(Noting):
            def expires_at(self) -> float:
                assert threading.current_thread() is not threading.main_thread()
                return answer()

        class Coroutine(Noting):
            async def expires_at(self) -> float:
                return answer()

        async def until(count: int) -> None:
            # Real time: the loop's stands still.
            for _ in range(20_000):
                if len(asked) >= count:
                    break
                await asyncio.sleep(0)
                await asyncio.to_thread(lambda: None)
            await settle()
            assert len(asked) == count

        await client.connects(Plain if is_plain else Coroutine)
        await until(1)
        await forward_to(10.1)
        await until(2)
        assert len(client.sent) == 1
        await client.leaves()


class TestHook:
    """What ``on_expire`` may do."""

    async def test_it_may_send_and_set_another_time(self, client: Client, forward_to: Any) -> None:
        class Lenient(Timed):
            async def on_expire(self) -> None:
                await self.async_send("log in again")
                self.expires_at = START + 20

        await client.connects(Lenient)
        client.says(10)
        await settle()
        await forward_to(10.1)
        assert client.heard == ["log in again"]
        await forward_to(19.9)
        assert len(client.sent) == 2
        await client.leaves()

    async def test_what_it_leaves_open_is_closed(self, client: Client, forward_to: Any) -> None:
        class Forgetful(Timed):
            async def on_expire(self) -> None:
                await self.async_send("bye")

        await client.connects(Forgetful)
        client.says(10)
        await settle()
        await forward_to(10.1)
        await client.ends()
        assert (client.heard, client.sent[-1]) == (["bye"], CLOSED)

    async def test_one_that_raises_is_logged_and_counted_and_the_socket_closed(
        self, client: Client, forward_to: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Failing(Timed):
            async def on_expire(self) -> None:
                raise RuntimeError("no")

        server = await client.connects(Failing)
        client.says(10)
        await settle()
        await forward_to(10.1)
        await client.ends()
        assert client.sent[1:] == [CLOSED]
        assert server.stats().errors == 1
        assert "<Failing at /ws/>: on_expire() failed: RuntimeError('no')" in caplog.messages

    @pytest.mark.parametrize("is_plain", [True, False])
    async def test_one_that_hangs_is_logged_and_counted_and_the_socket_closed(
        self, client: Client, forward_to: Any, caplog: pytest.LogCaptureFixture, is_plain: bool
    ) -> None:
        go_on = threading.Event()

        class Plain(Timed):
            def on_expire(self) -> None:
                go_on.wait(20)

        class Coroutine(Timed):
            async def on_expire(self) -> None:
                await asyncio.Event().wait()

        server = await client.connects(Plain if is_plain else Coroutine)
        client.says(10)
        await settle()
        await forward_to(10.1)
        await forward_to(19.9)
        assert len(client.sent) == 1
        await forward_to(20.2)
        assert client.sent[1:] == [CLOSED]
        go_on.set()
        await client.ends()
        assert server.stats().errors == 1
        assert any("on_expire() did not end in 10 s" in text for text in caplog.messages)

    async def test_one_that_has_set_another_time_may_be_at_work_for_longer(
        self, client: Client, forward_to: Any
    ) -> None:
        gate = asyncio.Event()

        class Slow(Timed):
            async def on_expire(self) -> None:
                self.expires_at = START + 100
                await gate.wait()
                await self.async_send("done")

        server = await client.connects(Slow)
        client.says(10)
        await settle()
        await forward_to(10.1)
        await forward_to(20.2)
        await forward_to(30.3)
        assert len(client.sent) == 1
        gate.set()
        await settle()
        assert client.heard == ["done"]
        assert server.stats().errors == 0
        await client.leaves()

    async def test_a_method_is_not_asked_again_and_again_while_the_hook_is_at_work(
        self, client: Client, forward_to: Any
    ) -> None:
        called: list[str] = []

        class Passed(Noting):
            async def expires_at(self) -> float:
                called.append("asked")
                return START - 1

            async def on_expire(self) -> None:
                called.append("told")
                await asyncio.Event().wait()

        await client.connects(Passed)
        await settle()
        assert called == ["asked", "told"]
        await forward_to(10.1)
        assert client.sent[1:] == [CLOSED]
        await client.ends()

    async def test_a_plain_hook_closes_from_its_thread(self, client: Client, forward_to: Any) -> None:
        class Plain(Timed):
            def on_expire(self) -> None:
                super().on_expire()

        await client.connects(Plain)
        client.says(10)
        await settle()
        await forward_to(10.1)
        await client.ends()
        assert client.sent[1:] == [CLOSED]

    async def test_a_hook_of_a_frame_that_is_at_work_does_not_delay_it(self, client: Client, forward_to: Any) -> None:
        gate = asyncio.Event()

        class Busy(Noting):
            expires_at = START + 10

            async def receive(self, data: Any) -> None:
                await gate.wait()

        await client.connects(Busy)
        client.says("x")
        await settle()
        await forward_to(10.1)
        assert client.sent[1:] == [CLOSED]
        gate.set()
        await client.ends()


@pytest.mark.parametrize("value", [True, "soon", [1.0]])
def test_what_is_no_time_is_refused(client: Client, value: Any) -> None:
    with pytest.raises(TypeError, match=r"Wrong\.expires_at must be a time in seconds"):
        type("Wrong", (BaseSocketServer,), {"expires_at": value})
    server = BaseSocketServer(client.scope, client.incoming.get, client.send)
    with pytest.raises(TypeError, match=r"BaseSocketServer\.expires_at must be a time in seconds"):
        server.expires_at = value
    assert "expires_at" not in vars(server)


def test_a_method_that_takes_something_is_refused() -> None:
    async def expires_at(self: Any, scope: Any) -> float:
        return 0

    with pytest.raises(TypeError, match=r"Wrong\.expires_at must be .* got one that takes scope;"):
        type("Wrong", (BaseSocketServer,), {"expires_at": expires_at})


def test_a_hook_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Wrong\.on_expire must be a function that can be called as on_expire\(self\)"):
        type("Wrong", (BaseSocketServer,), {"on_expire": lambda self, code: None})
