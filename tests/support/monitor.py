"""What a server is given, as its MONITOR tells it."""

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from tests.support.resp import Connection

_MONITORED = re.compile(r'^[\d.]+ \[\d+ (?P<client>.*?)\] (?P<words>".*)$')
_WORD = re.compile(rb'"((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(rb"\\(x[0-9a-f]{2}|.)")
_ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b"}


@dataclass(frozen=True)
class Seen:
    """A command that a server was given: by the client at which address, and its words."""

    client: str
    words: tuple[bytes, ...]

    @property
    def name(self) -> str:
        """Give the command's name in capitals."""
        return self.words[0].decode().upper()


class Monitor:
    """What a server is given on its port while it is watched; it hides passwords, and most of what administers it."""

    def __init__(self, connection: Connection, mark: Callable[[bytes], object]) -> None:
        self._connection = connection
        self._mark = mark
        self._seen: list[Seen] = []

    def seen(self) -> list[Seen]:
        """List what was given until now, the oldest first."""
        # A command of our own in the stream: what was given before it is seen before it.
        token = secrets.token_hex(16).encode()
        self._mark(token)
        while token not in (seen := _parse(self._connection.read())).words:
            # Through the unix socket come the tests' own questions.
            if not seen.client.startswith("unix:"):
                self._seen.append(seen)
        return list(self._seen)


def _parse(line: str) -> Seen:
    match = _MONITORED.match(line)
    if match is None:
        raise ValueError(f"{line!r} is not of MONITOR")
    words = (_unescape(word) for word in _WORD.findall(match["words"].encode()))
    return Seen(match["client"], tuple(words))


def _unescape(word: bytes) -> bytes:
    def plain(match: re.Match[bytes]) -> bytes:
        escape = match[1]
        return bytes.fromhex(escape[1:].decode()) if len(escape) == 3 else _ESCAPED.get(escape, escape)

    return _ESCAPE.sub(plain, word)
