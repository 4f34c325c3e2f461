"""granian: an ASGI application that awaits a ``send`` for each client."""

import os
import sys
import time
from typing import Any

from benches.compare.others import ALL, BROADCAST
from benches.compare.others.arguments import parse
from benches.compare.server import Plain, text_of

SIZE = "HEADRACE_BENCH_BYTES"

plain = Plain(text_of(int(os.environ.get(SIZE, "0"))))


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Serve one connection."""
    if scope["path"] == f"/{ALL}":
        await plain.serve(scope, receive, send)
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        if event["text"] == BROADCAST:
            await plain.broadcast()
        else:
            await send({"type": "websocket.send", "text": str(time.process_time_ns())})


def main() -> None:
    """Do what the command line asks for."""
    arguments = parse(__doc__)
    os.environ[SIZE] = str(arguments.bytes)
    command = [sys.executable, "-m", "granian", "--interface", "asginl", "--loop", arguments.loop, "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(arguments.port), "--log-level", "critical"]
    os.execv(command[0], [*command, "benches.compare.others.granian_server:application"])


if __name__ == "__main__":
    main()
