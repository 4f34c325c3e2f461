"""The command `headrace`, as a process and as a function."""

import asyncio
import contextlib
import functools
import os
import pydoc
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path
from typing import Any

import pytest

import headrace
from headrace import _cli as cli
from headrace._demo import serve
from headrace.layers import InMemoryChannelLayer


@contextlib.asynccontextmanager
async def headrace_process(*arguments: str) -> AsyncIterator[Process]:
    """Run `python -m headrace` with arguments, and do not leave it behind."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "headrace", *arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def headrace_ends(*arguments: str) -> tuple[int | None, str, str]:
    """Run `python -m headrace` to its end; return its exit code and what it printed."""
    async with headrace_process(*arguments) as process:
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()


async def run(*arguments: str) -> int:
    """Run the command in this process, where a test can change what it finds."""
    return await asyncio.to_thread(cli.main, arguments)


class Lossy(InMemoryChannelLayer):
    """A layer that loses every group message but those that announce somebody."""

    async def group_send(self, group: str, message: Mapping[str, Any], *, exclude: str | Collection[str] = ()) -> Any:
        if '"type": "message"' in message["text"]:
            exclude = self.group_channels(group)
        return await super().group_send(group, message, exclude=exclude)


async def test_demo_once_exits_0_and_prints_every_delivery() -> None:
    code, out, err = await headrace_ends("demo", "--once", "--port", "0", "--clients", "3")
    assert (code, err) == (0, "")
    address, check, *deliveries, verdict = out.splitlines()
    assert re.fullmatch(r"headrace demo on http://127\.0\.0\.1:\d+", address)
    assert check == "self-check: 3 WebSocket clients, one broadcast"
    assert len(deliveries) == 3
    assert all(re.fullmatch(r"  client \d got it after +\d+\.\d+ ms", line) for line in deliveries)
    assert verdict.startswith("self-check passed: 3 of 3 deliveries")


async def test_demo_once_takes_a_free_port_when_its_own_is_taken() -> None:
    with serve.bind("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        code, out, _ = await headrace_ends("demo", "--once", "--port", port)
    assert code == 0
    assert f":{port}\n" not in out


async def test_demo_on_a_taken_port_says_so_and_exits_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with serve.bind("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        assert await run("demo", "--port", port) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"headrace: port {port} on 127.0.0.1 is taken; ")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send these to a child")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_demo_serves_until_it_is_told_to_stop(number: signal.Signals) -> None:
    async with headrace_process("demo", "--port", "0", "--clients", "1") as process:
        assert process.stdout is not None
        while (line := await process.stdout.readline()) != b"serving until Ctrl-C\n":
            assert line
        process.send_signal(number)
        out, err = await process.communicate()
        assert (process.returncode, out, err) == (0, b"", b"")


async def test_demo_once_exits_1_when_a_client_misses_the_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(headrace.layers, "InMemoryChannelLayer", Lossy)
    monkeypatch.setattr(serve, "Options", functools.partial(serve.Options, within=5))
    assert await run("demo", "--once", "--port", "0", "--clients", "2") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3:] == [
        "  client 1 missed it: nothing came within 5 s",
        "  client 2 missed it: nothing came within 5 s",
        "self-check failed: 0 of 2 deliveries",
    ]


async def test_demo_that_is_interrupted_twice_still_exits_0(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(main: Any) -> int:
        main.close()
        raise KeyboardInterrupt

    monkeypatch.setattr(asyncio, "run", interrupted)
    assert await run("demo", "--port", "0") == 0


@pytest.mark.parametrize("module", ["uvicorn", "websockets"])
async def test_demo_without_its_extra_names_it(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forget_serving(monkeypatch)
    monkeypatch.setitem(sys.modules, module, None)
    assert await run("demo", "--once") == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith(f"headrace: cannot import {module}")
    assert complaint.endswith("; the demo needs: pip install 'headrace[demo]'\n")


async def test_demo_does_not_hide_that_something_else_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forget_serving(monkeypatch)
    monkeypatch.setitem(sys.modules, "headrace._demo.clients", None)
    with pytest.raises(ModuleNotFoundError, match=re.escape("headrace._demo.clients")):
        await run("demo", "--once")


def forget_serving(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next import of what the demo needs happen anew."""
    for name in list(sys.modules):
        if name.split(".")[0] in ("uvicorn", "websockets") or name.startswith("headrace._demo."):
            monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("demo", "--port", "65536"), "expected a whole number from 0 to 65535, got '65536'"),
        (("demo", "--port", "http"), "expected a whole number from 0 to 65535, got 'http'"),
        (("demo", "--clients", "0"), "expected a whole number from 1 to 100, got '0'"),
    ],
)
async def test_bad_arguments_are_explained(
    arguments: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        await run(*arguments)
    assert exit_.value.code == 2
    assert complaint in capsys.readouterr().err


async def test_without_arguments_the_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert await run() == 0
    assert re.search(r"^ +doctor +look at the servers", capsys.readouterr().out, re.M)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("docter",), "headrace: there is no command 'docter'; did you mean 'doctor'?"),
        (("zzz",), "headrace: there is no command 'zzz'; headrace --help lists what there is"),
        (("--hots", "doctor"), "headrace: doctor takes no argument '--hots'; did you mean '--hosts'?"),
        (
            ("doctor", "redis://:s3cr3t@one"),
            "headrace: doctor takes no argument without the name of an option; headrace --help lists what there is",
        ),
        (("doctor", "--hots", "redis://one"), "headrace: doctor takes no argument '--hots'; did you mean '--hosts'?"),
    ],
)
async def test_a_mistyped_word_is_answered_with_the_one_that_is_like_it(
    arguments: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run(*arguments) == 2
    assert capsys.readouterr().err.strip() == complaint


async def test_a_shell_completes_the_words_of_a_command(tmp_path: Path) -> None:
    found = tmp_path / "found"
    asked = {
        **os.environ,
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": " ",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(found),
        "COMP_LINE": "headrace do",
        "COMP_POINT": str(len("headrace do")),
    }
    command = "import sys; from headrace._cli import main; sys.exit(main())"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", command, env=asked)
    assert await process.wait() == 0
    assert found.read_text().split() == ["doctor"]


async def test_the_help_of_the_package_begins_with_what_it_is() -> None:
    text = pydoc.plain(pydoc.render_doc(headrace))
    assert "headrace - A channel layer for real-time Python" in text
    assert "README.md and the pages in docs/ say how to begin" in text


async def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        await run("--help")
    assert exit_.value.code == 0
    out = capsys.readouterr().out
    assert re.search(r"^ +demo +serve a chat on the layer$", out, re.M)
    assert re.search(r"^ +worker +run an application on the messages of channels$", out, re.M)


async def test_version_is_the_one_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        await run("--version")
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"headrace {headrace.__version__}\n"


WORKER_PROJECT = """
import sys
import threading

import headrace


class Broken(headrace.InMemoryChannelLayer):
    async def receive(self, channel):
        raise ConnectionError("the line is dead")


layer = headrace.InMemoryChannelLayer()
headrace.configure({"jobs": layer, "broken": Broken()})


def feed():
    for line in sys.stdin:
        channel, type = line.split()
        layer.send_sync(channel, {"type": type})


async def application(scope, receive, send):
    threading.Thread(target=feed, daemon=True).start()
    while True:
        print(scope["channel"], (await receive())["type"], flush=True)


class holder:
    application = application


layer.send_sync("resize", {"type": "first"})
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a directory with an application for a worker."""
    (tmp_path / "jobs.py").write_text(WORKER_PROJECT, encoding="utf-8")
    (tmp_path / "faulty.py").write_text("import not_there_at_all\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send these to a child")
@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("app", ["jobs:application", "jobs:holder.application"])
async def test_worker_handles_what_comes_until_it_is_told_to_stop(number: signal.Signals, app: str) -> None:
    async with headrace_process("worker", app, "resize", "mail", "--layer", "jobs") as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert await process.stdout.readline() == b"headrace worker on resize, mail\n"
        assert await process.stdout.readline() == b"resize first\n"
        process.stdin.write(b"resize second\n")
        assert await process.stdout.readline() == b"resize second\n"
        process.send_signal(number)
        out, err = await process.communicate()
    assert (process.returncode, out) == (0, b"")
    assert b"channel layer 'jobs' lives in this process alone" in err


@pytest.mark.usefixtures("project")
async def test_worker_whose_layer_fails_exits_1() -> None:
    code, _, err = await headrace_ends("worker", "jobs:application", "resize", "--layer", "broken")
    assert code == 1
    assert "the worker has ended" in err
    assert "the worker was listening on channel 'resize'" in err


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("jobs", "resize"), "APP must be module:attribute, got 'jobs'"),
        ((":application", "resize"), "APP must be module:attribute, got ':application'"),
        (("nojobs:app", "resize"), "cannot import 'nojobs' for APP 'nojobs:app', looked in the current directory too"),
        (("jobs:nothing", "resize"), "module 'jobs' has no attribute 'nothing'"),
        (("faulty:app", "resize"), "cannot load 'faulty:app'"),
        (
            ("jobs:application", "resize"),
            "no channel layer 'default' is configured; add it to CHANNEL_LAYERS or configure()",
        ),
    ],
)
async def test_worker_that_cannot_begin_says_why_and_exits_2(arguments: tuple[str, ...], complaint: str) -> None:
    code, out, err = await headrace_ends("worker", *arguments)
    assert (code, out) == (2, "")
    assert err.endswith(f"headrace: {complaint}\n")
    assert ("No module named 'not_there_at_all'" in err) == arguments[0].startswith("faulty")


async def test_worker_needs_a_channel(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        await run("worker", "jobs:application")
    assert exit_.value.code == 2
    assert "the following arguments are required: channel" in capsys.readouterr().err
