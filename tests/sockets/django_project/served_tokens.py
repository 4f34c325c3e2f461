"""A Django project whose sockets know their users by tokens of Django REST framework, by sessions, or by both.

``python served_tokens.py`` makes its database, and prints the tokens of its users as JSON.
"""

import json
import os
from typing import Any

import django
from channels.auth import AuthMiddlewareStack
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.management import call_command
from django.http import HttpRequest, HttpResponse
from django.urls import path as page

settings.configure(
    SECRET_KEY="of a project that keeps no secrets",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=[
        "channels",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "rest_framework",
        "rest_framework.authtoken",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["SERVED_DATABASE"]}},
    CHANNEL_LAYERS={"default": {"BACKEND": "headrace.layers.InMemoryChannelLayer"}},
    USE_TZ=True,
)
django.setup()

from channels.generic import websocket as channels_websocket  # noqa: E402  # after setup(), as in a project
from django.contrib.auth import get_user_model, login  # noqa: E402
from rest_framework.authtoken.models import Token  # noqa: E402

from headrace import (  # noqa: E402
    AsyncJsonWebsocketConsumer,
    JsonWebsocketConsumer,
    ProtocolTypeRouter,
    URLRouter,
    path,
)
from headrace.security.tokens import DRFTokenAuthMiddleware, TokenAuthMiddleware  # noqa: E402
from headrace.sockets import BaseSocketServer  # noqa: E402

USERS = {"ada": True, "grace": True, "gone": False}
"""Whether each is active."""


class AsyncWho:
    """Tells users their names, and refuses others."""

    async def connect(self: Any) -> None:
        if not self.scope["user"].is_authenticated:
            await self.close()
        else:
            await self.accept()
            await self.send_json(self.scope["user"].username)


class SyncWho:
    def connect(self: Any) -> None:
        if not self.scope["user"].is_authenticated:
            self.close()
        else:
            self.accept()
            self.send_json(self.scope["user"].username)


class AsyncServer(BaseSocketServer):
    async def authorize(self) -> bool:
        return bool(self.scope["user"].is_authenticated)

    async def connect(self) -> None:
        await self.async_send(self.scope["user"].username)


class SyncServer(BaseSocketServer):
    def authorize(self) -> bool:
        return bool(self.scope["user"].is_authenticated)

    def connect(self) -> None:
        self.send(self.scope["user"].username)


BASES = {
    "async": (AsyncWho, AsyncJsonWebsocketConsumer),
    "sync": (SyncWho, JsonWebsocketConsumer),
    "channels-async": (AsyncWho, channels_websocket.AsyncJsonWebsocketConsumer),
    "channels-sync": (SyncWho, channels_websocket.JsonWebsocketConsumer),
}
sockets: dict[str, Any] = {
    # The method is that of a consumer.
    **{kind: type("Who", bases, {}).as_asgi() for kind, bases in BASES.items()},  # type: ignore[attr-defined]
    "server-async": AsyncServer.as_asgi(),
    "server-sync": SyncServer.as_asgi(),
    # Without a call, as django_sockets has it.
    "server-uncalled": SyncServer.as_asgi,
}


class Guests(AsyncJsonWebsocketConsumer):
    """Lets everybody in."""

    async def connect(self) -> None:
        await self.accept()
        await self.send_json(str(self.scope["user"]))


class Broken(TokenAuthMiddleware):
    def get_user(self, token: str) -> Any:
        raise ConnectionError(f"no answer about {token}")


def log_in(request: HttpRequest, name: str) -> HttpResponse:
    login(request, get_user_model().objects.get(username=name))
    return HttpResponse()


urlpatterns = [page("log-in/<name>/", log_in)]

routes = URLRouter([path(f"{kind}/", socket) for kind, socket in {**sockets, "guests": Guests}.items()])
application = ProtocolTypeRouter(
    {
        "http": get_asgi_application(),
        "websocket": URLRouter(
            [
                path("tokens/", DRFTokenAuthMiddleware(routes)),
                path("both/", AuthMiddlewareStack(DRFTokenAuthMiddleware(routes))),
                path("broken/", Broken(routes)),
            ]
        ),
    }
)

if __name__ == "__main__":
    call_command("migrate", verbosity=0)
    users = [get_user_model().objects.create_user(name, is_active=active) for name, active in USERS.items()]
    print(json.dumps({user.username: Token.objects.create(user=user).key for user in users}))
