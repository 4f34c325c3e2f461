"""picows: its own write of a text to each client."""

import asyncio
import time
from typing import Any

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from benches.compare.others import ALL, BROADCAST
from benches.compare.others.arguments import parse
from benches.compare.server import text_of

CLIENTS: set[WSTransport] = set()


class Client(WSListener):
    """One who is sent the text."""

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Join."""
        CLIENTS.add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Leave."""
        CLIENTS.discard(transport)


class Control(WSListener):
    """One who says what is to be done."""

    def __init__(self, text: bytes) -> None:
        self._text = text

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Do it."""
        if frame.msg_type != WSMsgType.TEXT:
            return
        if frame.get_payload_as_ascii_text() != BROADCAST:
            transport.send(WSMsgType.TEXT, str(time.process_time_ns()).encode())
            return
        for client in CLIENTS:
            client.send(WSMsgType.TEXT, self._text)


async def serve(port: int, text: bytes) -> None:
    """Serve for ever."""

    def listener(request: WSUpgradeRequest) -> Any:
        return Client() if request.path == f"/{ALL}".encode() else Control(text)

    server = await ws_create_server(listener, "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    """Do what the command line asks for."""
    arguments = parse(__doc__)
    factory = uvloop.new_event_loop if arguments.loop == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(arguments.port, text_of(arguments.bytes).encode()))


if __name__ == "__main__":
    main()
