"""The demo over several processes on a Redis or Valkey server: clients of different workers hear each other."""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import urllib.request
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.binaries import Binary
from tests.support.ports import HOST, Port
from tests.support.servers import Server
from tests.support.waiting import SECONDS, eventually
from websockets.asyncio.client import ClientConnection, connect

from headrace import _cli as cli
from headrace._demo.clients import fleet_check

SECRET = "s3cr3t-and-longer"


@contextlib.asynccontextmanager
async def demo(*arguments: str) -> AsyncIterator[Process]:
    """Run the demo on any free port, and do not leave it behind."""
    command = ["-m", "headrace", "demo", "--port", "0", *arguments]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=PIPE, stderr=PIPE)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def demo_ends(*arguments: str) -> tuple[int | None, str, str]:
    """Run it to its end; return its exit code and what it printed."""
    async with demo(*arguments) as process:
        out, err = await process.communicate()
        assert SECRET not in (out + err).decode()
        return process.returncode, out.decode(), err.decode()


async def lines_until(process: Process, last: str) -> list[str]:
    assert process.stdout is not None
    lines: list[str] = []
    while not lines or lines[-1] != last:
        line = await process.stdout.readline()
        assert line, lines
        lines.append(line.decode().rstrip("\n"))
    return lines


def children(process: Process) -> set[int]:
    """List the workers, which are the children of the demo that are no helpers of Python's own."""
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return {int(child) for child in listed if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes()}


class TestTheCheck:
    async def test_clients_of_different_workers_hear_each_other(self, redis_server: Server) -> None:
        arguments = ("--layer", redis_server.url, "--workers", "3", "--clients", "4")
        code, out, err = await demo_ends("--once", *arguments)
        assert (code, err) == (0, "")
        address, check, *deliveries, verdict = out.splitlines()
        assert re.fullmatch(rf"headrace demo on http://127\.0\.0\.1:\d+, 3 workers on {redis_server.url}", address)
        assert check == "self-check: 4 WebSocket clients at 3 workers, one broadcast from each worker"
        titles = [line for line in deliveries if line.startswith("  from")]
        assert titles == [f"  from client {number} at worker {number}:" for number in (1, 2, 3)]
        found = [
            re.fullmatch(r"    client (\d) at worker (\d) got it after +\d+\.\d{3} ms", line) for line in deliveries
        ]
        assert sorted(match.groups() for match in found if match) == sorted(
            [("1", "1"), ("2", "2"), ("3", "3"), ("4", "1")] * 3
        )
        # Of twelve, the four that a worker sent to itself: one and two, one, one.
        assert verdict.startswith("self-check passed: 12 of 12 deliveries, 8 between workers, 0 lost, slowest ")

    async def test_two_workers_are_the_default_and_each_has_a_client(self, redis_server: Server) -> None:
        code, out, _ = await demo_ends("--once", "--layer", redis_server.url, "--clients", "1")
        assert code == 0
        assert "self-check: 2 WebSocket clients at 2 workers" in out
        assert "4 of 4 deliveries, 2 between workers, 0 lost" in out

    async def test_a_browser_is_told_its_worker_and_sees_the_counters_of_all(self, redis_server: Server) -> None:
        async with demo("--layer", redis_server.url, "--clients", "2") as process:
            first, *_ = await lines_until(process, "serving until Ctrl-C")
            where = re.sub(r".*http://(\S+),.*", r"\1", first)
            async with connect(f"ws://{where}/ws", proxy=None) as ada:
                hello = await heard(ada, "hello")
                assert hello["worker"] in (1, 2)
                assert (hello["workers"], hello["layers"]) == (2, ["headrace"])
                await say(ada, type="join", room="lobby", name="Ada")
                await heard(ada, "joined")
                await say(ada, type="load", members=50, layer="headrace")
                assert (await heard(ada, "load"))["rate"] > 0
                await say(ada, type="unload")
                assert (await heard(ada, "unloaded"))["error"] == ""
                # The other worker has not heard of them, and whichever answers knows what both count.
                await until_async(lambda: self._delivered(where, hello["worker"]))

    async def _delivered(self, where: str, worker: int) -> bool:
        def answer() -> dict[str, Any]:
            with urllib.request.urlopen(f"http://{where}/stats") as got:
                content: dict[str, Any] = json.load(got)
                return content

        rows = (await asyncio.to_thread(answer))["workers"]
        ours, other = rows[worker - 1]["counters"], rows[2 - worker]["counters"]
        return bool(len(rows) == 2 and ours["delivered"] > 50 > other["delivered"])

    async def test_one_worker_alone_is_enough(self, redis_server: Server) -> None:
        code, out, _ = await demo_ends("--once", "--layer", redis_server.url, "--workers", "1", "--clients", "2")
        assert code == 0
        assert ", 1 worker on redis://" in out
        assert "2 of 2 deliveries, 0 between workers, 0 lost" in out


