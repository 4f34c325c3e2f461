"""Serve clients that come, go and never read over servers that fail, and see that nothing grows.

``python -m tests.soak --seconds 600`` runs an application on uvicorn over Redis, and then over Valkey. All names that
its clients bring are new. Every three seconds the connections to the server are killed, and once in each round it is
restarted. After each round the clients go, and what the process then holds is compared with what it held after the
first ones: tasks, descriptors, channels, groups, messages and keys must not grow, nor memory by more than the
allocators need. While clients are there, memory must stay below the bound. If something grows, or the application does
not answer any more, it ends with status 1.
"""

import argparse
import asyncio
import json
import random
import sys
import time
import urllib.request
from collections import Counter
from contextlib import ExitStack
from dataclasses import fields
from typing import Any

from tests.servers.conftest import serve
from tests.soak.clients import Crowd, check
from tests.soak.model import TEXT, Held, faults
from tests.support.binaries import Binary, available
from tests.support.servers import Server

ASGI_SERVER = "uvicorn-websockets-sansio-asyncio"
CLIENTS = 40
ROUND = 20.0
KILL_EVERY = 3.0
# How long it may take after a round until the process holds what it should, and how often that is looked at.
SETTLED_WITHIN = 20.0
LOOK_EVERY = 0.2
# A mailbox holds so many messages; what uvicorn and the system buffer for a client is little beside it.
CAPACITY = 100
# What the process may hold beside what it held when idle: full mailboxes that share nothing, and as much again.
BOUND = 2 * CLIENTS * CAPACITY * len(TEXT)


class Soak:
    """One server, and the application before it.

    Args:
        server: The Redis or Valkey server.
        address: Host and port of the application.
        chance: Decides what happens.
    """

    def __init__(self, server: Server, address: str, chance: random.Random) -> None:
        self._server = server
        self._address = address
        self._chance = chance
        self.idle = 0
        self.peak = 0
        self.ended: Counter[str] = Counter()
        self.rounds: list[Held] = []
        self.faults: list[str] = []

    async def play(self, seconds: float) -> None:
        """Play rounds for so long, at least one, until something is wrong."""
        self.idle = (await self._state())["memory"]
        end = time.monotonic() + seconds
        while not self.faults and (not self.rounds or time.monotonic() < end):
            await self._round(min(ROUND, max(KILL_EVERY, seconds)))

    async def _round(self, seconds: float) -> None:
        crowd = Crowd(self._address, CLIENTS, self._chance)
        staying = asyncio.create_task(crowd.stay(seconds))
        await self._trouble(seconds)
        await staying
        self.ended += crowd.ended
        held = await self._settled()
        self.rounds.append(held)
        self.faults += faults(self.rounds)
        if self.peak > self.idle + BOUND:
            self.faults.append(
                f"memory reached {self.peak >> 20} MiB, {BOUND >> 20} above the idle process are allowed"
            )
        try:
            await check(self._address)
        except (OSError, TimeoutError) as error:
            self.faults.append(f"the application does not answer any more: {error!r}")
        print(self._line(held), flush=True)

    async def _trouble(self, seconds: float) -> None:
        """Kill connections again and again, and restart the server once."""
        kills = max(1, int(seconds / KILL_EVERY))
        restart = self._chance.randrange(kills)
        for number in range(kills):
            await asyncio.sleep(KILL_EVERY)
            self.peak = max(self.peak, (await self._state())["memory"])
            if number == restart:
                await asyncio.to_thread(self._server.restart)
            else:
                kind = self._chance.choice(("pubsub", "normal"))
                await asyncio.to_thread(self._server.cli, "CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    async def _settled(self) -> Held:
        """Wait until nobody is there and the layer is connected, and give what is held then."""
        end = time.monotonic() + SETTLED_WITHIN
        while True:
            state = await self._state()
            quiet = state.pop("connected") and not (state["channels"] or state["groups"] or state["messages"])
            if quiet or time.monotonic() > end:
                return Held(**state, keys=await asyncio.to_thread(self._server.cli, "DBSIZE"))
            await asyncio.sleep(LOOK_EVERY)

    async def _state(self) -> dict[str, Any]:
        def ask() -> dict[str, Any]:
            with urllib.request.urlopen(f"http://{self._address}/state/", timeout=SETTLED_WITHIN) as answer:
                state: dict[str, Any] = json.load(answer)
                return state

        return await asyncio.to_thread(ask)

    def _line(self, held: Held) -> str:
        shown = {each.name: getattr(held, each.name) for each in fields(held)}
        shown["memory"] = f"{held.memory >> 20} MiB"
        return f"round {len(self.rounds)}: {', '.join(f'{name} {value}' for name, value in shown.items())}"

    def row(self) -> str:
        """Give the line of the table."""
        first, last = self.rounds[0], self.rounds[-1]
        visits = self.ended.total()
        memory = " to ".join(str(size >> 20) for size in (first.memory, last.memory))
        cells = [
            str(self._server.binary),
            str(len(self.rounds)),
            f"{visits:,}",
            f"{self.ended['never read']:,}",
            f"{self.ended['refused or lost']:,}",
            f"{memory} MiB, at most {self.peak >> 20}",
            *(f"{getattr(first, name)} to {getattr(last, name)}" for name in ("tasks", "descriptors", "keys")),
        ]
        return f"| {' | '.join(cells)} |"


HEAD = "| server | rounds | clients | never read | refused or lost | memory | tasks | descriptors | keys |"


def play(binary: Binary, seconds: float, seed: int) -> Soak:
    """Play over one server."""
    print(f"# {binary}, seed {seed}", flush=True)
    with ExitStack() as stack:
        server = stack.enter_context(Server(binary))
        application = serve(ASGI_SERVER, "tests.soak.served:application", {"SOAK_URL": server.url})
        soak = Soak(server, stack.enter_context(application).address, random.Random(seed))
        asyncio.run(soak.play(seconds))
    return soak


def main() -> int:
    """Play over each server for its part of the time, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=600, help="for all servers together")
    parser.add_argument("--seed", type=int, help="what chance begins with; if not given, another each time")
    parser.add_argument("--server", help="over this one alone: redis, valkey")
    given = parser.parse_args()
    binaries = [binary for binary in available() if given.server in (None, binary.name)]
    if not binaries:
        parser.error("there is no such server on this machine")
    seed = random.SystemRandom().randrange(2**32) if given.seed is None else given.seed
    played = [play(binary, given.seconds / len(binaries), seed) for binary in binaries]
    print("\n".join(["", HEAD, "|---" * 9 + "|", *(soak.row() for soak in played)]))
    found = [fault for soak in played for fault in soak.faults]
    for fault in found:
        print(fault)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
