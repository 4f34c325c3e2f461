"""Django views that send to a chat room."""

import threading

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.http import HttpRequest, HttpResponse


def broadcast(room: str, text: str) -> None:
    """Send from synchronous code."""
    layer = get_channel_layer()
    async_to_sync(layer.group_send)(room, {"type": "chat.message", "text": text})


def from_view(request: HttpRequest, room: str) -> HttpResponse:
    """Send from the thread that Django runs its views in."""
    broadcast(room, request.GET["text"])
    return HttpResponse(status=204)


def from_thread(request: HttpRequest, room: str) -> HttpResponse:
    """Send from a thread that asgiref knows nothing of."""
    thread = threading.Thread(target=broadcast, args=(room, request.GET["text"]))
    thread.start()
    thread.join()
    return HttpResponse(status=204)
