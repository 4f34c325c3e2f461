"""Channel layers, under the names that Django Channels gives them."""

from headrace._layers.base import BaseChannelLayer
from headrace._layers.group_names import group_name
from headrace._layers.lifespan import lifespan
from headrace._layers.memory import InMemoryChannelLayer
from headrace._layers.redis import RedisChannelLayer
from headrace._layers.registry import (
    DEFAULT_CHANNEL_LAYER,
    ChannelLayerManager,
    channel_layers,
    configure,
    get_channel_layer,
)
from headrace._public import name_publicly as _name_publicly
from headrace.exceptions import ChannelFull, InvalidChannelLayerError

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
    "group_name",
    "lifespan",
]

_name_publicly(globals())
