"""WebSockets for uvicorn that cost less where the same text goes to many: see docs/how-to/faster-broadcasts.md."""

from headrace._frames.uvicorn import WebSocketProtocol
from headrace._public import name_publicly as _name_publicly

__all__ = ["WebSocketProtocol"]

_name_publicly(globals())
