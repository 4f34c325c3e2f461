"""The scripts of examples/socket_server, and the two that django_sockets' README began with, print what they should."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.servers import Server

FOLDER = Path(__file__).parents[2] / "examples/socket_server"

# The scripts below sleep until something should have been printed, for which a busy machine needs longer: each sleep
# lasts until so many lines are there.
PATIENT = """
import builtins, time

def sleep(_, counts=iter({counts}), wait=time.sleep):
    count, end = next(counts), time.monotonic() + 40
    while len(printed) < count and time.monotonic() < end:
        wait(0.01)

def note(*words, show=print):
    show(*words, flush=True)
    printed.append(words)

printed = []
time.sleep, builtins.print = sleep, note
"""

# The calls of the two examples of django_sockets' README, from a script without a loop: which prints nothing but these.
SUBSCRIBING = """
import asyncio, sys, time
from headrace.sockets import BaseSocketServer

async def send(ws_data):
    print("WS SENDING:", ws_data)

frames = asyncio.Queue()
server = BaseSocketServer(scope={}, receive=frames.get, send=send, config=eval(sys.argv[1]))
server.start_listeners()
server.subscribe("test_channel")
server.broadcast("test_channel", "test message")
time.sleep(0.5)
"""
SUBSCRIBING_PRINTS = """\
WS SENDING: {'type': 'websocket.send', 'text': '"test message"'}
"""
HANDLING = """
import asyncio, sys, time
from headrace.sockets import BaseSocketServer

class Server(BaseSocketServer):
    def receive(self, data):
        print("WS RECEIVED: ", data)
        print(f"BROADCASTING TO '{self.scope['username']}'")
        self.broadcast(self.scope['username'], data)

    def connect(self):
        print("CONNECTED")
        print(f"SUSCRIBING TO '{self.scope['username']}'")
        self.subscribe(self.scope['username'])

async def send(data):
    print("WS SENDING:", str(data)[:64])

frames = asyncio.Queue()
server = Server(scope={'username':'adam'}, receive=frames.get, send=send, config=eval(sys.argv[1]))
server.start_listeners()
time.sleep(.1)
for frame in [
    {'type': 'websocket.connect'},
    {'type': 'websocket.receive', 'text': '{"data": "test"}'},
    {'type': 'websocket.disconnect'},
    {'type': 'websocket.receive', 'text': '{"data_after_close": "test"}'},
]:
    frames.put_nowait(frame)
    time.sleep(.1)
"""
HANDLING_PRINTS = """\
WS SENDING: {'type': 'websocket.accept'}
CONNECTED
SUSCRIBING TO 'adam'
WS RECEIVED:  {'data': 'test'}
BROADCASTING TO 'adam'
WS SENDING: {'type': 'websocket.send', 'text': '{"data": "test"}'}
"""
SEEDS = pytest.mark.parametrize(
    ("script", "prints"),
    [
        (PATIENT.format(counts=[1]) + SUBSCRIBING, SUBSCRIBING_PRINTS),
        (PATIENT.format(counts=[0, 3, 6, 6, 6]) + HANDLING, HANDLING_PRINTS),
    ],
    ids=["subscribe", "handle"],
)


def printed(*arguments: str) -> str:
    """Run Python, which must not complain, and return what it printed."""
    # Not -X dev: in debug mode asyncio logs steps that take long, as any may on a busy machine.
    command = [sys.executable, "-W", "error", *arguments]
    process = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (process.stderr, process.returncode) == ("", 0)
    return process.stdout


def shown(script: str) -> str:
    """Return what the README says that a script prints."""
    readme = (FOLDER / "README.md").read_text()
    found = re.search(rf"^\$ python {re.escape(script)}\n((?:(?!\$|```).*\n)+)", readme, re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("script", ["broadcast.py", "messages.py"])
def test_a_script_prints_what_its_readme_shows(script: str) -> None:
    assert printed(str(FOLDER / script)) == shown(script)


@pytest.mark.parametrize("script", ["broadcast.py", "messages.py"])
def test_a_script_prints_the_same_over_a_server(script: str, redis_server: Server) -> None:
    assert printed(str(FOLDER / script), redis_server.url) == shown(script)


@SEEDS
def test_what_django_sockets_began_with_prints_the_same_without_a_server(script: str, prints: str) -> None:
    assert printed("-c", script, "None") == prints


@SEEDS
def test_what_django_sockets_began_with_prints_the_same_over_a_server(
    script: str, prints: str, redis_server: Server
) -> None:
    assert printed("-c", script, str({"hosts": [{"address": redis_server.url}]})) == prints
