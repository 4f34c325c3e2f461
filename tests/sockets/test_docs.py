"""What docs/how-to/sockets.md says runs, and the names in its table are there."""

import asyncio
import importlib
import re
import socket
import subprocess
import sys
from inspect import signature
from pathlib import Path
from typing import Any

from tests.support.waiting import SECONDS
from websockets.asyncio.client import connect

from headrace.sockets import BaseSocketServer, Broadcaster

PAGE = (Path(__file__).parents[2] / "docs/how-to/sockets.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


async def test_the_counter_counts_for_all_who_are_connected(tmp_path: Path) -> None:
    assert "Saved as `counter.py`" in PAGE
    (tmp_path / "counter.py").write_text(EXAMPLES[0])
    command = [sys.executable, "-W", "error", "-m", "uvicorn", "counter:application"]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"ws://127.0.0.1:{listening.getsockname()[1]}/ws/"
        options = ["--fd", str(listening.fileno()), "--log-level", "warning", "--lifespan", "off"]
        server = subprocess.Popen([*command, *options], cwd=tmp_path, pass_fds=[listening.fileno()])
    try:
        async with connect(url, open_timeout=SECONDS) as ada, connect(url, open_timeout=SECONDS) as bob:
            for client in (ada, bob):
                assert await asyncio.wait_for(client.recv(), SECONDS) == '{"value": 0}'
            for value, client in enumerate((ada, bob), 1):
                await client.send('{"add": 1}')
                got = [await asyncio.wait_for(each.recv(), SECONDS) for each in (ada, bob)]
                assert got == [f'{{"value": {value}}}'] * 2
    finally:
        server.terminate()
        server.wait(SECONDS)


async def test_the_other_examples_run() -> None:
    names: dict[str, Any] = {"BaseSocketServer": BaseSocketServer, "Broadcaster": Broadcaster}
    for example in EXAMPLES[1:]:
        exec(example, names)
    await names["test_what_is_said_comes_back"]()


def test_each_hook_and_counter_of_the_page_is_there() -> None:
    hooks = re.findall(r"^\| `(\w+)\(", PAGE, re.MULTILINE)
    assert {"authorize", "connect", "receive", "disconnect", "on_bad_message"} <= set(hooks)
    counters = re.search(r"`stats\(\)` counts.*?`server\.layer", PAGE, re.DOTALL)
    assert counters is not None
    fields = set(importlib.import_module("headrace.sockets").SocketStats.__dataclass_fields__)
    assert set(re.findall(r"`(\w+)`", counters[0])) <= fields
    assert [hook for hook in hooks if not hasattr(BaseSocketServer, hook)] == []


def test_each_name_of_django_sockets_leads_to_one_that_is_there() -> None:
    rows = re.findall(r"^\|([^|]*)\|([^|]*)\|[^|]*\|$", PAGE.partition("| django_sockets |")[2], re.MULTILINE)
    assert len(rows) > 20
    arguments = {*signature(BaseSocketServer).parameters, "raw"}
    for theirs, ours in rows[1:]:
        for name in re.findall(r"`([\w.]+)", theirs if ours.strip() == "the same" else ours):
            if name in arguments or hasattr(BaseSocketServer, name):
                continue
            module, _, attribute = name.rpartition(".")
            root = module if module.startswith(("headrace", "channels")) else f"headrace.{module}"
            assert hasattr(importlib.import_module(root), attribute), name
