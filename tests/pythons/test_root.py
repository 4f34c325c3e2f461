"""Where the source of an interpreter comes from that is built."""

import tarfile
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from tests.pythons.root import Root
from tests.pythons.steps import Steps

pytestmark = pytest.mark.one_python

LISTED = ["3.14.9-1", "3.14.10-1~rc"]


@pytest.fixture
def mirror(tmp_path: Path) -> Any:
    """Serve a folder."""
    folder = tmp_path / "mirror"

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, format: str, *arguments: Any) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder / "pool/main/p/python3.14"
    server.shutdown()
    thread.join()
    server.server_close()


def root(tmp_path: Path, mirror: str) -> Root:
    sources = tmp_path / "sid/etc/apt/sources.list"
    sources.parent.mkdir(parents=True)
    sources.write_text(f"deb {mirror}/ sid main\n")
    return Root(tmp_path, Steps(tmp_path / "log"), [])


def release(pool: Path, number: str) -> None:
    """Put a source on the mirror."""
    content = pool / f"Python-{number}" / "configure"
    content.parent.mkdir(parents=True)
    content.write_text(number)
    with tarfile.open(pool / f"python3.14_{number}.orig.tar.xz", "w:xz") as archive:
        archive.add(content.parent, content.parent.name)


def test_the_newest_earlier_source_of_a_mirror_is_taken(tmp_path: Path, mirror: tuple[str, Path]) -> None:
    address, pool = mirror
    for number in ("3.14.6", "3.14.7"):
        release(pool, number)
    inside = tmp_path / "inside"
    inside.mkdir()
    found = root(tmp_path, address)._original("python3.14", LISTED, inside)
    assert found == inside / "Python-3.14.7"
    assert (found / "configure").read_text() == "3.14.7"


def test_a_mirror_may_have_none(tmp_path: Path, mirror: tuple[str, Path]) -> None:
    assert root(tmp_path, mirror[0])._original("python3.14", LISTED, tmp_path) is None
    assert root(tmp_path / "other", mirror[0])._original("python3.14", [], tmp_path) is None
