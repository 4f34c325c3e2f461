"""What does the history of a group cost: a send, a delivery, a resume, and the memory of what is kept?

``python -m benches.history`` compares a group that has a history with one of a layer without, in alternating rounds,
and prints the best round of each: other work on the machine only adds. Then it lets clients resume, and measures in
processes of their own how much more memory a kept message takes than the dict that was sent.

``python -m benches.history --server redis`` does so over a server: from one process to another, many sends at once,
and the memory of the server.
"""

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.binaries import KINDS, find
from tests.support.servers import Server

from headrace.layers import InMemoryChannelLayer, RedisChannelLayer

GROUP = "room"
TEXT = "the quick brown fox jumps over the lazy dog"
MESSAGE = {"type": "chat.message", "user": "ada", "text": TEXT}
ROUNDS, TIMES = 15, 2_000
SIZE = 100
CLIENTS, MISSED = 10_000, 50
KEPT_GROUPS = 2_000
# Over a server, in shorter rounds: more of them are undisturbed.
SERVER_ROUNDS, SENDS, AT_ONCE = 60, 50, 1_000
# What msgpack makes of it has 200 bytes.
OF_200_BYTES = {"type": "chat.message", "user": "ada", "text": "x" * 164}


def layer_with(size: int | None, history_bytes: int = 1 << 30) -> InMemoryChannelLayer:
    """Make a layer whose groups keep so many messages, or that has no histories."""
    history = None if size is None else {"*": {"size": size, "ttl": 3600}}
    return InMemoryChannelLayer(history=history, history_bytes=history_bytes)


def microseconds(times: int, what: Callable[[], object]) -> float:
    """Call a function so many times; return the processor time of each call."""
    start = time.process_time()
    for _ in range(times):
        what()
    return (time.process_time() - start) / times * 1e6


def compare(name: str, times: int, without: Callable[[], object], kept: Callable[[], object]) -> None:
    """Print what both take, each in its best round."""
    rounds = [(microseconds(times, without), microseconds(times, kept)) for _ in range(ROUNDS)]
    before, after = (min(column) for column in zip(*rounds, strict=True))
    print(f"{name:44} {before:9.2f} {after:9.2f} {after - before:+9.2f} {after / before:9.2f}", flush=True)


