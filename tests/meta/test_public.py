"""What is public: these modules, and these names in each. Whatever else there is may change in any release."""

import importlib
import pkgutil
from pathlib import Path
from types import FunctionType

import pytest

import headrace

# Modules and their names, in the order of the alphabet. What is changed here is told in CHANGELOG.md.
PUBLIC = {
    "headrace": """
        AcceptConnection AsyncConsumer AsyncHttpConsumer AsyncJsonWebsocketConsumer AsyncWebsocketConsumer
        BaseChannelLayer BaseSocketServer Broadcaster BroadcasterStats ChannelEmpty ChannelFull
        ChannelNameRouter ChannelStats ConnectionClosed ConsumerStats DEFAULT_CHANNEL_LAYER DenyConnection
        ForeignChannel Gap GroupStats HeadraceError History ImproperlyConfigured InMemoryChannelLayer Inbox
        InvalidChannelLayerError InvalidMessage JsonWebsocketConsumer LayerClosed LayerError LayerStats
        LayerUnavailable LinkStats MessageTooLarge Presence ProtocolTypeRouter RedisChannelLayer RedisStats
        RequestAborted RequestTimeout SendReport SocketStats StopConsumer SyncConsumer URLRouter
        WebsocketConsumer __version__ async_to_sync channel_layers configure consumer_stats
        database_sync_to_async drain drain_on_sigterm encode_once get_channel_layer group_name include
        is_draining lifespan path re_path register_converter sync_to_async
    """,
    "headrace.consumer": """
        AsyncConsumer StopConsumer SyncConsumer aclose_old_connections async_to_sync await_many_dispatch
        consumer_stats database_sync_to_async get_handler_name sync_pool
    """,
    "headrace.db": """
        DatabaseSyncToAsync SyncToAsync aclose_old_connections database_sync_to_async sync_to_async
    """,
    "headrace.django": """
        join_user join_user_sync
    """,
    "headrace.exceptions": """
        AcceptConnection ChannelEmpty ChannelFull ConnectionClosed DenyConnection ForeignChannel HeadraceError
        ImproperlyConfigured InvalidChannelLayerError InvalidMessage LayerClosed LayerError LayerUnavailable
        MessageTooLarge RequestAborted RequestTimeout StopConsumer
    """,
    "headrace.generic": """
    """,
    "headrace.generic.http": """
        AsyncConsumer AsyncHttpConsumer StopConsumer aclose_old_connections
    """,
    "headrace.generic.websocket": """
        AcceptConnection AsyncConsumer AsyncJsonWebsocketConsumer AsyncWebsocketConsumer DenyConnection
        InvalidChannelLayerError JsonWebsocketConsumer StopConsumer SyncConsumer WebsocketConsumer
        aclose_old_connections async_to_sync encode_once
    """,
    "headrace.gunicorn": """
        UvicornWorker
    """,
    "headrace.layers": """
        BaseChannelLayer ChannelFull ChannelLayerManager DEFAULT_CHANNEL_LAYER InMemoryChannelLayer
        InvalidChannelLayerError RedisChannelLayer channel_layers configure get_channel_layer group_name lifespan
    """,
    "headrace.middleware": """
        BaseMiddleware
    """,
    "headrace.paths": """
        ImproperlyConfigured include path re_path register_converter
    """,
    "headrace.routing": """
        ChannelNameRouter ProtocolTypeRouter URLRouter get_default_application
    """,
    "headrace.security": """
    """,
    "headrace.security.tokens": """
        DRFTokenAuthMiddleware TokenAuthMiddleware
    """,
    "headrace.security.websocket": """
        AllowedHostsOriginValidator OriginValidator WebsocketDenier
    """,
    "headrace.sockets": """
        BaseSocketServer Broadcaster BroadcasterStats SocketStats
    """,
    "headrace.sync": """
        async_to_sync sync_to_async
    """,
    "headrace.testing": """
        ApplicationCommunicator ConnectWebsocket ConnectionRejected Fault Faults FaultyLayer HttpCommunicator
        ManualClock WebsocketCommunicator settle undo_drain
    """,
    "headrace.testing.application": """
        ApplicationCommunicator
    """,
    "headrace.testing.http": """
        HttpCommunicator
    """,
    "headrace.testing.websocket": """
        ConnectionRejected WebsocketCommunicator
    """,
    "headrace.typing": """
        AnyChannelLayer Application ChannelLayer Frames Message Receive Scope Send
    """,
    "headrace.utils": """
        await_many_dispatch name_that_thing
    """,
    "headrace.uvicorn": """
        WebSocketProtocol
    """,
    "headrace.worker": """
        Worker
    """,
}
# What Django, pytest and the interpreter load by these names; nobody imports from them.
LOADED_BY_NAME = {
    "headrace.__main__",
    "headrace.django.apps",
    "headrace.django.management",
    "headrace.django.management.commands",
    "headrace.django.management.commands.headrace_doctor",
    "headrace.django.management.commands.runworker",
}


def public_modules() -> set[str]:
    modules = pkgutil.walk_packages([str(Path(headrace.__file__).parent)], "headrace.", onerror=lambda _: None)
    names = {"headrace", *(module.name for module in modules)}
    return {name for name in names if not any(part.startswith("_") and part != "__main__" for part in name.split("."))}


def test_the_public_modules_are_those_of_the_list() -> None:
    assert public_modules() - LOADED_BY_NAME == set(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_the_public_names_of_a_module_are_those_of_the_list(name: str) -> None:
    assert sorted(importlib.import_module(name).__all__) == PUBLIC[name].split()


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_says_that_it_is_of_a_public_module(name: str) -> None:
    module = importlib.import_module(name)
    things = {exported: getattr(module, exported) for exported in module.__all__}
    homes = {exported: thing.__module__ for exported, thing in things.items() if isinstance(thing, type | FunctionType)}
    assert {exported: home for exported, home in homes.items() if home.startswith("headrace.") and "._" in home} == {}
