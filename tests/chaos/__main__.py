"""Break servers, networks and processes at random while a fleet talks, and count what becomes of every message.

``python -m tests.chaos --seconds 120 --seed 1`` starts a server, a proxy before it, and three processes that send to a
group, to each other and to a queue. Round by round one thing goes wrong. Whatever the server took has to arrive, once
and in order, or what docs/explanation/reliability.md promises has to be so: if not, it ends with status 1. The table
that it prints is there too. After each round all processes list the same as present, which is who is there.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from tests.chaos.causes import CAUSES, RULES, USER, Cause, Scene
from tests.chaos.model import CLIENTS, Round, Sums, table
from tests.chaos.worker import MEMBERS
from tests.support.binaries import KINDS, find
from tests.support.ports import HOST
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
PROCESSES = 3
RECEIVERS = [*(f"member-{number}" for number in range(MEMBERS)), "direct", "queue"]
# Messages flow for so long before something happens and after it has ended.
CALM = 0.5
# Queues are looked at each second by those who wait: what has not come in this time does not come.
SILENCE = 1.5
_SECONDS = 30


class Process:
    """A worker, seen from here."""

    def __init__(self, url: str, name: str, folder: Path, *, history: bool) -> None:
        self.name = name
        self._path = folder / name
        self._path.touch()
        self._read = 0
        self.joined = 0.0
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.worker", url, name, self._path, *(["history"] if history else [])],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.channel: str = self._answer()
        self.joined = time.monotonic()

    def _answer(self) -> Any:
        if self._popen.stdout is None or not (line := self._popen.stdout.readline()):
            raise RuntimeError(f"{self.name} ended with status {self._popen.wait(_SECONDS)}")
        return json.loads(line)

    def tell(self, **order: Any) -> None:
        """Say what to do."""
        if self._popen.stdin is not None:
            self._popen.stdin.write(json.dumps(order) + "\n")
            self._popen.stdin.flush()

    def ask(self, **order: Any) -> Any:
        """Say what to do, and wait until it is done."""
        self.tell(**order)
        return self._answer()

    def send_signal(self, number: int) -> None:
        self._popen.send_signal(number)

    @property
    def size(self) -> int:
        """Give how much it has written down."""
        return self._path.stat().st_size

    def news(self) -> list[list[Any]]:
        """Give what it has written down since the last time; a kill may have cut the last line."""
        with open(self._path, "rb") as log:
            log.seek(self._read)
            whole, _, _ = log.read().rpartition(b"\n")
        self._read += len(whole) + 1 if whole else 0
        return [json.loads(line) for line in whole.splitlines()]

    def end(self) -> None:
        """End it, one way or the other."""
        self._popen.send_signal(signal.SIGCONT)
        if self._popen.stdin is not None:
            with suppress(BrokenPipeError):
                self._popen.stdin.close()
        try:
            self._popen.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait(_SECONDS)
        if self._popen.stdout is not None:
            self._popen.stdout.close()


class Fleet:
    """The processes, and what is done to them."""

    def __init__(self, url: str, folder: Path, chance: random.Random, *, history: bool) -> None:
        self.history = history
        self._url = url
        self._folder = folder
        self._random = chance
        self._count = 0
        self._round = 0
        self.processes: list[Process] = []
        self.gone: list[Process] = []
        while len(self.processes) < PROCESSES:
            self._start()

    def _start(self) -> Process:
        self._count += 1
        process = Process(self._url, f"p{self._count}", self._folder, history=self.history)
        self.processes.append(process)
        return self.processes[-1]

    @property
    def _peers(self) -> dict[str, str]:
        return {process.name: process.channel for process in self.processes}

    def talk(self, number: int) -> None:
        """Have all of them send."""
        self._round = number
        self._tell_all(self.processes, do="send", round=number, peers=self._peers)

    def hush(self) -> None:
        """Have them stop, and wait until nothing comes any more."""
        self._tell_all(self.processes, do="quiet")
        seen, since = -1, time.monotonic()
        while time.monotonic() - since < SILENCE:
            if (size := sum(process.size for process in self.processes)) != seen:
                seen, since = size, time.monotonic()
            time.sleep(0.02)

    def settle(self) -> None:
        """Wait until all are connected."""
        eventually(lambda: all(process.ask(do="state") == "up" for process in self.processes), "all are connected")

    def agree(self) -> None:
        """Wait until each process lists those that are there as present, and nobody else."""
        expected = {process.name: 1 for process in self.processes}
        lists = [partial(process.ask, do="list") for process in self.processes]
        eventually(lambda: all(ask() == expected for ask in lists), f"all list {expected} as present")

    def _tell_all(self, processes: list[Process], **order: Any) -> None:
        for process in processes:
            process.tell(**order)
        for process in processes:
            process._answer()

    def _one(self) -> Process:
        return self._random.choice(self.processes)

    def kill(self) -> None:
        process = self._one()
        process.send_signal(signal.SIGKILL)
        self.processes.remove(process)
        self.gone.append(process)
        self._tell_all([self._start()], do="send", round=self._round, peers=self._peers)

    def pause(self, seconds: float) -> None:
        process = self._one()
        process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        process.send_signal(signal.SIGCONT)

    def block(self, seconds: float) -> None:
        self._one().ask(do="block", seconds=seconds)

    def burst(self) -> None:
        self._one().ask(do="burst", count=self._random.randint(1, 5))

    def end(self) -> None:
        for process in [*self.processes, *self.gone]:
            process.end()


def play(scene: Scene, fleet: Fleet, number: int, cause: Cause) -> tuple[Sums, Sums]:
    """Play one round, and say what came of it: of all, or with history of the group, and of the others."""
    fleet.talk(number)
    time.sleep(CALM)
    cause.act(scene)
    ended = time.monotonic()
    time.sleep(CALM)
    fleet.settle()
    time.sleep(CALM)
    fleet.hush()
    fleet.agree()
    model = Round(number, forgets=cause.forgets, heals=fleet.history, empties=cause.empties)
    for process in fleet.processes:
        model.read(process.name, process.joined, process.news(), [*RECEIVERS, *(CLIENTS if fleet.history else ())])
    for process in fleet.gone:
        model.read(process.name, process.joined, process.news(), [])
    if fleet.history:
        return model.sums(ended, "group"), model.sums(ended, "direct", "queue")
    return model.sums(ended), Sums()


@contextmanager
def scenery(
    kind: str | None, protocol: int, chance: random.Random, *, history: bool = False
) -> Iterator[tuple[Scene, Fleet]]:
    """Set the scene up."""
    with ExitStack() as stack:
        users = {USER[0]: " ".join(RULES), "default": "off"}
        server = stack.enter_context(Server(find(kind), users=users, options={"maxmemory-policy": "noeviction"}))
        proxy = stack.enter_context(Proxy(server.port))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-chaos-")))
        url = f"redis://{':'.join(USER)}@{HOST}:{proxy.port}?protocol={protocol}"
        fleet = Fleet(url, folder, chance, history=history)
        stack.callback(fleet.end)
        yield Scene(server, proxy, fleet, chance), fleet


def order(chance: random.Random, causes: list[Cause]) -> Iterator[Cause]:
    """Give the causes, all of them before any comes again, in another order each time."""
    while True:
        yield from chance.sample(causes, len(causes))


def main() -> int:
    """Play until the time is over, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=180, help="after so many seconds no round begins any more")
    parser.add_argument("--seed", type=int, help="what chance begins with; if not given, another each time")
    parser.add_argument("--server", choices=KINDS, help="which server; the first there is if not given")
    parser.add_argument("--protocol", type=int, choices=(2, 3), default=3, help="which version of RESP")
    parser.add_argument("--history", action="store_true", help="the group keeps its history, and mends its gaps")
    parser.add_argument("--cause", action="append", default=[], help="only those whose name has this in it")
    given = parser.parse_args()
    causes = [cause for cause in CAUSES if not given.cause or any(part in cause.name for part in given.cause)]
    if not causes:
        parser.error(f"there is no such cause; there are {', '.join(cause.name for cause in CAUSES)}")
    seed = random.SystemRandom().randrange(2**32) if given.seed is None else given.seed
    chance = random.Random(seed)
    sums = {cause.name: Sums() for cause in causes}
    broken: set[str] = set()
    with scenery(given.server, given.protocol, chance, history=given.history) as (scene, fleet):
        print(f"seed {seed}, {scene.server.binary}, {PROCESSES} processes", flush=True)
        end = time.monotonic() + given.seconds
        for number, cause in enumerate(order(chance, causes)):
            if time.monotonic() > end:
                break
            came, others = play(scene, fleet, number, cause)
            sums[cause.name].add(came)
            if others.broken:
                broken.add(cause.name)
                print(f"round {number}, beside the group: {others.row(cause.name)}", flush=True)
            print(f"round {number}: {came.row(cause.name, history=given.history)}", flush=True)
    played = {name: each for name, each in sums.items() if each.rounds}
    print(f"\n{table(played, history=given.history)}")
    broken.update(name for name, each in sums.items() if each.broken)
    if broken:
        print(f"\npromises were broken by: {', '.join(sorted(broken))}; again with --seed {seed}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
