"""The tutorials of docs/, followed step by step in a folder.

A comment before a block says what a reader does with it: ``<!-- file: NAME -->`` saves it, ``<!-- append: NAME -->``
adds it to the end of a file, ``<!-- last line: NAME -->`` puts it in the place of the last line, and ``<!-- run -->``
enters its commands. Blocks without a comment are only read.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.examples import run

TUTORIALS = Path(__file__).parents[2] / "docs/tutorials"


@dataclass(frozen=True)
class Step:
    """A block of a tutorial, and what is to be done with it."""

    what: str
    name: str
    text: str

    def follow(self, folder: Path) -> None:
        """Do it."""
        file = folder / self.name
        if self.what == "run":
            for line in re.findall(r"^\$ (.*)$", self.text, re.MULTILINE):
                result = run(folder, *shlex.split(line))
                assert result.returncode == 0, result.stdout + result.stderr
        elif self.what == "file":
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(self.text)
        elif self.what == "append":
            file.write_text(file.read_text() + self.text)
        else:
            assert self.what == "last line"
            *others, _ = file.read_text().splitlines(keepends=True)
            file.write_text("".join(others) + self.text)


def steps(tutorial: str) -> Iterator[Step]:
    """Read a tutorial."""
    page = (TUTORIALS / f"{tutorial}.md").read_text()
    for what, name, text in re.findall(
        r"^<!-- ([a-z ]+)(?:: (\S+))? -->\n```\w+\n(.*?)^```$", page, re.DOTALL | re.MULTILINE
    ):
        yield Step(what, name, text)


def say_how_to_serve(tutorial: str, folder: Path) -> None:
    """Leave the command with which the tutorial serves it where ``serve`` of tests.support.examples reads it."""
    (command,) = re.findall(
        r"^```console\n(\$ uvicorn .*\n)```$", (TUTORIALS / f"{tutorial}.md").read_text(), re.MULTILINE
    )
    (folder / "README.md").write_text(f"In this folder:\n\n```console\n{command}```\n")
