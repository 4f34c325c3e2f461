"""Each example, started as its README says, talked to by a real websocket client."""

import asyncio
import http.cookiejar
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ("plain_asgi", "starlette_chat", "fastapi_chat", "django_channels", "django_headrace")
# They print, and end; tests/sockets runs them.
SCRIPTS = ("socket_server",)
DJANGO = ("django_channels", "django_headrace")
SWAPPED = "django_channels-on-channels"
SECONDS = 30

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
# The commands of this interpreter's environment come first.
ENVIRONMENT["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


@dataclass
class Example:
    """An example that is being served, and a browser's cookies for it."""

    name: str
    address: str
    cookies: http.cookiejar.CookieJar = field(default_factory=http.cookiejar.CookieJar)

    def request(self, path: str, body: bytes | None = None, kind: str = "text/plain") -> str:
        """GET, or POST a body; return what the answer holds."""
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.cookies))
        request = urllib.request.Request(f"http://{self.address}{path}", body, {"Content-Type": kind})
        with opener.open(request, timeout=SECONDS) as response:
            text: str = response.read().decode()
            return text

    def submit(self, path: str, **fields: str) -> str:
        """POST one of the forms of a Django project's page."""
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.request("/"))
        assert token is not None
        body = urllib.parse.urlencode({**fields, "csrfmiddlewaretoken": token[1]})
        return self.request(path, body.encode(), "application/x-www-form-urlencoded")

    def announce(self, text: str) -> None:
        """Say something to the lobby over HTTP, in each way that the example has."""
        if self.name == "plain_asgi":
            self.request("/rooms/lobby/", text.encode())
        elif self.name == "starlette_chat":
            self.request("/announce", text.encode())
        elif self.name == "fastapi_chat":
            for path in ("/announce", "/announce-from-thread"):
                self.request(path, json.dumps({"text": text}).encode(), "application/json")
        else:
            self.submit("/announce/", text=text)


def command(folder: Path) -> list[str]:
    """Return the command that the README of an example says to start it with."""
    blocks = re.findall(
        r"^In this folder:\n\n```console\n\$ (.*)\n```$", (folder / "README.md").read_text(), re.MULTILINE
    )
    assert len(blocks) == 1
    return shlex.split(blocks[0])


@contextmanager
def serve(folder: Path, log: Path) -> Iterator[str]:
    """Serve an example while the context lasts; give the host and the port, and check that it ends cleanly.

    The server inherits a socket that listens already: its port cannot be taken by another process,
    and a client that comes before the server is ready waits instead of being refused.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening, log.open("w") as output:
        host, port = listening.getsockname()
        process = subprocess.Popen(
            [*command(folder), "--fd", str(listening.fileno())],
            cwd=folder,
            env=ENVIRONMENT,
            pass_fds=[listening.fileno()],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield f"{host}:{port}"
    finally:
        process.terminate()
        code = process.wait(SECONDS)
    said = log.read_text()
    assert code in (0, -signal.SIGTERM), said
    assert "Finished server process" in said
    assert not re.search("error|exception|traceback|warning", said, re.IGNORECASE), said


@pytest.fixture(scope="module", params=[*NAMES, SWAPPED])
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    """Serve each example, and the Channels project also with its one setting changed back."""
    name = request.param
    temporary = tmp_path_factory.mktemp(name)
    folder = EXAMPLES / name
    if name == SWAPPED:
        folder = temporary / "project"
        shutil.copytree(EXAMPLES / "django_channels", folder, ignore=shutil.ignore_patterns("__pycache__"))
        settings = folder / "mysite" / "settings.py"
        ours = settings.read_text()
        assert ours.count('"headrace.layers.') == 1
        settings.write_text(ours.replace('"headrace.layers.', '"channels.layers.'))
    with serve(folder, temporary / "log") as address:
        yield Example(name, address)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Close what the test has opened."""
    async with AsyncExitStack() as stack:
        yield stack


