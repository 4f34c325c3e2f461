"""What works in a project once its layer is headrace's, and does not on Channels' own.

There the queues belong to one event loop: a message sent in another thread waits until the loop of
its receiver wakes for another reason. And a cancel or a flush leaves receivers deaf.
"""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from channels.testing import WebsocketCommunicator
from chat.asgi import application
from django.core.management import call_command


async def test_a_group_send_from_a_plain_thread_reaches_a_socket() -> None:
    communicator = WebsocketCommunicator(application, "/chat/room/ada/")
    assert (await communicator.connect())[0]
    layer: Any = get_channel_layer()
    receive = asyncio.create_task(communicator.receive_from(timeout=60))
    message = {"type": "chat.message", "text": "from a thread"}
    # Not joined before the socket has it: the idle loop has to be woken by the message itself.
    thread = threading.Thread(target=async_to_sync(layer.group_send), args=("room", message))
    thread.start()
    assert await receive == "from a thread"
    thread.join()
    await communicator.disconnect()


def test_runworker_in_a_thread_serves_the_others() -> None:
    layer: Any = get_channel_layer()
    reply = async_to_sync(layer.new_channel)()
    with ThreadPoolExecutor(1) as pool:
        command = pool.submit(call_command, "runworker", "sums", verbosity=0)
        for number in range(20):
            task = {"type": "sum.numbers", "numbers": [number, 1], "reply": reply}
            async_to_sync(layer.send)("sums", task)
        answers = [async_to_sync(layer.receive)(reply)["sum"] for _ in range(20)]
        # A message without a type ends Channels' worker.
        async_to_sync(layer.send)("sums", {"stop": True})
        with pytest.raises(ValueError, match="Worker received message with no type"):
            command.result(timeout=60)
    assert answers == [number + 1 for number in range(20)]


async def test_a_cancelled_receiver_leaves_the_others_of_its_channel_listening() -> None:
    layer: Any = get_channel_layer()
    cancelled, stays = (asyncio.create_task(layer.receive("shared")) for _ in range(2))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    await layer.send("shared", {"type": "hello"})
    assert await stays == {"type": "hello"}


async def test_a_receiver_hears_what_is_sent_after_a_flush() -> None:
    layer: Any = get_channel_layer()
    receive = asyncio.create_task(layer.receive("channel"))
    await asyncio.sleep(0)
    await layer.flush()
    await layer.send("channel", {"type": "hello"})
    assert await receive == {"type": "hello"}
