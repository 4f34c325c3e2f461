"""The communicator for any protocol: queues, timeouts, exceptions and ends."""

import asyncio
import contextvars
import gc
import subprocess
import sys
import weakref
from typing import Any

import asgiref.testing
import pytest

from headrace.testing import ApplicationCommunicator, settle
from headrace.typing import Receive, Scope, Send

CHOICES = [None, True, False]


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Send back what comes, until told to stop or to raise."""
    while (message := await receive())["type"] != "stop":
        if message["type"] == "raise":
            raise ValueError("the application failed")
        await send(message)


async def test_a_message_goes_in_and_the_answer_comes_out() -> None:
    communicator = ApplicationCommunicator(echo, {"type": "test"})
    await communicator.send_input({"type": "hello"})
    assert await communicator.receive_output() == {"type": "hello"}
    await communicator.send_input({"type": "stop"})
    await communicator.wait()
    assert communicator.future.done()


async def test_it_is_an_asgiref_communicator_with_its_attributes() -> None:
    scope = {"type": "test"}
    communicator = ApplicationCommunicator(echo, scope)
    assert isinstance(communicator, asgiref.testing.ApplicationCommunicator)
    assert communicator.application is echo
    assert communicator.scope is scope
    await communicator.input_queue.put({"type": "hello"})
    assert not communicator.future.done()
    assert await communicator.output_queue.get() == {"type": "hello"}


async def test_the_application_starts_with_the_first_use_and_not_before() -> None:
    started: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        started.append(scope)

    communicator = ApplicationCommunicator(app, {"type": "test"})
    await settle()
    assert started == []
    communicator.scope["user"] = "ada"
    await communicator.wait()
    assert started == [{"type": "test", "user": "ada"}]


async def test_the_application_starts_in_an_empty_context() -> None:
    leaked: contextvars.ContextVar[str] = contextvars.ContextVar("leaked", default="nothing")
    leaked.set("of the test")
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "stop":
            seen.append(leaked.get())
        await asyncio.create_task(child())

    async def child() -> None:
        seen.append(leaked.get())

    communicator = ApplicationCommunicator(app, {"type": "test"})
    await communicator.send_input({"type": "hello"})
    await communicator.send_input({"type": "stop"})
    await communicator.wait()
    assert seen == ["nothing", "nothing"]


async def test_a_class_with_as_asgi_is_an_application() -> None:
    class Consumer:
        @classmethod
        def as_asgi(cls) -> Any:
            return echo

    communicator = ApplicationCommunicator(Consumer, {"type": "test"})
    await communicator.send_input({"type": "hello"})
    assert await communicator.receive_output() == {"type": "hello"}


async def test_an_application_of_the_older_form_is_called_twice() -> None:
    class Older:
        def __init__(self, scope: Scope) -> None:
            self.scope = scope

        async def __call__(self, receive: Receive, send: Send) -> None:
            await send({"type": "hello", "scope": self.scope})

    communicator = ApplicationCommunicator(Older, {"type": "test"})
    assert await communicator.receive_output() == {"type": "hello", "scope": {"type": "test"}}


async def test_an_object_with_an_asynchronous_call_is_an_application() -> None:
    class App:
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await echo(scope, receive, send)

    communicator = ApplicationCommunicator(App(), {"type": "test"})
    await communicator.send_input({"type": "hello"})
    assert await communicator.receive_output() == {"type": "hello"}


# Timeouts.


@pytest.mark.parametrize("cancel_on_timeout", [None, True])
async def test_a_timeout_cancels_the_application_as_in_channels(cancel_on_timeout: bool | None) -> None:
    communicator = ApplicationCommunicator(echo, {"type": "test"}, cancel_on_timeout=cancel_on_timeout)
    with pytest.raises(TimeoutError, match=r"the application sent nothing within 0\.01 s"):
        await communicator.receive_output(timeout=0.01)
    assert communicator.future.cancelled()
    with pytest.raises(asyncio.CancelledError):
        await communicator.send_input({"type": "hello"})


async def test_a_timeout_spares_the_application_when_asked() -> None:
    communicator = ApplicationCommunicator(echo, {"type": "test"}, cancel_on_timeout=False)
    with pytest.raises(TimeoutError):
        await communicator.receive_output(timeout=0.01)
    await communicator.send_input({"type": "hello"})
    assert await communicator.receive_output() == {"type": "hello"}
    communicator.stop()


async def test_a_timeout_inside_the_context_spares_the_application() -> None:
    async with ApplicationCommunicator(echo, {"type": "test"}) as communicator:
        with pytest.raises(TimeoutError):
            await communicator.receive_output(timeout=0.01)
        await communicator.send_input({"type": "hello"})
        assert await communicator.receive_output() == {"type": "hello"}


async def test_a_timeout_inside_the_context_cancels_the_application_when_asked() -> None:
    async with ApplicationCommunicator(echo, {"type": "test"}, cancel_on_timeout=True) as communicator:
        with pytest.raises(TimeoutError):
            await communicator.receive_output(timeout=0.01)
        assert communicator.future.cancelled()


async def test_what_the_application_raises_when_a_timeout_cancels_it_is_raised() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await receive()
        finally:
            raise ValueError("while cleaning up")

    communicator = ApplicationCommunicator(app, {"type": "test"})
    with pytest.raises(ValueError, match="while cleaning up"):
        await communicator.receive_output(timeout=0.01)


async def test_a_timeout_of_zero_still_takes_what_is_there() -> None:
    communicator = ApplicationCommunicator(echo, {"type": "test"})
    await communicator.send_input({"type": "hello"})
    await settle()
    assert await communicator.receive_output(timeout=0) == {"type": "hello"}


async def test_no_timeout_waits_for_ever() -> None:
    communicator = ApplicationCommunicator(echo, {"type": "test"})
    waiting = asyncio.create_task(communicator.receive_output(timeout=None))
    await settle()
    assert not waiting.done()
    await communicator.send_input({"type": "hello"})
    assert await waiting == {"type": "hello"}


async def test_cancelling_a_receive_loses_no_message() -> None:
    communicator = ApplicationCommunicator(echo, {"type": "test"})
    waiting = asyncio.create_task(communicator.receive_output())
    await settle()
    communicator.output_queue.put_nowait({"type": "hello"})
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await communicator.receive_output() == {"type": "hello"}


async def test_two_receives_at_once_get_a_message_each() -> None:
    communicator = ApplicationCommunicator(echo, {"type": "test"})
    both = asyncio.gather(communicator.receive_output(), communicator.receive_output())
    await settle()
    await communicator.send_input({"type": "1"})
    await communicator.send_input({"type": "2"})
    assert sorted(message["type"] for message in await both) == ["1", "2"]


async def test_messages_of_a_task_that_the_application_left_behind_are_received() -> None:
    tasks = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        tasks.append(asyncio.create_task(later(receive, send)))

    async def later(receive: Receive, send: Send) -> None:
        await send(await receive())

    communicator = ApplicationCommunicator(app, {"type": "test"})
    await communicator.wait()
    waiting = asyncio.create_task(communicator.receive_output())
    await settle()
    await communicator.send_input({"type": "hello"})
    assert await waiting == {"type": "hello"}


# What the application raises.


async def test_a_receive_that_waits_raises_what_the_application_raises_at_once() -> None:
    communicator = ApplicationCommunicator(echo, {"type": "test"})
    waiting = asyncio.create_task(communicator.receive_output(timeout=None))
    await settle()
    await communicator.send_input({"type": "raise"})
    with pytest.raises(ValueError, match="the application failed"):
        await waiting


async def test_a_message_sent_before_the_failure_reaches_who_waits() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(await receive())
        raise ValueError("the application failed")

    communicator = ApplicationCommunicator(app, {"type": "test"})
    waiting = asyncio.create_task(communicator.receive_output())
    await settle()
    await communicator.send_input({"type": "hello"})
    assert await waiting == {"type": "hello"}
    with pytest.raises(ValueError, match="the application failed"):
        await communicator.receive_output()


async def test_every_method_raises_what_the_application_raised() -> None:
    communicator = ApplicationCommunicator(echo, {"type": "test"})
    await communicator.send_input({"type": "raise"})
    await settle()
    for method in (
        communicator.receive_output,
        communicator.receive_nothing,
        communicator.wait,
        lambda: communicator.send_input({"type": "hello"}),
    ):
        with pytest.raises(ValueError, match="the application failed"):
            await method()
    with pytest.raises(ValueError, match="the application failed"):
        communicator.stop()
    communicator.stop(exceptions=False)


async def test_a_timeout_of_the_application_itself_is_not_taken_for_one_of_the_communicator() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        raise TimeoutError("of the application")

    communicator = ApplicationCommunicator(app, {"type": "test"})
    waiting = asyncio.create_task(communicator.receive_output(timeout=None))
    await settle()
    await communicator.send_input({"type": "hello"})
    with pytest.raises(TimeoutError, match="of the application"):
        await waiting


# Nothing.


async def test_receive_nothing_without_time_lets_the_application_finish_first() -> None:
    communicator = ApplicationCommunicator(echo, {"type": "test"})
    assert await communicator.receive_nothing(timeout=0)
    await communicator.send_input({"type": "hello"})
    assert not await communicator.receive_nothing(timeout=0)
    assert await communicator.receive_output() == {"type": "hello"}


async def test_receive_nothing_without_time_works_for_many_at_once() -> None:
    communicators = [ApplicationCommunicator(echo, {"type": "test"}) for _ in range(5)]
    await communicators[0].send_input({"type": "hello"})
    answers = await asyncio.gather(*(each.receive_nothing(timeout=0) for each in communicators))
    assert answers == [False, True, True, True, True]


async def test_receive_nothing_waits_for_its_time() -> None:
    loop = asyncio.get_running_loop()
    communicator = ApplicationCommunicator(echo, {"type": "test"})
    start = loop.time()
    assert await communicator.receive_nothing(timeout=0.02)
    assert loop.time() - start >= 0.019
    start = loop.time()
    assert await communicator.receive_nothing(timeout=0.01, interval=0.03)
    assert loop.time() - start >= 0.029
    assert not communicator.future.done()


async def test_receive_nothing_ends_when_something_comes() -> None:
    communicator = ApplicationCommunicator(echo, {"type": "test"})
    waiting = asyncio.create_task(communicator.receive_nothing(timeout=50))
    await settle()
    await communicator.send_input({"type": "hello"})
    assert not await waiting


# Ends.


@pytest.mark.parametrize("cancel_on_timeout", CHOICES)
async def test_wait_returns_when_the_application_has_ended(cancel_on_timeout: bool | None) -> None:
    communicator = ApplicationCommunicator(echo, {"type": "test"}, cancel_on_timeout=cancel_on_timeout)
    await communicator.send_input({"type": "stop"})
    await communicator.wait(timeout=None)
    assert communicator.future.done()
    await communicator.wait()


async def test_wait_cancels_an_application_that_goes_on_as_in_channels() -> None:
    communicator = ApplicationCommunicator(echo, {"type": "test"})
    await communicator.wait(timeout=0.01)
    assert communicator.future.cancelled()


async def test_wait_spares_an_application_that_goes_on_when_asked() -> None:
    communicator = ApplicationCommunicator(echo, {"type": "test"}, cancel_on_timeout=False)
    with pytest.raises(TimeoutError, match=r"did not end within 0\.01 s"):
        await communicator.wait(timeout=0.01)
    await communicator.send_input({"type": "stop"})
    await communicator.wait()


async def test_wait_does_not_swallow_the_cancellation_of_the_test() -> None:
    communicator = ApplicationCommunicator(echo, {"type": "test"})
    waiting = asyncio.create_task(communicator.wait(timeout=None))
    await settle()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    communicator.stop()


async def test_an_application_that_ignores_its_cancellation_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.testing.application._CANCEL_TIMEOUT", 0.01)
    ended = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while not ended.is_set():
            try:
                await ended.wait()
            except asyncio.CancelledError:
                continue

    communicator = ApplicationCommunicator(app, {"type": "test"})
    with pytest.raises(RuntimeError, match=r"was cancelled and has not ended in 0\.01 s"):
        await communicator.wait(timeout=0.01)
    ended.set()
    await communicator.wait()


async def test_stop_cancels_the_application() -> None:
    communicator = ApplicationCommunicator(echo, {"type": "test"})
    communicator.stop()
    assert communicator._future is None
    await communicator.send_input({"type": "hello"})
    communicator.stop()
    await communicator.wait()
    assert communicator.future.cancelled()


async def test_a_communicator_that_nobody_holds_cancels_its_application() -> None:
    communicator = ApplicationCommunicator(echo, {"type": "test"})
    task, gone = communicator.future, weakref.ref(communicator)
    await settle()
    del communicator
    gc.collect()
    assert gone() is None
    await asyncio.wait({task})
    assert task.cancelled()


async def test_the_context_ends_an_application_that_knows_no_farewell() -> None:
    async with ApplicationCommunicator(echo, {"type": "test"}) as communicator:
        await communicator.send_input({"type": "hello"})
    assert communicator.future.cancelled()


async def test_the_context_starts_nothing_by_itself() -> None:
    async with ApplicationCommunicator(echo, {"type": "test"}) as communicator:
        pass
    assert communicator._future is None


async def test_a_communicator_in_use_cannot_be_entered() -> None:
    communicator = ApplicationCommunicator(echo, {"type": "test"})
    await communicator.send_input({"type": "stop"})
    with pytest.raises(RuntimeError, match="started before `async with`"):
        await communicator.__aenter__()
    await communicator.wait()


async def test_the_context_raises_what_the_application_raised_and_nobody_saw() -> None:
    with pytest.raises(ValueError, match="the application failed"):
        async with ApplicationCommunicator(echo, {"type": "test"}) as communicator:
            await communicator.send_input({"type": "raise"})
            await settle()


async def test_the_context_does_not_raise_again_what_the_test_has_seen() -> None:
    async with ApplicationCommunicator(echo, {"type": "test"}) as communicator:
        await communicator.send_input({"type": "raise"})
        with pytest.raises(ValueError, match="the application failed"):
            await communicator.receive_output()


async def test_the_context_leaves_the_word_to_the_test_and_adds_a_note() -> None:
    with pytest.raises(KeyError) as caught:
        async with ApplicationCommunicator(echo, {"type": "test"}) as communicator:
            await communicator.send_input({"type": "raise"})
            await settle()
            raise KeyError("of the test")
    assert caught.value.__notes__ == ["the application ended with ValueError('the application failed')"]


async def test_aclose_can_be_called_at_any_time_and_again() -> None:
    communicator = ApplicationCommunicator(echo, {"type": "test"})
    await communicator.aclose()
    await communicator.send_input({"type": "hello"})
    await communicator.aclose()
    await communicator.aclose()
    assert communicator.future.cancelled()


def test_importing_the_tools_imports_no_test_framework_and_no_django() -> None:
    program = (
        "import sys, headrace.testing; print({'pytest', 'django', 'daphne', 'channels.testing'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False)
    assert (run.stderr, run.stdout) == ("", "set()\n")
