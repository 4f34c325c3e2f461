"""A channel for the length of a context."""

import asyncio
import threading
from typing import Any

import pytest

from headrace import InMemoryChannelLayer, LayerClosed, LayerUnavailable
from headrace.testing import ManualClock, settle

HELLO = {"type": "hello"}


@pytest.fixture
def layer() -> InMemoryChannelLayer:
    """Give a layer."""
    return InMemoryChannelLayer()


async def read(inbox: Any, into: list[Any]) -> str:
    """Read an inbox to its end."""
    async for message in inbox:
        into.append(message)
    return "ended"


async def all_wait(layer: InMemoryChannelLayer, count: int) -> None:
    """Let tasks run until so many wait."""
    while layer.stats().waiters < count:
        await asyncio.sleep(0)


class TestEnd:
    """What happens when the context ends."""

    async def test_a_reader_that_waits_comes_to_its_end(self, layer: InMemoryChannelLayer) -> None:
        received: list[Any] = []
        async with asyncio.TaskGroup() as tasks:
            async with layer.subscription("group") as inbox:
                reader = tasks.create_task(read(inbox, received))
                await all_wait(layer, 1)
                await layer.group_send("group", HELLO)
                await all_wait(layer, 1)
        assert reader.result() == "ended"
        assert received == [HELLO]

    async def test_a_reader_has_the_message_that_was_handed_to_it_before(self, layer: InMemoryChannelLayer) -> None:
        received: list[Any] = []
        async with layer.subscription("group") as inbox:
            reader = asyncio.ensure_future(read(inbox, received))
            await all_wait(layer, 1)
            await layer.group_send("group", HELLO)
        assert await reader == "ended"
        assert received == [HELLO]

    async def test_an_ended_inbox_stays_ended(self, layer: InMemoryChannelLayer) -> None:
        async with layer.subscription("group") as inbox:
            pass
        assert [message async for message in inbox] == []
        with pytest.raises(StopAsyncIteration):
            await anext(inbox)

    async def test_it_leaves_its_groups_and_what_is_unread_is_counted(self, layer: InMemoryChannelLayer) -> None:
        async with layer.subscription("a", "b") as inbox:
            assert sorted(layer.channel_groups(inbox.channel)) == ["a", "b"]
            await layer.group_send("a", HELLO)
        stats = layer.stats()
        assert (stats.channels, stats.groups, stats.depth, stats.dropped_other) == (0, 0, 0, 1)

    async def test_a_layer_that_was_closed_first_is_no_error(self, layer: InMemoryChannelLayer) -> None:
        async with layer.subscription("group"):
            await layer.close()

    async def test_the_error_of_the_body_comes_through(self, layer: InMemoryChannelLayer) -> None:
        with pytest.raises(KeyError, match="mine"):
            async with layer.subscription("group"):
                await layer.close()
                raise KeyError("mine")

    async def test_the_end_of_the_layer_is_an_exception_for_the_reader(self, layer: InMemoryChannelLayer) -> None:
        async with layer.subscription("group") as inbox:
            reader = asyncio.ensure_future(read(inbox, []))
            await all_wait(layer, 1)
            await layer.close()
            with pytest.raises(LayerClosed):
                await reader

    async def test_a_closed_layer_says_so_each_time_it_is_asked(self, layer: InMemoryChannelLayer) -> None:
        async with layer.subscription("group") as inbox:
            await layer.group_send("group", HELLO)
            assert await anext(inbox) == HELLO
            await layer.close()
            for _ in range(3):
                with pytest.raises(LayerClosed):
                    await anext(inbox)

    async def test_a_wait_that_cannot_begin_leaves_nobody_in_line(
        self, layer: InMemoryChannelLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse() -> asyncio.Future[Any]:
            raise MemoryError

        async with layer.subscription("group") as inbox:
            with monkeypatch.context() as patch, pytest.raises(MemoryError):
                patch.setattr(asyncio.get_running_loop(), "create_future", refuse)
                await anext(inbox)
            assert layer.stats().waiters == 0
            await layer.group_send("group", HELLO)
            assert await anext(inbox) == HELLO


class TestMembership:
    """How long it lasts, and how often it is entered."""

    async def test_its_memberships_outlive_group_expiry(self) -> None:
        clock = ManualClock()
        layer = InMemoryChannelLayer(group_expiry=10, clock=clock)
        async with layer.subscription("group") as inbox:
            clock.advance(1_000)
            assert (await layer.group_send("group", HELLO)).delivered == 1
            assert await anext(inbox) == HELLO

    async def test_it_is_not_entered_twice_at_a_time(self, layer: InMemoryChannelLayer) -> None:
        subscription = layer.subscription("group")
        async with subscription as inbox:
            with pytest.raises(RuntimeError, match="entered already"):
                async with subscription:
                    pass
            assert layer.group_channels("group") == [inbox.channel]

    async def test_it_can_be_entered_again(self, layer: InMemoryChannelLayer) -> None:
        subscription = layer.subscription("group")
        async with subscription as first:
            pass
        async with subscription as second:
            assert layer.group_channels("group") == [second.channel]
        assert first.channel != second.channel

    async def test_a_bad_group_leaves_nothing_behind(self, layer: InMemoryChannelLayer) -> None:
        with pytest.raises(TypeError, match="Group name"):
            async with layer.subscription("good", "not good"):
                pass
        assert layer.stats().groups == 0

    async def test_a_join_that_the_end_of_the_context_overtakes_leaves_nothing_behind(self) -> None:
        layer = Gated()
        subscription = layer.subscription()
        async with subscription:
            joining = asyncio.ensure_future(subscription.join("group"))
            await asyncio.sleep(0)
        layer.gate.set()
        with pytest.raises(RuntimeError, match="was left while it joined 'group'"):
            await joining
        assert layer.stats().groups == 0

    async def test_a_join_that_is_cancelled_is_none(self) -> None:
        layer = Gated()
        subscription = layer.subscription()
        async with subscription as inbox:
            joining = asyncio.ensure_future(subscription.join("group"))
            await asyncio.sleep(0)
            joining.cancel()
            with pytest.raises(asyncio.CancelledError):
                await joining
            assert layer.channel_groups(inbox.channel) == []


class Gated(InMemoryChannelLayer):
    """A layer that puts nobody in a group before its gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def group_add(self, group: str, channel: str, since: str | int | None = None) -> bool | None:
        """Wait, and add."""
        await self.gate.wait()
        return await super().group_add(group, channel, since)


class TestReaders:
    """Who may read an inbox."""

    async def test_a_second_reader_is_told_and_takes_nothing(self, layer: InMemoryChannelLayer) -> None:
        received: list[Any] = []
        async with layer.subscription("group") as inbox:
            reader = asyncio.ensure_future(read(inbox, received))
            await all_wait(layer, 1)
            with pytest.raises(RuntimeError, match="one task at a time"):
                await anext(inbox)
            layer.group_send_sync("group", HELLO)
            # The message is in the first reader's hands, and he has not run yet.
            with pytest.raises(RuntimeError, match="one task at a time"):
                await anext(inbox)
        assert await reader == "ended"
        assert received == [HELLO]

    def test_another_loop_may_go_on_when_the_first_is_closed(self, layer: InMemoryChannelLayer) -> None:
        async def begin() -> Any:
            inbox = await layer.subscription("group").__aenter__()
            threading.Timer(0, layer.group_send_sync, ("group", {"n": 0})).start()
            return inbox, await anext(inbox)

        async def go_on() -> Any:
            threading.Timer(0, layer.group_send_sync, ("group", {"n": 1})).start()
            return await anext(inbox)

        inbox, first = asyncio.run(begin())
        assert [first, asyncio.run(go_on())] == [{"n": 0}, {"n": 1}]


async def test_an_ended_inbox_gives_the_default_of_anext(layer: InMemoryChannelLayer) -> None:
    """CPython ends the process if ``__anext__`` raises then, so it is for what is awaited to raise."""
    async with layer.subscription() as inbox:
        pass
    assert await anext(inbox, "ended") == "ended"
    awaited = inbox.__anext__()
    with pytest.raises(StopAsyncIteration):
        await awaited
    with pytest.raises(RuntimeError, match="awaited before"):
        await awaited


def test_an_inbox_without_a_loop_says_so_where_it_is_awaited(layer: InMemoryChannelLayer) -> None:
    waiting = anext(layer._core.inbox("channel"), "default").__await__()
    with pytest.raises(RuntimeError, match="no running event loop"):
        next(waiting)


class Slow(InMemoryChannelLayer):
    """A layer whose joins wait, and fail as they are told to."""

    def __init__(self) -> None:
        super().__init__()
        self.joins: list[asyncio.Future[None]] = []

    async def group_add(self, group: str, channel: str, since: str | int | None = None) -> bool | None:
        self.joins.append(asyncio.get_running_loop().create_future())
        await self.joins[-1]
        return await super().group_add(group, channel, since)


class TestSlowJoins:
    """What happens while a join is on its way."""

    async def test_a_second_task_cannot_enter_it(self) -> None:
        layer = Slow()
        subscription = layer.subscription("group")
        first = asyncio.ensure_future(subscription.__aenter__())
        await settle()
        with pytest.raises(RuntimeError, match="entered already; make another"):
            await subscription.__aenter__()
        layer.joins[0].set_result(None)
        await first
        await subscription.__aexit__(None, None, None)
        assert layer.stats().memberships == 0

    async def test_one_that_fails_after_a_leave_leaves_nothing(self) -> None:
        layer = Slow()
        subscription = layer.subscription()
        async with subscription:
            first = asyncio.ensure_future(subscription.join("group"))
            await settle()
            await subscription.leave("group")
            second = asyncio.ensure_future(subscription.join("group"))
            await settle()
            layer.joins[0].set_result(None)
            await first
            layer.joins[1].set_exception(LayerUnavailable("away"))
            with pytest.raises(LayerUnavailable):
                await second
            assert layer.stats().memberships == 0
