"""The shared counter: real logins over HTTP, real websocket clients."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from functools import cache
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from tests.support.examples import EXAMPLES, SECONDS, Example, copy, run, serve, set_up
from tests.support.servers import Server
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus

NAME = "django_counter"
PASSWORD = "for-development-only"
SOCKET = "/ws/counter/"
HOSTS = '# DJANGO_SOCKETS_CONFIG = {"hosts": [{"address": "redis://localhost:6379"}]}'
EXPECTED = 'expected {"add": 1} or {"add": -1}'
UNDECODED = "the message could not be decoded"

# One project that is served, and one database.
pytestmark = pytest.mark.xdist_group(NAME)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with a database."""
    folder = copy(NAME, tmp_path_factory.mktemp(NAME) / "project")
    set_up(folder)
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with serve(folder, folder / "log", expected="got a frame that its ws_decoder does not take") as address:
        yield address


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Close what the test has opened."""
    async with AsyncExitStack() as stack:
        yield stack


def log_in(address: str, user: str) -> Example:
    """Log in as a user, and return the cookies."""
    visitor = Example(NAME, address)
    assert f"<bdi>{user}</bdi>" in visitor.submit("/login/", username=user, password=PASSWORD)
    return visitor


@cache
def logged_in(address: str, user: str) -> Example:
    """Give the cookies of who has logged in once: a check of the password takes longer than the rest of a test."""
    return log_in(address, user)


class Client:
    """A socket of somebody who is logged in."""

    def __init__(self, visitor: Example, socket: ClientConnection, state: dict[str, Any]) -> None:
        self.visitor = visitor
        self.socket = socket
        self.state = state
        """What the socket was told when it connected."""

    async def add(self, step: int) -> None:
        await self.socket.send(json.dumps({"add": step}))

    async def hear(self) -> dict[str, Any]:
        """Wait for the next message."""
        heard: dict[str, Any] = json.loads(await asyncio.wait_for(self.socket.recv(), SECONDS))
        return heard


async def join(stack: AsyncExitStack, address: str, user: str) -> Client:
    """Connect as who has logged in, and hear the value."""
    visitor = await asyncio.to_thread(logged_in, address, user)
    socket = await stack.enter_async_context(visitor.socket(SOCKET))
    client = Client(visitor, socket, {})
    client.state = await client.hear()
    return client


async def refusal(visitor: Example, origin: str | None = None) -> int:
    """Try to connect; return the HTTP status of the handshake."""
    with pytest.raises(InvalidStatus) as refused:
        await visitor.socket(SOCKET, origin)
    return refused.value.response.status_code


async def test_who_is_not_logged_in_is_refused_at_the_handshake(address: str) -> None:
    assert await refusal(Example(NAME, address)) == 401


async def test_who_has_logged_out_is_refused_at_the_handshake(address: str) -> None:
    visitor = await asyncio.to_thread(log_in, address, "ada")
    assert "Log in" in await asyncio.to_thread(visitor.submit, "/logout/")
    assert await refusal(visitor) == 401


async def test_who_logs_out_in_one_window_is_closed_in_the_others(stack: AsyncExitStack, address: str) -> None:
    visitor = await asyncio.to_thread(log_in, address, "ada")
    socket = await stack.enter_async_context(visitor.socket(SOCKET))
    await asyncio.wait_for(socket.recv(), SECONDS)
    await asyncio.to_thread(visitor.submit, "/logout/")
    await asyncio.wait_for(socket.wait_closed(), SECONDS)
    assert (socket.close_code, socket.close_reason) == (4401, "signed out")


async def test_a_page_from_elsewhere_is_refused_whoever_is_logged_in(address: str) -> None:
    visitor = await asyncio.to_thread(logged_in, address, "ada")
    assert await refusal(visitor, "http://elsewhere.example") == 403


async def test_a_wrong_password_is_answered_with_what_is_wrong(address: str) -> None:
    visitor = Example(NAME, address)
    page = await asyncio.to_thread(visitor.submit, "/login/", username="ada", password="wrong")
    assert 'role="alert"' in page
    assert "Please enter a correct username and password" in page
    assert await refusal(visitor) == 401


async def test_both_see_every_change_in_order(stack: AsyncExitStack, address: str) -> None:
    ada, grace = await join(stack, address, "ada"), await join(stack, address, "grace")
    assert ada.state == grace.state
    value, changes = ada.state["value"], ada.state["changes"]
    for user, client, step in (("ada", ada, 1), ("grace", grace, 1), ("grace", grace, -1), ("ada", ada, 1)):
        await client.add(step)
        value, changes = value + step, changes + 1
        expected = {"value": value, "by": user, "changes": changes}
        assert [await client.hear() for client in (ada, grace)] == [expected] * 2
    # Of one socket, one frame after the other, also when nobody waits for the answer.
    for _ in range(20):
        await ada.add(1)
    for client in (ada, grace):
        heard = [await client.hear() for _ in range(20)]
        assert [state["value"] for state in heard] == list(range(value + 1, value + 21))
    late = await join(stack, address, "grace")
    assert late.state == {"value": value + 20, "by": "ada", "changes": changes + 20}


@pytest.mark.parametrize(
    ("frame", "answer"),
    [
        ("no JSON", UNDECODED),
        (b"\xff", UNDECODED),
        ("", UNDECODED),
        ("null", EXPECTED),
        ("1", EXPECTED),
        ("[1]", EXPECTED),
        ("{}", EXPECTED),
        ('{"add": 2}', EXPECTED),
        ('{"add": 1.0}', EXPECTED),
        ('{"add": true}', EXPECTED),
        ('{"add": "1"}', EXPECTED),
        ('{"add": [1]}', EXPECTED),
        ('{"add": 1, "by": "grace"}', EXPECTED),
    ],
)
async def test_a_bad_frame_is_answered_to_its_sender_and_the_socket_stays(
    stack: AsyncExitStack, address: str, frame: str | bytes, answer: str
) -> None:
    ada, grace = await join(stack, address, "ada"), await join(stack, address, "grace")
    await ada.socket.send(frame)
    assert await ada.hear() == {"error": answer}
    await ada.add(1)
    expected = {"value": ada.state["value"] + 1, "by": "ada", "changes": ada.state["changes"] + 1}
    assert [await client.hear() for client in (ada, grace)] == [expected] * 2


async def test_a_reset_by_staff_reaches_both(stack: AsyncExitStack, address: str) -> None:
    ada, grace = await join(stack, address, "ada"), await join(stack, address, "grace")
    await asyncio.to_thread(grace.visitor.submit, "/reset/")
    expected = {"value": 0, "by": "grace", "changes": ada.state["changes"] + 1}
    assert [await client.hear() for client in (ada, grace)] == [expected] * 2


async def test_a_reset_by_others_is_refused_and_changes_nothing(stack: AsyncExitStack, address: str) -> None:
    ada = await join(stack, address, "ada")
    for visitor in (ada.visitor, Example(NAME, address)):
        with pytest.raises(HTTPError) as refused:
            await asyncio.to_thread(visitor.submit, "/reset/")
        refused.value.close()
        assert refused.value.code == 403
    assert (await join(stack, address, "ada")).state == ada.state


async def test_changes_at_the_same_time_end_at_the_exact_sum(stack: AsyncExitStack, address: str) -> None:
    clients = [await join(stack, address, user) for user in ("ada", "grace")]
    value, changes = clients[0].state["value"], clients[0].state["changes"]
    # As many as a socket's backlog holds: none can be dropped, however slowly somebody reads.
    each = 50
    await asyncio.gather(*(client.add(1) for client in clients for _ in range(each)))
    expected = [{"value": value + number, "changes": changes + number} for number in range(1, 2 * each + 1)]
    for client in clients:
        heard = [await client.hear() for _ in range(2 * each)]
        assert [sum(state["by"] == user for state in heard) for user in ("ada", "grace")] == [each, each]
        # Two threads may broadcast in another order than their changes had.
        heard.sort(key=lambda state: int(state.pop("by") and state["changes"]))
        assert heard == expected
    assert (await join(stack, address, "ada")).state["value"] == value + 2 * each


async def test_two_processes_share_the_counter_through_a_server(
    stack: AsyncExitStack, tmp_path: Path, redis_server: Server
) -> None:
    folder = copy(NAME, tmp_path / "project")
    settings = folder / "mysite" / "settings.py"
    ours = settings.read_text()
    assert ours.count(HOSTS) == 1
    hosts = HOSTS.removeprefix("# ").replace("redis://localhost:6379", redis_server.url)
    settings.write_text(ours.replace(HOSTS, hosts))
    set_up(folder)
    with ExitStack() as servers:
        addresses = [servers.enter_context(serve(folder, tmp_path / name)) for name in ("one", "two")]
        async with AsyncExitStack() as sockets:
            ada, grace = await join(sockets, addresses[0], "ada"), await join(sockets, addresses[1], "grace")
            for client, step, value, by in ((ada, 1, 1, "ada"), (grace, -1, 0, "grace"), (ada, -1, -1, "ada")):
                await client.add(step)
                heard = [await ada.hear(), await grace.hear()]
                assert [(state["value"], state["by"]) for state in heard] == [(value, by)] * 2
            await asyncio.to_thread(grace.visitor.submit, "/reset/")
            assert [(await client.hear())["value"] for client in (ada, grace)] == [0, 0]


async def test_the_pages_load_nothing_from_elsewhere(address: str) -> None:
    visitor = Example(NAME, address)
    pages = [await asyncio.to_thread(visitor.request, "/")]
    pages.append(await asyncio.to_thread(visitor.submit, "/login/", username="ada", password=PASSWORD))
    assert f'"{SOCKET}"' in pages[1]
    for page in pages:
        assert not any(word in page for word in ("://", "src=", "@import", "url("))


def test_the_migration_is_that_of_the_models(folder: Path) -> None:
    result = run(folder, sys.executable, "-W", "error", "manage.py", "makemigrations", "--check")
    assert (result.returncode, result.stdout, result.stderr) == (0, "No changes detected\n", "")


def test_the_users_with_a_public_password_are_refused_without_debug(folder: Path, tmp_path: Path) -> None:
    other = copy(NAME, tmp_path / "project")
    settings = other / "mysite" / "settings.py"
    settings.write_text(settings.read_text().replace("DEBUG = True", "DEBUG = False"))
    result = run(other, sys.executable, "manage.py", "demo_users")
    assert result.returncode == 1
    assert "only where DEBUG is True" in result.stderr


def test_the_readme_names_the_users_and_their_password() -> None:
    readme = (EXAMPLES / NAME / "README.md").read_text()
    assert all(f"`{word}`" in readme for word in ("ada", "grace", PASSWORD))
