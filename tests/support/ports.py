"""Ports for servers that cannot be given port 0, or that come back on the port that they had."""

import os
import socket
from collections.abc import Iterator
from itertools import count
from threading import Lock

HOST = "127.0.0.1"
# Below the ports that the kernel gives to clients and to whoever asks for port 0: those could be taken while a server
# is down.
_FIRST, _LAST = 20000, 31999


def _numbers() -> Iterator[int]:
    size = _LAST - _FIRST + 1
    return (_FIRST + (os.getpid() * 61 + n) % size for n in count())


_candidates = _numbers()
_lock = Lock()


class Port:
    """A TCP port that is this process's own until ``release()``, whether or not anything listens on it.

    What is held is the UDP port of the same number: the tests of another process find it taken, and the kernel frees
    it when this process ends.
    """

    def __init__(self) -> None:
        self._claim = self._find()
        self.number: int = self._claim.getsockname()[1]

    @staticmethod
    def _find() -> socket.socket:
        for _ in range(_FIRST, _LAST + 1):
            with _lock:
                number = next(_candidates)
            claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                claim.bind((HOST, number))
                socket.create_server((HOST, number)).close()
            except OSError:
                claim.close()
            else:
                return claim
        raise OSError(f"no free port from {_FIRST} to {_LAST}")

    def release(self) -> None:
        """Give it back."""
        self._claim.close()
