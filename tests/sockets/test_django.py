"""Socket servers among Django's own paths, and routers of either package."""

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, sys
from django.conf import settings
settings.configure(**{"USE_TZ": True})
import django
django.setup()
from importlib import import_module
from headrace.sockets import BaseSocketServer
routing, paths, form = sys.argv[1:]

class Echo(BaseSocketServer):
    def receive(self, data):
        self.send([self.scope["url_route"]["kwargs"], data])

view = {"called": Echo.as_asgi(), "uncalled": Echo.as_asgi, "class": Echo}[form]
routing = import_module(routing)
route = import_module(paths).path("ws/<int:room>/", view)
application = routing.ProtocolTypeRouter({"websocket": routing.URLRouter([route])})

async def main():
    incoming, sent = asyncio.Queue(), []
    async def send(message):
        sent.append(message)
    incoming.put_nowait({"type": "websocket.connect"})
    incoming.put_nowait({"type": "websocket.receive", "text": '"hello"'})
    incoming.put_nowait({"type": "websocket.disconnect", "code": 1000})
    await application({"type": "websocket", "path": "/ws/7/"}, incoming.get, send)
    print(sent)

asyncio.run(main())
"""
PRINTED = """\
[{'type': 'websocket.accept'}, {'type': 'websocket.send', 'text': '[{"room": 7}, "hello"]'}]
"""


@pytest.mark.parametrize("routing", ["headrace.routing", "channels.routing"])
@pytest.mark.parametrize("paths", ["headrace", "django.urls"])
@pytest.mark.parametrize("form", ["called", "uncalled", "class"])
def test_a_server_is_routed_to(routing: str, paths: str, form: str) -> None:
    if form == "class" and (routing, paths) != ("headrace.routing", "headrace"):
        pytest.skip("only headrace's own routes take a class")
    if (routing, paths) == ("channels.routing", "headrace"):
        pytest.skip("Channels' routers take Django's routes alone")
    command = [sys.executable, "-W", "error", "-c", PROGRAM, routing, paths, form]
    process = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (process.stdout, process.stderr) == (PRINTED, "")
