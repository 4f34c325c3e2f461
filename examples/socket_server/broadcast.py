"""Subscribe to a topic and broadcast to it, in a script without an event loop.

python broadcast.py                         needs no server
python broadcast.py redis://localhost:6379  goes through one
"""

import asyncio
import sys
import threading
from typing import Any

from headrace.sockets import BaseSocketServer

config = {"hosts": [{"address": sys.argv[1]}]} if len(sys.argv) > 1 else None
arrived = threading.Event()


async def send(message: Any) -> None:
    """Show what would go to a browser; an ASGI server has a send of its own."""
    print("to the client:", message)
    arrived.set()


# What a client says would be put here.
from_client: asyncio.Queue[Any] = asyncio.Queue()

server = BaseSocketServer(scope={}, receive=from_client.get, send=send, config=config)
server.start_listeners()
server.subscribe("weather")
server.broadcast("weather", "rain by the evening")
arrived.wait(10)
