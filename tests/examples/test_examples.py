"""Each example, started as its README says, talked to by a real websocket client."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest
from tests.support.examples import EXAMPLES, SECONDS, Example, copy, run, serve
from tests.support.groups import one_process_each
from websockets.asyncio.client import ClientConnection

CHATS = ("plain_asgi", "starlette_chat", "fastapi_chat", "django_channels", "django_headrace")
# Tested by test_django_counter.py; and what prints and ends, by tests/sockets.
OTHERS = ("django_counter", "socket_server")
DJANGO = ("django_channels", "django_headrace")
SWAPPED = "django_channels-on-channels"


@pytest.fixture(scope="module", params=one_process_each("example", [*CHATS, SWAPPED]))
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    """Serve each chat, and the Channels project also with its one setting changed back."""
    name = request.param
    temporary = tmp_path_factory.mktemp(name)
    folder = EXAMPLES / name
    if name == SWAPPED:
        folder = copy("django_channels", temporary / "project")
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
    return await stack.enter_async_context(example.socket(f"/ws/{room}/"))


async def hear(client: ClientConnection) -> str:
    """Wait for the next message."""
    return str(await asyncio.wait_for(client.recv(), SECONDS))


def announce(example: Example, text: str) -> None:
    """Say something to the lobby over HTTP, in each way that the example has."""
    if example.name == "plain_asgi":
        example.request("/rooms/lobby/", text.encode())
    elif example.name == "starlette_chat":
        example.request("/announce", text.encode())
    elif example.name == "fastapi_chat":
        for path in ("/announce", "/announce-from-thread"):
            example.request(path, json.dumps({"text": text}).encode(), "application/json")
    else:
        example.submit("/announce/", text=text)


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
    await asyncio.to_thread(announce, example, "tea is ready")
    ways = 2 if example.name == "fastapi_chat" else 1
    for client in clients:
        assert [await hear(client) for _ in range(ways)] == ["tea is ready"] * ways


@pytest.mark.parametrize("example", one_process_each("example", CHATS[1:]), indirect=True)
async def test_the_page_is_served_and_knows_where_the_sockets_are(example: Example) -> None:
    page = await asyncio.to_thread(example.request, "/")
    assert '"/ws/lobby/"' in page
    assert "//" not in page.replace("<!doctype html>", ""), "it loads something from elsewhere"


@pytest.mark.parametrize("example", one_process_each("example", [*DJANGO, SWAPPED]), indirect=True)
async def test_a_socket_knows_the_name_in_the_django_session(stack: AsyncExitStack, example: Example) -> None:
    visitor = Example(example.name, example.address)
    await asyncio.to_thread(visitor.submit, "/", name="Ada <3")
    ada = await join(stack, visitor, "lobby")
    await ada.send("hello")
    assert await hear(ada) == "Ada <3: hello"


@pytest.mark.parametrize("name", [*DJANGO, "django_counter"])
def test_manage_check_finds_nothing(name: str) -> None:
    command = (sys.executable, "-W", "error", "manage.py", "check", "--fail-level", "WARNING")
    result = run(EXAMPLES / name, *command)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("System check identified no issues (")


def test_the_readme_lists_every_example() -> None:
    folders = {path.parent.name for path in EXAMPLES.glob("*/README.md")}
    linked = re.findall(r"^\| \[(\w+)\]\(\1\) \|", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert set(linked) == folders == {*CHATS, *OTHERS}


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
