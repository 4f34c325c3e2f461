"""A connection that speaks RESP2: what the tests ask a server must not depend on a client library."""

import select
import socket
import ssl
from pathlib import Path
from types import TracebackType
from typing import Any, Self

Word = str | bytes | int
SECONDS = 60.0


class ReplyError(Exception):
    """The server answered with an error."""


class Connection:
    """A connection to a server, at a host and port or at the path of a unix socket; closed with the context."""

    def __init__(
        self,
        address: tuple[str, int] | Path,
        *,
        tls: ssl.SSLContext | None = None,
        user: tuple[str, str] | None = None,
        decode: bool = True,
        seconds: float = SECONDS,
    ) -> None:
        if isinstance(address, Path):
            self._socket = socket.socket(socket.AF_UNIX)
        else:
            self._socket = socket.socket(socket.AF_INET)
        self._decode = decode
        try:
            self._socket.settimeout(seconds)
            self._socket.connect(str(address) if isinstance(address, Path) else address)
            if tls is not None:
                self._socket = tls.wrap_socket(self._socket, server_hostname=str(address[0]))  # type: ignore[index]  # not a path
            self._replies = self._socket.makefile("rb")
        except BaseException:
            self._socket.close()
            raise
        try:
            if user is not None:
                self.ask("AUTH", *user)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it."""
        self._replies.close()
        self._socket.close()

    def hears(self, seconds: float) -> bool:
        """Tell whether anything comes within so many seconds, when all that came before was read."""
        return bool(select.select([self._socket], [], [], seconds)[0])

    def ask(self, *words: Word) -> Any:
        """Send a request and return its reply.

        Raises:
            ReplyError: the reply is an error.
            ConnectionError: the server closed the connection instead.
            TimeoutError: there was no reply in time.
        """
        self.send(*words)
        reply = self.read()
        if isinstance(reply, ReplyError):
            raise reply
        return reply

    def send(self, *words: Word) -> None:
        """Send a request only."""
        request = [b"*%d\r\n" % len(words)]
        for word in words:
            data = word if isinstance(word, bytes) else str(word).encode()
            request.append(b"$%d\r\n%b\r\n" % (len(data), data))
        self._socket.sendall(b"".join(request))

    def read(self) -> Any:
        """Return the next reply; one that is an error, also inside of an array, is a ``ReplyError``."""
        line = self._replies.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("the server closed the connection")
        kind, rest = line[:1], line[1:-2]
        match kind:
            case b"+":
                return self._text(rest)
            case b"-":
                return ReplyError(rest.decode())
            case b":":
                return int(rest)
            case b"$":
                return None if rest == b"-1" else self._bulk(int(rest))
            case b"*":
                return None if rest == b"-1" else [self.read() for _ in range(int(rest))]
        raise ReplyError(f"{line!r} is not RESP2")

    def _bulk(self, length: int) -> str | bytes:
        data = self._replies.read(length + 2)
        if len(data) < length + 2:
            raise ConnectionResetError("the server closed the connection")
        return self._text(data[:-2])

    def _text(self, data: bytes) -> str | bytes:
        return data.decode() if self._decode else data
