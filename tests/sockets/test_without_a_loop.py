"""Socket servers that plain programs feed, which have no event loop of their own."""

import asyncio
import os
import threading
from typing import Any

import pytest
from tests.support.waiting import SECONDS, eventually

from headrace.exceptions import ConnectionClosed
from headrace.layers import InMemoryChannelLayer
from headrace.sockets import BaseSocketServer

from .conftest import Client
from .noting import Noting, Subscribed


def test_a_plain_program_feeds_a_server_from_its_main_thread(memory: InMemoryChannelLayer) -> None:
    incoming: asyncio.Queue[Any] = asyncio.Queue()
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    server = Subscribed({}, incoming.get, send, layer=memory)
    server.start_listeners()
    incoming.put_nowait({"type": "websocket.connect"})
    eventually(lambda: server.subscriptions, "it is subscribed")
    server.broadcast("news", 1)
    eventually(lambda: len(sent) == 2, "the broadcast has come")
    server.send(2)
    assert sent[1:] == [{"type": "websocket.send", "text": "1"}, {"type": "websocket.send", "text": "2"}]
    server.close(4000)
    eventually(lambda: server.noted, "it has ended")
    assert server.noted == [("disconnect", 4000)]


def test_servers_without_a_loop_share_one() -> None:
    async def never() -> Any:
        await asyncio.Event().wait()

    servers = [BaseSocketServer({}, never, print) for _ in range(3)]  # type: ignore[arg-type]
    for server in servers:
        server.start_listeners()
    assert len({id(server._headrace_hub.loop) for server in servers}) == 1
    assert [thread.name for thread in threading.enumerate()].count("headrace-sockets") == 1
    for server in servers:
        server.__kill__()
    eventually(
        lambda: all(
            server._headrace_connection.incoming.task is not None and server._headrace_connection.incoming.task.done()
            for server in servers
        ),
        "they have ended",
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_server_of_the_parent_has_ended_in_the_child_of_a_fork(memory: InMemoryChannelLayer) -> None:
    async def never() -> Any:
        await asyncio.Event().wait()

    server = BaseSocketServer({}, never, print, layer=memory)  # type: ignore[arg-type]
    server.start_listeners()
    server.subscribe("news")
    child = os.fork()
    if not child:
        try:
            server.send("to nobody")
            clean = (server.is_alive, server.subscriptions, server.stats().dropped_after_close) == (
                False,
                frozenset(),
                1,
            )
            os._exit(0 if clean else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert server.subscriptions == {"news"}
    server.__kill__()
    eventually(
        lambda: (
            server._headrace_connection.incoming.task is not None and server._headrace_connection.incoming.task.done()
        ),
        "it has ended",
    )


async def test_nobody_runs_the_loop_of_a_server_but_who_ran_it_before(client: Client) -> None:
    def serve_and_send() -> None:
        loop = asyncio.new_event_loop()
        here = Client()

        async def serve() -> Any:
            return await here.connects(Noting)

        server = loop.run_until_complete(serve())
        sending = threading.Thread(target=lambda: failed.append(catch(server)))
        sending.start()
        sending.join(0.1)
        assert not loop.is_running()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.wait(asyncio.all_tasks(loop)))
        loop.close()
        sending.join()

    def catch(server: Any) -> Any:
        try:
            server.send(1)
        except ConnectionClosed as error:
            return error

    failed: list[Any] = []
    await asyncio.to_thread(serve_and_send)
    assert len(failed) == 1


def test_what_a_plain_program_puts_just_before_the_server_waits_is_taken(memory: InMemoryChannelLayer) -> None:
    class Late(asyncio.Queue[Any]):
        """A queue into which another thread puts something right after it was seen to be empty."""

        def empty(self) -> bool:
            was_empty = super().empty()
            if was_empty and late:
                self.put_nowait(late.pop())
            return was_empty

    late = [{"type": "websocket.connect"}]
    connected = threading.Event()

    class Telling(BaseSocketServer):
        async def connect(self) -> None:
            connected.set()

    async def send(message: Any) -> None: ...

    server = Telling({}, Late().get, send, layer=memory)
    server.start_listeners()
    assert connected.wait(SECONDS)
    server.close()
