"""What does the history of a group cost in process: a send, a delivery, a resume, and the memory of what is kept?

Sends take turns with those of a layer without histories; what counts is the difference within a round. The memory is
that of a process of its own, ``python -m benches.compare.history kept``, less that of one which holds the dicts alone.

Changed by the answer: all receivers of a message share the text of its position, and those who resume share one list.
"""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benches.compare.fanout import receivers
from benches.compare.rounds import MESSAGE, Variant, alternate
from benches.compare.rows import Row, Spread
from benches.compare.scale import Scale
from headrace.layers import InMemoryChannelLayer

PLAIN, KEPT = "headrace", "headrace with history"
GROUP = "room"
SENDS, MEMBERS = 500, 100
# How many messages a history holds, and how many of them a client in the crowd has missed.
SIZE, MISSED = 100, 50
GROWN_GROUPS = 1000


def layer_of(way: str) -> InMemoryChannelLayer:
    """Make a layer, with histories or without."""
    history = {"*": {"size": SIZE, "ttl": 3600}} if way == KEPT else None
    return InMemoryChannelLayer(history=history, history_bytes=1 << 40)


@asynccontextmanager
async def sends(way: str) -> AsyncIterator[Variant]:
    """Send to a group without members."""
    layer = layer_of(way)

    async def run() -> None:
        for _ in range(SENDS):
            await layer.group_send(GROUP, MESSAGE)

    yield Variant(way, run, SENDS)


@asynccontextmanager
async def resumes(clients: int, missed: int) -> AsyncIterator[Variant]:
    """Have clients come again, and receive what each has missed."""
    layer = layer_of(KEPT)
    start = await layer.group_position(GROUP)
    for _ in range(missed):
        await layer.group_send(GROUP, MESSAGE)
    channels = [await layer.new_channel() for _ in range(clients)]

    async def run() -> None:
        for channel in channels:
            await layer.group_add(GROUP, channel, since=start)
        for channel in channels:
            await layer.receive_many(channel, missed)

    yield Variant(KEPT, run, 1)


async def measure(loop: str, scale: Scale) -> AsyncIterator[Row]:
    """Compare sends and deliveries, and measure resumes and memory."""
    sent = await alternate(scale.rounds, sends(PLAIN), sends(KEPT))
    both = zip(sent.times[KEPT].wall, sent.times[PLAIN].wall, strict=True)
    more = Spread.of([kept - plain for kept, plain in both])
    yield Row("history, a group_send to nobody", loop, sent.spread(KEPT), "ns", PLAIN, sent.median(PLAIN))
    yield Row("the same, more than without", loop, more, limit=250, absolute=True)
    come = await alternate(scale.rounds, *(receivers(layer_of(way), MEMBERS, way) for way in (PLAIN, KEPT)))
    case = f"history, a delivery to one of {MEMBERS} tasks that wait"
    yield come.row(case, loop, KEPT, PLAIN, 1.15)
    one = await alternate(scale.rounds, resumes(1, SIZE))
    yield Row(f"history, a resume of {SIZE} messages", loop, one.spread(KEPT), limit=60_000, absolute=True)
    clients = 10 * scale.redis_members
    crowd = await alternate(2, resumes(clients, MISSED))
    case = f"history, {clients:,} clients resume {MISSED} messages each"
    yield Row(case, loop, Spread.of(crowd.times[KEPT].cpu), limit=1.5e9, absolute=True, note="processor time of all")
    grown = {what: await asyncio.to_thread(grow, what) for what in ("dicts", "kept")}
    note = f"beyond its dict, which takes {grown['dicts']:.0f}"
    taken = Spread.exactly(grown["kept"] - grown["dicts"])
    yield Row("history, a kept message", loop, taken, "bytes", limit=60, absolute=True, note=note)


def grow(what: str) -> float:
    """Have a process of its own keep messages or their dicts; return the bytes that each takes."""
    command = [sys.executable, "-m", "benches.compare.history", what]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def resident() -> int:
    """Return the bytes that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def main(what: str) -> None:
    """Keep as many messages as fit in many histories, or their dicts alone; print the bytes of each."""
    layer, held = layer_of(KEPT), []
    for group in range(GROWN_GROUPS):
        layer.group_send_sync(f"group.{group}", MESSAGE)
    before, count = resident(), GROWN_GROUPS * SIZE
    for number in range(count):
        message = {**MESSAGE, "text": f"{MESSAGE['text']} {number}"}
        if what == "dicts":
            held.append(message)
        else:
            layer.group_send_sync(f"group.{number % GROWN_GROUPS}", message)
    print((resident() - before) / count)


if __name__ == "__main__":
    main(sys.argv[1])