async def join(stack: AsyncExitStack, example: Example, room: str) -> ClientConnection:
    """Connect to a room, as a page of the example would."""
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in example.cookies)
    client = connect(
        f"ws://{example.address}/ws/{room}/",
        origin=f"http://{example.address}",  # type: ignore[arg-type]  # a NewType of str
        additional_headers={"Cookie": cookies} if cookies else None,
        open_timeout=SECONDS,
    )
    return await stack.enter_async_context(client)


async def hear(client: ClientConnection) -> str:
    """Wait for the next message."""
    return str(await asyncio.wait_for(client.recv(), SECONDS))


async def test_two_clients_in_a_room_hear_each_other(stack: AsyncExitStack, example: Example) -> None:
    ada, bob, eve = [await join(stack, example, room) for room in ("lobby", "lobby", "garden")]
    name = "guest: " if "django" in example.name else ""
    for speaker, text in ((ada, "hello"), (bob, "hello yourself")):
        await speaker.send(text)
        assert [await hear(client) for client in (ada, bob)] == [name + text] * 2
    await eve.send("alone")
    assert await hear(eve) == f"{name}alone"


async def test_a_frame_that_is_not_text_disturbs_nobody(stack: AsyncExitStack, example: Example) -> None:
    ada, bob = [await join(stack, example, "lobby") for _ in range(2)]
    await ada.send(b"\x00")
    await ada.send("text")
    assert [(await hear(client)).endswith("text") for client in (ada, bob)] == [True, True]


async def test_an_announcement_over_http_reaches_the_sockets(stack: AsyncExitStack, example: Example) -> None:
    clients = [await join(stack, example, "lobby") for _ in range(2)]
    await asyncio.to_thread(example.announce, "tea is ready")
    ways = 2 if example.name == "fastapi_chat" else 1
    for client in clients:
        assert [await hear(client) for _ in range(ways)] == ["tea is ready"] * ways


@pytest.mark.parametrize("example", NAMES[1:], indirect=True)
async def test_the_page_is_served_and_knows_where_the_sockets_are(example: Example) -> None:
    page = await asyncio.to_thread(example.request, "/")
    assert '"/ws/lobby/"' in page
    assert "//" not in page.replace("<!doctype html>", ""), "it loads something from elsewhere"


@pytest.mark.parametrize("example", [*DJANGO, SWAPPED], indirect=True)
async def test_a_socket_knows_the_name_in_the_django_session(stack: AsyncExitStack, example: Example) -> None:
    visitor = Example(example.name, example.address)
    await asyncio.to_thread(visitor.submit, "/", name="Ada <3")
    ada = await join(stack, visitor, "lobby")
    await ada.send("hello")
    assert await hear(ada) == "Ada <3: hello"


@pytest.mark.parametrize("name", DJANGO)
def test_manage_check_finds_nothing(name: str) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "manage.py", "check", "--fail-level", "WARNING"],
        cwd=EXAMPLES / name,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "System check identified no issues (0 silenced).\n"


def test_the_readme_lists_every_example() -> None:
    folders = {path.parent.name for path in EXAMPLES.glob("*/README.md")}
    linked = re.findall(r"^\| \[(\w+)\]\(\1\) \|", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert set(linked) == folders == {*NAMES, *SCRIPTS}


@pytest.mark.parametrize("path", ["manage.py", "mysite/__init__.py", "mysite/urls.py", "mysite/templates/chat.html"])
def test_the_django_projects_differ_only_in_what_they_show(path: str) -> None:
    channels, headrace = [(EXAMPLES / name / path).read_text() for name in DJANGO]
    assert channels == headrace


def test_the_django_settings_differ_only_in_the_app_of_channels() -> None:
    channels, headrace = [(EXAMPLES / name / "mysite" / "settings.py").read_text() for name in DJANGO]
    assert channels.replace('    "channels",\n', "") == headrace


def test_starlette_and_fastapi_serve_the_same_page() -> None:
    pages = [(EXAMPLES / name / "chat.html").read_text() for name in ("starlette_chat", "fastapi_chat")]
    assert pages[0] == pages[1]
