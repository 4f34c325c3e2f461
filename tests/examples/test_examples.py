"""Each example, started as its README says, talked to by a real websocket client."""

import ast
import asyncio
import json
import re
import shlex
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.support.examples import EXAMPLES, SECONDS, Example, copy, run, serve
from tests.support.groups import one_process_each
from websockets.asyncio.client import ClientConnection

CHATS = ("plain_asgi", "starlette_chat", "fastapi_chat", "django_channels", "django_headrace")
# Tested by test_django_counter.py; and what prints and ends, by tests/sockets.
OTHERS = ("django_counter", "socket_server")
DJANGO = ("django_channels", "django_headrace")
WITH_HISTORY = ("starlette_chat", "fastapi_chat", "django_headrace")
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


async def hear(client: ClientConnection) -> tuple[str | None, str]:
    """Wait for the next message; return who said what. The chat without a page has neither names nor JSON."""
    heard = await asyncio.wait_for(client.recv(), SECONDS)
    assert isinstance(heard, str)
    if not heard.startswith("{"):
        return None, heard
    said = json.loads(heard)
    if "text" not in said:  # where the page is
        return await hear(client)
    return said.get("name"), said["text"]


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
    ada, bob, eve = [await join(stack, example, room) for room in ("hall", "hall", "garden")]
    name = None if example.name == "plain_asgi" else "guest"
    for speaker, text in ((ada, "hello"), (bob, "hello yourself")):
        await speaker.send(text)
        assert [await hear(client) for client in (ada, bob)] == [(name, text)] * 2
    await eve.send("alone")
    assert await hear(eve) == (name, "alone")


async def test_a_frame_that_is_not_text_disturbs_nobody(stack: AsyncExitStack, example: Example) -> None:
    ada, bob = [await join(stack, example, "cellar") for _ in range(2)]
    await ada.send(b"\x00")
    await ada.send("text")
    assert [(await hear(client))[1] for client in (ada, bob)] == ["text", "text"]


async def test_an_announcement_over_http_reaches_the_sockets(stack: AsyncExitStack, example: Example) -> None:
    clients = [await join(stack, example, "lobby") for _ in range(2)]
    await asyncio.to_thread(announce, example, "tea is ready")
    ways = 2 if example.name == "fastapi_chat" else 1
    for client in clients:
        assert [await hear(client) for _ in range(ways)] == [(None, "tea is ready")] * ways


@pytest.mark.parametrize("example", one_process_each("example", CHATS[1:]), indirect=True)
async def test_the_page_is_served_and_knows_where_the_sockets_are(example: Example) -> None:
    if "django" in example.name:
        # Its page asks for a name first.
        await asyncio.to_thread(example.submit, "/", name="Ada")
    page = await asyncio.to_thread(example.request, "/")
    assert '"/ws/lobby/"' in page
    assert re.findall(r"""(?:src|href)=(?!"data:)|@import|url\(""", page) == [], "it loads something from elsewhere"


@pytest.mark.parametrize("example", one_process_each("example", [*DJANGO, SWAPPED]), indirect=True)
async def test_a_socket_knows_the_name_in_the_django_session(stack: AsyncExitStack, example: Example) -> None:
    visitor = Example(example.name, example.address)
    assert 'id="say"' not in await asyncio.to_thread(visitor.request, "/")
    await asyncio.to_thread(visitor.submit, "/", name="Ada <3")
    ada = await join(stack, visitor, "porch")
    await ada.send("hello")
    assert await hear(ada) == ("Ada <3", "hello")


@pytest.mark.parametrize("example", one_process_each("example", ["starlette_chat", "fastapi_chat"]), indirect=True)
async def test_a_socket_has_the_name_in_its_url(stack: AsyncExitStack, example: Example) -> None:
    ada = await stack.enter_async_context(example.socket("/ws/porch/?name=Ada+%3C3"))
    await ada.send("hello")
    assert await hear(ada) == ("Ada <3", "hello")


@pytest.mark.parametrize("example", one_process_each("example", WITH_HISTORY), indirect=True)
async def test_whoever_joins_gets_the_last_fifty_messages(stack: AsyncExitStack, example: Example) -> None:
    # Not in the session of another test, which may have given its name.
    example = Example(example.name, example.address)
    ada = await join(stack, example, "attic")
    for number in range(55):
        await ada.send(str(number))
        assert await hear(ada) == ("guest", str(number))
    bob = await join(stack, example, "attic")
    assert [await hear(bob) for _ in range(50)] == [("guest", str(number)) for number in range(5, 55)]
    await ada.send("hello")
    assert await hear(bob) == ("guest", "hello")


