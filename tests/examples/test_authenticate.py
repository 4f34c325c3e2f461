"""The tokens on the page about them, over a real server: good ones, wrong ones, expired ones, and none."""

import asyncio
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.examples import SECONDS
from tests.support.pages import DJANGO
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

PAGE = Path(__file__).parents[2] / "docs/how-to/authenticate.md"
KEYS = """
import json, time
from unittest import mock

signed = {"good": token_for(7), "wrong": token_for(7)[:-1] + "!"}
with mock.patch("time.time", lambda now=time.time(): now - 61):
    signed["expired"] = token_for(7)
with open("keys.json", "w") as keys:
    json.dump({"by_token": {"good": "k3y-of-ada", "wrong": "k3y-of-nobody"}, "by_signature": signed}, keys)
"""

# One server for each application.
pytestmark = pytest.mark.xdist_group("authenticate")

# How each client presents its token.
WAYS: dict[str, Any] = {
    "query": lambda key: (f"?token={key}", {}),
    "subprotocol": lambda key: ("", {"subprotocols": [f"Token.{key}"]}),
    "header": lambda key: ("", {"additional_headers": {"Authorization": f"Bearer {key}"}}),
}


@dataclass(frozen=True)
class Served:
    """An application of the page that is being served.

    Attributes:
        application: Its name.
        address: Where it is.
        file: Where its keys are written to.
    """

    application: str
    address: str
    file: Path

    def keys(self) -> dict[str, str]:
        """Return its keys by their kinds."""
        keys: dict[str, str] = json.loads(self.file.read_text())[self.application]
        return keys


@pytest.fixture(scope="module", params=["by_token", "by_signature"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Served"]:
    """Serve an application of the page."""
    folder = tmp_path_factory.mktemp("page")
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (folder / "page.py").write_text("\n".join([DJANGO, *blocks, KEYS]))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"ws://127.0.0.1:{listening.getsockname()[1]}/ws/"
        options = ["--fd", str(listening.fileno()), "--log-level", "warning", "--lifespan", "off"]
        command = [sys.executable, "-m", "uvicorn", f"page:{request.param}", *options]
        server = subprocess.Popen(command, cwd=folder, pass_fds=[listening.fileno()])
    try:
        yield Served(request.param, address, folder / "keys.json")
    finally:
        server.terminate()
        server.wait(SECONDS)


async def hello(address: str, **options: Any) -> str:
    """Return whom the server takes the client for."""
    async with connect(address, open_timeout=SECONDS, **options) as client:
        name: str = json.loads(await asyncio.wait_for(client.recv(), SECONDS))["hello"]
        return name


async def is_refused(address: str, **options: Any) -> bool:
    with pytest.raises(InvalidStatus) as refusal:
        await hello(address, **options)
    return refusal.value.response.status_code == 403


async def test_who_has_no_token_is_refused(served: Served) -> None:
    assert await is_refused(served.address)


@pytest.mark.parametrize("way", WAYS)
async def test_a_good_token_gets_in_and_no_other_does(served: Served, way: str) -> None:
    assert await is_refused(served.address)  # by now it has written its keys
    keys = served.keys()
    assert {"good", "wrong"} <= keys.keys()
    assert ("expired" in keys) == (served.application == "by_signature")
    for kind, key in keys.items():
        query, options = WAYS[way](key)
        if kind == "good":
            name = {"by_token": "ada", "by_signature": "number 7"}[served.application]
            assert await hello(served.address + query, **options) == name
        else:
            assert await is_refused(served.address + query, **options), kind
