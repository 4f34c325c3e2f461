"""Channel layers, under the names that Django Channels gives them."""

from headrace.layers.base import BaseChannelLayer
from headrace.layers.memory import InMemoryChannelLayer
from headrace.layers.redis import RedisChannelLayer
from headrace.layers.registry import (
    ChannelLayerManager,
    channel_layers,
    configure,
    get_channel_layer,
)

__all__ = [
    "BaseChannelLayer",
    "ChannelLayerManager",
    "InMemoryChannelLayer",
    "RedisChannelLayer",
    "channel_layers",
    "configure",
    "get_channel_layer",
]
