"""A Django project whose sockets are headrace's consumers behind Channels' sessions and authentication.

``python served_django.py`` makes its database, with one user in it.
"""

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
    INSTALLED_APPS=["channels", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["SERVED_DATABASE"]}},
    CHANNEL_LAYERS={"default": {"BACKEND": "headrace.layers.InMemoryChannelLayer"}},
    USE_TZ=True,
)
django.setup()

from django.contrib.auth import get_user_model, login  # noqa: E402  # models can be imported after setup()

from headrace import (  # noqa: E402
    AsyncJsonWebsocketConsumer,
    JsonWebsocketConsumer,
    ProtocolTypeRouter,
    URLRouter,
    database_sync_to_async,
    path,
)


@database_sync_to_async
def count_users() -> int:
    count: int = get_user_model().objects.count()
    return count


class WhoAmI(AsyncJsonWebsocketConsumer):
    async def connect(self) -> None:
        await self.accept()
        await self.send_json({"user": str(self.scope["user"]), "users": await count_users()})

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        await database_sync_to_async(self.scope["session"].__setitem__)("said", content)
        await self.send_json({"in the session": await database_sync_to_async(self.scope["session"].get)("said")})


class SyncWhoAmI(JsonWebsocketConsumer):
    def connect(self) -> None:
        self.accept()
        self.send_json({"user": str(self.scope["user"]), "users": get_user_model().objects.count()})


def log_in(request: HttpRequest) -> HttpResponse:
    login(request, get_user_model().objects.get(username="ada"))
    return HttpResponse()


urlpatterns = [page("log-in/", log_in)]

application = ProtocolTypeRouter(
    {
        "http": get_asgi_application(),
        "websocket": AuthMiddlewareStack(
            URLRouter([path("who/", WhoAmI.as_asgi()), path("sync-who/", SyncWhoAmI.as_asgi())])
        ),
    }
)

if __name__ == "__main__":
    call_command("migrate", verbosity=0)
    get_user_model().objects.create_user("ada")
