"""A server that is told to end while clients are connected."""

import asyncio
import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.support.waiting import SECONDS
from websockets.exceptions import ConnectionClosed

if TYPE_CHECKING:
    from tests.servers.conftest import Client, Server

    RunServer = Callable[[dict[str, str]], AbstractContextManager[Server]]

KINDS = ["sync-ordered", "sync-echo", "ordered", "forwarding", "echo"]


async def test_a_server_that_ends_takes_its_consumers_with_it(
    run_server: "RunServer", client_of: "Callable[[Server, AsyncExitStack], Client]", key: str, tmp_path: Path
) -> None:
    file = tmp_path / "reports"
    file.touch()
    with run_server({"HEADRACE_TEST_REPORTS": str(file)}) as server:
        if server.is_("hypercorn-asyncio") and sys.version_info >= (3, 12):
            pytest.skip(
                "hypercorn does not end while a client is connected: asyncio's servers wait for that since 3.12"
            )
        async with AsyncExitStack() as stack:
            client = client_of(server, stack)
            sockets = [await client.open(f"{kind}/{key}") for kind in KINDS]
            # When this comes back, no thread of the sync consumers waits for the event loop.
            await sockets[-1].send("all is quiet")
            await asyncio.wait_for(sockets[-1].recv(), SECONDS)

            server.process.terminate()
            for socket in sockets:
                with pytest.raises(ConnectionClosed):
                    await asyncio.wait_for(socket.recv(), SECONDS)
            status = await asyncio.to_thread(server.process.wait, SECONDS)

        reports = [json.loads(line) for line in file.read_text().splitlines()]
        codes = [report["disconnect"] for report in reports if "disconnect" in report]
        ends = [report["ended"] for report in reports if "ended" in report]
        if server.is_("uvicorn"):
            # It ends by the signal that it got.
            assert (status, codes, ends) == (-15, [1012] * len(KINDS), ["as it should"] * len(KINDS))
        elif server.is_("hypercorn"):
            # It waits for its grace period, then cancels.
            assert (status, codes, ends) == (0, [1006] * len(KINDS), ["CancelledError"] * len(KINDS))
        else:
            # Daphne and granian do not wait for their applications, so there is not always time for disconnect().
            assert len(codes) <= len(KINDS)
