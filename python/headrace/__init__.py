"""headrace: a channel layer whose queues, groups and fan-out run in Rust."""

from importlib.metadata import version

from headrace.exceptions import ChannelEmpty, ChannelFull, LayerClosed
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
    "InMemoryChannelLayer",
    "LayerClosed",
    "__version__",
    "channel_layers",
    "configure",
    "get_channel_layer",
]
