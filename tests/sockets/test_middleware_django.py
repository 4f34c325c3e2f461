"""Tokens of Django REST framework in a real project: in a database, behind a real server, from a real client."""

import asyncio
import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.waiting import SECONDS
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

PROJECT = Path(__file__).parent / "django_project"
KINDS = ["async", "sync", "channels-async", "channels-sync", "server-async", "server-sync", "server-uncalled"]

# One project that is served.
pytestmark = pytest.mark.xdist_group("tokens")


def refused(kind: str) -> int:
    """Return the status of a refusal: socket servers tell a stranger from a user who may not."""
    return 401 if kind.startswith("server") else 403


class Project:
    """The project as it is served, and the tokens of its users."""

    def __init__(self, address: str, tokens: dict[str, str]) -> None:
        self.address = address
        self.tokens = tokens

    async def greeting(self, path: str, **options: Any) -> tuple[Any, str | None]:
        """Open a WebSocket; return what it says first, and the subprotocol that the server has chosen."""
        async with connect(f"ws://{self.address}/{path}", open_timeout=SECONDS, **options) as client:
            return json.loads(await asyncio.wait_for(client.recv(), SECONDS)), client.subprotocol

    async def refusal(self, path: str, **options: Any) -> int:
        """Open a WebSocket, which fails; return the status."""
        with pytest.raises(InvalidStatus) as refusal:
            await self.greeting(path, **options)
        return refusal.value.response.status_code

    def log_in(self, name: str) -> dict[str, str]:
        """Log in by the page; return the headers of one who has."""
        with closing(http.client.HTTPConnection(self.address, timeout=SECONDS)) as connection:
            connection.request("GET", f"/log-in/{name}/")
            response = connection.getresponse()
            assert response.status == 200
            return {"Cookie": "; ".join(cookie.split(";")[0] for cookie in response.headers.get_all("set-cookie", []))}


@contextmanager
def serve(folder: Path) -> Iterator[Project]:
    """Serve the project with a database of its own while the context lasts; what it writes goes to a file."""
    paths = os.pathsep.join([str(PROJECT), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths, "SERVED_DATABASE": str(folder / "database")}
    made = subprocess.run(
        [sys.executable, PROJECT / "served_tokens.py"], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    # It inherits a socket that listens already: a client that comes before the server is ready waits.
    with socket.create_server(("127.0.0.1", 0)) as listening, (folder / "log").open("wb") as log:
        fd = listening.fileno()
        server = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "uvicorn", "--fd", str(fd), "served_tokens:application"],
            env=environment,
            pass_fds=[fd],
            stdout=log,
            stderr=log,
        )
        try:
            host, port = listening.getsockname()
            yield Project(f"{host}:{port}", json.loads(made.stdout))
        finally:
            server.terminate()
            server.wait(SECONDS)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with serve(tmp_path_factory.mktemp("tokens")) as served:
        yield served


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("argument", ["token", "auth_token", "user_token"])
async def test_a_token_in_the_query_is_its_owners(project: Project, kind: str, argument: str) -> None:
    for name in ("ada", "grace"):
        greeting = await project.greeting(f"tokens/{kind}/?room=7&{argument}={project.tokens[name]}")
        assert greeting == (name, None)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_token_in_a_subprotocol_is_its_owners_and_is_echoed(project: Project, kind: str) -> None:
    subprotocol = f"Token.{project.tokens['ada']}"
    greeting = await project.greeting(f"tokens/{kind}/", subprotocols=["chat", subprotocol])
    assert greeting == ("ada", subprotocol)


@pytest.mark.parametrize("kind", KINDS)
async def test_who_has_no_token_of_an_active_user_is_refused(project: Project, kind: str) -> None:
    assert await project.refusal(f"tokens/{kind}/") == refused(kind)
    assert await project.refusal(f"tokens/{kind}/?token=") == refused(kind)
    for token in ("0" * 40, project.tokens["gone"], project.tokens["ada"].upper() + "A"):
        assert await project.refusal(f"tokens/{kind}/?token={token}") == refused(kind)
        assert await project.refusal(f"tokens/{kind}/", subprotocols=[f"Token.{token}"]) == refused(kind)


async def test_a_wrong_token_is_echoed_where_everybody_is_let_in(project: Project) -> None:
    greeting = await project.greeting("tokens/guests/", subprotocols=["Token.wrong"])
    assert greeting == ("AnonymousUser", "Token.wrong")


@pytest.mark.parametrize("kind", KINDS)
async def test_inside_of_channels_sessions_either_names_the_user(project: Project, kind: str) -> None:
    cookies = await asyncio.to_thread(project.log_in, "grace")
    assert await project.refusal(f"both/{kind}/") == refused(kind)
    assert await project.greeting(f"both/{kind}/", additional_headers=cookies) == ("grace", None)
    assert await project.greeting(f"both/{kind}/?token={project.tokens['ada']}") == ("ada", None)


@pytest.mark.parametrize("kind", KINDS)
async def test_inside_of_channels_sessions_a_token_decides(project: Project, kind: str) -> None:
    cookies = await asyncio.to_thread(project.log_in, "grace")
    query = f"both/{kind}/?token={project.tokens['ada']}"
    assert await project.greeting(query, additional_headers=cookies) == ("ada", None)
    for token in ("0" * 40, project.tokens["gone"]):
        assert await project.refusal(f"both/{kind}/?token={token}", additional_headers=cookies) == refused(kind)
        subprotocols = [f"Token.{token}"]
        assert await project.refusal(f"both/{kind}/", subprotocols=subprotocols, additional_headers=cookies) == refused(
            kind
        )


async def test_who_offers_no_subprotocol_of_ours_gets_none(project: Project) -> None:
    path = f"tokens/async/?token={project.tokens['ada']}"
    assert await project.greeting(path, subprotocols=["chat"]) == ("ada", None)


async def test_an_outage_is_a_server_error_for_the_client_and_a_traceback_for_the_operator(tmp_path: Path) -> None:
    token = "c0ffee" * 6
    with serve(tmp_path) as project:
        assert await project.refusal("broken/guests/", subprotocols=[f"Token.{token}"]) == 500
        assert await project.greeting("broken/guests/") == ("AnonymousUser", None)
    log = (tmp_path / "log").read_text()
    assert "Broken.get_user failed, so a connection is refused\nTraceback (most recent call last):" in log
    assert "ConnectionError: no answer about [token]" in log
    assert token not in log
