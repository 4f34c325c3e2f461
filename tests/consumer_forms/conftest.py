"""``forms.py`` on a real server, and a real client."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import IO, Any

import pytest
from tests.support.waiting import SECONDS
from websockets.asyncio.client import ClientConnection, connect

HERE = Path(__file__).parent


class Forms:
    """The server, and what its consumers noted."""

    def __init__(self, address: str, notes: IO[str], stack: AsyncExitStack) -> None:
        self._address = address
        self._notes = notes
        self._stack = stack

    async def open(self, path: str) -> ClientConnection:
        """Open a socket, which is closed with the test."""
        return await self._stack.enter_async_context(connect(f"ws://{self._address}{path}", open_timeout=SECONDS))

    @staticmethod
    async def hear(socket: ClientConnection) -> str | bytes:
        """Wait for a frame."""
        return await asyncio.wait_for(socket.recv(), SECONDS)

    async def hear_json(self, socket: ClientConnection) -> Any:
        """Wait for a frame of JSON."""
        return json.loads(await self.hear(socket))

    async def note_of(self, who: str) -> str:
        """Wait for what a consumer notes; the notes of other ones before it are passed over."""
        while not (line := await asyncio.wait_for(asyncio.to_thread(self._notes.readline), SECONDS)).startswith(who):
            continue
        return line.strip()


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, IO[str]]]:
    """Serve ``forms.py`` with uvicorn, on a socket that it inherits; give the address and the pipe of the notes."""
    notes = tmp_path_factory.mktemp("forms") / "notes"
    os.mkfifo(notes)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        host, port = listening.getsockname()
        fd = listening.fileno()
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "--log-level", "warning", "--fd", str(fd), "forms:application"],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]),
                "FORMS_NOTES": str(notes),
            },
            pass_fds=[fd],
        )
    try:
        # Open to write as well, so that neither side waits for the other to open it.
        with open(os.open(notes, os.O_RDWR), encoding="utf-8") as lines:
            yield f"{host}:{port}", lines
    finally:
        process.terminate()
        process.wait(SECONDS)


@pytest.fixture
async def forms(address: tuple[str, IO[str]]) -> AsyncIterator[Forms]:
    """Talk to the consumers of ``forms.py``."""
    async with AsyncExitStack() as stack:
        yield Forms(*address, stack)
