"""Handle what a client sends, in a script that plays the client.

python messages.py                         needs no server
python messages.py redis://localhost:6379  goes through one
"""

import asyncio
import sys
import threading
from typing import Any

from headrace.sockets import BaseSocketServer

config = {"hosts": [{"address": sys.argv[1]}]} if len(sys.argv) > 1 else None
left = threading.Event()
shown = threading.Event()


class Echo(BaseSocketServer):
    """Sends what a user says to all the sockets of that user."""

    def connect(self) -> None:
        """Subscribe to the user's topic, now that the connection is accepted."""
        print("connected:", self.scope["username"])
        self.subscribe(self.scope["username"])

    def receive(self, data: Any) -> None:
        """Broadcast what the client has sent; it is decoded already."""
        print("from the client:", data)
        self.broadcast(self.scope["username"], data)

    def disconnect(self, code: int = 1000) -> None:
        """Tell that the client has gone."""
        print("gone:", code)
        left.set()


async def send(message: Any) -> None:
    """Show what would go to a browser."""
    print("to the client:", message)
    if message["type"] == "websocket.send":
        shown.set()


from_client: asyncio.Queue[Any] = asyncio.Queue()
server = Echo(scope={"username": "ada"}, receive=from_client.get, send=send, config=config)
server.start_listeners()

from_client.put_nowait({"type": "websocket.connect"})
from_client.put_nowait({"type": "websocket.receive", "text": '{"weather": "fair"}'})
shown.wait(10)
from_client.put_nowait({"type": "websocket.disconnect", "code": 1001})
# Too late: nobody listens any more.
from_client.put_nowait({"type": "websocket.receive", "text": '{"weather": "storm"}'})
left.wait(10)
