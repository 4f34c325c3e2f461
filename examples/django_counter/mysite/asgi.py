"""The project's ASGI application: HTTP goes to Django, sockets go to the socket server."""

import os

from channels.auth import AuthMiddlewareStack
from django.core.asgi import get_asgi_application

from headrace import ProtocolTypeRouter, URLRouter, path
from headrace.security.websocket import AllowedHostsOriginValidator

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
django_application = get_asgi_application()

from .sockets import CounterServer  # noqa: E402  # once Django is set up

websockets = URLRouter([path("ws/counter/", CounterServer.as_asgi())])
application = ProtocolTypeRouter(
    {
        "http": django_application,
        "websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(websockets)),
    }
)
