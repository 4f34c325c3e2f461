"""The worker: order, supervision, and what happens at its end."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.signals import handled

from headrace.exceptions import StopConsumer
from headrace.layers import InMemoryChannelLayer
from headrace.typing import Message, Receive, Scope, Send
from headrace.worker import Worker


class Recorder:
    """An application that writes down what it gets, and waits at messages of type "wait" to be let on."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.handled: list[tuple[str, Any]] = []
        self.cancelled = 0
        self.heard = asyncio.Condition()
        self.let_on = asyncio.Event()
        self.waiting = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        try:
            while True:
                await self.handle(scope, await receive(), send)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def handle(self, scope: Scope, message: Message, send: Send) -> None:
        if message["type"] == "wait":
            self.waiting.set()
            await self.let_on.wait()
        if message["type"] == "fail":
            raise RuntimeError("cannot do it")
        if message["type"] == "answer":
            await send({"type": "websocket.send"})
        async with self.heard:
            self.handled.append((scope["channel"], message.get("n")))
            self.heard.notify_all()

    async def hears(self, count: int) -> None:
        async with self.heard:
            await self.heard.wait_for(lambda: len(self.handled) >= count)


class Broken(InMemoryChannelLayer):
    """A layer that fails on the channel "broken" when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.breaks = asyncio.Event()

    async def receive(self, channel: str) -> dict[str, Any]:
        if channel != "broken":
            return await super().receive(channel)
        await self.breaks.wait()
        raise ConnectionError("the line is dead")


@pytest.fixture
def layer() -> InMemoryChannelLayer:
    return InMemoryChannelLayer()


@pytest.fixture
def app() -> Recorder:
    return Recorder()


@contextlib.asynccontextmanager
async def working(worker: Worker) -> AsyncIterator["asyncio.Task[None]"]:
    """Run a worker, and stop it at the end."""
    task = asyncio.create_task(worker.handle())
    try:
        yield task
    finally:
        worker.stop()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def send(layer: InMemoryChannelLayer, channel: str, *numbers: int, type: str = "note") -> None:
    for n in numbers:
        await layer.send(channel, {"type": type, "n": n})


async def test_each_channel_has_one_instance_with_its_scope(layer: InMemoryChannelLayer, app: Recorder) -> None:
    async with working(Worker(app, ["one", "two", "one"], layer)):
        await send(layer, "one", 1, 2)
        await send(layer, "two", 3)
        await app.hears(3)
    assert sorted(scope["channel"] for scope in app.scopes) == ["one", "two"]
    assert app.scopes[0] == {"type": "channel", "channel": app.scopes[0]["channel"]}


async def test_messages_of_a_channel_are_handled_in_order(layer: InMemoryChannelLayer, app: Recorder) -> None:
    await send(layer, "one", *range(50))
    async with working(Worker(app, ["one"], layer)):
        await send(layer, "one", *range(50, 90))
        await app.hears(90)
    assert app.handled == [("one", n) for n in range(90)]


async def test_a_slow_channel_does_not_keep_another_waiting(layer: InMemoryChannelLayer, app: Recorder) -> None:
    async with working(Worker(app, ["slow", "fast"], layer)):
        await send(layer, "slow", 1, type="wait")
        await app.waiting.wait()
        await send(layer, "fast", 2)
        await app.hears(1)
        assert app.handled == [("fast", 2)]
        app.let_on.set()


async def test_a_message_waits_in_the_layer_until_it_is_asked_for(layer: InMemoryChannelLayer, app: Recorder) -> None:
    async with working(Worker(app, ["one"], layer)):
        await send(layer, "one", 1, type="wait")
        await app.waiting.wait()
        await send(layer, "one", 2)
        # Another worker of the fleet takes it.
        assert layer.receive_nowait("one")["n"] == 2
        app.let_on.set()


async def test_several_receives_at_once_get_a_message_each(layer: InMemoryChannelLayer) -> None:
    got: list[int] = []
    all_got = asyncio.Event()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        first = await receive()
        others = await asyncio.gather(receive(), receive(), receive())
        got.extend(message["n"] for message in [first, *others])
        all_got.set()

    await send(layer, "one", 1, 2, 3, 4)
    async with working(Worker(application, ["one"], layer)):
        await all_got.wait()
    assert got == [1, 2, 3, 4]


async def test_a_cancelled_receive_loses_no_message(layer: InMemoryChannelLayer) -> None:
    got: list[int] = []
    waiting, all_got = asyncio.Event(), asyncio.Event()

    async def application(scope: Scope, receive: Receive, _send: Send) -> None:
        got.append((await receive())["n"])
        task = asyncio.ensure_future(receive())
        await asyncio.wait({task}, timeout=0)
        task.cancel()
        await asyncio.wait({task})
        waiting.set()
        got.extend([(await receive())["n"], (await receive())["n"]])
        all_got.set()

    await send(layer, "one", 1)
    async with working(Worker(application, ["one"], layer)):
        await waiting.wait()
        await send(layer, "one", 2, 3)
        await all_got.wait()
    assert got == [1, 2, 3]


async def test_a_failed_application_is_logged_and_started_anew(
    layer: InMemoryChannelLayer, app: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    await send(layer, "one", 1)
    await send(layer, "one", 2, type="fail")
    await send(layer, "one", 3)
    async with working(Worker(app, ["one"], layer)):
        await app.hears(2)
    assert (app.handled, len(app.scopes)) == ([("one", 1), ("one", 3)], 2)
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.name == "headrace.worker"
    assert record.getMessage() == "application on channel 'one' failed; the next message starts it anew"
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "cannot do it"


@pytest.mark.parametrize("by", ["returning", "stopping"])
async def test_an_application_that_ends_is_started_anew(
    layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture, by: str
) -> None:
    caplog.set_level(logging.INFO, "headrace.worker")
    got: asyncio.Queue[int] = asyncio.Queue()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        got.put_nowait((await receive())["n"])
        if by == "stopping":
            raise StopConsumer

    await send(layer, "one", 1, 2)
    async with working(Worker(application, ["one"], layer)):
        assert [await got.get() for _ in range(2)] == [1, 2]
    assert caplog.messages[0] == "application on channel 'one' ended; the next message starts it anew"


async def test_a_cancelled_application_is_logged_and_started_anew(
    layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    got: asyncio.Queue[int] = asyncio.Queue()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        got.put_nowait((await receive())["n"])
        raise asyncio.CancelledError

    await send(layer, "one", 1, 2)
    async with working(Worker(application, ["one"], layer)):
        assert [await got.get() for _ in range(2)] == [1, 2]
    assert "application on channel 'one' was cancelled; the next message starts it anew" in caplog.messages


async def test_a_message_that_its_application_never_receives_is_logged(
    layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    started = asyncio.Semaphore(0)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        started.release()
        raise RuntimeError("not even started")

    await send(layer, "one", 1, 2)
    async with working(Worker(application, ["one"], layer)):
        await started.acquire()
        await started.acquire()
    lost = [message for message in caplog.messages if message.startswith("message ")]
    why = "message 'note' of channel 'one' was not handled: "
    assert lost[0] == why + "the application that it started did not receive it"
    assert lost[1].startswith(why)


async def test_a_message_for_an_application_that_no_longer_asks_starts_another(layer: InMemoryChannelLayer) -> None:
    """The first has asked, so the message is on its way; then it ends without it."""
    got: asyncio.Queue[int] = asyncio.Queue()
    end = asyncio.Event()
    runs = 0

    async def application(scope: Scope, receive: Receive, _send: Send) -> None:
        nonlocal runs
        runs += 1
        got.put_nowait((await receive())["n"])
        if runs > 1:
            return
        task = asyncio.ensure_future(receive())
        await asyncio.wait({task}, timeout=0)
        task.cancel()
        await asyncio.wait({task})
        await end.wait()

    async with working(Worker(application, ["one"], layer)):
        await send(layer, "one", 1)
        assert await got.get() == 1
        await send(layer, "one", 2)
        end.set()
        assert await got.get() == 2
    assert runs == 2


@pytest.mark.parametrize("channels", [["broken"], ["broken", "fine"], ["fine", "broken"]])
async def test_a_dead_listener_ends_the_worker(app: Recorder, channels: list[str]) -> None:
    layer = Broken()
    worker = Worker(app, channels, layer)
    layer.breaks.set()
    with pytest.raises(ConnectionError, match="the line is dead") as raised:
        await worker.handle()
    assert raised.value.__notes__ == ["the worker was listening on channel 'broken'"]


async def test_a_dead_listener_lets_the_handlers_of_others_finish(app: Recorder) -> None:
    layer = Broken()
    worker = Worker(app, ["fine", "broken"], layer)
    await send(layer, "fine", 1, type="wait")
    task = asyncio.create_task(worker.handle())
    await app.waiting.wait()
    layer.breaks.set()
    await asyncio.wait({task}, timeout=0)
    app.let_on.set()
    with pytest.raises(ConnectionError):
        await task
    assert (app.handled, app.cancelled) == ([("fine", 1)], 0)


async def test_a_second_dead_listener_is_logged(app: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    class Dead(InMemoryChannelLayer):
        async def receive(self, channel: str) -> dict[str, Any]:
            raise ConnectionError(channel)

    with pytest.raises(ConnectionError, match="one"):
        await Worker(app, ["one", "two"], Dead()).handle()
    assert caplog.messages == ["listening on channel 'two' failed too"]


@pytest.mark.parametrize("message", [{}, {"type": ""}, {"type": None}])
async def test_a_message_without_a_type_ends_the_worker(
    layer: InMemoryChannelLayer, app: Recorder, message: dict[str, Any]
) -> None:
    await layer.send("one", message)
    with pytest.raises(ValueError, match="Worker received message") as raised:
        await Worker(app, ["two", "one"], layer).handle()
    assert str(raised.value) == "Worker received message with no type."


async def test_what_an_application_sends_is_refused_by_name(
    layer: InMemoryChannelLayer, app: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    await send(layer, "one", 1, type="answer")
    await send(layer, "one", 2)
    async with working(Worker(app, ["one"], layer)):
        await app.hears(1)
    error = caplog.records[0].exc_info
    assert error is not None
    assert str(error[1]) == (
        "a worker has no client: nobody to send 'websocket.send' to on channel 'one'; "
        "a handler answers through the channel layer"
    )


async def test_stop_lets_running_handlers_finish_and_takes_no_more(layer: InMemoryChannelLayer, app: Recorder) -> None:
    worker = Worker(app, ["one", "two"], layer)
    await send(layer, "one", 1, type="wait")
    task = asyncio.create_task(worker.handle())
    await app.waiting.wait()
    await send(layer, "two", 2)
    await app.hears(1)
    worker.stop()
    await asyncio.wait({task}, timeout=0)
    await send(layer, "one", 3)
    await send(layer, "two", 4)
    app.let_on.set()
    await task
    assert (app.handled, app.cancelled) == ([("two", 2), ("one", 1)], 0)
    assert [layer.receive_nowait(channel)["n"] for channel in ("one", "two")] == [3, 4]


@pytest.mark.parametrize("how", ["the grace is over", "stopped twice", "cancelled"])
async def test_a_handler_that_does_not_finish_is_cancelled_and_logged(
    layer: InMemoryChannelLayer, app: Recorder, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    worker = Worker(app, ["one", "idle"], layer, grace=0 if how == "the grace is over" else 1000)
    await send(layer, "one", 1, type="wait")
    await send(layer, "idle", 2)
    task = asyncio.create_task(worker.handle())
    await app.waiting.wait()
    await app.hears(1)
    if how == "cancelled":
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        worker.stop()
        if how == "stopped twice":
            await asyncio.wait({task}, timeout=0)
            worker.stop()
        await task
    assert app.cancelled >= 1
    assert caplog.messages == ["application on channel 'one' did not finish and is cancelled"]


async def test_more_channels_than_applications_end_the_one_that_waited_longest(
    layer: InMemoryChannelLayer, app: Recorder
) -> None:
    async with working(Worker(app, ["one", "two", "three"], layer, max_applications=2)):
        for count, channel in enumerate(("one", "two", "one", "three", "one", "two"), 1):
            await send(layer, channel, count)
            await app.hears(count)
    assert [channel for channel, _ in app.handled] == ["one", "two", "one", "three", "one", "two"]
    assert [scope["channel"] for scope in app.scopes] == ["one", "two", "three", "two"]


async def test_a_message_for_an_application_that_takes_long_to_end_is_logged_when_the_worker_stops(
    layer: InMemoryChannelLayer, app: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    ending, end, taken = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        finally:
            ending.set()
            await end.wait()

    class Taking(InMemoryChannelLayer):
        async def receive(self, channel: str) -> dict[str, Any]:
            message = await super().receive(channel)
            if message["n"] == 3:
                taken.set()
            return message

    layer = Taking()
    worker = Worker(application, ["one", "two"], layer, max_applications=1, grace=1000)
    task = asyncio.create_task(worker.handle())
    for count, channel in enumerate(("one", "two"), 1):
        await send(layer, channel, count)
        await app.hears(count)
    await ending.wait()
    await send(layer, "one", 3)
    await taken.wait()
    await asyncio.wait({task}, timeout=0)
    worker.stop()
    await asyncio.wait({task}, timeout=0)
    end.set()
    await task
    assert caplog.messages == ["message 'note' of channel 'one' was not handled: the worker stopped"]


async def test_a_receive_that_an_application_leaves_behind_takes_nothing(layer: InMemoryChannelLayer) -> None:
    got: asyncio.Queue[int] = asyncio.Queue()
    left: list[asyncio.Future[Message]] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        got.put_nowait((await receive())["n"])
        left.append(asyncio.ensure_future(receive()))

    await send(layer, "one", 1, 2)
    async with working(Worker(application, ["one"], layer)):
        assert [await got.get() for _ in range(2)] == [1, 2]
        left[0].cancel()
        await asyncio.wait({left[0]})
        await send(layer, "one", 3)
        assert await got.get() == 3
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


async def test_an_application_that_is_busy_is_not_ended_for_another(layer: InMemoryChannelLayer, app: Recorder) -> None:
    async with working(Worker(app, ["one", "two"], layer, max_applications=1)):
        await send(layer, "one", 1, type="wait")
        await app.waiting.wait()
        await send(layer, "two", 2)
        await app.hears(1)
        app.let_on.set()
        await app.hears(2)
    assert app.cancelled == 0


async def test_a_class_in_the_old_form_is_an_application_too(layer: InMemoryChannelLayer) -> None:
    got: asyncio.Queue[tuple[str, int]] = asyncio.Queue()

    class Application:
        def __init__(self, scope: Scope) -> None:
            self.scope = scope

        async def __call__(self, receive: Receive, send: Send) -> None:
            got.put_nowait((self.scope["channel"], (await receive())["n"]))

    await send(layer, "one", 1)
    old_form: Any = Application
    async with working(Worker(old_form, ["one"], layer)):
        assert await got.get() == ("one", 1)


async def test_a_subclass_can_report_failures_elsewhere(layer: InMemoryChannelLayer, app: Recorder) -> None:
    reported: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()

    class Reporting(Worker):
        async def application_exception(self, exception: Exception, application_details: dict[str, Any]) -> None:
            reported.put_nowait((str(exception), application_details))

    await send(layer, "one", 1, type="fail")
    async with working(Reporting(app, ["one"], layer)):
        assert await reported.get() == ("cannot do it", {"scope": {"type": "channel", "channel": "one"}})


async def test_a_report_that_fails_ends_the_worker(layer: InMemoryChannelLayer, app: Recorder) -> None:
    class Reporting(Worker):
        async def application_exception(self, exception: Exception, application_details: dict[str, Any]) -> None:
            raise OSError("nowhere to report to")

    await send(layer, "one", 1, type="fail")
    with pytest.raises(OSError, match="nowhere to report to"):
        await Reporting(app, ["one"], layer).handle()


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"channel_layer": None}, ValueError, "Channel layer is not valid"),
        ({"channels": "one"}, TypeError, "channels must be a list of names, got the str 'one'"),
        ({"channels": []}, ValueError, "channels must name at least one channel to listen on, got none"),
        ({"max_applications": 0}, ValueError, "max_applications must be at least 1, got 0"),
        ({"grace": -1}, ValueError, "grace must be a number of seconds, at least 0, got -1"),
        ({"grace": float("nan")}, ValueError, "grace must be a number of seconds, at least 0, got nan"),
    ],
)
async def test_wrong_arguments_are_refused(
    layer: InMemoryChannelLayer, app: Recorder, arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error) as raised:
        Worker(**{"application": app, "channels": ["one"], "channel_layer": layer, **arguments})
    assert str(raised.value) == text


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_run_after_the_running_handler(number: signal.Signals) -> None:
    layer = InMemoryChannelLayer()
    handled: list[int] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            os.kill(os.getpid(), number)
            # The loop notices the signal on its next turns: while this handler runs.
            await layer.receive("go-on")
            handled.append(message["n"])

    class Watched(Worker):
        def stop(self) -> None:
            super().stop()
            layer.send_sync("one", {"type": "note", "n": 2})
            layer.send_sync("go-on", {"type": "go"})

    layer.send_sync("one", {"type": "note", "n": 1})
    before = signal.getsignal(number)
    Watched(application, ["one"], layer).run()
    assert handled == [1]
    assert signal.getsignal(number) == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_was_ignored_is_ignored_again(number: signal.Signals) -> None:
    layer = InMemoryChannelLayer()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        os.kill(os.getpid(), number)
        await receive()

    layer.send_sync("one", {"type": "note"})
    with handled(number, signal.SIG_IGN):
        Worker(application, ["one"], layer).run()
        assert signal.getsignal(number) == signal.SIG_IGN


def test_an_interrupt_that_no_loop_handles_ends_run(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "headrace.worker")

    class Interrupted(Worker):
        async def handle(self) -> None:
            raise KeyboardInterrupt

    async def application(scope: Scope, receive: Receive, send: Send) -> None: ...

    Interrupted(application, ["one"], InMemoryChannelLayer()).run()
    assert caplog.messages == ["worker interrupted"]
