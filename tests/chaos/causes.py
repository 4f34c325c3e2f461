"""What can go wrong, one thing at a time: each begins, lasts a while, and ends."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Protocol

from tests.support.proxy import Proxy
from tests.support.servers import Server

USER = ("app", "chaos")
RULES = ("on", "resetpass", f">{USER[1]}", "~*", "&*", "+@all")


class Fleet(Protocol):
    """The processes, as far as something can be done to them."""

    def kill(self) -> None:
        """Kill one, and start another in its place."""

    def pause(self, seconds: float) -> None:
        """Stop one where it is for so long."""

    def block(self, seconds: float) -> None:
        """Have the loop of one stand still for so long."""

    def burst(self) -> None:
        """Have one send more than the server keeps for a client."""


@dataclass
class Scene:
    """What the causes act upon."""

    server: Server
    proxy: Proxy
    fleet: Fleet
    random: Random

    def last(self, least: float = 0.05, most: float = 2.5) -> None:
        """Let it last a while."""
        time.sleep(self.random.uniform(least, most))


@dataclass(frozen=True)
class Cause:
    """Something that goes wrong.

    Attributes:
        act: Does it, and undoes it; between is the while that it lasts.
        forgets: The server may lose what it took: queues are in its memory, and a process has what it took from them.
        empties: The server comes back without anything.
    """

    name: str
    act: Callable[[Scene], None]
    forgets: bool = False
    empties: bool = False


def nothing(scene: Scene) -> None:
    scene.last()


def stopped(scene: Scene) -> None:
    scene.server.stop()
    scene.last()
    scene.server.start()


def killed(scene: Scene) -> None:
    scene.server.kill()
    scene.last()
    scene.server.start()


def paused(scene: Scene) -> None:
    scene.server.pause()
    scene.last(most=4.5)
    scene.server.resume()


def stalled(scene: Scene) -> None:
    scene.proxy.stall()
    scene.last(most=4.5)
    scene.proxy.flow()


def vanished(scene: Scene) -> None:
    scene.proxy.refuse()
    scene.proxy.stall()
    scene.last(most=4.5)
    scene.proxy.cut()
    scene.proxy.flow()
    scene.proxy.accept()


def refused(scene: Scene) -> None:
    scene.proxy.refuse()
    scene.proxy.cut()
    scene.last()
    scene.proxy.accept()


def reset(scene: Scene) -> None:
    for _ in range(scene.random.randint(1, 5)):
        scene.proxy.cut()
        scene.last(most=0.4)


def subscribers_killed(scene: Scene) -> None:
    scene.server.ask("CLIENT", "KILL", "TYPE", "pubsub")
    scene.last(most=0.5)


def writers_killed(scene: Scene) -> None:
    scene.server.ask("CLIENT", "KILL", "TYPE", "normal", "USER", USER[0])
    scene.last(most=0.5)


def out_of_memory(scene: Scene) -> None:
    scene.server.ask("CONFIG", "SET", "maxmemory", 1)
    scene.last()
    scene.server.ask("CONFIG", "SET", "maxmemory", 0)


def replica(scene: Scene) -> None:
    # Of a master that is not there: it keeps what it has, and takes nothing.
    scene.server.ask("REPLICAOF", "127.0.0.1", 1)
    scene.last()
    scene.server.ask("REPLICAOF", "NO", "ONE")


def revoked(scene: Scene) -> None:
    scene.server.ask("ACL", "DELUSER", USER[0])
    scene.last()
    scene.server.ask("ACL", "SETUSER", USER[0], *RULES)


@contextmanager
def _small_buffers(server: Server) -> Iterator[None]:
    server.ask("CONFIG", "SET", "client-output-buffer-limit", "pubsub 65536 65536 1")
    try:
        yield
    finally:
        server.ask("CONFIG", "SET", "client-output-buffer-limit", "pubsub 33554432 8388608 60")


def buffers_full(scene: Scene) -> None:
    with _small_buffers(scene.server):
        scene.fleet.burst()
        scene.last(most=0.5)


def process_killed(scene: Scene) -> None:
    scene.fleet.kill()


def process_paused(scene: Scene) -> None:
    scene.fleet.pause(scene.random.uniform(0.5, 4.5))


def loop_blocked(scene: Scene) -> None:
    scene.fleet.block(scene.random.uniform(0.5, 4.5))


CAUSES = (
    Cause("nothing", nothing),
    Cause("server stopped, started", stopped, forgets=True, empties=True),
    Cause("server killed, started", killed, forgets=True, empties=True),
    Cause("server paused", paused),
    Cause("network stalls, goes on", stalled),
    Cause("network stalls, connections gone", vanished),
    Cause("connections cut, then refused", refused),
    Cause("connections cut", reset),
    Cause("subscribers disconnected", subscribers_killed),
    Cause("writers disconnected", writers_killed),
    Cause("server out of memory", out_of_memory),
    Cause("server a read-only replica", replica),
    Cause("user deleted", revoked),
    Cause("output buffer limit", buffers_full),
    Cause("a process killed", process_killed, forgets=True),
    Cause("a process stopped for a while", process_paused),
    Cause("a loop blocked", loop_blocked),
)
