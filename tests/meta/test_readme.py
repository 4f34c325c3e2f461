"""The README's claims that a program can check."""

import asyncio
import re
import socket
import subprocess
import sys
from pathlib import Path

from websockets.asyncio.client import connect

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


async def test_the_first_example_is_served_and_heard(tmp_path: Path) -> None:
    """The consumer of the README, saved and served as it says, with two real clients."""
    example = re.search(
        r"```python\n(.*?)```\n\nSaved as `(chat).py`, it is served by `uvicorn (\S+)`", README, re.DOTALL
    )
    assert example is not None
    program, module, application = example.groups()
    (tmp_path / f"{module}.py").write_text(program)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"ws://127.0.0.1:{listening.getsockname()[1]}/ws/"
        command = [sys.executable, "-W", "error", "-m", "uvicorn", application]
        options = ["--fd", str(listening.fileno()), "--log-level", "warning", "--lifespan", "off"]
        server = subprocess.Popen([*command, *options], cwd=tmp_path, pass_fds=[listening.fileno()])
    try:
        async with connect(address, open_timeout=30) as ada, connect(address, open_timeout=30) as bob:
            await ada.send('{"text": "hello"}')
            assert [await asyncio.wait_for(client.recv(), 30) for client in (ada, bob)] == ['{"text": "hello"}'] * 2
    finally:
        server.terminate()
        server.wait(30)


def test_the_first_screen_has_the_two_commands_and_the_example() -> None:
    """A reader finds what to type without scrolling far."""
    assert README.index("```python") < README.index("$ make demo") < README.index("$ make test")
    assert README[: README.index("$ make test")].count("\n") < 50


def test_it_is_read_in_a_few_minutes() -> None:
    assert README.count("\n") <= 110


def test_its_pictures_are_there() -> None:
    pictures = re.findall(r'src(?:set)?="([^"]+)"', README)
    assert len(pictures) == 2
    assert [picture for picture in pictures if not (ROOT / picture).is_file()] == []


def test_every_make_target_that_the_readme_names_exists() -> None:
    """No command of the README is invented."""
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make ([a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
