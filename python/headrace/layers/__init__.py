"""Channel layers, under the names that Django Channels gives them."""

from headrace.exceptions import ChannelFull, InvalidChannelLayerError
from headrace.layers.base import BaseChannelLayer
from headrace.layers.memory import InMemoryChannelLayer
from headrace.layers.redis import RedisChannelLayer
from headrace.layers.registry import (
    DEFAULT_CHANNEL_LAYER,
    ChannelLayerManager,
    channel_layers,
    configure,
    get_channel_layer,
)

# The exceptions because Channels' module has them, and projects import them from there.
__all__ = [
    "DEFAULT_CHANNEL_LAYER",
    "BaseChannelLayer",
    "ChannelFull",
    "ChannelLayerManager",
    "InMemoryChannelLayer",
    "InvalidChannelLayerError",
    "RedisChannelLayer",
    "channel_layers",
    "configure",
    "get_channel_layer",
]
