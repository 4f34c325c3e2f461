"""A wake that is interrupted, or lost, is made up for: no loop goes deaf."""

import asyncio
import contextlib
import signal
import sys
from typing import Any

import pytest
from tests.support.signals import handled

from headrace import InMemoryChannelLayer


class Interrupt(BaseException):
    """What no ``except Exception`` catches."""


class LossyLoop(asyncio.SelectorEventLoop):
    """A loop whose ``call_soon`` can be told to raise, or to lose the call."""

    fault: BaseException | None = None
    lose = False

    def call_soon(  # type: ignore[override]  # the types of what is called do not matter here
        self, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.Handle:
        if type(callback).__name__ == "Drain":
            if self.fault is not None:
                fault, self.fault = self.fault, None
                raise fault
            if self.lose:
                self.lose = False
                return asyncio.Handle(lambda: None, (), self)
        return super().call_soon(callback, *args, context=context)


async def receive_three(layer: InMemoryChannelLayer, spoil: Any) -> list[Any]:
    """Let three tasks wait, spoil the wake for the first message, and send three."""
    tasks = [asyncio.ensure_future(layer.receive("channel")) for _ in range(3)]
    while layer.stats().waiters < 3:
        await asyncio.sleep(0)
    spoil(asyncio.get_running_loop())
    for n in range(3):
        with contextlib.suppress(Interrupt, RecursionError, MemoryError):
            layer.send_sync("channel", {"n": n})
    return [message["n"] for message in await asyncio.gather(*tasks)]


@pytest.mark.parametrize("fault", [Interrupt(), RecursionError(), MemoryError()], ids=repr)
def test_an_exception_in_call_soon_reaches_the_sender_and_the_message_its_receiver(
    layer: InMemoryChannelLayer, fault: BaseException
) -> None:
    def spoil(loop: Any) -> None:
        loop.fault = fault

    with asyncio.Runner(loop_factory=LossyLoop) as runner:
        assert runner.run(receive_three(layer, spoil)) == [0, 1, 2]


def test_the_sender_is_not_kept_from_an_interrupt(layer: InMemoryChannelLayer) -> None:
    async def interrupted() -> None:
        task = asyncio.ensure_future(layer.receive("channel"))
        while layer.stats().waiters < 1:
            await asyncio.sleep(0)
        asyncio.get_running_loop().fault = Interrupt()  # type: ignore[attr-defined]
        with pytest.raises(Interrupt):
            layer.send_sync("channel", {"n": 0})
        assert await task == {"n": 0}

    with asyncio.Runner(loop_factory=LossyLoop) as runner:
        runner.run(interrupted())


def test_a_call_that_the_loop_loses_is_made_again(layer: InMemoryChannelLayer) -> None:
    def spoil(loop: Any) -> None:
        loop.lose = True

    with asyncio.Runner(loop_factory=LossyLoop) as runner:
        assert runner.run(receive_three(layer, spoil)) == [0, 1, 2]


def test_a_send_at_the_end_of_the_stack_leaves_the_receivers_waiting(layer: InMemoryChannelLayer) -> None:
    def send_at_the_limit(loop: Any) -> None:
        def dive(depth: int) -> None:
            try:
                dive(depth + 1)
            except RecursionError:
                layer.send_sync("other", {"n": depth})

        waiting = asyncio.ensure_future(layer.receive("other"))
        loop.call_soon(waiting.cancel)
        with contextlib.suppress(RecursionError):
            dive(0)

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(400)
    try:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            assert runner.run(receive_three(layer, send_at_the_limit)) == [0, 1, 2]
    finally:
        sys.setrecursionlimit(limit)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no interval timer")
def test_a_signal_handler_that_raises_makes_nobody_deaf(layer: InMemoryChannelLayer) -> None:
    def ring(*_: object) -> None:
        raise Interrupt

    async def flooded() -> list[Any]:
        tasks = [asyncio.ensure_future(layer.receive("quiet")) for _ in range(3)]
        busy = asyncio.ensure_future(layer.receive("busy"))
        while layer.stats().waiters < 4:
            await asyncio.sleep(0)
        for _ in range(20):
            signal.setitimer(signal.ITIMER_VIRTUAL, 0.001)
            with contextlib.suppress(Interrupt):
                while True:
                    layer.send_sync("busy", {})
                    layer.close_channel("busy")
        await busy
        for n in range(3):
            layer.send_sync("quiet", {"n": n})
        return [message["n"] for message in await asyncio.gather(*tasks)]

    with handled(signal.SIGVTALRM, ring):
        try:
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                assert runner.run(flooded()) == [0, 1, 2]
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
