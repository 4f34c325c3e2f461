"""gunicorn's worker has the protocol, and what it promises."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

SECONDS = 60
ROOT = Path(__file__).parents[2]
WORKER = "headrace.gunicorn.UvicornWorker"

pytest.importorskip("uvicorn_worker")


@contextmanager
def gunicorn(*options: str) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """Run gunicorn while a context lasts; give the address and the process."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        descriptor = listening.fileno()
        words = ["gunicorn", "--bind", f"fd://{descriptor}", "--log-level", "critical", *options]
        process = subprocess.Popen(
            [sys.executable, "-m", *words, "tests.frames.served:application"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            pass_fds=[descriptor],
        )
        try:
            yield f"ws://127.0.0.1:{listening.getsockname()[1]}/", process
        finally:
            process.terminate()
            process.wait(SECONDS)


@pytest.mark.one_loop
async def test_gunicorns_worker_writes_frames() -> None:
    async with asyncio.timeout(SECONDS):
        with gunicorn("--worker-class", WORKER, "--workers", "1") as (address, process):
            async with connect(address, open_timeout=SECONDS) as one, connect(address, open_timeout=SECONDS) as other:
                # Each has joined by then, and comes compressed or not, as its length has it.
                assert (await one.recv(), await other.recv()) == ("FrameWriter", "FrameWriter")
                for text in ("short", "long " * 1000):
                    await one.send(text)
                    assert (await one.recv(), await other.recv()) == (text, text)
                process.send_signal(signal.SIGTERM)
                with pytest.raises(ConnectionClosed):
                    await other.recv()
                assert other.close_code == 1012
            assert await asyncio.to_thread(process.wait, SECONDS) == 0
