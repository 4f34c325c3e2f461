"""socketify, which is uWebSockets: its ``publish`` of a text to a topic."""

import time
from typing import Any

from socketify import App, CompressOptions, OpCode

from benches.compare.others import ALL, BROADCAST
from benches.compare.others.arguments import parse
from benches.compare.server import text_of


def main() -> None:
    """Do what the command line asks for."""
    arguments = parse(__doc__)
    text = text_of(arguments.bytes)
    application = App()

    def join(client: Any) -> None:
        client.subscribe(ALL)

    def take(client: Any, word: Any, _kind: OpCode) -> None:
        if word == BROADCAST:
            application.publish(ALL, text, OpCode.TEXT, arguments.deflate)
        else:
            client.send(str(time.process_time_ns()), OpCode.TEXT)

    compression = CompressOptions.SHARED_COMPRESSOR if arguments.deflate else CompressOptions.DISABLED
    application.ws(f"/{ALL}", {"compression": compression, "open": join, "idle_timeout": 0})
    application.ws("/control", {"message": take, "idle_timeout": 0})
    application.listen({"port": arguments.port, "host": "127.0.0.1"})
    application.run()


if __name__ == "__main__":
    main()
