"""Does a fan-out to several loops, each in its thread, run at the same moment without the interpreter's lock?

``python -m benches.free_threading`` sends to one group of 1,000 members in one process, which are spread over 1, 2 and
4 loops. It prints the deliveries a second with each number of loops, beside those with one loop in the same round.
"""

import argparse
import asyncio
import statistics
import sys
import threading
import time

from headrace.layers import InMemoryChannelLayer

LOOPS = (1, 2, 4)
MEMBERS = 1_000
MESSAGES = 200


def deliveries_a_second(loops: int) -> float:
    """Send from this thread until every member has every message."""
    layer = InMemoryChannelLayer(capacity=MESSAGES, capacity_bytes=1 << 40)
    ready = threading.Barrier(loops + 1)

    async def member() -> None:
        async with layer.subscription("group") as inbox:
            for _ in range(MESSAGES):
                await anext(inbox)

    async def main() -> None:
        members = [asyncio.ensure_future(member()) for _ in range(MEMBERS // loops)]
        while layer.stats().waiters < MEMBERS:
            await asyncio.sleep(0.001)
        ready.wait()
        await asyncio.gather(*members)

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(loops)]
    for thread in threads:
        thread.start()
    ready.wait()
    started = time.perf_counter()
    for number in range(MESSAGES):
        layer.group_send_sync("group", {"type": "message", "number": number})
    for thread in threads:
        thread.join()
    return MEMBERS * MESSAGES / (time.perf_counter() - started)


def main() -> None:
    """Measure in rounds, so that what else the machine does is in every number of loops alike."""
    parser = argparse.ArgumentParser(prog="python -m benches.free_threading", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    measured = [[deliveries_a_second(loops) for loops in LOOPS] for _ in range(rounds)]
    locked = getattr(sys, "_is_gil_enabled", lambda: True)()
    print(
        f"CPython {sys.version.split()[0]}, {'with' if locked else 'without'} the interpreter's lock, {rounds} rounds"
    )
    for place, loops in enumerate(LOOPS):
        rate = statistics.median(row[place] for row in measured)
        beside = statistics.median(row[place] / row[0] for row in measured)
        print(f"{loops} loops: {rate:,.0f} deliveries a second, {beside:.2f} of one loop")


if __name__ == "__main__":
    main()
