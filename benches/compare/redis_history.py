"""What does the history of a group cost over a server: from one task to another, many sends at once, and its memory?

Changed by the answer: a message is written to its stream and published in one transaction, in one write with others.
"""

import asyncio
from collections.abc import AsyncIterator

from tests.support.binaries import KINDS, find
from tests.support.servers import Server

from benches.compare.redis_sends import SINGLE, Noted, at_once, broadcasts
from benches.compare.redis_ways import GROUP, HEADRACE, HISTORY, KEPT, PUBSUB
from benches.compare.rounds import alternate
from benches.compare.rows import Row, Spread
from benches.compare.scale import Scale
from headrace.layers import RedisChannelLayer

# What msgpack makes of it has 200 bytes.
OF_200_BYTES = {"type": "chat.message", "user": "ada", "text": "x" * 164}


async def bytes_on(server: Server, size: int) -> float:
    """Return the bytes that a server needs for one of so many messages of 200."""
    layer = RedisChannelLayer([server.url], "size", history={GROUP: {**HISTORY, "size": size}})
    try:
        for _ in range(0, size, 100):
            await asyncio.gather(*(layer.group_send(GROUP, OF_200_BYTES) for _ in range(100)))
        key = f"size:h:{{size:g:{GROUP}}}"
        usage: int = server.cli("MEMORY", "USAGE", key, "SAMPLES", 0)
        length: int = server.cli("XLEN", key)
        return usage / length
    finally:
        await layer.close()


async def measure(loop: str, scale: Scale) -> AsyncIterator[Row]:
    """Compare with the same layer without a history, and with channels_redis, on each kind of server."""
    for kind in KINDS:
        with Server(find(kind)) as server:
            name, noted = kind.capitalize(), Noted()
            ways = (KEPT, HEADRACE, PUBSUB)
            rounds = await alternate(scale.rounds, *(broadcasts(way, server.url, 1, SINGLE, noted) for way in ways))
            case = f"{name}, history, group_send to one waiting receiver"
            yield rounds.row(case, loop, KEPT, HEADRACE, 1.35)
            yield rounds.row(case, loop, KEPT, PUBSUB, 1.0)
            sends = scale.redis_sends
            rounds = await alternate(
                scale.slow_rounds * 2, *(at_once(way, server.url, sends, 0, noted) for way in (KEPT, HEADRACE))
            )
            rate = rounds.median(HEADRACE) / rounds.median(KEPT)
            case = f"{name}, history, {sends:,} concurrent group_sends, each"
            yield rounds.row(case, loop, KEPT, HEADRACE, 1 / 0.65, f"{rate:.2f} of the rate")
            taken = Spread.exactly(await bytes_on(server, 1000))
            case = f"{name}, history, one of 1,000 messages of 200 bytes"
            yield Row(case, loop, taken, "bytes", limit=270, absolute=True)
