"""The socket server: subscribe to topics and broadcast to them, on any layer, with or without Django."""

from headrace.sockets.broadcaster import Broadcaster
from headrace.sockets.server import BaseSocketServer
from headrace.sockets.stats import BroadcasterStats, SocketStats

__all__ = ["BaseSocketServer", "Broadcaster", "BroadcasterStats", "SocketStats"]
