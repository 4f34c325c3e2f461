"""The socket server: subscribe to topics and broadcast to them, on any layer, with or without Django."""

from headrace._public import name_publicly as _name_publicly
from headrace._sockets.broadcaster import Broadcaster
from headrace._sockets.server import BaseSocketServer
from headrace._sockets.stats import BroadcasterStats, SocketStats

__all__ = ["BaseSocketServer", "Broadcaster", "BroadcasterStats", "SocketStats"]

_name_publicly(globals())
