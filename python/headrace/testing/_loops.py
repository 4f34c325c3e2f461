"""What a test can know of its event loop: whether anything is left to run."""

import asyncio
import weakref

__all__ = ["settle"]

# How many calls of settle() are under way in a loop: to each other they would look like work.
_settling: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, int] = weakref.WeakKeyDictionary()

# Turns for a loop that does not tell what is ready. A turn takes about a microsecond if there is nothing to do.
_BLIND_TURNS = 1000


async def settle(limit: int = 10_000) -> None:
    """Let everything that is ready in this loop run, until nothing is ready any more.

    No time passes for it: use it in place of a sleep, to let an application finish what it was sent.

    It sees tasks, callbacks, sockets that are readable, and timers that are due. It does not see work in threads
    (sync consumers, ``sync_to_async``), other processes, data on its way through a network, and timers that are not
    due: wait for an effect of those.

    A loop that does not tell what is ready, such as uvloop's, gets 1,000 turns instead: enough for what needs fewer.

    Args:
        limit: Turns of the loop after which to give up.

    Raises:
        RuntimeError: Something was still ready after ``limit`` turns: a task that never waits for anything.
    """
    loop = asyncio.get_running_loop()
    # asyncio's queue of callbacks; private, and the same since Python 3.4.
    ready = getattr(loop, "_ready", None)
    if ready is None:
        for _ in range(_BLIND_TURNS):
            await asyncio.sleep(0)
        return
    _settling[loop] = _settling.get(loop, 0) + 1
    try:
        quiet = 0
        for _ in range(limit):
            await asyncio.sleep(0)
            quiet = quiet + 1 if len(ready) < _settling[loop] else 0
            if quiet == 2:  # every turn polls the sockets before it, so the second has seen what the first caused
                return
    finally:
        _settling[loop] -= 1
    raise RuntimeError(f"the loop had work in each of {limit} turns; look for a task that never waits for anything")
