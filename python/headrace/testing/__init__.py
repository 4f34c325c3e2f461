"""What tests of real-time code need: communicators, time that moves when it is told to, and faults at will.

``ApplicationCommunicator``, ``HttpCommunicator`` and ``WebsocketCommunicator`` are those of Django Channels, without
Django and daphne. ``ChannelsLiveServerTestCase`` is Channels' own, imported when it is asked for, and needs both.

The fixtures of ``headrace.testing._plugin`` are there in every pytest run; this package does not import pytest.
"""

from importlib import import_module
from typing import Any

from headrace._core import ManualClock
from headrace._public import name_publicly as _name_publicly
from headrace.testing._drains import undo_drain
from headrace.testing._faults import Fault, Faults, FaultyLayer
from headrace.testing._loops import settle
from headrace.testing._types import ConnectWebsocket
from headrace.testing.application import ApplicationCommunicator
from headrace.testing.http import HttpCommunicator
from headrace.testing.websocket import ConnectionRejected, WebsocketCommunicator

__all__ = [
    "ApplicationCommunicator",
    "ConnectWebsocket",
    "ConnectionRejected",
    "Fault",
    "Faults",
    "FaultyLayer",
    "HttpCommunicator",
    "ManualClock",
    "WebsocketCommunicator",
    "settle",
    "undo_drain",
]

_name_publicly(globals())


def __getattr__(name: str) -> Any:
    """Pass on what stays Channels'."""
    if name == "ChannelsLiveServerTestCase":
        return import_module("channels.testing").ChannelsLiveServerTestCase
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
