"""What stands in the place of a server's ``send``: it is awaited as that is, by whoever, and copied with its scope."""

import asyncio
import copy
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import pytest
from tests.frames.consumers import Member, met

from headrace._core import FrameSend
from headrace._frames.extension import EXTENSION
from headrace.layers import InMemoryChannelLayer

if TYPE_CHECKING:
    from tests.frames.conftest import Serve

MESSAGE = {"type": "websocket.send", "text": "hello"}


class Frames:
    """The extension of a server, which takes every frame."""

    window_bits = None

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.sent: list[Any] = []

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    def write(self, frame: bytes) -> bool:
        self.written.append(frame)
        return True


class TestAwaited:
    """What a call returns where a frame was written."""

    async def test_a_task_may_be_made_of_it(self, serve: "Serve", layer: InMemoryChannelLayer) -> None:
        class Tasks(Member):
            async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
                one = {"type": "websocket.send", "text": "one"}
                send: Any = self.base_send
                await asyncio.create_task(send(one))
                async with asyncio.TaskGroup() as group:
                    group.create_task(send(one))
                await asyncio.gather(send(one), send(one))
                await asyncio.wait_for(send(one), 60)
                asyncio.run_coroutine_threadsafe(send(one), asyncio.get_running_loop())

        async with serve(Tasks.as_asgi()) as served:
            client = await served.open()
            await met(layer, client)
            await client.send("go")
            assert [await client.recv() for _ in range(6)] == ["one"] * 6

    @pytest.mark.one_loop
    async def test_it_has_what_a_coroutine_has(self) -> None:
        frames = Frames()
        sending = FrameSend(frames, frames.send)(MESSAGE)
        assert isinstance(sending, Coroutine)
        with pytest.raises(StopIteration) as ended:
            sending.send(None)
        assert ended.value.value is None
        for thrown in (ValueError, ValueError("no")):
            with pytest.raises(ValueError):  # noqa: PT011  # any
                sending.throw(thrown)
        sending.close()
        assert len(frames.written) == 1
        assert frames.sent == []


async def test_a_scope_is_copied_with_its_extension(serve: "Serve", layer: InMemoryChannelLayer) -> None:
    same: list[bool] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        frames = scope["extensions"][EXTENSION]
        copied = copy.deepcopy(scope["extensions"])
        same.extend([copied[EXTENSION] is frames, copy.copy(frames) is frames])
        await Member.as_asgi()({**scope, "extensions": copied}, receive, send)

    async with serve(application) as served:
        client = await served.open()
        await client.send("hello")
        assert await client.recv() == "hello"
    assert same == [True, True]


@pytest.mark.one_loop
async def test_no_frame_is_written_in_another_thread() -> None:
    frames = Frames()
    sends = FrameSend(frames, frames.send)
    await asyncio.to_thread(lambda: asyncio.run(sends(MESSAGE)))
    assert (frames.written, frames.sent) == ([], [MESSAGE])
    await sends(MESSAGE)
    assert (len(frames.written), frames.sent) == (1, [MESSAGE])
