"""What headrace asks of uvicorn's class: a release that has it otherwise is refused, and told."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from headrace._frames.uvicorn import check_shape

ROOT = Path(__file__).parents[2]
SANSIO = "uvicorn.protocols.websockets.websockets_sansio_impl"


def test_the_uvicorn_that_is_installed_is_known() -> None:
    check_shape(WebSocketsSansIOProtocol)


def test_a_class_without_a_method_is_refused() -> None:
    class Changed:
        def __init__(self) -> None:
            self.conn = self.transport = self.writable = None

        async def run_asgi(self) -> None:
            """Stand for uvicorn's."""

        def connection_lost(self, exc: Exception | None) -> None:
            """Stand for uvicorn's."""

        def on_task_complete(self, task: Any) -> None:
            """Stand for uvicorn's."""

    with pytest.raises(ImportError, match=r"Changed has no receive\(\), no send\(\); install a newer headrace"):
        check_shape(Changed)


def test_a_class_without_an_attribute_is_refused() -> None:
    def make(self: Any) -> None:
        self.transport = self.connection = self.can_write = None

    changed = type("Changed", (), {**vars(WebSocketsSansIOProtocol), "__init__": make})
    with pytest.raises(ImportError, match="has no conn, no writable; install a newer headrace"):
        check_shape(changed)


CHANGED = f"import {SANSIO} as changed; del changed.WebSocketsSansIOProtocol.receive"
OLD = f"import sys; sys.modules[{SANSIO!r}] = None"
UVICORN = ["uvicorn", "tests.frames.served:application", "--ws", "headrace.uvicorn:WebSocketProtocol", "--port", "0"]
GUNICORN = ["gunicorn", "tests.frames.served:application", "-k", "headrace.gunicorn.UvicornWorker", "-b", "127.0.0.1:0"]


@pytest.mark.parametrize("server", [UVICORN, GUNICORN], ids=["uvicorn", "gunicorn"])
@pytest.mark.parametrize(
    ("uvicorn", "error"),
    [
        (CHANGED, "WebSocketsSansIOProtocol has no receive(); install a newer headrace, or a uvicorn from 0.40 to"),
        (OLD, f"there is no {SANSIO}; install a uvicorn from 0.40 on"),
    ],
    ids=["changed", "old"],
)
def test_a_server_with_another_uvicorn_does_not_start_and_says_why(server: list[str], uvicorn: str, error: str) -> None:
    name = server[0]
    pytest.importorskip(name)
    begin = f"import runpy, sys; sys.argv = {server!r}; runpy.run_module({name!r}, run_name='__main__')"
    process = subprocess.run(
        [sys.executable, "-c", f"{uvicorn}; {begin}"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert process.returncode != 0
    assert f"headrace.uvicorn does not know the WebSockets of uvicorn {version('uvicorn')}: {error}" in process.stderr
