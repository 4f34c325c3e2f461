"""A channel layer for real-time Python, and what WebSocket applications need on top of it.

A channel layer carries messages between the connections of an application: a consumer sends to a group, and every
member of that group gets the message, in this process or, over Redis or Valkey, in all. Queues, groups and fan-out run
in Rust; the API is that of Django Channels, with or without Django.

- ``InMemoryChannelLayer`` and ``RedisChannelLayer``, which ``get_channel_layer()`` gives by their settings.
- ``AsyncWebsocketConsumer``, its kin for JSON, threads and HTTP, and routers: ``path``, ``URLRouter``.
- ``BaseSocketServer`` and ``Broadcaster``, to subscribe to topics and to broadcast.

README.md and the pages in docs/ say how to begin; ``headrace demo`` serves an example.
"""

from importlib.metadata import version

from headrace._core import ChannelStats, GroupStats, Inbox, LayerStats, LinkStats, SendReport
from headrace._dispatch import ConsumerStats
from headrace._drain import drain, drain_on_sigterm, is_draining
from headrace._layers.histories import History
from headrace._layers.presences import Presence
from headrace._layers.redis import Gap, RedisStats
from headrace._public import name_publicly as _name_publicly
from headrace.consumer import AsyncConsumer, SyncConsumer, consumer_stats
from headrace.db import database_sync_to_async
from headrace.exceptions import (
    AcceptConnection,
    ChannelEmpty,
    ChannelFull,
    ConnectionClosed,
    DenyConnection,
    ForeignChannel,
    HeadraceError,
    ImproperlyConfigured,
    InvalidChannelLayerError,
    InvalidMessage,
    LayerClosed,
    LayerError,
    LayerUnavailable,
    MessageTooLarge,
    RequestAborted,
    RequestTimeout,
    StopConsumer,
)
from headrace.generic.http import AsyncHttpConsumer
from headrace.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
    encode_once,
)
from headrace.layers import (
    DEFAULT_CHANNEL_LAYER,
    BaseChannelLayer,
    InMemoryChannelLayer,
    RedisChannelLayer,
    channel_layers,
    configure,
    get_channel_layer,
    group_name,
    lifespan,
)
from headrace.paths import include, path, re_path, register_converter
from headrace.routing import ChannelNameRouter, ProtocolTypeRouter, URLRouter
from headrace.sockets import BaseSocketServer, Broadcaster, BroadcasterStats, SocketStats
from headrace.sync import async_to_sync, sync_to_async

__version__ = version("headrace")

__all__ = [
    "DEFAULT_CHANNEL_LAYER",
    "AcceptConnection",
    "AsyncConsumer",
    "AsyncHttpConsumer",
    "AsyncJsonWebsocketConsumer",
    "AsyncWebsocketConsumer",
    "BaseChannelLayer",
    "BaseSocketServer",
    "Broadcaster",
    "BroadcasterStats",
    "ChannelEmpty",
    "ChannelFull",
    "ChannelNameRouter",
    "ChannelStats",
    "ConnectionClosed",
    "ConsumerStats",
    "DenyConnection",
    "ForeignChannel",
    "Gap",
    "GroupStats",
    "HeadraceError",
    "History",
    "ImproperlyConfigured",
    "InMemoryChannelLayer",
    "Inbox",
    "InvalidChannelLayerError",
    "InvalidMessage",
    "JsonWebsocketConsumer",
    "LayerClosed",
    "LayerError",
    "LayerStats",
    "LayerUnavailable",
    "LinkStats",
    "MessageTooLarge",
    "Presence",
    "ProtocolTypeRouter",
    "RedisChannelLayer",
    "RedisStats",
    "RequestAborted",
    "RequestTimeout",
    "SendReport",
    "SocketStats",
    "StopConsumer",
    "SyncConsumer",
    "URLRouter",
    "WebsocketConsumer",
    "__version__",
    "async_to_sync",
    "channel_layers",
    "configure",
    "consumer_stats",
    "database_sync_to_async",
    "drain",
    "drain_on_sigterm",
    "encode_once",
    "get_channel_layer",
    "group_name",
    "include",
    "is_draining",
    "lifespan",
    "path",
    "re_path",
    "register_converter",
    "sync_to_async",
]

_name_publicly(globals())
