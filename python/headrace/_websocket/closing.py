"""How a connection ends: within a time, whether its client reads or not, and also if its task is cancelled."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from headrace.typing import Message, Send

__all__ = ["CLEAN_UP_TIMEOUT", "CLOSE_TIMEOUT", "despite_cancel", "send_close", "tell_closed"]

CLOSE_TIMEOUT = 5
"""How many seconds a client that does not read may delay its close, and a server's ``receive()`` its end."""

CLEAN_UP_TIMEOUT = 10
"""How many seconds the end of a connection may take when its task was cancelled."""

_logger = logging.getLogger("headrace.consumer")


async def send_close(send: Send, message: Message) -> Exception | None:
    """Send a close, in ``CLOSE_TIMEOUT`` at most; return the server's error, or a ``TimeoutError``."""
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT):
            await send(message)
    except Exception as error:  # each server has its own for a client that has gone
        return error
    return None


async def tell_closed(send: Send, code: int | None, reason: str = "") -> Exception | None:
    """Send a close with a code, or without one if the server refuses it; return what ``send_close`` does."""
    message: Message = {"type": "websocket.close", "code": code}
    error = await send_close(send, {**message, "reason": reason} if reason else message)
    if error is None or isinstance(error, OSError):  # as a timeout is
        return error
    # Daphne sends no code but 1000 and those from 3000 on.
    return await send_close(send, {"type": "websocket.close"})


async def despite_cancel(ending: Coroutine[Any, Any, None] | asyncio.Task[None], name: str) -> None:
    """Wait for the end of something, however often its task is cancelled meanwhile, but not for ever.

    Args:
        ending: What ends it.
        name: What to call it, in the log.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(ending)
    deadline = loop.time() + CLEAN_UP_TIMEOUT
    cancelled = False
    while not task.done() and loop.time() < deadline:
        try:
            await asyncio.wait({task}, timeout=deadline - loop.time())
        except asyncio.CancelledError:
            cancelled = True
    if not task.done():
        task.cancel()
        _logger.error("%s did not end in %s s and was cut off", name, CLEAN_UP_TIMEOUT)
    else:
        task.result()
    if cancelled:
        raise asyncio.CancelledError
