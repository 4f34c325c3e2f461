"""The socket of the counter."""

from typing import Any

from django.db.models import F

from headrace.django import join_user_sync
from headrace.sockets import BaseSocketServer

from .models import Counter


class CounterServer(BaseSocketServer):
    """Everybody who is logged in sees the counter, and may add one or take one away.

    The hooks are plain functions: they run in a thread, where the ORM may be used, for one frame after the other.
    """

    # A client that does not keep up misses earlier values, never the newest.
    overflow = "drop_old"

    def authorize(self) -> bool:
        # A sign-out closes the topic of the user, which this subscribes to.
        return join_user_sync(self) is not None

    def connect(self) -> None:
        # In this order no change is missed: one that is made in between comes twice, and the page knows the older one.
        self.subscribe("counter")
        self.send(Counter.state())

    def receive(self, data: Any) -> None:
        add = data.get("add") if isinstance(data, dict) and len(data) == 1 else None
        if type(add) is int and add in (1, -1):
            self.broadcast("counter", Counter.change(self.scope["user"].get_username(), F("value") + add))
        else:
            self.send({"error": 'expected {"add": 1} or {"add": -1}'})
