"""A layer in memory says, once, that other workers of the server do not hear it."""

import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from headrace._layers import memory as memory_module
from headrace._layers.siblings import count_siblings
from headrace.layers import InMemoryChannelLayer

SELF, PARENT = 20, 10


def processes(proc: Path, parent: list[str], *children: list[str]) -> Path:
    """Write what Linux tells of processes: the parent 10, and its children from 20 on."""
    numbers = [SELF + number for number in range(len(children))]
    for number, words in ((PARENT, parent), *zip(numbers, children, strict=True)):
        folder = proc / str(number)
        (folder / "task" / str(number)).mkdir(parents=True)
        (folder / "cmdline").write_bytes("\0".join([*words, ""]).encode())
        (folder / "stat").write_text(f"{number} (a name) with) brackets) S {PARENT} 1 1")
    (proc / str(PARENT) / "task" / str(PARENT) / "children").write_text("".join(f"{number} " for number in numbers))
    return proc


WORKER = ["python", "-c", "from multiprocessing.spawn import spawn_main; spawn_main(4)", "--multiprocessing-fork"]
TRACKER = ["python", "-c", "from multiprocessing.resource_tracker import main;main(4)"]


@pytest.mark.parametrize(
    ("parent", "children", "expected"),
    [
        (
            ["/venv/bin/python", "/venv/bin/uvicorn", "m:app", "--workers", "2"],
            [WORKER, WORKER, TRACKER],
            ("uvicorn", 2),
        ),
        (["/venv/bin/uvicorn", "m:app", "--reload"], [WORKER, TRACKER], ("uvicorn", 1)),
        (["python", "-m", "uvicorn", "m:app"], [WORKER, WORKER], ("uvicorn", 2)),
        (["python", "/venv/bin/gunicorn", "-w", "3"], [["python", "/venv/bin/gunicorn"]] * 3, ("gunicorn", 3)),
        (["gunicorn: master [m:app]"], [["gunicorn: worker [m:app]"]] * 2, ("gunicorn", 2)),
        (["python", "/venv/bin/granian"], [WORKER] * 4, ("granian", 4)),
        (["python", "-m", "hypercorn"], [WORKER] * 2, ("hypercorn", 2)),
        (["bash"], [["python", "manage.py"], ["python", "-m", "uvicorn"]], ("", 0)),
        (["vim", "notes.txt", "about", "uvicorn"], [WORKER, WORKER], ("", 0)),
    ],
)
def test_the_workers_of_a_server_are_counted(
    tmp_path: Path, parent: list[str], children: list[list[str]], expected: tuple[str, int]
) -> None:
    assert count_siblings(SELF, processes(tmp_path, parent, *children)) == expected


def test_where_nothing_is_told_nothing_is_known(tmp_path: Path) -> None:
    assert count_siblings(SELF, tmp_path) == ("", 0)


def test_this_process_is_no_worker() -> None:
    assert count_siblings(os.getpid()) == ("", 0)


async def test_only_the_first_group_send_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    monkeypatch.setattr(memory_module, "warn_of_siblings", looked.append)
    layer = InMemoryChannelLayer()
    await layer.send("a", {"type": "x"})
    assert looked == []
    await layer.group_send("g", {"type": "x"})
    layer.group_send_sync("g", {"type": "x"})
    assert looked == ["InMemoryChannelLayer"]


APPLICATION = """
import socket
from headrace.layers import InMemoryChannelLayer

layer = InMemoryChannelLayer()

async def application(scope, receive, send):
    await receive()
    gate = socket.socket(socket.AF_UNIX)
    gate.connect("gate")
    gate.recv(1)
    for _ in range(2):
        await layer.group_send("g", {"type": "x"})
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux tells who else a server has started")
def test_each_of_two_workers_of_a_real_server_says_so_once(tmp_path: Path) -> None:
    (tmp_path / "served.py").write_text(APPLICATION)
    command = [sys.executable, "-m", "uvicorn", "served:application", "--workers", "2", "--port", "0"]
    with ExitStack() as stack:
        gate = stack.enter_context(socket.socket(socket.AF_UNIX))
        gate.bind(str(tmp_path / "gate"))
        gate.listen(2)
        gate.settimeout(120)
        server = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        stack.callback(server.communicate)
        stack.callback(server.terminate)
        # Neither looks before both are there.
        for worker in [gate.accept()[0], gate.accept()[0]]:
            worker.send(b"x")
            worker.close()
        lines: list[str] = []
        assert server.stdout is not None
        while sum("startup complete" in line for line in lines) < 2:
            lines.append(server.stdout.readline().strip())
            assert lines[-1], "the server has ended"
    expected = (
        "this is one of 2 workers of uvicorn, and what is sent by InMemoryChannelLayer stays in the one that sends it: "
        "use RedisChannelLayer, or one worker; this is said once"
    )
    assert [line for line in lines if "workers of" in line] == [expected] * 2
