"""Each tutorial, followed from an empty folder to real clients of a real server."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.examples import SECONDS, Example, run, serve
from tests.support.servers import Server
from tests.support.tutorials import Step, say_how_to_serve, steps


def follow(tutorial: str, folder: Path, all_steps: list[Step] | None = None) -> None:
    for step in steps(tutorial) if all_steps is None else all_steps:
        step.follow(folder)
    say_how_to_serve(tutorial, folder)


async def hear(client: Any) -> Any:
    return await asyncio.wait_for(client.recv(), SECONDS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tutorial"
    folder.mkdir()
    return folder


async def test_the_chat_in_django(folder: Path, tmp_path: Path) -> None:
    await asyncio.to_thread(follow, "django-chat", folder)
    with serve(folder, tmp_path / "log") as address:
        example = Example("django-chat", address)
        assert '"/ws/lobby/"' in await asyncio.to_thread(example.request, "/lobby/")
        async with example.socket("/ws/lobby/") as ada, example.socket("/ws/lobby/") as bob:
            await ada.send('{"text": "hello"}')
            assert [json.loads(await hear(client)) for client in (ada, bob)] == [{"text": "hello"}] * 2
            form = "application/x-www-form-urlencoded"
            answer = await asyncio.to_thread(example.request, "/lobby/announce/", b"text=tea", form)
            assert answer == "2 have it\n"
            assert [json.loads(await hear(client)) for client in (ada, bob)] == [{"text": "tea"}] * 2


async def test_the_chat_in_fastapi(folder: Path, tmp_path: Path) -> None:
    await asyncio.to_thread(follow, "fastapi-chat", folder)
    with serve(folder, tmp_path / "log") as address:
        example = Example("fastapi-chat", address)
        assert '"/ws/lobby/"' in await asyncio.to_thread(example.request, "/")
        async with example.socket("/ws/lobby/") as ada, example.socket("/ws/lobby/") as bob:
            await ada.send("hello")
            assert [await hear(client) for client in (ada, bob)] == ["hello"] * 2
            for path in ("/announce", "/announce-from-thread"):
                body = json.dumps({"text": "tea"}).encode()
                assert await asyncio.to_thread(example.request, path, body, "application/json") == "2"
                assert [await hear(client) for client in (ada, bob)] == ["tea"] * 2


def counter_steps() -> tuple[list[Step], list[Step]]:
    """Divide the tutorial where it begins to need a server beside it."""
    all_steps = list(steps("counter"))
    (at,) = [number for number, step in enumerate(all_steps) if step.what == "last line"]
    return all_steps[:at], all_steps[at:]


async def count(address: str, value: int) -> None:
    """Add one, as two clients who both see it."""
    example = Example("counter", address)
    assert '"/ws/"' in await asyncio.to_thread(example.request, "/")
    async with example.socket("/ws/") as ada, example.socket("/ws/") as bob:
        assert [json.loads(await hear(client))["value"] for client in (ada, bob)] == [value] * 2
        await ada.send('{"add": 1}')
        assert [json.loads(await hear(client))["value"] for client in (ada, bob)] == [value + 1] * 2
        await bob.send('{"add": 2}')
        assert "error" in json.loads(await hear(bob))


async def test_the_counter(folder: Path, tmp_path: Path) -> None:
    first, _ = counter_steps()
    await asyncio.to_thread(follow, "counter", folder, first)
    with serve(folder, tmp_path / "log") as address:
        await count(address, 0)
        await count(address, 1)


async def test_the_counter_with_a_server_beside_it(folder: Path, tmp_path: Path, redis_server: Server) -> None:
    first, second = counter_steps()
    asked = [step for step in first if step.what == "file"]
    there = [
        Step(step.what, step.name, step.text.replace("redis://localhost:6379", redis_server.url)) for step in second
    ]
    await asyncio.to_thread(follow, "counter", folder, [*asked, *there])
    with serve(folder, tmp_path / "log") as address:
        await count(address, 0)
        async with Example("counter", address).socket("/ws/") as ada:
            await hear(ada)
            result = await asyncio.to_thread(run, folder, "python", "-W", "error", "say.py")
            assert (result.returncode, result.stderr) == (0, "")
            assert json.loads(await hear(ada)) == {"notice": "tea is ready"}