class TestAServerOfItsOwn:
    @pytest.fixture(autouse=True)
    def _on_path(self, redis_binary: Binary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / f"{redis_binary.name}-server").symlink_to(redis_binary.path)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setenv("TMPDIR", str(tmp_path))

    async def test_it_is_restarted_and_every_client_hears_again(self, redis_binary: Binary, tmp_path: Path) -> None:
        code, out, err = await demo_ends("--once", "--layer", f"{redis_binary.name}-server", "--clients", "3")
        assert code == 0, err
        first, *_, verdict, restart = out.splitlines()
        assert first.endswith(f", 2 workers on a {redis_binary.name}-server of its own")
        assert verdict.startswith("self-check passed: 6 of 6 deliveries, 3 between workers, 0 lost")
        assert re.fullmatch(
            r"restart of the server passed: every client hears again \d+\.\d{3} s after it was back, "
            r"\d+ messages? refused, \d+ deliver(y|ies) lost meanwhile",
            restart,
        )
        # Each worker says that messages may be missing, and the check that this is to be expected.
        assert "\nrestarting the server; each worker warns that messages may be missing, as it should\n" in out
        assert err.count("groups may have missed messages: demo.room.") == 2
        assert list(tmp_path.glob("headrace-demo-*")) == []

    async def test_one_that_does_not_come_back_fails_the_check(self) -> None:
        async def restart() -> None:
            return None

        lines: list[str] = []
        assert not await fleet_check(["ws://127.0.0.1:1/ws"], 1, lines.append, within=0.1, restart=restart)
        assert lines[-1] == "restart of the server failed: not every client hears again"

    async def test_one_that_cannot_start_is_told(self, redis_binary: Binary, tmp_path: Path) -> None:
        program = tmp_path / f"{redis_binary.name}-server"
        program.unlink()
        program.write_text(f"#!{sys.executable}\n")
        program.chmod(0o700)
        code, out, err = await demo_ends("--once", "--layer", program.name)
        assert (code, out) == (2, "")
        assert err.startswith(f"headrace: {program} does not start")

    async def test_one_that_is_not_installed_is_told(self, redis_binary: Binary, tmp_path: Path) -> None:
        (tmp_path / f"{redis_binary.name}-server").unlink()
        code, out, err = await demo_ends("--once", "--layer", f"{redis_binary.name}-server")
        assert (code, out) == (2, "")
        assert err.startswith(f"headrace: there is no {redis_binary.name}-server on this machine")


class TestServing:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    async def test_it_ends_in_order_when_told_to(self, redis_server: Server, number: signal.Signals) -> None:
        async with demo("--layer", redis_server.url) as process:
            await lines_until(process, "serving until Ctrl-C")
            workers = children(process)
            assert len(workers) == 2
            process.send_signal(number)
            out, err = await process.communicate()
        assert (process.returncode, out, err) == (0, b"", b"")
        assert [worker for worker in workers if Path(f"/proc/{worker}").exists()] == []

    async def test_workers_end_when_their_parent_is_killed(self, redis_server: Server) -> None:
        async with demo("--layer", redis_server.url) as process:
            await lines_until(process, "serving until Ctrl-C")
            workers = children(process)
            process.kill()
            await process.wait()
            eventually(lambda: not [each for each in workers if Path(f"/proc/{each}").exists()], "no worker is left")

    async def test_a_worker_that_is_killed_ends_the_demo(self, redis_server: Server) -> None:
        async with demo("--layer", redis_server.url) as process:
            await lines_until(process, "serving until Ctrl-C")
            os.kill(min(children(process)), signal.SIGKILL)
            out, err = await process.communicate()
        assert (process.returncode, out, err) == (1, b"a worker has ended by itself\n", b"")

    async def test_the_chat_goes_on_after_a_restart_of_the_server(self, start_redis: Callable[..., Server]) -> None:
        server = start_redis()
        async with demo("--layer", server.url, "--workers", "1", "--clients", "1") as process:
            first, *_ = await lines_until(process, "serving until Ctrl-C")
            socket = re.sub(r".*http(://\S+),.*", r"ws\1/ws", first)
            async with connect(socket, proxy=None) as ada:
                await say(ada, type="join", room="lobby", name="Ada")
                await heard(ada, "joined")
                topics = topics_of(server)
                server.stop()
                await say(ada, type="say", text="into the void")
                assert "Connection refused" in (await heard(ada, "error"))["error"]
                server.start()
                # What is said before the worker has subscribed again is heard by nobody.
                await asyncio.to_thread(
                    eventually, lambda: topics <= topics_of(server), "the worker listens to the room again"
                )
                # Until it has connected again, the layer refuses what is said.
                while (answer := await answered(ada, text="again"))["type"] == "error":
                    # A message over the chat's rate limit has no answer.
                    await asyncio.sleep(0.05)
                assert answer["text"] == "again"


def topics_of(server: Server) -> set[str]:
    """Return the topics of groups that are subscribed to."""
    return set(map(str, server.cli("PUBSUB", "CHANNELS", "*:g:*")))


async def say(socket: ClientConnection, **frame: object) -> None:
    await socket.send(json.dumps(frame))


async def answered(socket: ClientConnection, text: str) -> dict[str, Any]:
    """Say something, and return what comes of it: the message, or an error."""
    await say(socket, type="say", text=text)
    return await heard(socket, "message", "error")


async def heard(socket: ClientConnection, *kinds: str) -> dict[str, Any]:
    """Return the next frame of one of these types, skipping the others."""
    async with asyncio.timeout(SECONDS):
        while (frame := json.loads(await socket.recv()))["type"] not in kinds:
            pass
        return dict(frame)


class TestWhatCannotBegin:
    async def test_a_server_that_is_not_there_is_told(self) -> None:
        port = Port()
        try:
            code, out, err = await demo_ends("--once", "--layer", f"redis://:{SECRET}@{HOST}:{port.number}")
        finally:
            port.release()
        assert (code, out) == (2, "")
        # Behind what the layer logs.
        assert err.splitlines()[-1].startswith("headrace: ")
        assert "Connection refused" in err

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            (("--workers", "2"), "2 workers need a layer that connects them: --layer redis://localhost:6379"),
            (("--layer", f"http://:{SECRET}@localhost"), "a URL must begin with redis://"),
        ],
    )
    def test_bad_usage_is_explained(
        self, arguments: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert cli.main(["demo", "--once", *arguments]) == 2
        err = capsys.readouterr().err
        assert complaint in err
        assert SECRET not in err


async def until_async(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it is so."""
    async with asyncio.timeout(SECONDS):
        while not await is_so():
            pass
