"""Commands that prepare a run: what they print goes to a file, and is looked at when one fails."""

import shlex
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path

_LAST_LINES = 15


class Failed(Exception):
    """A command ended with an error; the message has what it printed last."""


class Steps:
    """Runs commands one after the other.

    Args:
        log: The file that gets what they print.
    """

    def __init__(self, log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log

    def say(self, line: str) -> None:
        """Tell the user what is done now."""
        print(f"# {line}", flush=True)

    def run(self, words: Sequence[str | Path], environment: dict[str, str] | None = None) -> None:
        """Run a command to its end.

        Raises:
            Failed: it ended with another status than 0.
        """
        with self._log.open("a+") as log:
            log.write(f"$ {shlex.join(map(str, words))}\n")
            log.flush()
            begin = log.tell()
            ended = subprocess.run(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, check=False
            )
            if ended.returncode != 0:
                log.seek(begin)
                self._fail(words, ended.returncode, log.read())

    def output(
        self,
        words: Sequence[str | Path],
        environment: dict[str, str] | None = None,
        statuses: Collection[int] = (0,),
    ) -> str:
        """Run a command and give what it printed.

        Raises:
            Failed: it ended with a status that is not among these.
        """
        ended = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, check=False
        )
        if ended.returncode not in statuses:
            self._fail(words, ended.returncode, ended.stdout + ended.stderr)
        return ended.stdout

    def _fail(self, words: Sequence[str | Path], status: int, printed: str) -> None:
        last = "\n".join(printed.splitlines()[-_LAST_LINES:])
        raise Failed(f"{Path(words[0]).name} ended with status {status}; all of it is in {self._log}\n{last}")
