"""headrace: a channel layer whose queues, groups and fan-out run in Rust."""

from importlib.metadata import version

from headrace._core import ChannelStats, GroupStats, Inbox, LayerStats, SendReport
from headrace.exceptions import ChannelEmpty, ChannelFull, InvalidMessage, LayerClosed
from headrace.layers import (
    BaseChannelLayer,
    InMemoryChannelLayer,
    channel_layers,
    configure,
    get_channel_layer,
)

__version__ = version("headrace")

__all__ = [
    "BaseChannelLayer",
    "ChannelEmpty",
    "ChannelFull",
    "ChannelStats",
    "GroupStats",
    "InMemoryChannelLayer",
    "Inbox",
    "InvalidMessage",
    "LayerClosed",
    "LayerStats",
    "SendReport",
    "__version__",
    "channel_layers",
    "configure",
    "get_channel_layer",
]
