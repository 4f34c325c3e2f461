"""The ASGI application: HTTP to Django, sockets and the worker's tasks to channels' consumers."""

from channels.auth import AuthMiddlewareStack
from channels.routing import ChannelNameRouter, ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import path

django_application = get_asgi_application()

from chat import consumers  # noqa: E402  # as in every Django project: after Django is set up

application = ProtocolTypeRouter(
    {
        "http": django_application,
        "websocket": AuthMiddlewareStack(
            URLRouter(
                [
                    path("chat/<room>/<name>/", consumers.ChatConsumer.as_asgi()),
                    path("sync-chat/<room>/<name>/", consumers.SyncChatConsumer.as_asgi()),
                    path("lobby/", consumers.LobbyConsumer.as_asgi()),
                ]
            )
        ),
        "channel": ChannelNameRouter({"sums": consumers.SumConsumer.as_asgi()}),
    }
)
