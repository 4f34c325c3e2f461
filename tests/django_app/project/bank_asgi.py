"""The project's ASGI application: a consumer of Channels' for a worker."""

from typing import Any

import django

django.setup()

from channels.consumer import AsyncConsumer  # noqa: E402  # needs the settings
from channels.routing import ChannelNameRouter, ProtocolTypeRouter  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402


class Tellers(AsyncConsumer):  # type: ignore[misc]  # channels has no types
    """Counts the users, and says so on the standard output."""

    async def users_count(self, event: dict[str, Any]) -> None:
        print("users", event["n"], await User.objects.acount(), flush=True)


application = ProtocolTypeRouter({"channel": ChannelNameRouter({"tellers": Tellers.as_asgi()})})