def sending() -> None:
    """Compare sends and deliveries."""
    without, kept = layer_with(None), layer_with(SIZE)
    print(f"{'microseconds':44} {'without':>9} {'history':>9} {'more':>9} {'ratio':>9}")
    send = [lambda layer=layer: layer.group_send_sync(GROUP, MESSAGE) for layer in (without, kept)]
    compare("group_send to nobody", TIMES, *send)
    for members in (1, 100):
        channels = [f"member.{number}" for number in range(members)]
        for layer in (without, kept):
            for channel in channels:
                layer.group_add_sync(GROUP, channel)

        def deliver(layer: InMemoryChannelLayer, channels: list[str] = channels) -> None:
            layer.group_send_sync(GROUP, MESSAGE)
            for channel in channels:
                layer.receive_nowait(channel)

        both = [lambda layer=layer: deliver(layer) for layer in (without, kept)]
        compare(f"group_send to {members} and each receives", TIMES // members, *both)


async def awaiting() -> None:
    """Compare deliveries to tasks that wait."""
    loops = []
    for layer in (layer_with(None), layer_with(SIZE)):
        channels = [f"member.{number}" for number in range(100)]
        for channel in channels:
            await layer.group_add(GROUP, channel)
        loops.append((layer, [asyncio.create_task(listen(layer, channel)) for channel in channels]))
    best = [1e9, 1e9]
    for _ in range(ROUNDS):
        for place, (layer, _tasks) in enumerate(loops):
            start, end = time.process_time(), layer.stats().delivered + TIMES
            while layer.stats().delivered < end:
                await layer.group_send(GROUP, MESSAGE)
                while layer.stats().waiters < 100:
                    await asyncio.sleep(0)
            best[place] = min(best[place], (time.process_time() - start) / TIMES * 1e6)
    for _, tasks in loops:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    before, after = best
    name = "a delivery to one of 100 tasks that wait"
    print(f"{name:44} {before:9.2f} {after:9.2f} {after - before:+9.2f} {after / before:9.2f}", flush=True)


async def listen(layer: InMemoryChannelLayer, channel: str) -> None:
    """Receive until cancelled."""
    while True:
        await layer.receive(channel)


def resuming() -> None:
    """Print what one resume takes, and that of many clients."""
    layer = layer_with(SIZE)
    start = layer.group_position_sync(GROUP)
    for _ in range(SIZE):
        layer.group_send_sync(GROUP, MESSAGE)

    def resume() -> None:
        layer.group_add_sync(GROUP, "client", since=start)
        layer._core.receive_ready("client", SIZE)

    best = min(microseconds(100, resume) for _ in range(ROUNDS))
    print(f"{f'resume, and receive {SIZE} messages':44} {best:9.2f} us")
    best = min(microseconds(100, lambda: layer.group_history_sync(GROUP, limit=SIZE)) for _ in range(ROUNDS))
    print(f"{f'group_history of {SIZE} messages':44} {best:9.2f} us")
    best = min(asyncio.run(storm()) for _ in range(3))
    print(f"{f'{CLIENTS:,} clients resume, {MISSED} messages each':44} {best:9.2f} s")


async def storm() -> float:
    """Have many clients resume, and receive what each has missed; return the seconds of processor time."""
    layer = layer_with(SIZE)
    start = await layer.group_position(GROUP)
    for _ in range(MISSED):
        await layer.group_send(GROUP, MESSAGE)
    channels = [await layer.new_channel() for _ in range(CLIENTS)]
    began = time.process_time()
    for channel in channels:
        assert await layer.group_add(GROUP, channel, since=start)
    for channel in channels:
        assert len(await layer.receive_many(channel, SIZE)) == MISSED
    return time.process_time() - began


def resident() -> int:
    """Return the bytes that this process has in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def grow(what: str) -> None:
    """Keep as many messages as a ring does, or their dicts alone; print how much the process has grown for each."""
    layer = layer_with(SIZE, history_bytes=1 << 40)
    for group in range(KEPT_GROUPS):
        layer.group_send_sync(f"group.{group}", MESSAGE)
    before, held = resident(), []
    for number in range(KEPT_GROUPS * SIZE):
        message = {**MESSAGE, "text": f"{TEXT} {number}"}
        if what == "dicts":
            held.append(message)
        else:
            layer.group_send_sync(f"group.{number % KEPT_GROUPS}", message)
    print((resident() - before) / (KEPT_GROUPS * SIZE))


def memory() -> None:
    """Print how much more a kept message takes than its dict."""
    grown = {}
    for what in ("dicts", "kept"):
        command = [sys.executable, "-m", "benches.history", "--grow", what]
        grown[what] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(f"{'bytes of a message beyond its dict':44} {grown['kept'] - grown['dicts']:9.0f} of {grown['dicts']:.0f}")


async def over(server: Server) -> None:
    """Compare two layers that share a server, with and without a history; print what the server keeps."""
    pairs = []
    for name, history in (("without", None), ("kept", {"*": {"size": SIZE, "ttl": 3600}})):
        sender, receiver = (RedisChannelLayer([server.url], name, capacity=AT_ONCE, history=history) for _ in range(2))
        channel = await receiver.new_channel()
        await receiver.group_add(GROUP, channel)
        pairs.append((sender, receiver, channel))

    async def one_by_one(sender: RedisChannelLayer, receiver: RedisChannelLayer, channel: str) -> None:
        for _ in range(SENDS):
            await sender.group_send(GROUP, MESSAGE)
            await receiver.receive(channel)

    async def at_once(sender: RedisChannelLayer, receiver: RedisChannelLayer, channel: str) -> None:
        # To a group without members: it is the sender that is measured.
        await asyncio.gather(*(sender.group_send("hall", MESSAGE) for _ in range(AT_ONCE)))

    print(f"{'microseconds, ' + str(server.binary):44} {'without':>9} {'history':>9} {'more':>9} {'ratio':>9}")
    for name, times, work in (
        ("from one layer to another, each", SENDS, one_by_one),
        (f"{AT_ONCE:,} group_sends at once, each", AT_ONCE, at_once),
    ):
        best = [1e9, 1e9]
        for _ in range(SERVER_ROUNDS):
            for place, pair in enumerate(pairs):
                start = time.perf_counter()
                await work(*pair)
                best[place] = min(best[place], (time.perf_counter() - start) / times * 1e6)
        before, after = best
        print(f"{name:44} {before:9.2f} {after:9.2f} {after - before:+9.2f} {after / before:9.2f}", flush=True)
    for sender, receiver, _ in pairs:
        await sender.close()
        await receiver.close()
    await keeping(server)


async def keeping(server: Server) -> None:
    """Print what a message of 200 bytes takes on the server, by how many are kept."""
    for size in (100, 1_000, 10_000):
        layer = RedisChannelLayer([server.url], f"keep{size}", history={GROUP: {"size": size, "ttl": 3600}})
        for _ in range(0, size, SIZE):
            await asyncio.gather(*(layer.group_send(GROUP, OF_200_BYTES) for _ in range(SIZE)))
        key = f"keep{size}:h:{{keep{size}:g:{GROUP}}}"
        taken = server.cli("MEMORY", "USAGE", key, "SAMPLES", 0) / server.cli("XLEN", key)
        print(f"{f'bytes of one of {size:,} messages of 200 bytes':44} {taken:9.0f}")
        await layer.close()


def main() -> None:
    """Measure all, or grow for a measurement."""
    parser = argparse.ArgumentParser(prog="python -m benches.history", description=__doc__)
    parser.add_argument("--grow", choices=["dicts", "kept"], help=argparse.SUPPRESS)
    parser.add_argument("--server", choices=KINDS, help="measure over a server of this kind")
    given = parser.parse_args()
    if given.grow is not None:
        grow(given.grow)
        return
    if given.server is not None:
        with Server(find(given.server)) as server:
            asyncio.run(over(server))
        return
    print(f"CPython {sys.version.split()[0]}")
    sending()
    asyncio.run(awaiting())
    resuming()
    memory()


if __name__ == "__main__":
    main()
