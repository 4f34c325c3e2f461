"""headrace's consumers inside the sessions, the authentication and the routes of other frameworks."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.groups import one_process_each
from tests.support.waiting import SECONDS
from websockets.exceptions import InvalidStatus

if TYPE_CHECKING:
    from tests.servers.conftest import Client, Server
    from websockets.asyncio.client import ClientConnection

    ClientOf = Callable[[Server, AsyncExitStack], Client]
    Run = Callable[..., AbstractContextManager[Server]]

HERE = Path(__file__).parent
UVICORN = "uvicorn-websockets-sansio-uvloop"


async def hear_json(socket: "ClientConnection") -> Any:
    return json.loads(await asyncio.wait_for(socket.recv(), SECONDS))


async def log_in(client: "Client") -> dict[str, str]:
    """Log in by the page; return the headers of one who has."""
    response = await client.request("log-in")
    assert response.status == 200
    return {"Cookie": "; ".join(cookie.split(";")[0] for cookie in response.headers.get_all("set-cookie", []))}


@pytest.fixture(scope="module", params=one_process_each("django", [UVICORN, "daphne"]))
def django(request: pytest.FixtureRequest, run: "Run", tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Server]":
    """Serve a Django project."""
    environment = {"SERVED_DATABASE": str(tmp_path_factory.mktemp("django") / "database")}
    paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, HERE / "served_django.py"], env={**os.environ, **paths, **environment}, check=True)
    with run(request.param, "served_django:application", environment) as server:
        yield server


@pytest.mark.parametrize("path", ["who", "sync-who"])
async def test_channels_authentication_tells_a_consumer_its_user(
    django: "Server", client_of: "ClientOf", path: str
) -> None:
    async with AsyncExitStack() as stack:
        client = client_of(django, stack)
        assert await hear_json(await client.open(path)) == {"user": "AnonymousUser", "users": 1}
        socket = await client.open(path, additional_headers=await log_in(client))
        assert await hear_json(socket) == {"user": "ada", "users": 1}


async def test_channels_sessions_can_be_written_by_a_consumer(django: "Server", client_of: "ClientOf") -> None:
    async with AsyncExitStack() as stack:
        client = client_of(django, stack)
        socket = await client.open("who", additional_headers=await log_in(client))
        await hear_json(socket)
        await socket.send(json.dumps("remember"))
        assert await hear_json(socket) == {"in the session": "remember"}


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("who", None),
        ("sync-who", None),
        ("mounted/7", {"number": 7}),
        ("mounted/sync/7", {"number": 7}),
    ],
)
async def test_starlettes_authentication_tells_a_consumer_its_user(
    servers: "Callable[[str, str], Server]", client_of: "ClientOf", path: str, route: dict[str, int] | None
) -> None:
    async with AsyncExitStack() as stack:
        client = client_of(servers(UVICORN, "served_starlette:application"), stack)
        assert await hear_json(await client.open(path)) == {"user": "", "route": route}
        socket = await client.open(path, additional_headers=await log_in(client))
        assert await hear_json(socket) == {"user": "ada", "route": route}


@pytest.mark.parametrize("server", [UVICORN, "hypercorn-asyncio", "granian-asyncio"])
async def test_a_page_of_fastapi_speaks_to_the_consumers_mounted_in_it(
    servers: "Callable[[str, str], Server]", client_of: "ClientOf", server: str
) -> None:
    async with AsyncExitStack() as stack:
        client = client_of(servers(server, "served_fastapi:application"), stack)
        sockets = [await client.open(path) for path in ("sockets/room", "sockets/sync-room", "room")]
        response = await client.request("say/?text=hello")
        assert json.loads(await asyncio.to_thread(response.read)) == {"heard": 3}
        assert [await asyncio.wait_for(socket.recv(), SECONDS) for socket in sockets] == ["hello"] * 3


async def test_a_router_mounted_in_a_framework_refuses_what_it_has_no_route_for(
    servers: "Callable[[str, str], Server]", client_of: "ClientOf"
) -> None:
    async with AsyncExitStack() as stack:
        client = client_of(servers(UVICORN, "served_fastapi:application"), stack)
        with pytest.raises(InvalidStatus) as refusal:
            await client.open("sockets/nowhere")
        assert refusal.value.response.status_code == 404
        with pytest.raises(InvalidStatus):  # which is FastAPI's own answer
            await client.open("nowhere")
