"""What tests of real-time code need: communicators, time that moves when it is told to, and faults at will.

``ApplicationCommunicator``, ``HttpCommunicator`` and ``WebsocketCommunicator`` are those of Django Channels, without
Django and daphne. ``ChannelsLiveServerTestCase`` stays Channels' own: import it from ``channels.testing``.

The fixtures of ``headrace.testing.plugin`` are there in every pytest run; this package does not import pytest.
"""

from headrace._core import ManualClock
from headrace.testing.communicator import ApplicationCommunicator
from headrace.testing.faults import Fault, Faults, FaultyLayer
from headrace.testing.http import HttpCommunicator
from headrace.testing.loops import settle
from headrace.testing.websocket import ConnectionRejected, WebsocketCommunicator

__all__ = [
    "ApplicationCommunicator",
    "ConnectionRejected",
    "Fault",
    "Faults",
    "FaultyLayer",
    "HttpCommunicator",
    "ManualClock",
    "WebsocketCommunicator",
    "settle",
]