@pytest.mark.parametrize("example", one_process_each("example", WITH_HISTORY), indirect=True)
async def test_a_page_that_comes_again_gets_what_it_has_missed(stack: AsyncExitStack, example: Example) -> None:
    example = Example(example.name, example.address)
    ada = await join(stack, example, "well")
    async with example.socket("/ws/well/") as bob:
        await ada.send("one")
        heard = [json.loads(await asyncio.wait_for(bob.recv(), SECONDS)) for _ in range(2)]
        assert [said.get("text") for said in heard] == [None, "one"]
    for text in "two", "three":
        await ada.send(text)
    assert [await hear(ada) for _ in range(3)] == [("guest", text) for text in ("one", "two", "three")]
    for said, missed in zip(heard, (["one", "two", "three"], ["two", "three"]), strict=True):
        async with example.socket(f"/ws/well/?resume={said['at']}") as bob:
            assert [await hear(bob) for _ in missed] == [("guest", text) for text in missed]
    eve = await stack.enter_async_context(example.socket("/ws/well/?resume=no-position"))
    assert json.loads(await asyncio.wait_for(eve.recv(), SECONDS)) == {"at": None}
    assert json.loads(await asyncio.wait_for(eve.recv(), SECONDS)) == {"anew": True}
    assert [await hear(eve) for _ in range(3)] == [("guest", text) for text in ("one", "two", "three")]


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


def test_the_readme_installs_all_that_the_examples_import_and_run() -> None:
    readme = (EXAMPLES / "README.md").read_text()
    (installed,) = re.findall(r"^\$ pip install (.*)$", readme, re.MULTILINE)
    has = closure(shlex.split(installed.replace(".[", "headrace[")))
    modules = {
        name.partition(".")[0]
        for file in EXAMPLES.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        for name in imported(node)
    }
    own = {path.stem for path in EXAMPLES.rglob("*")}
    owners = metadata.packages_distributions()
    needed = {module: owners.get(module, []) for module in modules - sys.stdlib_module_names - own - {"headrace"}}
    assert {"django", "fastapi", "starlette", "channels"} <= needed.keys()
    assert {
        module for module, names in needed.items() if not has & {canonicalize_name(name) for name in names}
    } == set()

    pages = "".join(path.read_text() for path in EXAMPLES.glob("*/README.md"))
    programs = set(re.findall(r"^\$ (\w+)", pages, re.MULTILINE)) - {"python", "curl", "diff"}
    assert "uvicorn" in programs
    scripts = metadata.entry_points(group="console_scripts")
    assert {
        name for name in programs if not has & {owner(script) for script in scripts if script.name == name}
    } == set()


def owner(script: metadata.EntryPoint) -> str:
    """Return the name of the distribution that a program comes with."""
    return canonicalize_name(script.dist.name) if script.dist is not None else ""


def closure(requirements: list[str]) -> set[str]:
    """Return the names of all distributions that pip would install for these, going by what is installed here."""
    found: set[str] = set()
    todo = [Requirement(text) for text in requirements]
    seen: set[str] = set()
    while todo:
        requirement = todo.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        found.add(canonicalize_name(requirement.name))
        for line in metadata.requires(requirement.name) or ():
            further = Requirement(line)
            extras = requirement.extras or {""}
            if further.marker is None or any(further.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(further)
    return found


def imported(node: ast.AST) -> list[str]:
    """Return the modules that a statement imports by absolute names."""
    if isinstance(node, ast.Import):
        return [name.name for name in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []


@pytest.mark.parametrize("path", ["manage.py", "mysite/__init__.py", "mysite/urls.py", "mysite/templates/chat.html"])
def test_the_django_projects_differ_only_in_what_they_show(path: str) -> None:
    channels, headrace = [(EXAMPLES / name / path).read_text() for name in DJANGO]
    assert channels == headrace


def test_the_django_settings_differ_only_in_the_app_of_channels_and_the_history() -> None:
    channels, headrace = [(EXAMPLES / name / "mysite" / "settings.py").read_text() for name in DJANGO]
    plain = re.sub(r"# The last messages.*\n.*\n", "", headrace).replace(', "CONFIG": {"history": HISTORY}', "")
    assert channels.replace('    "channels",\n', "") == plain


def test_starlette_and_fastapi_serve_the_same_page() -> None:
    pages = [(EXAMPLES / name / "chat.html").read_text() for name in ("starlette_chat", "fastapi_chat")]
    assert pages[0] == pages[1]


def test_the_pages_of_the_chats_have_one_style_and_one_way_to_connect() -> None:
    """Each is one file, so that each example can be taken by itself."""
    pages = [
        (EXAMPLES / name).read_text()
        for name in ("starlette_chat/chat.html", "django_headrace/mysite/templates/chat.html")
    ]
    assert len({re.sub(r"(?s).*<style>|</style>.*", "", page) for page in pages}) == 1
    assert len({re.sub(r"(?s).*function wait\(\)|\$\(\"say\"\).*", "", page) for page in pages}) == 1
