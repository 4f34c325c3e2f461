"""A layer that gets its messages from another process: one a line, as JSON, on the standard input."""

import json
import sys
import threading

from headrace import InMemoryChannelLayer


class StdinLayer(InMemoryChannelLayer):
    """Sends each line to the channel "tellers"."""

    def __init__(self) -> None:
        super().__init__()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            self.send_sync("tellers", json.loads(line))
