"""What does it cost a fleet that a plain channel joins a group, and does that grow with the members that there are?

``python -m benches.members`` starts a server and five layers, and puts 500 plain channels in a group, four times. It
prints for each time how often the hash of all members was read (HGETALL), and how many bytes the server has sent for
each change. Nothing of that grows unless every layer reads again what it knows.
"""

import argparse
import asyncio
import sys

from tests.support.servers import Server

from headrace.layers import RedisChannelLayer

LAYERS = 5
CHANGES = 500
ROUNDS = 4


def reading(server: Server) -> tuple[int, int]:
    """Return how often the server was asked for all members, and how many bytes it has sent."""
    return server.commands_seen()["hgetall"], int(server.info("stats")["total_net_output_bytes"])


async def known(layers: list[RedisChannelLayer], count: int) -> None:
    """Wait until each layer knows so many members."""
    while any(len(layer.group_channels("room")) != count for layer in layers):
        await asyncio.sleep(0.01)


async def measure(server: Server, count: int, changes: int) -> None:
    """Add members round by round, and print what each round took."""
    layers = [RedisChannelLayer([server.url]) for _ in range(count)]
    for layer in layers:
        await layer.connect()
    # What each of them reads when it has connected.
    await asyncio.sleep(0.5)
    for number in range(ROUNDS):
        calls, sent = reading(server)
        for name in range(number * changes, (number + 1) * changes):
            await layers[name % count].group_add("room", f"work-{name}")
        await asyncio.wait_for(known(layers, (number + 1) * changes), 60)
        calls, sent = (now - before for now, before in zip(reading(server), (calls, sent), strict=True))
        print(f"{(number + 1) * changes:,} members: HGETALL {calls}, {sent / changes:,.0f} bytes for each change")
    for layer in layers:
        await layer.close()


def main() -> None:
    """Read the arguments, and measure."""
    parser = argparse.ArgumentParser(prog="python -m benches.members", description=__doc__)
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--changes", type=int, default=CHANGES)
    arguments = parser.parse_args()
    with Server() as server:
        print(f"CPython {sys.version.split()[0]}, {server.binary}; {arguments.layers} layers")
        asyncio.run(measure(server, arguments.layers, arguments.changes))


if __name__ == "__main__":
    main()
